"""Discrete Gaussian noise from a table: its table, its sums, and what happens at an edge."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.privacy.test_noise import CRITICAL, chi_square, kolmogorov

from hanse.core.errors import ConfigError
from hanse.privacy.noise import operating_system, seeded
from hanse.privacy.wide_noise import LARGEST, factors, table, wide_gaussian

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.mark.parametrize("sigma", [5, 2048, 3000, 1 << 20, 1 << 24, LARGEST])
def test_it_is_normal_with_the_sigma_that_was_asked_for(sigma: int) -> None:
    drawn = wide_gaussian(sigma, 60_000, seeded(np.uint64(sigma)))
    if sigma >= 2048:
        assert kolmogorov(drawn, sigma) < CRITICAL
        for wrong in (0.9, 1.1):
            assert kolmogorov(drawn, wrong * sigma) > CRITICAL
    assert abs(drawn.std() / sigma - 1) < 4.5 / math.sqrt(2 * len(drawn))
    assert len(np.unique(drawn & 1)) == 2  # every number, not every other


@pytest.mark.parametrize("sigma", [1, 3])
def test_small_ones_have_the_probabilities_of_the_definition(sigma: int) -> None:
    drawn = wide_gaussian(sigma, 60_000, seeded(np.uint64(7)))
    assert abs(chi_square(drawn, sigma)) < 4.5
    assert chi_square(drawn, 1.1 * sigma) > 4.5


@pytest.mark.parametrize("width", [1.0, 2.7, 40.0])
def test_a_table_holds_the_definition_s_probabilities(width: float) -> None:
    made = table(width)
    numbers = np.arange(made.first, made.first + len(made.bounds) + 1)
    expected = np.exp(-(numbers.astype(float) ** 2) / (2 * width**2))
    expected /= expected.sum()
    edges = [0, *made.bounds, 1 << 128]
    found = np.array([(high - low) / 2**128 for low, high in itertools.pairwise(edges)])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=2.0**-127)
    for leading in (0, 1, 20_000, 32_768, 65_535):
        inside = [b >> 112 == leading for b in made.bounds]
        below = sum(b >> 112 < leading for b in made.bounds)
        assert made.known[leading] == (-1 if any(inside) else below)


def test_sums_have_the_probabilities_of_the_wide_one() -> None:
    """The identity that all rests on, with factors as large as `factors` ever takes them."""
    width, k = 10.0, 4
    y = np.arange(-130, 131)
    narrow = np.exp(-(y.astype(float) ** 2) / (2 * width**2))
    narrow /= narrow.sum()
    spread = np.zeros(261 * k + 261)
    for number, p in zip(y, narrow, strict=True):
        spread[k * (number + 130) : k * (number + 130) + 261] += p * narrow
    x = np.arange(len(spread)) - 130 * (k + 1)
    sigma = width * math.sqrt(1 + k * k)
    expected = np.exp(-(x.astype(float) ** 2) / (2 * sigma**2))
    expected /= expected.sum()
    near = np.abs(x) < 5 * sigma
    np.testing.assert_allclose(spread[near], expected[near], rtol=1e-9)


@pytest.mark.parametrize("sigma", [*range(2049, 4000, 97), *(2**b + 1 for b in range(12, 31))])
def test_no_factor_is_larger_than_the_identity_allows(sigma: int) -> None:
    width, more = factors(sigma)
    inner = width
    for factor in more:
        t = (factor**2 / inner**2 + 1 / width**2) ** -0.5
        assert t > 2.4
        inner = math.hypot(inner, factor * width)
    assert sigma <= inner <= sigma * (1 + 1e-9)
    assert width < 2600
    assert len(more) <= 2


def test_digits_that_end_on_an_edge_are_decided_by_more_digits() -> None:
    made = table(3.0)
    place = len(made.bounds) // 2
    bound = made.bounds[place]
    low = bound & ((1 << 64) - 1)
    for more, expected in ((max(low - 1, 0), place), (low, place + 1), ((1 << 64) - 1, place + 1)):
        leading, rest = (bound >> 64) >> 48, ((bound >> 64) & ((1 << 48) - 1)) << 16
        script = [np.array([leading], np.uint64), np.array([rest], np.uint64)]
        script.append(np.array([more], np.uint64))

        def words(count: int, left: list[NDArray[np.uint64]] = script) -> NDArray[np.uint64]:
            found = left.pop(0)
            assert len(found) == count
            return found

        assert made.draw(1, words)[0] == made.first + expected


def test_the_operating_system_s_noise_is_never_the_same_and_a_seed_s_is() -> None:
    one, other = (wide_gaussian(1 << 20, 1000, operating_system) for _ in range(2))
    assert not np.array_equal(one, other)
    one, other = (wide_gaussian(1 << 20, 1000, seeded(np.uint64(1))) for _ in range(2))
    assert np.array_equal(one, other)
    assert not wide_gaussian(0, 5, operating_system).any()


@pytest.mark.parametrize("sigma", [-1, 1.5, True, LARGEST + 1])
def test_a_sigma_that_is_none_is_refused(sigma: object) -> None:
    with pytest.raises(ConfigError, match="whole number from 0"):
        wide_gaussian(sigma, 1, operating_system)  # type: ignore[arg-type]
