"""Gaussian noise on whole numbers, exact: what protects somebody must not depend on rounding.

A Gaussian of floating-point numbers has holes and unequal gaps, by which a release may be told from
its neighbour's (Mironov, "On significance of the least significant bits for differential privacy",
CCS 2012). The discrete Gaussian has none: it gives each whole number x a probability proportional
to `exp(-x^2 / (2 sigma^2))`, and protects sums of whole numbers as the continuous one does.

Source: Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy", NeurIPS
2020, algorithms 2 and 3. Their coins are tossed differently here: a coin that falls heads with
probability `exp(-a/b)` compares it with a uniform number of which as many binary digits are drawn
as are needed. 53 digits and double precision decide nearly always; what lies too near is decided by
more digits and correctly rounded decimals. So no probability is rounded.
"""

from __future__ import annotations

import decimal
import math
import os
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hanse.core.errors import ConfigError
from hanse.core.rng import generator

if TYPE_CHECKING:
    from hanse.core.rng import Key, Keys

Words = Callable[[int], NDArray[np.uint64]]
"""So many independent, uniform 64-bit words."""

_LARGEST = 1 << 40  # of sigma: sums stay exact in 64 bits
_CHUNK = 1 << 16  # coordinates drawn at once: what lies in memory stays small
_TRIES = 2.4  # for each coordinate; what is missing is drawn again
# exp(-x) is off by less than this part where it is above the smallest double: x < 746 has an error
# below 2^-41 (two roundings of numbers below 40 sigma), and NumPy's exp one of a few last places.
_MARGIN = 2.0**-36


def operating_system(count: int) -> NDArray[np.uint64]:
    """Words from the operating system's generator; nobody can draw them again."""
    return np.frombuffer(os.urandom(8 * count), np.uint64)


def seeded(key: Key | Keys) -> Words:
    """Words that whoever has the key can draw again: for experiments, never for protection."""
    numbers = generator(key)
    return lambda count: numbers.integers(0, 2**64, count, dtype=np.uint64)


def discrete_gaussian(sigma: int, size: int, words: Words) -> NDArray[np.int64]:
    """Independent draws of the discrete Gaussian, exact.

    Args:
        sigma: its parameter, a whole number from 0 (nothing but zeros) to 2^40; above 3 the
            standard deviation is this to within 1e-30.
        size: how many.
        words: where randomness comes from.

    Returns:
        `[size]` whole numbers.

    Raises:
        ConfigError: a sigma out of its range.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, int) or not 0 <= sigma <= _LARGEST:
        raise ConfigError(
            f"discrete Gaussian noise with sigma={sigma!r}",
            why="it is drawn on whole numbers, by arithmetic in 64 bits",
            instead=f"a whole number from 0 to {_LARGEST}",
        )
    drawn = np.zeros(size, np.int64)
    if not sigma:
        return drawn
    done = 0
    while done < size:
        missing = min(size - done, _CHUNK)
        found = _tries(sigma, int(missing * _TRIES) + 16, words)[:missing]
        drawn[done : done + len(found)] = found
        done += len(found)
    return drawn


def rounded_gaussian(sigma: int, size: int, key: Key | Keys) -> NDArray[np.float64]:
    """Gaussian numbers rounded to whole ones: for experiments, at a fiftieth of the cost.

    Whoever has the key can draw them again, so they protect nobody, and that their probabilities
    are those of double precision is good enough.

    Args:
        sigma: the standard deviation.
        size: how many.
        key: of the stream.

    Returns:
        `[size]` whole numbers.
    """
    numbers = np.random.Generator(np.random.SFC64(int(key))).standard_normal(size)
    numbers *= sigma
    return np.rint(numbers, out=numbers)


def _tries(sigma: int, tries: int, words: Words) -> NDArray[np.int64]:
    """What is accepted of so many proposals of algorithm 3."""
    t = sigma + 1
    proposed = _discrete_laplace(t, tries, words)
    distance = np.abs(proposed)
    x = ((distance - sigma**2 / t) / sigma) ** 2 / 2

    def exact(row: int) -> Fraction:
        return Fraction((int(distance[row]) * t - sigma**2) ** 2, 2 * (sigma * t) ** 2)

    accepted: NDArray[np.int64] = proposed[_coins(x, exact, words)]
    return accepted


def _discrete_laplace(t: int, tries: int, words: Words) -> NDArray[np.int64]:
    """Whole numbers with probabilities proportional to `exp(-|x| / t)` (algorithm 2)."""
    low = (words(tries) & np.uint64((1 << t.bit_length()) - 1)).astype(np.int64)
    low = low[low < t]
    low = low[_coins(low / t, lambda row: Fraction(int(low[row]), t), words)]
    whole = np.zeros(len(low), np.int64)
    going = np.arange(len(low))
    while len(going):
        going = going[_coins(np.ones(len(going)), lambda _: Fraction(1), words)]
        whole[going] += 1
    magnitude = low + t * whole
    negative = (words(len(low)) & np.uint64(1)).astype(bool)
    kept = ~(negative & (magnitude == 0))  # or zero would come twice as often
    signed: NDArray[np.int64] = np.where(negative, -magnitude, magnitude)[kept]
    return signed


def _coins(
    x: NDArray[np.float64], exact: Callable[[int], Fraction], words: Words, margin: float = _MARGIN
) -> NDArray[np.bool_]:
    """Coins that fall heads with probability `exp(-x)`.

    Args:
        x: `[n]`, nearly.
        exact: from a row to its x, exactly.
        words: where randomness comes from.
        margin: the relative error that `exp(-x)` may have.
    """
    digits = words(len(x)) >> np.uint64(11)
    p, u = np.exp(-x) * 2.0**53, digits.astype(np.float64)  # u <= 2^53 * U < u + 1
    heads = u + 1 <= p * (1 - margin)
    tails = u >= p * (1 + margin) + 2.0**-1000  # where p has vanished, u = 0 decides nothing
    for row in np.flatnonzero(~(heads | tails)):
        heads[row] = _toss(exact(int(row)), int(digits[row]), words)
    return heads


def _toss(x: Fraction, digits: int, words: Words) -> bool:
    """Whether a uniform number, whose first 53 binary digits are known, is below `exp(-x)`."""
    known = 53
    while True:
        below, above = _bounds(x, known)
        low, high = Fraction(digits, 1 << known), Fraction(digits + 1, 1 << known)
        if high <= below:
            return True
        if low >= above:
            return False
        digits, known = (digits << 64) | int(words(1)[0]), known + 64


def _bounds(x: Fraction, digits: int) -> tuple[Fraction, Fraction]:
    """Numbers below and above `exp(-x)`, apart by a small part of it."""
    # Decimals divide and exponentiate correctly rounded: to within one part in 10^(places - 1).
    places = 20 + digits // 3 + math.ceil(x).bit_length()
    context = decimal.Context(prec=places, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)
    power = context.divide(decimal.Decimal(-x.numerator), decimal.Decimal(x.denominator))
    near = Fraction(context.exp(power))
    error = near * (x + 2) / 10 ** (places - 2)
    return near - error, near + error
