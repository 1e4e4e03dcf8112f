"""No vector of any kind leaves the clip longer than the limit, in exact arithmetic."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hanse.privacy.clipping import clipped, within

LIMIT = 1 << 20
numbers = st.floats(width=64) | st.sampled_from([5e-324, 1e-310, 1e308, -1e308, 0.0, -0.0, 0.5])
vectors = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=numbers)
clips = st.sampled_from([1e-6, 0.1, 0.5, 3.0, 1e6])


def exact_square(parts: list[torch.Tensor], row: int) -> int:
    return sum(int(v) ** 2 for part in parts for v in part[row].tolist())


@given(vectors, clips, st.integers(0, 8), st.sampled_from([1, 7, 1000, LIMIT, 1 << 26]))
def test_no_row_is_longer_than_the_limit(
    values: np.ndarray, clip: float, cut: int, limit: int
) -> None:
    rows = torch.from_numpy(values)
    parts = [rows[:, :cut], rows[:, cut:]] if 0 < cut < rows.shape[1] else [rows]
    found = clipped(parts, clip / limit, limit)
    for row, given_row in enumerate(rows):
        assert exact_square(found, row) <= limit**2
        whole = torch.cat([part[row] for part in found])
        assert bool((whole == whole.trunc()).all())
        if not bool(given_row.isfinite().all()):
            assert not whole.any()


ordinary = arrays(
    np.float64, (3, 6), elements=st.floats(-100, 100).filter(lambda v: v == 0 or abs(v) > 1e-6)
)


@given(ordinary, clips)
def test_the_direction_stays_and_what_is_short_stays(values: np.ndarray, clip: float) -> None:
    rows, unit = torch.from_numpy(values), clip / LIMIT
    (found,) = clipped([rows], unit, LIMIT)
    norms = torch.linalg.vector_norm(rows, dim=1)
    factor = torch.where(norms > clip, clip / norms.clamp(min=1e-300), 1.0).unsqueeze(1)
    # Rounded by up to a unit, and by one more where the vector was a last place too long.
    assert float((found * unit - rows * factor).abs().max()) <= 2.001 * unit
    inside = within([rows], clip)
    clear = (norms / clip - 1).abs() > 1e-12
    assert bool((inside == (norms <= clip))[clear].all())


@given(vectors)
def test_only_finite_vectors_count_as_within(values: np.ndarray) -> None:
    rows = torch.from_numpy(values)
    assert not bool(within([rows], math.inf)[~rows.isfinite().all(dim=1)].any())


def test_zero_stays_zero_and_the_longest_axis_is_used_to_the_end() -> None:
    rows = torch.tensor([[0.0, 0.0], [1e300, 0.0], [0.0, -5e-324], [3.0, 4.0]], dtype=torch.float64)
    (found,) = clipped([rows], 5 / 1000, 1000)
    assert found.tolist() == [[0, 0], [1000, 0], [0, 0], [600, 800]]
