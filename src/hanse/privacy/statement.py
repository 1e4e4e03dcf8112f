"""What a run promises: to whom, for what, and what it has cost so far."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from hanse.core.errors import ConfigError
from hanse.privacy.accounting import epsilon

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hanse.privacy.accounting import Accountant
    from hanse.privacy.events import Adjacency, GaussianEvent, Unit
    from hanse.privacy.histogram import PrivateHistogram

Shown = Literal["simulation", "withheld"]
"""What becomes of exact numbers about clients: `"simulation"`: they are computed and written down,
covered by no guarantee; `"withheld"`: nobody computes them."""

_MILESTONES = 12
_EXACT = (
    "exact numbers of this simulation: training losses, norms and cosines of updates, who took "
    "part, metrics, and all results of single clients; they are for whoever may see the data"
)

_HISTOGRAMS = (
    "the server, as far as histograms go: whoever makes one sees each client's exact {}, and adds "
    "noise to the counts"
)


@dataclass(frozen=True)
class Releases:
    """How often something was released.

    Attributes:
        rounds: those that were computed twice, each with new noise, count twice.
        histograms: of metrics of clients.
    """

    rounds: int = 0
    histograms: int = 0


@dataclass(frozen=True, eq=False)
class Statement:
    """A guarantee, or what one would cost.

    Attributes:
        mechanism: what makes it, in a few words.
        unit: what neighbours differ by.
        adjacency: and how.
        events: from a number of rounds to what they have released: a sequence of events for each
            kind of client, of which the costliest counts. One for all, where clients are alike.
        event: what a round releases, if that is one event and the same in each round.
        delta: the probability that the bound does not hold.
        delta_from: where it is from, in words.
        protects: whether the noise is one that nobody can draw again.
        against: whom it holds against, in words.
        at_client: whether that is the server, too, since clients add the noise themselves.
        covered: what it holds for, in words.
        not_covered: what it does not hold for, each in a sentence.
        shown: what becomes of exact numbers about clients.
        counts_repeated: whether `events` covers rounds that were computed again with new noise.
    """

    mechanism: str
    unit: Unit
    adjacency: Adjacency
    events: Callable[[int], Sequence[Sequence[GaussianEvent]]]
    event: GaussianEvent | None
    delta: float
    delta_from: str
    protects: bool
    against: str
    covered: str
    not_covered: tuple[str, ...]
    shown: Shown | PrivateHistogram = "simulation"
    counts_repeated: bool = True
    at_client: bool = False

    @property
    def histogram(self) -> GaussianEvent | None:
        """What is released of a histogram, if one is."""
        return None if isinstance(self.shown, str) else self.shown.event(self.adjacency)

    def showing(self, shown: Shown | PrivateHistogram) -> Statement:
        """The same guarantee, with what becomes of exact numbers about clients in its words."""
        if isinstance(shown, str):
            exact = (_EXACT,) if shown == "simulation" else ()
            return replace(self, shown=shown, not_covered=(*exact, *self.not_covered))
        covered = f"{self.covered}, and each histogram of {shown.metric} over clients"
        # A histogram's noise is added to the sum, by somebody who has seen what is in it.
        server = (_HISTOGRAMS.format(shown.metric),) if self.at_client else ()
        return replace(self, shown=shown, covered=covered, not_covered=(*server, *self.not_covered))

    def epsilon(self, releases: Releases, accountant: Accountant) -> float | None:
        """What so much costs; `None` if the accountant is not installed or has no proof for it."""
        if not releases.rounds and not releases.histograms:
            return 0.0
        also = [] if self.histogram is None else _times(self.histogram, releases.histograms)
        kinds = self.events(releases.rounds) if releases.rounds else ((),)
        try:
            return max(epsilon([*events, *also], self.delta, accountant) for events in kinds)
        except ConfigError:
            return None

    def record(self) -> dict[str, Any]:
        """What `run.json` says of it."""
        event = None if self.event is None else asdict(self.event)
        return {
            "guarantee": self.protects,
            "mechanism": self.mechanism,
            "unit": self.unit,
            "adjacency": self.adjacency,
            "event": event,
            "delta": self.delta,
            "delta_from": self.delta_from,
            "against": self.against,
            "covered": self.covered,
            "not_covered": list(self.not_covered),
            "per_client": self.shown if isinstance(self.shown, str) else asdict(self.shown),
            "released": asdict(Releases()),
            "ledger": None,
        }


def every_round(event: GaussianEvent) -> Callable[[int], Sequence[Sequence[GaussianEvent]]]:
    """The `events` of a run in which each round releases the same of every client."""
    return lambda rounds: (_times(event, rounds),)


def default_delta(count: int, of: str = "clients") -> tuple[float, str]:
    """A tenth of one divided by a number, rounded down to a power of ten; and these words.

    Args:
        count: how many clients there are, or examples, where those are protected.
        of: which of the two, in words.
    """
    delta = 10.0 ** -math.ceil(math.log10(10 * count))
    return delta, f"a power of ten, at most a tenth of 1 / {count:,} {of}"


def milestones(rounds: int) -> frozenset[int]:
    """The rounds, the last among them, after which the slow accountant is asked as well."""
    few = min(_MILESTONES, rounds)
    return frozenset(math.ceil(rounds * step / few) for step in range(1, few + 1))


def _times(event: GaussianEvent, times: int) -> list[GaussianEvent]:
    return [replace(event, count=event.count * times)] if times else []
