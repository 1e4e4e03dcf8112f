"""Discrete Gaussian noise from a table: for many numbers, in every step.

`hanse.privacy.noise` draws it without any error, at half a microsecond a number. Here a number is a
sum of narrow ones, `x_0 + k_1 x_1 + k_2 x_2`, each drawn from one table of cumulative
probabilities. Two things differ from the discrete Gaussian, both far below anything that a delta
could notice:

- The sum. Of `x = y + k z`, with y and z of widths a and b, the probability is proportional to
  `exp(-x^2 / (2 (a^2 + k^2 b^2)))` times a sum of `exp(-(z - c)^2 / (2 t^2))` over all whole z,
  with `t^-2 = k^2 / a^2 + b^-2` and a c that depends on x. By Poisson's summation formula that sum
  is the same for every c but for a factor of `1 +- 2.1 exp(-2 pi^2 t^2)`. All k are chosen such
  that t is at least 2.4: each probability is right but for a part of 1e-48.
- The table. It ends at 12 widths, beyond which lies 1e-32, and its entries are multiples of 2^-128:
  sums of 1e11 numbers have a statistical distance below 1e-20.

Convolutions of discrete Gaussians: Peikert, "An efficient and parallel Gaussian sampler for
lattices", CRYPTO 2010, theorem 3.1; Micciancio and Walter, "Gaussian sampling over the integers:
efficient, generic, constant-time", CRYPTO 2017.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.privacy.noise import Words

LARGEST = 1 << 31
"""Of a sigma."""
_WIDEST = 2048.0  # of a table
_APART = 2.5  # a factor is at most the width of what it is added to, divided by this
_ENDS = 12  # widths
_BITS = 128  # of a cumulative probability
_FIXED = 256  # binary digits of what a table is computed with
_CHUNK = 1 << 17  # numbers that are drawn together


@dataclass(frozen=True, eq=False)
class Table:
    """Cumulative probabilities of the discrete Gaussian of a width.

    Attributes:
        width: its parameter.
        first: the smallest number in it.
        bounds: `[n]` ascending, of 2^128: number `first + i` has all below `bounds[i]` and not
            below the one before; the last one is left out.
        tops: uint64 `[n]`, their leading halves.
        known: int32 `[2^16]`: the place that 16 leading digits decide, or -1.
    """

    width: float
    first: int
    bounds: list[int]
    tops: NDArray[np.uint64]
    known: NDArray[np.int32]

    def draw(self, size: int, words: Words) -> NDArray[np.int64]:
        """So many numbers, independent."""
        leading = words(-(-size // 4)).view(np.uint16)[:size]
        places = self.known[leading].astype(np.int64)
        open_ = np.flatnonzero(places < 0)
        digits = words(len(open_)) >> np.uint64(16)
        digits |= leading[open_].astype(np.uint64) << np.uint64(48)
        found = np.searchsorted(self.tops, digits, side="right")
        for row in np.flatnonzero(self.tops[np.maximum(found, 1) - 1] == digits):
            whole = (int(digits[row]) << 64) | int(words(1)[0])
            found[row] = bisect.bisect_right(self.bounds, whole)
        places[open_] = found
        places += self.first
        return places


@lru_cache(maxsize=8)
def table(width: float) -> Table:
    """The table of a width, computed with 256 binary digits."""
    end = math.ceil(_ENDS * width)
    one = 1 << _FIXED
    numerator, denominator = (2.0 * width * width).as_integer_ratio()  # of 1 / exponent
    step = _exp_minus(denominator, numerator)
    square, ratio, weight = step * step >> _FIXED, step, one
    half = [weight]
    for _ in range(end):  # exp(-(x+1)^2 / 2w^2) = exp(-x^2 / 2w^2) * exp(-(2x+1) / 2w^2)
        weight = weight * ratio >> _FIXED
        ratio = ratio * square >> _FIXED
        half.append(weight)
    weights = [*half[:0:-1], *half]
    total, below, bounds = sum(weights), 0, []
    for weight in weights[:-1]:
        below += weight
        bounds.append((below << _BITS) // total)
    tops = np.array([bound >> 64 for bound in bounds], np.uint64)
    edges = np.arange(1 << 16, dtype=np.uint64) << np.uint64(48)
    low = np.searchsorted(tops, edges, side="left")
    high = np.searchsorted(tops, edges | np.uint64((1 << 48) - 1), side="right")
    return Table(width, -end, bounds, tops, np.where(low == high, low, -1).astype(np.int32))


def _exp_minus(numerator: int, denominator: int) -> int:
    """`exp(-numerator / denominator)` of a number below one, times 2^256, by its series."""
    x = (numerator << _FIXED) // denominator
    term, total, number = 1 << _FIXED, 1 << _FIXED, 0
    while term:
        number += 1
        term = (term * x >> _FIXED) // number
        total += -term if number % 2 else term
    return total


@lru_cache(maxsize=64)
def factors(sigma: int) -> tuple[float, tuple[int, ...]]:
    """The width of the table and the factors k_1, k_2, … that make a sigma of it."""
    if sigma <= _WIDEST:
        return float(sigma), ()
    width = math.ceil(math.sqrt(_APART * sigma))
    below: tuple[int, ...] = ()
    if width > _WIDEST:
        width = math.ceil((_APART**2 * sigma) ** (1 / 3)) + 2
        below = (math.floor(width / _APART),)
    inner = math.sqrt(1 + sum(k * k for k in below))
    last = min(math.floor(sigma / width), math.floor(width * inner / _APART))
    chosen = (*below, last)
    # A little more than is asked for, so that rounding leaves no less.
    return sigma / math.sqrt(1 + sum(k * k for k in chosen)) * (1 + 1e-12), chosen


def wide_gaussian(sigma: int, size: int, words: Words) -> NDArray[np.int64]:
    """Independent draws of the discrete Gaussian.

    Args:
        sigma: its parameter, a whole number from 0 (nothing but zeros) to 2^31.
        size: how many.
        words: where randomness comes from.

    Returns:
        `[size]` whole numbers.

    Raises:
        ConfigError: a sigma out of its range.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, int) or not 0 <= sigma <= LARGEST:
        raise ConfigError(
            f"discrete Gaussian noise from a table with sigma={sigma!r}",
            why="it is a sum of at most three narrow ones",
            instead=f"a whole number from 0 to {LARGEST}",
        )
    drawn = np.zeros(size, np.int64)
    if not sigma:
        return drawn
    width, more = factors(sigma)
    narrow = table(width)
    for first in range(0, size, _CHUNK):
        part = drawn[first : first + _CHUNK]
        for factor in (1, *more):
            part += factor * narrow.draw(len(part), words)
    return drawn
