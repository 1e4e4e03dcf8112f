"""The in-process engine: clients in blocks `[K, P]`, or one at a time, by the same code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hanse.aggregation import Tree
from hanse.client import ClientResult, client_round
from hanse.core.rng import derive
from hanse.core.types import ClientContext
from hanse.engines.work import BlockWork
from hanse.memory import initial_memory
from hanse.models.gradient import make_executor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from hanse.core.types import Aggregate, Broadcast
    from hanse.data.federation import ClientData
    from hanse.memory import ClientMemory, Slots
    from hanse.models.execution import Execution
    from hanse.models.gradient import Executor, ViewCache
    from hanse.models.task import Task
    from hanse.strategy import Strategy

Ids = NDArray[np.int64]


class Dropped(NamedTuple):
    """A client whose update was not used."""

    client: int
    reason: str


class ClientFacts(NamedTuple):
    """What was measured of each client of the cohort, in the order of `id`."""

    id: Ids  # [n]
    examples: NDArray[np.int64]  # [n]
    loss: NDArray[np.float64]  # [n], mean training loss
    norm: NDArray[np.float64]  # [n], Euclidean norm of the update
    cosine: NDArray[np.float64]  # [n], with the previous round's mean update; NaN in round 1


@dataclass(frozen=True, eq=False)
class Collected:
    """What a cohort's work amounts to.

    Attributes:
        aggregate: what the aggregation made of it; `None` if no update could be used.
        memory: ids and memories of the accepted clients.
        dropped: the others, with the reason.
        facts: measurements of every client that trained.
        pairwise_cosine: the mean cosine between the updates of two clients; NaN for one client.
    """

    aggregate: Aggregate | None
    memory: list[tuple[Ids, Slots]]
    dropped: tuple[Dropped, ...]
    facts: ClientFacts
    pairwise_cosine: float


@dataclass(frozen=True, eq=False)
class InProcess:
    """Runs a cohort in this process.

    Attributes:
        task: the model and its loss.
        data: the clients that train.
        execution: the path and the block size.
    """

    task: Task
    data: ClientData
    execution: Execution

    def collect(
        self,
        strategy: Strategy,
        broadcast: Broadcast,
        cohort: Ids,
        memory: ClientMemory,
        direction: Tensor,
    ) -> Collected:
        """Let the cohort train, and aggregate what it sends.

        Args:
            strategy: what is done.
            broadcast: as published.
            cohort: `[n]`, the ids of the clients.
            memory: what clients remember.
            direction: `[S]`, the previous round's mean update, to measure drift against.
        """
        measured, total, kept = _Measured(direction), Tree(strategy.aggregation.merge), []
        with torch.random.fork_rng(
            devices=[]
        ):  # modules that draw numbers must not move the user's
            for number, result in enumerate(self._blocks(strategy, broadcast, cohort, memory)):
                measured.add(result)
                if not len(result.client.id):
                    continue
                contribution = strategy.aggregation.contribution(result.update, result.client)
                total.push(number, strategy.aggregation.block(contribution, result.client))
                kept.append((result.client.id, result.memory))
        summed = total.total()
        aggregate = None
        if summed is not None:
            opening = strategy.aggregation.opening(summed, broadcast.round)
            aggregate = strategy.aggregation.finish(summed, opening)
        return Collected(
            aggregate, kept, measured.dropped(), measured.facts(), measured.pairwise_cosine()
        )

    def _blocks(
        self, strategy: Strategy, broadcast: Broadcast, cohort: Ids, memory: ClientMemory
    ) -> Iterator[ClientResult]:
        sizes = self.data.sizes(cohort)
        order = np.argsort(-sizes, kind="stable")  # longest first: a block shrinks as clients end
        ids, sizes = cohort[order], sizes[order]
        keys = derive(broadcast.round.key, ids)
        initial = initial_memory(strategy, broadcast, self.task.buffers.local)
        executor, views = make_executor(self.execution.path, self.task)
        for start in range(0, len(ids), self.execution.block):
            rows = slice(start, start + self.execution.block)
            client = ClientContext(
                id=ids[rows],
                position=np.arange(len(ids))[rows],
                key=keys[rows],
                round=broadcast.round,
                examples=torch.from_numpy(sizes[rows]).to(broadcast.params.dtype),
            )
            slots = memory.recall(client.id, initial)
            work = self._work(executor, views, strategy, broadcast, client)
            yield client_round(strategy, broadcast, slots, client, work)
            views.clear()

    def _work(
        self,
        executor: Executor,
        views: ViewCache,
        strategy: Strategy,
        broadcast: Broadcast,
        client: ClientContext,
    ) -> BlockWork:
        buffers = torch.empty(len(client.id), self.task.buffers.size, dtype=broadcast.buffers.dtype)
        block = self.data.block(client.id)
        return BlockWork(executor, views, strategy.local.passes, block, client, buffers)


class _Measured:
    """Measurements of a cohort, gathered block by block in O(S) memory."""

    def __init__(self, direction: Tensor) -> None:
        length = float(torch.linalg.vector_norm(direction))
        self._unit = direction / length if length > 0 else None
        self._units = torch.zeros_like(direction)  # the sum of the updates' unit vectors
        self._moving = 0
        self._columns: list[tuple[NDArray[Any], ...]] = []
        self._finite: list[NDArray[np.bool_]] = []

    def add(self, result: ClientResult) -> None:
        delta, everyone = result.trained["delta"].values, result.everyone
        assert everyone.facts is not None  # noqa: S101 - client_round's promise, for the type checker
        found = torch.linalg.vector_norm(delta, dim=1)
        inverse = torch.where(found > 0, 1 / found, 0.0)
        self._units += inverse @ delta
        self._moving += int((found > 0).sum())
        norms, cosines = (torch.full_like(everyone.examples, torch.nan) for _ in range(2))
        norms[result.finite] = found
        if self._unit is not None:
            cosines[result.finite] = (delta @ self._unit) * inverse
        self._finite.append(result.finite.numpy())
        self._columns.append(
            (
                everyone.id,
                everyone.examples.numpy().astype(np.int64),
                everyone.facts.loss.double().numpy(),
                norms.double().numpy(),
                cosines.double().numpy(),
            )
        )

    def facts(self) -> ClientFacts:
        if not self._columns:
            none = np.zeros(0)
            return ClientFacts(none.astype(np.int64), none.astype(np.int64), none, none, none)
        return ClientFacts(*(np.concatenate(column) for column in zip(*self._columns, strict=True)))

    def dropped(self) -> tuple[Dropped, ...]:
        ids = self.facts().id
        finite = np.concatenate(self._finite) if self._finite else np.zeros(0, bool)
        return tuple(Dropped(int(k), "its update is not finite") for k in ids[~finite])

    def pairwise_cosine(self) -> float:
        # |sum of unit vectors|^2 = n + n (n - 1) * mean cosine between two of them
        n = self._moving
        if n < 2:
            return float("nan")
        return (float(self._units.square().sum()) - n) / (n * (n - 1))
