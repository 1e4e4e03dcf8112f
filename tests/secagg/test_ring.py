"""Numbers as words: sums of words are sums of numbers, or it is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse import ConfigError, DataError
from hanse.secagg import FixedPoint

numbers = st.floats(-10, 10)


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=6))
def test_the_sum_is_off_by_half_a_step_for_each_client(rows: list[list[float]]) -> None:
    ring = FixedPoint(clip=8.0, step=2**-20, clients=len(rows))
    words = np.zeros(3, np.uint32)
    for row in rows:
        words += ring.encode(row)
    expected = np.clip(np.array(rows), -8, 8).sum(axis=0)
    assert np.abs(ring.decode(words) - expected).max() <= len(rows) * 2**-21 + 1e-12


@pytest.mark.parametrize(("clients", "width"), [(1, 32), (255, 32), (256, 64), (10_000, 64)])
def test_words_are_as_wide_as_the_largest_sum_needs(clients: int, width: int) -> None:
    ring = FixedPoint(clip=8.0, step=2**-20, clients=clients)
    assert ring.width == width
    extreme = ring.encode([8.0, -8.0, 9e300])
    total = (extreme.astype(object) * clients) % 2**width  # Python's whole numbers
    decoded = ring.decode(total.astype(extreme.dtype))
    assert decoded.tolist() == [8.0 * clients, -8.0 * clients, 8.0 * clients]


@given(st.floats(0.01, 100), st.floats(1e-6, 0.009), st.integers(1, 1000))
def test_no_sum_of_the_largest_numbers_overflows(clip: float, step: float, clients: int) -> None:
    ring = FixedPoint(clip, step, clients)
    most = ring.limit * clients
    assert most < 2 ** (ring.width - 1)
    sums = np.array([most, -most], np.int64).astype(f"<u{ring.width // 8}")
    assert ring.decode(sums) == pytest.approx([most * step, -most * step])


def test_whole_numbers_and_single_precision_are_numbers_too() -> None:
    ring = FixedPoint(clip=100.0, step=1.0, clients=3)
    assert ring.decode(ring.encode(np.array([1, -7]))).tolist() == [1.0, -7.0]
    assert ring.decode(ring.encode(np.array([2.5, 3.5], np.float32))).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="1 of 3 numbers not finite"):
        FixedPoint(1.0, 0.1, 3).encode([0.0, bad, 1.0])


@pytest.mark.parametrize("values", [[[1.0]], ["a"], [True], [1j]])
def test_what_is_no_vector_of_numbers_is_refused(values: list[object]) -> None:
    with pytest.raises(DataError, match="one axis"):
        FixedPoint(1.0, 0.1, 3).encode(values)  # type: ignore[arg-type]


def test_a_sum_that_nobody_can_have_is_refused() -> None:
    ring = FixedPoint(1.0, 0.25, 3)
    assert ring.decode(np.array([12, 2**32 - 12], np.uint32)).tolist() == [3.0, -3.0]
    with pytest.raises(DataError, match="discard the round"):
        ring.decode(np.array([13], np.uint32))
    with pytest.raises(DataError, match="discard the round"):
        ring.decode(np.array([2**32 - 13], np.uint32))
    with pytest.raises(DataError, match="words of 32 bits"):
        ring.decode(np.array([1], np.uint64))


@pytest.mark.parametrize(
    ("clip", "step", "clients"),
    [
        (0.0, 0.1, 3),
        (-1.0, 0.1, 3),
        (float("nan"), 0.1, 3),
        (1.0, 0.0, 3),
        (1.0, float("inf"), 3),
        (1.0, 2.0, 3),  # no step within the clip
        (1.0, 2**-54, 3),  # steps that float64 does not tell apart
        (1.0, 2**-53, 2**10),  # sums of 64 bits
        (1.0, 0.1, 0),
        (1.0, 0.1, True),
        (1.0, 0.1, 2.5),
    ],
)
def test_parameters_that_cannot_be_meant(clip: float, step: float, clients: float) -> None:
    with pytest.raises(ConfigError, match=r"FixedPoint|numbers up to"):
        FixedPoint(clip, step, clients)  # type: ignore[arg-type]


def test_other_parameters_are_another_session() -> None:
    rings = [FixedPoint(1.0, 0.1, 3), FixedPoint(1.0, 0.2, 3), FixedPoint(2.0, 0.1, 3)]
    assert len({ring.context for ring in [*rings, FixedPoint(1.0, 0.1, 4)]}) == 4
