"""Means of paired differences: how sure they are, and whether better and worse are a coin's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LARGE = 200  # degrees of freedom from which the expansion below is exact to seven digits
_EXACT = 1000  # pairs up to which the coin is counted out


@dataclass(frozen=True)
class Interval:
    """A mean of n numbers and where it may be.

    Attributes:
        mean: the mean.
        low: the lower end of its 95 % confidence interval; None for a single number.
        high: the upper end.
        std: sample standard deviation (divisor n - 1); None for a single number.
        count: n.
    """

    mean: float
    low: float | None
    high: float | None
    std: float | None
    count: int


def interval(values: Sequence[float]) -> Interval | None:
    """The mean with Student's 95 % confidence interval, for n independent numbers; None of none."""
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, None, None, 1)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(n - 1) * std / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, std, n)


def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """What Student's t with `freedom` degrees stays below in size with probability `confidence`.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 1964: 26.7.3 and 26.7.4 for
    whole degrees of freedom, 26.7.5 for many.
    """
    if freedom > _LARGE:
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        first = (z**3 + z) / 4
        second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + first / freedom + second / freedom**2 + third / freedom**3
    low, high = 0.0, math.pi / 2  # of the angle, which is bounded where t is not
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _inside(angle: float, freedom: int) -> float:
    """The probability that |t| < sqrt(freedom) tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):  # the powers of the cosine up to freedom - 2
        total += term
        term *= cosine * cosine * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def sign_test(better: int, worse: int) -> float:
    """How often a fair coin is at least as one-sided (two-sided sign test; ties are left out).

    Source: Conover, Practical Nonparametric Statistics, 3rd ed. 1999, section 3.4. Exact up to
    1,000 pairs, beyond by the normal distribution with continuity correction.
    """
    n, few = better + worse, min(better, worse)
    if n > _EXACT:
        return min(1.0, 2 * NormalDist(n / 2, math.sqrt(n) / 2).cdf(few + 0.5))
    ways = sum(math.comb(n, k) for k in range(few + 1))
    return min(1.0, 2 * ways / (1 << n))
