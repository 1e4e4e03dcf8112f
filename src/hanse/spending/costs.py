"""What the rounds of a run cost, one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hanse.core.errors import ConfigError
from hanse.data import PoissonSteps
from hanse.layers import ClientDP, DistributedDP, DistributedExampleDP, LocalDP
from hanse.privacy.correlated import increments
from hanse.privacy.events import GaussianEvent
from hanse.privacy.examples import ExampleDP
from hanse.selection import Separated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hanse.privacy.correlated import Correlation
    from hanse.round import Population
    from hanse.strategy import Strategy

_LEAST = 2.0**-24
"""Of the whole: what a round costs that adds nothing to what the worst client has lost. So that the
ledger shows which rounds have begun, each has an entry; all 2^14 of a run add 0.1 % to the square
of what it costs."""


class Cost(Protocol):
    """What the rounds of a run cost."""

    def events(self, first: int) -> Iterator[GaussianEvent]:
        """What each round adds, from the one after `first` on.

        The events up to a round cover all that was released since `first`, in the worst case over
        clients.
        """


@dataclass(frozen=True)
class EveryRound:
    """Each round costs the same, whatever came before.

    Attributes:
        event: what a round releases.
    """

    event: GaussianEvent

    def events(self, first: int) -> Iterator[GaussianEvent]:
        """The same event for ever."""
        del first
        return repeat(self.event)


@dataclass(frozen=True)
class Correlated:
    """Rounds whose noise is correlated: what n of them cost is the sum of the first n events.

    Gaussian events of multipliers z_i cost together what one costs of `(sum_i z_i^-2)^(-1/2)`; so
    the squared sensitivity of n rounds, for the client whom they move most, is paid round by round.

    Attributes:
        correlation: of the noise.
        separation: of a client's turns.
        noise_multiplier: of the noise that is drawn.
    """

    correlation: Correlation
    separation: int
    noise_multiplier: float

    def events(self, first: int) -> Iterator[GaussianEvent]:
        """What each round adds to the largest of the clients' squared sensitivities."""
        least = _LEAST * float(increments(self.correlation, self.separation).sum())
        for added in increments(self.correlation, self.separation, first):
            yield GaussianEvent(self.noise_multiplier / math.sqrt(max(float(added), least)))


@dataclass(frozen=True, eq=False)
class WorstClient:
    """Each client spends by itself, where it takes part: what n rounds cost is the worst one's.

    Attributes:
        event: what a client releases in a round.
        population: who takes part in a round.
    """

    event: GaussianEvent
    population: Population

    def events(self, first: int) -> Iterator[GaussianEvent]:
        """The event, in each round after which some client has taken part more often than any."""
        little = replace(self.event, noise_multiplier=self.event.noise_multiplier * _LEAST**-0.5)
        turns = np.zeros(self.population.clients, np.int64)
        for number in count(first + 1):
            most = turns.max()
            turns += self.turns(number)
            yield self.event if turns.max() > most else little

    def turns(self, number: int) -> NDArray[np.int64]:
        """Who takes part in a round: `[clients]`, 0 or 1."""
        asked, _ = self.population.cohort(number, "drop")
        return np.bincount(asked.ids, minlength=self.population.clients)


Shared = DistributedDP | DistributedExampleDP
Source = ClientDP | LocalDP | ExampleDP | Shared
"""A part that adds noise."""


def source_of(strategy: Strategy) -> Source | None:
    """The part of a strategy that adds noise; `None` if none does."""
    for layer in strategy.layers:
        if isinstance(layer, DistributedExampleDP):  # clips by an `ExampleDP` without noise
            return layer
    layers = (x for x in strategy.layers if isinstance(x, ClientDP | LocalDP | DistributedDP))
    return strategy.examples or next(layers, None)


def cost_of(source: Source, strategy: Strategy, population: Population) -> Cost:
    """What the rounds of a run cost.

    Args:
        source: what adds the noise.
        strategy: that it is a part of.
        population: who takes part in a round.

    Raises:
        ConfigError: passes that sample examples at different rates.
    """
    if isinstance(source, ExampleDP):
        found = events_of_a_participation(strategy)
        if len(found) != 1:
            raise ConfigError(
                f"passes that draw examples at the rates {[event.rate for event in found]}",
                why="a round is stated and charged as releases that are all alike",
                instead="the same rate in every PoissonSteps of the local training",
            )
        return EveryRound(found[0])
    if isinstance(source, LocalDP):
        return WorstClient(source.event, population)
    participation = population.participation
    if isinstance(source, Shared):
        return EveryRound(source.event(participation, population.clients))
    if source.correlation is not None and isinstance(participation, Separated):
        z = float(source.noise_multiplier)
        return Correlated(source.correlation, participation.separation, z)
    return EveryRound(source.event(participation, population.clients))


def events_of_a_participation(strategy: Strategy) -> tuple[GaussianEvent, ...]:
    """What a round releases of the examples of each client that takes part in it.

    That is what each of its steps releases, sampled at their rate. Nothing is gained here by who
    takes part: a client that has taken part in t rounds has released these events t times. Who
    knows only how many rounds there were takes each client to have been in all of them.

    Args:
        strategy: with an `ExampleDP`; none without.

    Raises:
        ConfigError: there is no noise.
    """
    privacy = strategy.examples
    if privacy is None:
        return ()
    counts: dict[float, int] = {}
    for work in strategy.local.passes:
        if isinstance(work, PoissonSteps):
            counts[work.rate] = counts.get(work.rate, 0) + work.count
    return tuple(privacy.event(rate, count) for rate, count in counts.items())
