"""The in-process engine: clients in blocks `[K, P]`, or one at a time, by the same code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hanse.engines.cohort import Cohort
from hanse.engines.collected import Collected, Collection
from hanse.engines.measurement import unit
from hanse.engines.span import Assignment, Trainer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.types import Broadcast
    from hanse.data.federation import ClientData
    from hanse.memory import ClientMemory
    from hanse.models.execution import Execution
    from hanse.models.task import Task
    from hanse.strategy import Strategy


@dataclass(frozen=True, eq=False)
class InProcess:
    """Runs cohorts in this process.

    Attributes:
        strategy: what clients do.
        task: the model and its loss.
        data: the clients that train.
        execution: the path and the block size.
    """

    strategy: Strategy
    task: Task
    data: ClientData
    execution: Execution

    def collect(
        self,
        broadcast: Broadcast,
        cohort: NDArray[np.int64],
        memory: ClientMemory,
        direction: Tensor,
    ) -> Collected:
        """Let the cohort train, and aggregate what it sends.

        Args:
            broadcast: as published.
            cohort: `[n]`, the ids of the clients.
            memory: what clients remember.
            direction: `[S]`, the previous round's mean update, to measure drift against.
        """
        chosen = Cohort.of(self.data, cohort, self.execution.block)
        assignment = Assignment(broadcast, chosen, unit(direction))
        initial = self._trainer.initial(broadcast)
        collection = Collection(self.strategy.aggregation, chosen)
        for span in range(chosen.spans):
            result = self._trainer.train(
                assignment, span, lambda places: memory.recall(chosen.ids[places], initial)
            )
            collection.add(span, result)
        return collection.collected(broadcast.round)

    @cached_property
    def _trainer(self) -> Trainer:
        return Trainer(self.task, self.data, self.execution, self.strategy)
