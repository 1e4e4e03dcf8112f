"""Who is a straggler, and how much of its work it does: the paper's law, whatever the order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import ConfigError
from hanse.core.rng import derive
from hanse.data.batching import Epochs, FullGradient, Steps, steps, steps_in_part
from hanse.selection import Stragglers

if TYPE_CHECKING:
    from hanse.core.rng import Keys

fractions = st.floats(0, 1)
leasts = st.floats(0, 1, exclude_max=True)
cohorts = st.lists(st.integers(0, 10**9), unique=True, max_size=40).map(
    lambda ids: np.array(ids, np.int64)
)
keys = st.integers(0, 2**32).map(derive)
passes = st.one_of(
    st.builds(Epochs, st.integers(1, 5), st.one_of(st.none(), st.integers(1, 9))),
    st.builds(Steps, st.integers(1, 30)),
    st.builds(FullGradient, st.integers(1, 9)),
)


@given(fractions, leasts, cohorts, keys)
def test_exactly_the_fraction_are_stragglers_and_none_of_them_does_everything(
    fraction: float, least: float, ids: np.ndarray, key: Keys
) -> None:
    stragglers = Stragglers(fraction, least)
    shares = stragglers.shares(ids, key)
    late = shares < 1
    assert late.sum() == stragglers.count(len(ids), key)
    assert abs(late.sum() - fraction * len(ids)) < 1
    assert (shares[~late] == 1).all()
    assert ((shares[late] >= least) & (shares[late] >= 0)).all()


@pytest.mark.parametrize(("cohort", "fraction"), [(1, 0.5), (1, 0.1), (3, 0.9), (7, 0.25)])
def test_the_fraction_holds_on_average_for_cohorts_of_any_size(
    cohort: int, fraction: float
) -> None:
    counts = [Stragglers(fraction).count(cohort, derive(number)) for number in range(4000)]
    deviation = 0.5 / len(counts) ** 0.5
    assert np.mean(counts) == pytest.approx(fraction * cohort, abs=5 * deviation)
    assert Stragglers(0.9).count(10, derive(1)) == 9  # the paper's


@given(fractions, cohorts, keys, st.randoms())
def test_the_order_of_a_cohort_does_not_matter(
    fraction: float, ids: np.ndarray, key: Keys, random: object
) -> None:
    order = np.array(sorted(range(len(ids)), key=lambda _: random.random()), np.int64)  # type: ignore[attr-defined]
    shares = Stragglers(fraction).shares(ids, key)
    assert np.array_equal(Stragglers(fraction).shares(ids[order], key), shares[order])


@given(cohorts, keys, st.floats(0, 1), st.floats(0, 1))
def test_with_a_larger_fraction_the_same_are_late_and_some_more(
    ids: np.ndarray, key: Keys, one: float, other: float
) -> None:
    fewer, more = (Stragglers(f).shares(ids, key) for f in sorted((one, other)))
    late = fewer < 1
    assert np.array_equal(more[late], fewer[late])


@given(passes, st.lists(st.integers(1, 60), min_size=1, max_size=8), st.data())
def test_a_part_of_a_pass_is_at_least_a_step_and_at_most_all(
    pass_: Epochs | Steps | FullGradient, sizes: list[int], data: st.DataObject
) -> None:
    n = np.array(sizes)
    share = np.array([data.draw(st.floats(0, 1)) for _ in sizes])
    taken, whole = steps_in_part(pass_, n, share), steps(pass_, n)
    assert ((taken >= 1) & (taken <= whole)).all()
    assert (taken >= share * whole).all()
    assert ((taken - 1 < share * whole) | (taken == 1)).all()
    assert np.array_equal(steps_in_part(pass_, n, np.ones(len(n))), whole)


# Fixed keys, bounds of five standard deviations: these fail once and for all, or never.
def test_every_number_of_steps_is_as_likely_as_in_the_paper() -> None:
    ids, total = np.arange(20_000), 4
    shares = Stragglers(1.0).shares(ids, derive(7))
    taken = steps_in_part(Epochs(total, None), np.ones(len(ids), np.int64), shares)
    counts = np.bincount(taken, minlength=total + 1)
    assert counts[0] == 0
    expected, deviation = len(ids) / total, math.sqrt(len(ids) / total * (1 - 1 / total))
    assert (np.abs(counts[1:] - expected) < 5 * deviation).all()


def test_everyone_is_late_as_often() -> None:
    rounds, n, fraction = 4000, 10, 0.3
    late = sum(
        (Stragglers(fraction).shares(np.arange(n), derive(1, number)) < 1).astype(int)
        for number in range(rounds)
    )
    deviation = math.sqrt(rounds * fraction * (1 - fraction))
    assert (np.abs(late - rounds * fraction) < 5 * deviation).all()


def test_shares_begin_at_the_least() -> None:
    shares = Stragglers(1.0, least=0.6).shares(np.arange(2000), derive(3))
    assert 0.6 <= shares.min() < 0.61
    assert 0.99 < shares.max() < 1


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, True, "half"])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="fraction"):
        Stragglers(fraction)


@pytest.mark.parametrize("least", [-0.1, 1.0, math.nan, True])
def test_a_least_share_that_cannot_be_is_refused(least: float) -> None:
    with pytest.raises(ConfigError, match="least"):
        Stragglers(0.5, least)
