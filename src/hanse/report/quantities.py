"""Plain statistics of lists of numbers, in which `None` stands for "not a finite number"."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Number = float | None


@dataclass(frozen=True)
class Spread:
    """A number over the seeds of an experiment.

    Attributes:
        mean: the mean over seeds; the value itself for a single run.
        std: the sample standard deviation over seeds (divisor n - 1); None for fewer than two.
        count: how many seeds have the number.
    """

    mean: float
    std: float | None
    count: int


@dataclass(frozen=True)
class ClientStats:
    """How one metric is spread over clients, each client counting once.

    Attributes:
        count: clients with a finite value.
        mean: mean over clients.
        std: standard deviation over clients (divisor n: these are all the clients there are).
        low: lowest value.
        low_decile: mean of the lowest tenth of the clients (rounded up, so at least one).
        q10: 10 % quantile, linearly interpolated.
        median: 50 % quantile.
        q90: 90 % quantile.
        high_decile: mean of the highest tenth of the clients (rounded up, so at least one).
        high: highest value.
        lowest: client with the lowest value (the first of equals).
        highest: client with the highest value (the first of equals).
    """

    count: int
    mean: float
    std: float
    low: float
    low_decile: float
    q10: float
    median: float
    q90: float
    high_decile: float
    high: float
    lowest: int
    highest: int

    def worst(self, *, lower_is_better: bool) -> float:
        """The value of the client that is served worst."""
        return self.high if lower_is_better else self.low

    def worst_client(self, *, lower_is_better: bool) -> int:
        """The client that is served worst."""
        return self.highest if lower_is_better else self.lowest

    def worst_decile(self, *, lower_is_better: bool) -> float:
        """The mean over the tenth of the clients that is served worst."""
        return self.high_decile if lower_is_better else self.low_decile


def finite(values: Iterable[Number]) -> list[float]:
    """The values that are finite numbers, in order."""
    return [value for value in values if value is not None and math.isfinite(value)]


def mean(values: Iterable[Number]) -> float | None:
    """The mean of the finite values; None without any."""
    kept = finite(values)
    return math.fsum(kept) / len(kept) if kept else None


def weighted_mean(values: Sequence[Number], weights: Sequence[float]) -> float | None:
    """The mean of the finite values weighted by `weights`; None where no weight is left."""
    pairs = [
        (value, weight)
        for value, weight in zip(values, weights, strict=True)
        if value is not None and math.isfinite(value)
    ]
    total = math.fsum(weight for _, weight in pairs)
    return math.fsum(value * weight for value, weight in pairs) / total if total > 0 else None


def over_seeds(values: Iterable[Number]) -> Spread | None:
    """Mean and sample standard deviation over seeds; None without a finite value."""
    kept = finite(values)
    if not kept:
        return None
    middle = math.fsum(kept) / len(kept)
    if len(kept) == 1:
        return Spread(kept[0], None, 1)
    variance = math.fsum((value - middle) ** 2 for value in kept) / (len(kept) - 1)
    return Spread(middle, math.sqrt(variance), len(kept))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The `share` quantile (0 to 1) of ascending values, linearly interpolated."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def client_stats(values: Sequence[Number], clients: Sequence[int]) -> ClientStats | None:
    """The spread of a metric over clients; None where no client has a finite value.

    Args:
        values: the metric of K clients.
        clients: the K clients, in the same order.
    """
    found = np.array(values, dtype=np.float64)  # None becomes NaN
    kept = np.flatnonzero(np.isfinite(found))
    if kept.size == 0:
        return None
    found = found[kept]
    # Squares of a diverging run's numbers may be too large for a float; shares of the largest not.
    unit = float(np.abs(found).max()) or 1.0
    shares = found / unit
    ordered = np.sort(found)
    tenth = math.ceil(found.size / 10)
    low, q10, median, q90, high = np.quantile(ordered, [0.0, 0.1, 0.5, 0.9, 1.0]).tolist()
    return ClientStats(
        count=found.size,
        mean=float(shares.mean() * unit),
        std=float(shares.std() * unit),
        low=low,
        low_decile=float(ordered[:tenth].mean()),
        q10=q10,
        median=median,
        q90=q90,
        high_decile=float(ordered[-tenth:].mean()),
        high=high,
        lowest=clients[kept[found.argmin()]],
        highest=clients[kept[found.argmax()]],
    )


def histogram(values: Iterable[float], low: float, high: float, bins: int) -> list[int]:
    """How many values lie in each of `bins` equal parts of [low, high]; those outside clamp."""
    counts = [0] * bins
    span = high - low
    for value in values:
        place = int((value - low) * bins / span) if span > 0 else 0
        counts[min(max(place, 0), bins - 1)] += 1
    return counts


def thin(count: int, most: int) -> list[int]:
    """At most `most` (2 or more) evenly spaced indices into `count` items, both ends among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(step * (count - 1) / (most - 1)) for step in range(most)})
