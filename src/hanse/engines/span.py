"""What every engine does with some consecutive blocks of a cohort, wherever it does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hanse.aggregation import Tree
from hanse.client import client_round
from hanse.core.device import CPU, generators
from hanse.core.heap import keep_freed_memory
from hanse.core.rng import derive
from hanse.core.types import ClientContext
from hanse.engines.graphs import Graphs
from hanse.engines.measurement import ClientFacts, joined, measure
from hanse.engines.on_device import DeviceWork
from hanse.engines.private import private
from hanse.engines.work import BlockWork, SpanPlans
from hanse.memory import initial_memory
from hanse.models.executors import EXECUTORS
from hanse.models.gradient import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from hanse.client import ClientResult
    from hanse.core.types import Broadcast
    from hanse.data.federation import ClientData
    from hanse.engines.cohort import Cohort
    from hanse.engines.on_device import Place
    from hanse.memory import Slots
    from hanse.models.execution import Execution
    from hanse.models.task import Task
    from hanse.strategy import Strategy

Ids = NDArray[np.int64]


class Part(NamedTuple):
    """The partial total of some clients."""

    total: Any  # the aggregation's
    units: Tensor  # [S], the sum of the updates' unit vectors


class SpanResult(NamedTuple):
    """What a span's clients have to show.

    Attributes:
        part: their partial total; `None` if no update could be used.
        memory: ids and memories of the accepted clients, by block.
        facts: measurements of all of them.
    """

    part: Part | None
    memory: list[tuple[Ids, Slots]]
    facts: ClientFacts


@dataclass(frozen=True, eq=False)
class Assignment:
    """What all spans of a round have in common.

    Attributes:
        broadcast: as published.
        cohort: who takes part.
        direction: `[S]` of length one, to measure drift against; `None` in round 1.
    """

    broadcast: Broadcast
    cohort: Cohort
    direction: Tensor | None


class Trainer:
    """Trains spans of clients on this process's own copy of the model."""

    def __init__(
        self,
        task: Task,
        data: ClientData,
        execution: Execution,
        strategy: Strategy,
        place: Place | None = None,
    ) -> None:
        """Prepare the executor of the chosen path.

        Args:
            task: the model.
            data: the clients, whose blocks lie where the training takes place.
            execution: the path, and the size of a block.
            strategy: what is done.
            place: where, if not on the computer's processor.
        """
        keep_freed_memory()
        self.strategy = strategy
        self._device = CPU if place is None else place.device
        self._task, self._data = task.on(self._device), data
        terms = Terms(execution.precision, waits=place is None)
        noisy = private(self._task, execution, strategy.examples)
        self._executor = noisy or EXECUTORS[execution.path](self._task, terms)
        self._place, self._graphs = place, None
        recorded = execution.path != "module" and noisy is None  # a recording would repeat noise
        if place is not None and place.capture is not None and recorded:
            self._graphs = Graphs(self._executor, place.capture, execution.block, place.device)

    def initial(self, broadcast: Broadcast) -> Slots:
        """What a client remembers before its first round."""
        return initial_memory(self.strategy, broadcast, self._task.buffers.local)

    def train(
        self, assignment: Assignment, span: int, recall: Callable[[slice], Slots]
    ) -> SpanResult:
        """Train a span's clients and sum what they send.

        Args:
            assignment: the round's.
            span: the number of the span.
            recall: from places of the cohort to what their clients remember, `[K, ...]`.
        """
        aggregation, facts, memory = self.strategy.aggregation, [], []
        tree = part_tree(aggregation.merge)
        # A module's dropout must not move the user's generators.
        with torch.random.fork_rng(generators(self._device)):
            for number, result in self._blocks(assignment, span, recall):
                measured, units = measure(result, assignment.direction)
                facts.append(measured)
                if not len(result.client.id):
                    continue
                contribution = aggregation.contribution(result.update, result.client)
                tree.push(number, Part(aggregation.block(contribution, result.client), units))
                memory.append((result.client.id, result.memory))
        return SpanResult(tree.total(), memory, joined(facts))

    def _blocks(
        self, assignment: Assignment, span: int, recall: Callable[[slice], Slots]
    ) -> Iterator[tuple[int, ClientResult]]:
        cohort, broadcast = assignment.cohort, assignment.broadcast
        places = cohort.span(span)
        ids, sizes = cohort.ids[places], cohort.sizes[places]
        keys = derive(broadcast.round.key, ids)
        examples = torch.from_numpy(sizes).to(broadcast.params)
        plans = SpanPlans(
            self.strategy.local.passes,
            self._data.block(ids),
            keys,
            broadcast.params.dtype,
            None if cohort.taken is None else cohort.taken[places],
        )
        for number, block in cohort.blocks(span):
            rows = slice(block.start - places.start, block.stop - places.start)
            client = ClientContext(
                id=ids[rows],
                position=np.arange(block.start, block.stop),
                key=keys[rows],
                round=broadcast.round,
                examples=examples[rows],
            )
            buffers = broadcast.buffers.new_empty(len(client.id), self._task.buffers.size)
            work = self._work(plans, rows, client, buffers)
            yield number, client_round(self.strategy, broadcast, recall(block), client, work)
            self._executor.clear()

    def _work(
        self, plans: SpanPlans, rows: slice, client: ClientContext, buffers: Tensor
    ) -> BlockWork:
        if self._place is None:
            return BlockWork(self._executor, plans, rows, client, buffers)
        return DeviceWork(self._executor, plans, rows, client, buffers, self._graphs)


def part_tree(merge: Callable[[Any, Any], Any]) -> Tree[Part]:
    """A tree of parts, whose totals are merged with `merge`."""
    return Tree(
        lambda left, right: Part(merge(left.total, right.total), left.units.add_(right.units))
    )
