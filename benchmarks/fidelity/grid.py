"""What is run: a grid of settings, learning rates and seeds, and what is left of it to run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hanse import Experiment

Settings = Mapping[str, str | float]
"""What tells one line of a paper's table from the others."""


@dataclass(frozen=True)
class Cell:
    """One run, of `cap` rounds at most."""

    settings: Settings
    rate: float
    seed: int
    cap: int


@dataclass(frozen=True)
class Record:
    """A run that is finished, and where it ran.

    Attributes:
        settings: of its cell, likewise `rate` and `seed`.
        accuracies: after each round, by all examples; the first is the untrained model's.
        diverged: whether the training ended because it diverged.
        minutes: of processor time.
        date: of the run, UTC; likewise `machine`, `versions` and `execution`.
    """

    settings: Settings
    rate: float
    seed: int
    accuracies: list[float]
    diverged: bool
    minutes: float
    date: str
    machine: str
    versions: str
    execution: str

    @property
    def rounds(self) -> int:
        return len(self.accuracies) - 1

    @property
    def best(self) -> float:
        return max(self.accuracies)

    def rounds_to(self, target: float | None) -> int | None:
        """The first round with the target accuracy; `None` if there is none, or no target."""
        if target is None:
            return None
        return next((n for n, value in enumerate(self.accuracies) if value >= target), None)

    def answers(self, cell: Cell, target: float | None) -> bool:
        """Whether the cell need not be run."""
        same = (self.settings, self.rate, self.seed) == (cell.settings, cell.rate, cell.seed)
        over = self.diverged or self.rounds >= cell.cap
        return same and (over or self.rounds_to(target) is not None)


@dataclass(frozen=True)
class Grid:
    """One table: every setting with every seed.

    Attributes:
        name: of the results and of the page's markers.
        fetch: the data set to fetch before, if any.
        settings: the lines of the table.
        experiment: what a cell runs.
        section: what the page says of the records, in Markdown.
        cap: the rounds after which a run gives up, by setting.
        rates: learning rates, the most promising first.
        seeds: of initial weights, partition, cohorts and batches.
        target: the accuracy at which a run ends; `None`: runs end at their cap.
        tuning_seed: a seed apart, on which the rate of each setting is chosen; `None`: all rates
            are run with all seeds.
    """

    name: str
    fetch: str | None
    settings: Sequence[Settings]
    experiment: Callable[[Cell], Experiment]
    section: Callable[[Grid, Sequence[Record]], list[str]]
    cap: Callable[[Settings], int]
    rates: tuple[float, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    target: float | None = None
    tuning_seed: int | None = None

    def plan(self, records: Sequence[Record]) -> Iterator[Cell]:
        """All cells as far as they are known: first those that rates are chosen on.

        A rate is not tried for more rounds than the best one before it needed.
        """
        if self.tuning_seed is not None:
            for settings in self.settings:
                tried = self.tried(records, settings)
                needed = (record.rounds_to(self.target) for record in tried)
                cap = min([n for n in needed if n is not None], default=self.cap(settings))
                for rate in self.rates:
                    yield Cell(settings, rate, self.tuning_seed, cap)
        for seed in self.seeds:
            for settings in self.settings:
                for rate in self.chosen(records, settings):
                    yield Cell(settings, rate, seed, self.cap(settings))

    def missing(self, records: Sequence[Record]) -> Iterator[Cell]:
        """What is left of the plan."""
        for cell in self.plan(records):
            if not any(record.answers(cell, self.target) for record in records):
                yield cell

    def chosen(self, records: Sequence[Record], settings: Settings) -> tuple[float, ...]:
        """The rates that are run with every seed: the best one where there is a tuning seed.

        The best one needs the fewest rounds; where none reaches the target, it comes closest.
        """
        if self.tuning_seed is None:
            return self.rates
        tried = self.tried(records, settings)
        return (min(tried, key=self._rank).rate,) if tried else ()

    def tried(self, records: Sequence[Record], settings: Settings) -> list[Record]:
        """The records that a rate is chosen from."""
        return [
            record
            for record in records
            if record.settings == settings
            and record.seed == self.tuning_seed
            and record.rate in self.rates
        ]

    def found(self, records: Sequence[Record], settings: Settings, rate: float) -> list[Record]:
        """What the table shows, by seed; a later record replaces an earlier one."""
        latest = {
            record.seed: record
            for record in records
            if (record.settings, record.rate) == (settings, rate) and record.seed in self.seeds
        }
        return [latest[seed] for seed in sorted(latest)]

    def _rank(self, record: Record) -> tuple[float, float]:
        needed = record.rounds_to(self.target)
        return (math.inf if needed is None or record.diverged else needed, -record.best)
