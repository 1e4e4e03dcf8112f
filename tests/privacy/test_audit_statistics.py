"""The statistics of audits: against exact laws, another implementation and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.privacy.audit import gaussian
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from hanse.auditing.statistics import (
    best_guesses,
    gaussian_epsilon,
    lower_bound,
    most_found,
    one_shot,
    p_value,
    ways,
)
from hanse.privacy import GaussianEvent, epsilon

LEVEL = 0.05


def by_scipy(of: int, made: int, right: int, eps: float, delta: float) -> float:
    """Theorem 5.2, term by term."""
    chance = 1 / (1 + math.exp(-eps))
    beta = stats.binom.sf(right - 1, made, chance)
    alpha = max(
        (
            2 / i * (stats.binom.cdf(right - 1, made, chance)
                     - stats.binom.cdf(right - i - 1, made, chance))
            for i in range(1, of + 1)
        ),
        default=0.0,
    )  # fmt: skip
    return min(float(beta + of * delta * alpha), 1.0)


counts = st.integers(1, 60).flatmap(
    lambda of: st.integers(0, of).flatmap(
        lambda made: st.tuples(st.just(of), st.just(made), st.integers(0, made))
    )
)


@given(counts, st.floats(0, 8), st.floats(0, 0.1))
def test_the_p_value_is_that_of_the_theorem(
    numbers: tuple[int, int, int], eps: float, delta: float
) -> None:
    assert p_value(*numbers, eps, delta) == pytest.approx(by_scipy(*numbers, eps, delta), abs=1e-10)


def test_the_p_value_of_many_guesses() -> None:
    for right in (0, 500, 900, 1000):
        found = p_value(1000, 1000, right, 2.0, 1e-5)
        assert found == pytest.approx(by_scipy(1000, 1000, right, 2.0, 1e-5), abs=1e-10)


@given(counts, st.floats(0, 6), st.floats(0, 0.01))
def test_what_was_refuted_stays_refuted_below(
    numbers: tuple[int, int, int], eps: float, delta: float
) -> None:
    """The bound is where p-values pass the level: everything below it is refuted, too."""
    bound = lower_bound(*numbers, delta, LEVEL)
    assert p_value(*numbers, bound + 1e-3, delta) >= LEVEL
    assert (p_value(*numbers, eps, delta) < LEVEL) == (eps < bound) or abs(eps - bound) < 1e-3


@settings(max_examples=40)
@given(st.integers(1, 200), st.floats(0, 5), st.floats(0, 0.01), st.floats(0.5, 0.999))
def test_the_bound_holds_for_randomised_response_as_often_as_it_says(
    made: int, eps: float, delta: float, confidence: float
) -> None:
    """Exactly: the chance of all numbers of right guesses whose bound is above the truth.

    Each coin is shown as it is with probability delta; else it is flipped with probability
    1 / (1 + exp(eps)). That is (eps, delta)-DP, and nothing beats guessing what is shown.
    """
    chance = delta + (1 - delta) / (1 + math.exp(-eps))
    wrong = sum(
        float(stats.binom.pmf(right, made, chance))
        for right in range(made + 1)
        if p_value(made, made, right, eps, delta) < 1 - confidence
    )
    assert wrong <= 1 - confidence + 1e-9


def test_the_bound_holds_if_all_is_shown_at_once_now_and_then() -> None:
    """With probability delta all coins are shown together: what the term with delta is there for.

    Without that term, the chance to refute the truth would be above the level: it is delta more.
    """
    made, eps, delta = 100, 1.0, 0.02
    chance = 1 / (1 + math.exp(-eps))
    pmf = stats.binom.pmf(np.arange(made + 1), made, chance)
    shown = (1 - delta) * pmf
    shown[made] += delta
    for level in (0.01, 0.02, 0.05):
        refuted = [p_value(made, made, v, eps, delta) < level for v in range(made + 1)]
        without = [p_value(made, made, v, eps, 0.0) < level for v in range(made + 1)]
        assert shown[refuted].sum() <= level
        assert without[made]
        assert shown[without].sum() > delta


def test_all_right_is_the_most_and_none_is_nothing() -> None:
    """All of r right refutes eps where (1 + exp(-eps))^-r < level."""
    made = 100
    exact = -math.log(LEVEL ** (-1 / made) - 1)
    assert lower_bound(made, made, made, 0.0, LEVEL) == pytest.approx(exact, abs=1e-4)
    assert lower_bound(made, made, made, 1e-3, LEVEL) < exact
    assert lower_bound(made, made, 0, 0.0, LEVEL) == 0
    assert lower_bound(made, made, made // 2, 0.0, LEVEL) == 0


@given(st.integers(20, 5000))
def test_no_coin_is_guessed_twice(of: int) -> None:
    assert all(into >= 0 and out >= 0 and 0 < into + out <= of for into, out in ways(of))


@settings(max_examples=25)
@given(st.integers(40, 400), st.integers(0, 2**32), st.floats(0, 4))
def test_the_order_of_canaries_and_the_unit_of_scores_change_nothing(
    of: int, seed: int, apart: float
) -> None:
    numbers = np.random.default_rng(seed)
    coins = numbers.random(of) < 0.5
    assume(2 <= coins.sum() <= of - 2)
    scores = numbers.normal(size=of) + apart * coins
    found = best_guesses(coins, scores, 1e-5, 0.95)
    order = numbers.permutation(of)
    assert best_guesses(coins[order], 7 * scores[order] - 3, 1e-5, 0.95) == found
    assert 0 <= found.bound <= most_found(of, 1e-5, 0.95)
    one, other = one_shot(coins, scores, 1e-5), one_shot(coins[order], 7 * scores[order] - 3, 1e-5)
    assert one is not None
    assert other is not None
    assert other.epsilon == pytest.approx(one.epsilon, abs=1e-4)


def test_scores_that_say_nothing_give_a_bound_above_zero_seldom() -> None:
    """Monte Carlo over the whole procedure, the best of all ways of guessing."""
    numbers, tries = np.random.default_rng(1), 400
    wrong = 0
    for _ in range(tries):
        coins = numbers.random(200) < 0.5
        wrong += best_guesses(coins, numbers.normal(size=200), 0.0, 0.8).bound > 0
    assert wrong <= stats.binom.isf(1e-6, tries, 0.2)


@given(st.floats(0.05, 30), st.sampled_from([1e-3, 1e-5, 1e-9]))
def test_the_gaussian_epsilon_has_that_delta(mu: float, delta: float) -> None:
    eps = gaussian_epsilon(mu, delta)
    leaks = stats.norm.cdf(mu / 2 - eps / mu) - math.exp(
        eps + stats.norm.logcdf(-mu / 2 - eps / mu)
    )
    if eps == 0:
        assert leaks <= delta
    else:
        assert leaks == pytest.approx(delta, rel=1e-3)


@pytest.mark.parametrize("z", [0.5, 1.0, 4.0])
def test_the_gaussian_epsilon_is_the_accountants(z: float) -> None:
    assert gaussian_epsilon(1 / z, 1e-5) == pytest.approx(
        epsilon([GaussianEvent(z)], 1e-5), abs=2e-3
    )


def test_an_estimate_at_the_ends() -> None:
    coins = np.arange(40) < 20
    assert one_shot(coins, coins.astype(float), 1e-5) is None
    backwards = one_shot(coins, np.arange(40.0), 1e-5)
    assert backwards is not None
    assert backwards.epsilon == 0
    assert gaussian_epsilon(1e9, 1e-5) == math.inf


def test_published_values_on_the_gaussian_mechanism_are_met() -> None:
    """1000 canaries: bounds of 1.24 at epsilon 4.38 and 3.1 at 10.0; estimates of 4.2 to 4.7."""
    for signed, claimed, published in ((False, 4.377, 1.24), (True, 10.0, 3.1)):
        found = gaussian(1.0, 12, signed=signed, columns=2000)
        assert found.claimed == pytest.approx(claimed, abs=0.01)
        assert max(found.bounds) < found.claimed
        assert abs(np.mean(found.bounds) - published) < 3 * np.std(found.bounds)
        assert np.mean(found.bounds) > 0.9 * published
        if not signed:
            assert 4.2 <= np.mean(found.estimates) <= 4.7
