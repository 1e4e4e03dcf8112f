"""Who takes part: sizes, determinism, and the distributions that the methods assume."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import ConfigError
from hanse.core.rng import derive
from hanse.selection import Full, Participation, Poisson, Uniform

KEYS = [derive(0, "round", number) for number in range(2000)]

populations = st.integers(1, 200)
anyone = st.one_of(
    st.just(Full()),
    st.builds(Uniform, fraction=st.floats(0.001, 1.0)),
    st.builds(Poisson, st.floats(0.001, 1.0)),
)


@given(anyone, populations, st.integers(0, 2**32))
def test_a_cohort_is_ascending_within_the_population_and_the_same_again(
    participation: Participation, population: int, key: int
) -> None:
    cohort = participation.select(population, derive(key))
    assert cohort.dtype == np.int64
    assert (np.diff(cohort) > 0).all()
    assert ((cohort >= 0) & (cohort < population)).all()
    assert np.array_equal(participation.select(population, derive(key)), cohort)


@given(st.floats(0.001, 1.0), populations, st.integers(0, 2**32))
def test_uniform_cohorts_have_the_expected_size(fraction: float, population: int, key: int) -> None:
    by_fraction = Uniform(fraction=fraction)
    size = len(by_fraction.select(population, derive(key)))
    assert size == by_fraction.expected(population) >= 1
    assert abs(size - fraction * population) <= 0.5 or size == 1
    assert len(Uniform(count=size).select(population, derive(key))) == size


@given(populations)
def test_full_participation_is_everyone(population: int) -> None:
    assert Full().select(population, derive(0)).tolist() == list(range(population))
    assert Full().expected(population) == population


def test_other_keys_give_other_cohorts() -> None:
    for participation in (Uniform(count=5), Poisson(0.3)):
        cohorts = {tuple(participation.select(30, key)) for key in KEYS[:100]}
        assert len(cohorts) > 95


# Fixed keys, bounds of five standard deviations: these fail once and for all, or never.
def test_uniform_chooses_every_client_and_every_pair_as_often() -> None:
    n, m = 12, 3
    chosen = np.zeros((len(KEYS), n))
    for row, key in zip(chosen, KEYS, strict=True):
        row[Uniform(count=m).select(n, key)] = 1
    p = m / n
    assert np.abs(chosen.mean(0) - p).max() < 5 * math.sqrt(p * (1 - p) / len(KEYS))
    pair = p * (m - 1) / (n - 1)
    together = (chosen.T @ chosen / len(KEYS))[~np.eye(n, dtype=bool)]
    assert np.abs(together - pair).max() < 5 * math.sqrt(pair * (1 - pair) / len(KEYS))


def test_poisson_chooses_each_client_independently() -> None:
    n, rate = 40, 0.1
    chosen = np.zeros((len(KEYS), n))
    for row, key in zip(chosen, KEYS, strict=True):
        row[Poisson(rate).select(n, key)] = 1
    sizes, variance = chosen.sum(1), n * rate * (1 - rate)
    assert abs(sizes.mean() - n * rate) < 5 * math.sqrt(variance / len(KEYS))
    # The variance of a sample variance is about 2 variance^2 / rounds.
    assert abs(sizes.var() - variance) < 5 * variance * math.sqrt(2 / len(KEYS))
    empty = (1 - rate) ** n
    assert abs((sizes == 0).mean() - empty) < 5 * math.sqrt(empty / len(KEYS))
    assert np.abs(chosen.mean(0) - rate).max() < 5 * math.sqrt(rate * (1 - rate) / len(KEYS))
    together = (chosen.T @ chosen / len(KEYS))[~np.eye(n, dtype=bool)]
    assert np.abs(together - rate**2).max() < 5 * math.sqrt(rate**2 / len(KEYS))


def test_poissons_expectation_is_its_rate() -> None:
    assert Poisson(0.25).expected(10) == 2.5
    assert Poisson(1.0).select(5, derive(0)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, math.nan])
def test_fractions_that_cannot_be_meant_are_refused(fraction: float) -> None:
    with pytest.raises(ConfigError):
        Uniform(fraction=fraction)
    with pytest.raises(ConfigError):
        Poisson(fraction)


def test_counts_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        Uniform()
    with pytest.raises(ConfigError, match="exactly one"):
        Uniform(fraction=0.1, count=3)
    with pytest.raises(ConfigError, match="at least one client"):
        Uniform(count=0)
    with pytest.raises(ConfigError, match="only 4 clients"):
        Uniform(count=5).select(4, derive(0))
