"""A ledger is charged for each round before the round begins."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from hanse.core.errors import ConfigError
from hanse.privacy.ledger import Ledger
from hanse.spending.costs import cost_of, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hanse.privacy.events import GaussianEvent
    from hanse.privacy.ledger import Receipt
    from hanse.round import Population
    from hanse.spending.costs import Cost
    from hanse.strategy import Strategy

HISTOGRAM = ", histogram of "
"""Between a run's name and a split's, in the ledger."""


@dataclass(frozen=True, eq=False)
class Spending:
    """A ledger, and what is charged to it for each round.

    Attributes:
        ledger: the data set's.
        cost: of the rounds.
    """

    ledger: Ledger
    cost: Cost

    def charges(self, run: str, done: int) -> Iterator[Receipt]:
        """Charge the rounds after `done`, one for each `next`, before anybody trains in it.

        When `next` returns the receipt, the charge is on the disk; so whatever ends the round
        afterwards, nothing was released that was not paid for. A round that is computed again draws
        new noise, and is charged again: where the ledger shows that a round after `done` has begun
        before, all that is released from here on counts by itself, beside what was charged.

        Raises:
            BudgetError: the round would cost more than is left. Nothing was charged.
            LedgerError: the ledger cannot be written or trusted.
        """
        first = done if done and self._again(run, done) else 0
        events = islice(self.cost.events(first), done - first, None)
        for number, event in enumerate(events, start=done + 1):
            yield self.ledger.charge(event, run=run, round=number)

    def charge_histogram(
        self, histogram: GaussianEvent, run: str, number: int, split: str
    ) -> Receipt:
        """Charge a histogram of a split's clients, before it is released.

        In the ledger it has the run's name with `HISTOGRAM` and the split behind it.

        Raises:
            BudgetError: it would cost more than is left. Nothing was charged.
            LedgerError: the ledger cannot be written or trusted.
        """
        return self.ledger.charge(histogram, run=f"{run}{HISTOGRAM}{split}", round=number)

    def _again(self, run: str, done: int) -> bool:
        """Whether the ledger shows anything but the rounds up to `done` of a run, once each.

        A round that was charged twice is told by that for ever: what was charged since counts from
        where it was taken up again, and is less than what is counted from the first round on.
        """
        entries = self.ledger.entries()
        return sorted(e.round or 0 for e in entries if e.run == run) != list(range(1, done + 1))


def spending(
    ledger: str | Path | None, strategy: Strategy, population: Population
) -> Spending | None:
    """Open the ledger that an experiment is charged to, if it is; all of it is verified.

    Args:
        ledger: its file.
        strategy: what adds the noise.
        population: who takes part in a round.

    Raises:
        ConfigError: there is no noise to account for, or none that protects; or the ledger's
            accountant has no proof for what it would be charged with.
        LedgerError: there is no such ledger, or it is damaged.
    """
    if ledger is None:
        return None
    source = source_of(strategy)
    if source is None or not source.noise_multiplier:
        name = type(source).__name__
        what = strategy.name if source is None else f"{name} without noise in {strategy.name}"
        raise ConfigError(
            f"ledger = {str(ledger)!r} with {what}",
            why="without noise a round costs more than any budget holds",
            instead="dp_fedavg(…), or ClientDP(noise_multiplier=1.0) as the last layer; dp_sgd(…), "
            "where examples are to be protected; or no ledger",
        )
    if source.noise == "seeded":
        raise ConfigError(
            f"ledger = {str(ledger)!r} with noise that is drawn from the run's seed",
            why="whoever knows the seed can take the noise off again, so nothing was protected "
            "and there is nothing to account for",
            instead="noise='os' (from the operating system); or no ledger, in an experiment",
        )
    opened, cost = Ledger.open(ledger), cost_of(source, strategy, population)
    opened.check(next(cost.events(0)))  # of another adjacency than what is in it, for example
    return Spending(opened, cost)
