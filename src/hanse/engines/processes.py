"""The engine of several processes: each a fork of this one that trains spans of the cohort.

Users' models and data sources may be lambdas and closures, which only a fork can take along; and
what is in memory already (the packed data, the model) is then shared without a copy.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING

from hanse.engines.cohort import Cohort
from hanse.engines.collected import Collected, Collection
from hanse.engines.measurement import unit
from hanse.engines.pool import Pool
from hanse.engines.span import Assignment
from hanse.engines.worker import Job, Round
from hanse.memory import initial_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from hanse.core.types import Broadcast
    from hanse.data.federation import ClientData
    from hanse.memory import ClientMemory, Slots
    from hanse.models.execution import Execution
    from hanse.models.task import Task
    from hanse.selection import Selected
    from hanse.strategy import Strategy

_BEFORE_JOINING = 15  # multiprocessing's own finaliser at exit waits for processes, ours ends them


@dataclass(frozen=True, eq=False)
class Processes:
    """Runs cohorts in worker processes, with the bits of `InProcess`.

    They are started when the first cohort comes, and stay until `close`, until an exception leaves
    `collect`, until the engine is forgotten or the interpreter ends. Should this process be killed,
    they end by themselves.

    Attributes:
        strategy: what clients do.
        task: the model and its loss.
        data: the clients that train.
        execution: the path and the block size.
        workers: how many processes train.
    """

    strategy: Strategy
    task: Task
    data: ClientData
    execution: Execution
    workers: int

    def collect(
        self,
        broadcast: Broadcast,
        selected: Selected,
        memory: ClientMemory,
        direction: Tensor,
        upcoming: Callable[[], Selected] | None = None,
    ) -> Collected:
        """Let the cohort train, and aggregate what it sends.

        Args:
            broadcast: as published.
            selected: who trains, and what part of their work.
            memory: what clients remember.
            direction: `[S]`, the previous round's mean update, to measure drift against.
            upcoming: likewise in the next round; not used.

        Raises:
            WorkerError: a span has ended its process several times.
        """
        initial = initial_memory(self.strategy, broadcast, self.task.buffers.local)
        remembered = sum(value.nbytes for slot in initial for value in slot.values())
        work, block = self.strategy.local.passes[0], self.execution.block
        chosen = Cohort.of(self.data, selected, work, block, self.workers, remembered)
        collection = Collection(self.strategy.aggregation, chosen)

        def memories(span: int) -> dict[int, Slots] | None:
            if not any(initial):
                return None
            return {
                places.start: memory.recall(chosen.ids[places], initial)
                for _, places in chosen.blocks(span)
            }

        about = Round(Assignment(broadcast, chosen, unit(direction)), initial)
        with self._ended_by_errors():
            for span, result in self._pool.train(about, memories):
                collection.add(span, result)
        return collection.collected(broadcast.round)

    def close(self) -> None:
        """End the workers; the next cohort starts new ones."""
        self._pool.close()

    @contextlib.contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # whoever catches it finds no process at work for nothing
            self.close()
            raise

    @cached_property
    def _pool(self) -> Pool:
        pool = Pool(Job(self.task, self.data, self.execution, self.strategy), self.workers)
        Finalize(self, pool.close, exitpriority=_BEFORE_JOINING)
        return pool
