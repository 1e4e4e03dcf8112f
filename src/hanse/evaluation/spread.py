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


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value is a better one: true of losses and errors, by their names."""
    return metric == "loss" or metric.endswith(("_loss", "_error"))


def spread(metric: str, values: NDArray[np.float64], examples: NDArray[np.int64]) -> Spread:
    """The spread of a metric; a client whose value is NaN counts as the worst.

    Args:
        metric: its name, which says whether lower is better.
        values: `[n]`, n >= 1.
        examples: `[n]`.
    """
    sign = 1.0 if lower_is_better(metric) else -1.0
    badness = np.where(np.isnan(values), np.inf, sign * values)
    order = np.argsort(-badness, kind="stable")
    tenth = order[: max(math.ceil(len(values) / 10), 1)]
    with np.errstate(over="ignore", invalid="ignore"):  # a diverging run's losses may be infinite
        return Spread(
            overall=float(np.average(values, weights=examples)),
            mean=float(values.mean()),
            deviation=float(values.std()),
            worst_decile=float(values[tenth].mean()),
            worst=float(values[order[0]]),
            worst_client=int(order[0]),
        )


def worse_than(
    metric: str, values: NDArray[np.float64], other: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """`[n]`: where `values` are worse than `other`; NaN is worse than any number."""
    sign = 1.0 if lower_is_better(metric) else -1.0
    ours, theirs = (np.where(np.isnan(v), np.inf, sign * v) for v in (values, other))
    return ours > theirs
