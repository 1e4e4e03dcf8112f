"""What an average hides: the spread of a metric over clients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Spread(NamedTuple):
    """One metric over n clients.

    Attributes:
        overall: the mean over examples (clients weighted by their examples).
        mean: the mean over clients.
        deviation: the standard deviation over clients (of these clients, not of a sample).
        worst_decile: the mean over the worst tenth of the clients, at least one.
        worst: the worst client's value.
        worst_client: its place in the arrays.
    """

    overall: float
    mean: float
    deviation: float
    worst_decile: float
    worst: float
    worst_client: int


_LOWER = {"error", "loss", "mae", "mse", "nll", "perplexity", "rmse"}


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value is a better one: true of losses and errors, by their names."""
    return metric in _LOWER or metric.endswith(("_loss", "_error"))


def spread(metric: str, values: NDArray[np.float64], examples: NDArray[np.int64]) -> Spread:
    """The spread of a metric over the clients that have a finite value; NaN if none has.

    A client without one (an AUC of a single class, the loss of a diverged model) is left out of
    all numbers, here as in the report.

    Args:
        metric: its name, which says whether lower is better.
        values: `[n]`, n >= 1.
        examples: `[n]`.
    """
    kept = np.flatnonzero(np.isfinite(values))
    if not len(kept):
        nan = math.nan
        return Spread(nan, nan, nan, nan, nan, worst_client=0)
    found = values[kept]
    unit = float(np.abs(found).max()) or 1.0  # sums of a diverging run's numbers may overflow
    shares = found / unit
    order = np.argsort(found if not lower_is_better(metric) else -found, kind="stable")
    tenth = order[: math.ceil(len(found) / 10)]
    return Spread(
        overall=float(np.average(shares, weights=examples[kept]) * unit),
        mean=float(shares.mean() * unit),
        deviation=float(shares.std() * unit),
        worst_decile=float(shares[tenth].mean() * unit),
        worst=float(found[order[0]]),
        worst_client=int(kept[order[0]]),
    )


def worse_than(
    metric: str, values: NDArray[np.float64], other: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """`[n]`: where `values` are worse than `other`; NaN is worse than any number."""
    sign = 1.0 if lower_is_better(metric) else -1.0
    ours, theirs = (np.where(np.isnan(v), np.inf, sign * v) for v in (values, other))
    return ours > theirs
