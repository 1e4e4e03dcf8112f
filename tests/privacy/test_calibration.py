"""Noise, rounds and cohorts that are found give what was asked for, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.privacy import (
    MOST_ROUNDS,
    Budget,
    GaussianEvent,
    cohort_needed,
    epsilon,
    noise_multiplier,
    noise_ratio,
    rounds_left,
)


def event(noise: float, rate: float = 0.01, count: int = 1) -> GaussianEvent:
    return GaussianEvent(noise, "none" if rate == 1 else "poisson", rate, count=count)


def test_reference_values() -> None:
    assert noise_multiplier(2, 1e-5, 1000, 0.01, accountant="rdp") == pytest.approx(
        1.0224, abs=2e-4
    )


@pytest.mark.slow
def test_reference_value_by_pld() -> None:
    found = noise_multiplier(2, 1e-5, 1000, 0.01, accountant="pld")
    assert found == pytest.approx(0.9591, abs=2e-4)
    assert epsilon([event(found, count=1000)], 1e-5, "pld") <= 2
    assert epsilon([event(found - 1e-4, count=1000)], 1e-5, "pld") > 2


@given(st.floats(0.05, 30), st.sampled_from([1, 20, 3000]), st.sampled_from([1e-3, 0.05, 1.0]))
@settings(max_examples=8, deadline=None)
def test_the_noise_is_enough_and_a_little_less_is_not(
    target: float, rounds: int, rate: float
) -> None:
    found = noise_multiplier(target, 1e-6, rounds, rate, accountant="rdp")
    assert epsilon([event(found, rate, rounds)], 1e-6, "rdp") <= target
    if found > 0.01:
        assert epsilon([event(found - 1e-4, rate, rounds)], 1e-6, "rdp") > target


@pytest.mark.parametrize("target", [4.0])
def test_noise_by_pld_is_enough_and_less_than_by_rdp(target: float) -> None:
    found = noise_multiplier(target, 1e-5, 10, 1.0, accountant="pld")
    assert epsilon([event(found, 1.0, 10)], 1e-5, "pld") <= target
    assert epsilon([event(found - 1e-4, 1.0, 10)], 1e-5, "pld") > target
    assert found < noise_multiplier(target, 1e-5, 10, 1.0, accountant="rdp")


@pytest.mark.slow
def test_without_replacement() -> None:
    found = noise_multiplier(2, 1e-5, 100, 0.01, "without-replacement", "rdp", population=10_000)
    drawn = GaussianEvent(found, "without-replacement", 0.01, 10_000, "replace", 100)
    assert epsilon([drawn], 1e-5, "rdp") <= 2


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
@pytest.mark.parametrize("spent", [0, 400])
def test_rounds_left_fit_and_one_more_does_not(accountant: str, spent: int) -> None:
    budget = Budget(2.0, 1e-5, accountant)  # type: ignore[arg-type]
    before = [event(3.0, 0.05, spent)] if spent else []
    left = rounds_left(budget, before, event(3.0, 0.05))
    total = [event(3.0, 0.05, spent + left)]
    assert epsilon(total, 1e-5, budget.accountant) <= 2
    assert epsilon([event(3.0, 0.05, spent + left + 1)], 1e-5, budget.accountant) > 2


def test_nothing_is_left_of_what_is_spent() -> None:
    budget = Budget(1.0, 1e-5, "rdp")
    assert rounds_left(budget, [event(1.0, 1.0, 5)], event(50.0)) == 0
    assert rounds_left(budget, [], event(1e5, 1e-4)) == MOST_ROUNDS


def test_several_rounds_at_a_time() -> None:
    budget = Budget(2.0, 1e-5, "rdp")
    assert (
        rounds_left(budget, [], event(1.1, count=10)) == rounds_left(budget, [], event(1.1)) // 10
    )


@given(st.floats(0.1, 10), st.integers(1, 10**8), st.floats(0.01, 2))
def test_a_cohort_as_large_as_needed_is_large_enough(z: float, d: int, ratio: float) -> None:
    needed = cohort_needed(z, d, ratio)
    assert noise_ratio(z, d, needed) <= ratio * (1 + 1e-9)
    assert needed == 1 or noise_ratio(z, d, needed - 1) > ratio * (1 - 1e-9)


def test_the_noise_in_a_mean_is_as_long_as_it_is_said_to_be() -> None:
    import numpy as np

    z, clip, cohort, d = 1.3, 0.7, 50, 20_000
    noise = np.random.default_rng(0).normal(scale=z * clip, size=d) / cohort
    assert np.linalg.norm(noise) / clip == pytest.approx(noise_ratio(z, d, cohort), rel=0.02)
