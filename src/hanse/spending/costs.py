"""What the rounds of a run cost, one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hanse.layers import LocalDP
from hanse.privacy.correlated import increments
from hanse.privacy.events import GaussianEvent
from hanse.selection import Separated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hanse.layers import ClientDP
    from hanse.privacy.correlated import Correlation
    from hanse.round import Population

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


def cost_of(layer: ClientDP | LocalDP, population: Population) -> Cost:
    """What the rounds of a run cost whose noise is a layer's."""
    if isinstance(layer, LocalDP):
        return WorstClient(layer.event, population)
    participation = population.participation
    if layer.correlation is not None and isinstance(participation, Separated):
        z = float(layer.noise_multiplier)
        return Correlated(layer.correlation, participation.separation, z)
    return EveryRound(layer.event(participation, population.clients))
