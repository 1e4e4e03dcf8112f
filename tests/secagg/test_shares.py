"""The field, and secrets in shares, against whole numbers of Python."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse import ProtocolError
from hanse.secagg import field
from hanse.secagg.shamir import combine, repair, share, weights

if TYPE_CHECKING:
    import random

P = field.PRIME
elements = st.integers(0, P - 1)


@given(st.lists(elements, min_size=1, max_size=40))
def test_elements_survive_their_bytes(values: list[int]) -> None:
    data = field.to_bytes(np.array(values))
    assert len(data) == field.encoded_length(len(values))
    read = field.from_bytes(data, len(values))
    assert read is not None
    assert read.tolist() == values


def test_bytes_that_no_elements_have_are_refused() -> None:
    good = field.to_bytes(np.array([65536, 7, 0]))
    assert field.from_bytes(good + b"\0", 3) is None
    assert field.from_bytes(good[:-1], 3) is None
    for place, value in ((0, 1), (1, 1), (6, 0b1001)):  # 65537, 65792, and a bit too many
        bad = bytearray(good)
        bad[place] = value
        assert field.from_bytes(bytes(bad), 3) is None


@given(st.lists(elements.filter(bool), min_size=1, max_size=9))
def test_inverses_and_products_are_those_of_whole_numbers(values: list[int]) -> None:
    array = np.array(values)
    assert (array * field.inverse(array) % P == 1).all()
    product = 1
    for value in values:
        product = product * value % P
    assert field.product_of(array) == product
    assert field.powers(array, 4)[:, 3].tolist() == [pow(v, 3, P) for v in values]


def test_the_largest_matrix_product_is_exact() -> None:
    largest = np.full((1, field.LONGEST_SUM), P - 1)
    assert field.product(largest, largest.T)[0, 0] == field.LONGEST_SUM * (P - 1) ** 2 % P


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_linear_systems_are_solved_or_have_no_solution(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, P, (size, size + 1))
    if seed % 2:
        matrix[-1] = 3 * matrix[0] % P  # often of too low a rank
    right = rng.integers(0, P, size)
    found = field.solve(matrix, right)
    if found is not None:
        assert (matrix @ found % P == right).all()
    else:
        assert seed % 2
        assert size > 1
    assert field.solve(matrix, matrix.sum(axis=1) % P) is not None


def test_random_elements_are_uniform() -> None:
    drawn = field.random_elements((1 << 20,))
    assert drawn.min() == 0
    assert drawn.max() == P - 1
    counts = np.bincount(drawn % 257, minlength=257)
    expected = np.bincount(np.arange(P) % 257) * len(drawn) / P
    chi = ((counts - expected) ** 2 / expected).sum()
    assert 256 - 8 * 22.7 < chi < 256 + 8 * 22.7


def test_the_last_word_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = [b"\xff\xff\xff\xff" + (5).to_bytes(4, "little"), (65538).to_bytes(4, "little")]
    monkeypatch.setattr(os, "urandom", lambda count: draws.pop(0))
    assert field.random_elements((2,)).tolist() == [1, 5]


# -------------------------------------------------------------------------------------- shares
def interpolated(points: list[int], values: list[int]) -> int:
    """The polynomial's value at zero, by Lagrange's formula in whole numbers."""
    found = 0
    for i, x in enumerate(points):
        term = values[i]
        for j, other in enumerate(points):
            if i != j:
                term = term * other * pow(other - x, -1, P) % P
        found = (found + term) % P
    return found


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(0, 6), st.binary(min_size=32, max_size=32), st.randoms())
def test_any_threshold_of_shares_give_the_secret(
    threshold: int, more: int, secret: bytes, rng: random.Random
) -> None:
    points = np.array(rng.sample(range(1, 1000), threshold + more))
    shares = share(secret, threshold, points)
    some = rng.sample(range(threshold + more), threshold)
    assert bytes(combine(weights(points[some]), shares[some]) or b"") == secret
    words = np.frombuffer(secret, "<u2")
    for column in (0, 15):
        values = shares[some, column].tolist()
        assert interpolated(points[some].tolist(), values) == words[column]


def test_fewer_shares_are_compatible_with_every_secret() -> None:
    points = np.array([1, 2, 3])
    shares = share(b"\x07\x00", 3, points)[:2, 0].tolist()
    # Whatever the secret, there is one third share that completes these two to it.
    thirds = set()
    for secret in (0, 7, 65535):
        quadratic = field.solve(
            np.array([[1, 0, 0], [1, 1, 1], [1, 2, 4]]), np.array([secret, *shares])
        )
        assert quadratic is not None
        thirds.add(int(quadratic @ [1, 3, 9] % P))
    assert len(thirds) == 3


def test_shares_of_the_same_secret_differ_each_time() -> None:
    points = np.arange(1, 11)
    assert (share(bytes(32), 4, points) != share(bytes(32), 4, points)).mean() > 0.99


@pytest.mark.parametrize("wrong", [0, 1, 2, 3])
def test_up_to_half_of_the_spare_shares_are_corrected_and_found(wrong: int) -> None:
    rng = np.random.default_rng(wrong)
    points = rng.permutation(np.arange(1, 14))  # 13, threshold 7: 3 can be corrected
    shares = share(b"0123456789abcdef" * 2, 7, points)
    bad = rng.choice(13, wrong, replace=False)
    shares[bad] = rng.integers(0, P, (wrong, 16))
    found = repair(points, shares, 7)
    assert found is not None
    assert np.flatnonzero(found).tolist() == sorted(bad.tolist())


def test_one_wrong_word_makes_a_share_wrong() -> None:
    points = np.arange(1, 12)
    shares = share(bytes(32), 5, points)
    shares[4, 9] = (shares[4, 9] + 1) % P
    found = repair(points, shares, 5)
    assert found is not None
    assert np.flatnonzero(found).tolist() == [4]


def test_more_wrong_shares_are_not_corrected() -> None:
    rng = np.random.default_rng(5)
    points = np.arange(1, 14)
    shares = share(bytes(32), 7, points)
    shares[:4] = rng.integers(0, P, (4, 16))
    assert repair(points, shares, 7) is None
    assert repair(points[:8], shares[:8], 7) is None  # one spare share corrects none


def test_a_word_of_17_bits_is_no_secret() -> None:
    assert combine(np.array([1]), np.array([[P - 1, 0]])) is None


@pytest.mark.parametrize(
    ("threshold", "points"),
    [(0, [1, 2]), (3, [1, 2]), (2, [0, 1, 2]), (2, [1, 1, 2]), (2, [1, P])],
)
def test_points_and_thresholds_that_cannot_be_meant(threshold: int, points: list[int]) -> None:
    with pytest.raises(ProtocolError, match="different points"):
        share(bytes(32), threshold, np.array(points))


def test_every_set_of_shares_gives_the_secret() -> None:
    points = np.arange(1, 7)
    secret = bytes(range(32))
    shares = share(secret, 4, points)
    for some in itertools.combinations(range(6), 4):
        rows = list(some)
        assert bytes(combine(weights(points[rows]), shares[rows]) or b"") == secret
