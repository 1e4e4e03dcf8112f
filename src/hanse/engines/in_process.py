"""The in-process engine: clients in blocks `[K, P]`, or one at a time, by the same code."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hanse.data import PackedClients
from hanse.engines.ahead import Ahead
from hanse.engines.cohort import Cohort
from hanse.engines.collected import Collected, Collection
from hanse.engines.measurement import unit
from hanse.engines.on_device import OnDevice, OnHost
from hanse.engines.span import Assignment, Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.types import Broadcast
    from hanse.data.federation import ClientData
    from hanse.engines.on_device import Place
    from hanse.memory import ClientMemory
    from hanse.models.execution import Execution
    from hanse.models.task import Task
    from hanse.selection import Selected
    from hanse.strategy import Strategy

    Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class InProcess:
    """Runs cohorts in this process.

    Attributes:
        strategy: what clients do.
        task: the model and its loss.
        data: the clients that train.
        execution: the path and the block size.
        place: where clients train, if not on the computer's processor; the broadcast, the memories
            and what is collected lie there as well.
    """

    strategy: Strategy
    task: Task
    data: ClientData
    execution: Execution
    place: Place | None = None
    _next: list[tuple[Selected, Cohort]] = field(default_factory=list, init=False, repr=False)

    def collect(
        self,
        broadcast: Broadcast,
        selected: Selected,
        memory: ClientMemory,
        direction: Tensor,
        upcoming: Callable[[], Selected] | None = None,
    ) -> Collected:
        """Let the cohort train, and aggregate what it sends.

        While a span trains, the examples of the one after it are loaded, unless they lie in memory:
        after the last span those of the next round's first. Nothing is loading between rounds.

        Args:
            broadcast: as published.
            selected: who trains, and what part of their work.
            memory: what clients remember.
            direction: `[S]`, the previous round's mean update, to measure drift against.
            upcoming: likewise in the next round, if there is a next round.
        """
        chosen = self._sorted(selected)
        assignment = Assignment(broadcast, chosen, unit(direction))
        initial = self._trainer.initial(broadcast)
        collection = Collection(self.strategy.aggregation, chosen)
        try:
            for span in range(chosen.spans):
                self._ahead.take(chosen.members(span))
                self._load_after(span, chosen, upcoming)
                result = self._trainer.train(
                    assignment, span, lambda places: memory.recall(chosen.ids[places], initial)
                )
                collection.add(span, result)
        finally:
            self._ahead.wait()
        return collection.collected(broadcast.round)

    def close(self) -> None:
        """Forget what was loaded for a round that will not come, and what lies on a device."""
        self._ahead.close()
        self._next.clear()
        if self.place is not None:
            self.__dict__.pop("_trainer", None)

    def _sorted(self, selected: Selected) -> Cohort:
        """The cohort, longest first; to know the sizes again may take loading again."""
        for before, known in self._next:
            if _same(before, selected):
                return known
        return self._cohort(selected)

    def _cohort(self, selected: Selected) -> Cohort:
        work = self.strategy.local.passes[0]
        return Cohort.of(self._source, selected, work, self.execution.block)

    def _load_after(
        self, span: int, chosen: Cohort, upcoming: Callable[[], Selected] | None
    ) -> None:
        if span + 1 < chosen.spans:
            self._ahead.start(lambda: chosen.members(span + 1))
        elif upcoming is not None:
            self._next.clear()
            self._ahead.start(lambda: self._first_of(upcoming()))

    def _first_of(self, selected: Selected) -> Ids:
        if not len(selected.ids):
            return selected.ids
        known = self._cohort(selected)
        self._next.append((selected, known))
        return known.members(0)

    @cached_property
    def _source(self) -> ClientData:
        elsewhere = self.place is not None and not isinstance(self.data, PackedClients)
        return OnHost(self.data) if elsewhere else self.data

    @cached_property
    def _ahead(self) -> Ahead:
        return Ahead(self._source)

    @cached_property
    def _trainer(self) -> Trainer:
        if self.place is None:
            return Trainer(self.task, self._ahead, self.execution, self.strategy)
        keep = isinstance(self.data, PackedClients)
        data = OnDevice(self._ahead, self.place.device, keep=keep)
        return Trainer(self.task, data, self.execution, self.strategy, self.place)


def _same(one: Selected, other: Selected) -> bool:
    if one.shares is None or other.shares is None:
        return one.shares is other.shares and np.array_equal(one.ids, other.ids)
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.shares, other.shares)
