"""The discrete Gaussian has the probabilities that it claims, coin by coin and as a whole."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from hanse.core.errors import ConfigError
from hanse.privacy import noise
from hanse.privacy.noise import discrete_gaussian, operating_system, seeded

DRAWS = 60_000
# Of the Kolmogorov-Smirnov statistic times the root of the number of draws: exceeded by chance with
# probability 2 exp(-2 * 2^2) = 7e-4, and the draws are the same each time.
CRITICAL = 2.0


def kolmogorov(x: np.ndarray, sigma: float) -> float:
    """The distance from the normal distribution of that width, times the root of n."""
    ordered = np.sort(x / sigma)
    below = np.array([math.erf(v / math.sqrt(2)) for v in ordered]) / 2 + 0.5
    steps = np.arange(len(x) + 1) / len(x)
    distance = max(np.abs(below - steps[1:]).max(), np.abs(below - steps[:-1]).max())
    return float(distance) * math.sqrt(len(x))


def chi_square(x: np.ndarray, sigma: float) -> float:
    """Pearson's statistic against the definition, in standard deviations from its mean."""
    values = np.arange(-30, 31)
    weights = np.exp(-(values**2) / (2 * sigma**2))
    expected = len(x) * weights / weights.sum()
    seen = np.array([(x == v).sum() for v in values])
    often = expected > 10
    statistic = ((seen - expected)[often] ** 2 / expected[often]).sum()
    freedom = int(often.sum()) - 1
    return float((statistic - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("sigma", [1, 2, 5])
def test_small_ones_have_the_probabilities_of_the_definition(sigma: int) -> None:
    drawn = discrete_gaussian(sigma, DRAWS, seeded(np.uint64(sigma)))
    assert abs(chi_square(drawn, sigma)) < 4
    assert chi_square(drawn, 0.95 * sigma) > 10
    assert chi_square(drawn, 1.05 * sigma) > 10


@pytest.mark.parametrize("sigma", [1153434, 1 << 20, (1 << 40) - 1])
def test_large_ones_are_normal_with_their_sigma_and_no_other(sigma: int) -> None:
    drawn = discrete_gaussian(sigma, DRAWS, seeded(np.uint64(7)))
    assert kolmogorov(drawn, sigma) < CRITICAL
    assert kolmogorov(drawn, 0.9 * sigma) > CRITICAL
    assert kolmogorov(drawn, 1.1 * sigma) > CRITICAL
    assert len(np.unique(drawn & 1)) == 2  # every number, not every other


def test_the_operating_system_s_noise_is_normal_and_never_the_same() -> None:
    sigma = 1 << 20
    one, other = (discrete_gaussian(sigma, 20_000, operating_system) for _ in range(2))
    assert not np.array_equal(one, other)
    # A wider bound: these draws differ each time (2 exp(-2 * 3.5^2) = 5e-11).
    assert kolmogorov(np.concatenate([one, other]), sigma) < 3.5


def test_seeded_noise_repeats_and_independent_coordinates_do_not() -> None:
    once = discrete_gaussian(100, 100_000, seeded(np.uint64(1)))
    assert np.array_equal(once, discrete_gaussian(100, 100_000, seeded(np.uint64(1))))
    assert not np.array_equal(once, discrete_gaussian(100, 100_000, seeded(np.uint64(2))))
    assert abs(np.corrcoef(once[1:], once[:-1])[0, 1]) < 4 / math.sqrt(len(once))


def test_no_sigma_is_no_noise() -> None:
    assert not discrete_gaussian(0, 5, operating_system).any()


def test_coins_that_are_tossed_exactly_fall_as_those_of_double_precision() -> None:
    # With a margin of one, nothing is decided by double precision but the digits are the same.
    x = np.linspace(0, 12, 400)

    def exact(row: int) -> Fraction:
        return Fraction(float(x[row]))

    quick = noise._coins(x, exact, seeded(np.uint64(3)))  # noqa: SLF001 - what is tested
    slow = noise._coins(x, exact, seeded(np.uint64(3)), margin=1.0)  # noqa: SLF001 - as above
    assert np.array_equal(quick, slow)
    assert 0 < quick.sum() < len(x)


def test_a_coin_asks_for_digits_until_it_is_decided() -> None:
    # The number agrees with exp(-1) in the first 53 digits; the next 64 decide.
    below, above = noise._bounds(Fraction(1), 53)  # noqa: SLF001 - what is tested
    digits = math.floor(below * 2**53)
    assert Fraction(digits, 2**53) < above
    assert below < Fraction(digits + 1, 2**53)
    asked: list[int] = []

    def words(of: int) -> noise.Words:
        def give(count: int) -> np.ndarray:
            asked.append(count)
            return np.full(count, of, np.uint64)

        return give

    assert noise._toss(Fraction(1), digits, words(0))  # noqa: SLF001 - as above
    assert not noise._toss(Fraction(1), digits, words(2**64 - 1))  # noqa: SLF001 - as above
    assert asked == [1, 1]


@pytest.mark.parametrize("sigma", [-1, 1.5, True, 2**41])
def test_a_sigma_that_cannot_be_drawn_is_refused(sigma: object) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        discrete_gaussian(sigma, 3, operating_system)  # type: ignore[arg-type]
