"""Intervals and sign tests, against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hanse.comparison.statistics import interval, sign_test, t_quantile

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30)


@pytest.mark.parametrize("freedom", [*range(1, 31), 99, 199, 200, 201, 500, 10_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_quantiles_of_students_t(freedom: int, confidence: float) -> None:
    expected = stats.t.ppf(0.5 + confidence / 2, freedom)
    assert t_quantile(freedom, confidence) == pytest.approx(expected, rel=1e-7)


@given(NUMBERS)
def test_intervals_are_students(values: list[float]) -> None:
    found = interval(values)
    assert found is not None
    n, spread = len(values), np.std(values, ddof=1)
    expected = np.mean(values) + stats.t.ppf([0.025, 0.975], n - 1) * spread / np.sqrt(n)
    assert [found.low, found.high] == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-9)
    assert (found.mean, found.std, found.count) == pytest.approx((np.mean(values), spread, n))


@given(NUMBERS, st.floats(-100, 100))
def test_an_interval_moves_and_turns_with_its_numbers(values: list[float], by: float) -> None:
    here, there = interval(values), interval([by - value for value in values])
    assert here is not None
    assert there is not None
    assert here.low is not None
    assert there.high == pytest.approx(by - here.low, abs=1e-6)


def test_one_number_has_no_interval_and_none_no_mean() -> None:
    assert interval([]) is None
    found = interval([2.0])
    assert found is not None
    assert (found.mean, found.low, found.high, found.std) == (2.0, None, None, None)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_a_coins(better: int, worse: int) -> None:
    n = better + worse
    expected = stats.binomtest(better, n).pvalue if n else 1.0
    assert sign_test(better, worse) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("better", "worse"), [(600, 500), (520, 540), (30_100, 30_000)])
def test_many_signs_are_normal(better: int, worse: int) -> None:
    expected = stats.binomtest(better, better + worse).pvalue
    assert sign_test(better, worse) == pytest.approx(expected, rel=0.01)
