"""How a metric is spread over clients, released so that no client can be told from it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ConfigError
from hanse.privacy.events import GaussianEvent
from hanse.privacy.noise import discrete_gaussian

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.privacy.events import Adjacency, Unit
    from hanse.privacy.noise import Words

_UNIT = 1 << 20  # of a count: noise is drawn in whole numbers of these parts of it
_MOST_BINS = 1000
_MOST_NOISE = 1e5


@dataclass(frozen=True)
class PrivateHistogram:
    """A noisy histogram of a metric over clients, instead of exact numbers about them.

    Each evaluated client adds one to the count of one bin, or to none if its value is no number.
    What is below the first bin or above the last counts in it. Every count gets discrete Gaussian
    noise. The bins are fixed, so they say nothing about the data.

    Neighbours that differ by a client that one of them lacks change one count by one. Those in
    which a client has other data, all of it or one example, change two counts by one each, by a
    distance of the square root of two; the noise is larger by that factor.

    Source: Dwork, McSherry, Nissim and Smith, "Calibrating noise to sensitivity in private data
    analysis", TCC 2006, section 3.2 (histograms), with Gaussian noise in the place of Laplace's.

    Attributes:
        noise_multiplier: the noise's standard deviation divided by how far a client moves the
            counts; a release costs about `sqrt(2 ln(1 / delta)) / noise_multiplier`.
        bins: how many, all of the same width.
        metric: whose values; `"loss"`, or a metric of the experiment.
        low: where the first bin begins.
        high: where the last one ends.

    Raises:
        ConfigError: what cannot be meant.
    """

    noise_multiplier: float = 10.0
    bins: int = 10
    metric: str = "accuracy"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not (_is_number(self.noise_multiplier) and 0 < self.noise_multiplier <= _MOST_NOISE):
            raise ConfigError(
                f"PrivateHistogram(noise_multiplier={self.noise_multiplier!r})",
                why="a count without noise tells who is in it, and what is charged depends on it",
                instead=f"a number above 0 and at most {_MOST_NOISE:g}, such as 10.0",
            )
        whole = isinstance(self.bins, int) and not isinstance(self.bins, bool)
        if not whole or not 1 < self.bins <= _MOST_BINS:
            raise ConfigError(
                f"PrivateHistogram(bins={self.bins!r})",
                why="it is how many counts are released, each with noise",
                instead=f"a whole number from 2 to {_MOST_BINS}, such as 10",
            )
        numbers = _is_number(self.low) and _is_number(self.high)
        if not numbers or not self.low < self.high < math.inf or self.low == -math.inf:
            raise ConfigError(
                f"PrivateHistogram(low={self.low!r}, high={self.high!r})",
                why="bins must be fixed before anybody's value is known",
                instead="two numbers, such as low=0.0, high=1.0 for an accuracy",
            )
        if not isinstance(self.metric, str) or not self.metric:
            raise ConfigError(
                f"PrivateHistogram(metric={self.metric!r})",
                why="it is the name of a metric",
                instead='metric="accuracy"',
            )

    @property
    def edges(self) -> list[float]:
        """Where bins begin and end, `bins + 1` numbers."""
        return [float(edge) for edge in np.linspace(self.low, self.high, self.bins + 1)]

    @staticmethod
    def sensitivity(unit: Unit, adjacency: Adjacency) -> float:
        """The Euclidean distance by which neighbours change the counts."""
        return 1.0 if (unit, adjacency) == ("client", "add-remove") else math.sqrt(2)

    def event(self, adjacency: Adjacency) -> GaussianEvent:
        """What one release is to an accountant: everybody is in it, so nothing is sampled."""
        return GaussianEvent(float(self.noise_multiplier), adjacency=adjacency)

    def counts(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """The exact counts `[bins]` of clients' values `[n]`, which nobody may see."""
        kept = values[np.isfinite(values)]
        places = np.floor((kept - self.low) / (self.high - self.low) * self.bins)
        inside = np.clip(places, 0, self.bins - 1).astype(np.int64)
        return np.bincount(inside, minlength=self.bins).astype(np.int64)

    def release(
        self, values: NDArray[np.float64], unit: Unit, adjacency: Adjacency, words: Words
    ) -> Released:
        """The noisy counts, which may be seen once they are charged.

        Args:
            values: `[n]`, one for each client.
            unit: what neighbours differ by.
            adjacency: and how.
            words: where the noise comes from.
        """
        sigma = math.ceil(self.noise_multiplier * self.sensitivity(unit, adjacency) * _UNIT)
        noise = discrete_gaussian(sigma, self.bins, words)
        noisy = (self.counts(values) * _UNIT + noise) / _UNIT
        return Released(self, tuple(float(count) for count in noisy), sigma / _UNIT)


@dataclass(frozen=True)
class Released:
    """A histogram that was released; what is computed from it costs nothing more.

    Attributes:
        of: how it was made.
        counts: with noise; some may be below zero.
        deviation: the standard deviation of the noise on each.
    """

    of: PrivateHistogram
    counts: tuple[float, ...]
    deviation: float

    @property
    def mean(self) -> float:
        """An estimate of the mean over clients: bins' middles by their counts, above zero.

        It is off by the noise, and by up to half a bin's width.
        """
        edges = self.of.edges
        weights = [max(count, 0.0) for count in self.counts]
        if not sum(weights):
            return math.nan
        middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
        return sum(w * m for w, m in zip(weights, middles, strict=True)) / sum(weights)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
