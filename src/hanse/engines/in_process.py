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
from hanse.core.types import ClientContext, Vector
from hanse.engines.work import BlockWork
from hanse.memory import initial_memory
from hanse.models.gradient import make_executor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from hanse.core.types import Aggregate, Broadcast, Update
    from hanse.data.federation import ClientData
    from hanse.memory import ClientMemory, Slots
    from hanse.models.gradient import Execution, Executor, ViewCache
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
                accepted = _accepted(result)
                if accepted is None:
                    continue
                update, client, slots = accepted
                contribution = strategy.aggregation.contribution(update, client)
                total.push(number, strategy.aggregation.block(contribution, client))
                kept.append((client.id, slots))
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
        executor, views = make_executor(self.execution, self.task)
        for start in range(0, len(ids), self.execution.block):
            rows = slice(start, start + self.execution.block)
            client = ClientContext(
                id=ids[rows],
                position=np.arange(len(ids))[rows],
                key=keys[rows],
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


def _accepted(result: ClientResult) -> tuple[Update, ClientContext, Slots] | None:
    """The rows whose updates are finite, or `None` if there are none."""
    if bool(result.finite.all()):
        return result.update, result.client, result.memory
    rows = result.finite.nonzero().squeeze(1)
    if not len(rows):
        return None
    update = {
        name: Vector(v.values[rows], v.scale[rows], v.space) for name, v in result.update.items()
    }
    memory = tuple({k: v[rows] for k, v in slot.items()} for slot in result.memory)
    return update, _rows(result.client, rows.numpy()), memory


def _rows(client: ClientContext, rows: Ids) -> ClientContext:
    facts = client.facts
    chosen = None if facts is None else type(facts)(*(value[rows] for value in facts))
    return ClientContext(
        client.id[rows], client.position[rows], client.key[rows], client.examples[rows], chosen
    )


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
        delta, client = result.trained["delta"].values, result.client
        assert client.facts is not None  # noqa: S101 - client_round's promise, for the type checker
        norms = torch.linalg.vector_norm(delta, dim=1)
        inverse = torch.where(norms > 0, 1 / norms, 0.0)
        self._units += inverse @ delta
        self._moving += int((norms > 0).sum())
        cosine = (
            torch.full_like(norms, torch.nan)
            if self._unit is None
            else ((delta @ self._unit) * inverse)
        )
        norms = torch.where(result.finite, norms, torch.nan)
        self._finite.append(result.finite.numpy())
        self._columns.append(
            (
                client.id,
                client.examples.numpy().astype(np.int64),
                client.facts.loss.double().numpy(),
                norms.double().numpy(),
                cosine.double().numpy(),
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
