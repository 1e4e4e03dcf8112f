"""Arithmetic in GF(65537), for many words at once, exact.

65537 is the smallest prime in which every 16-bit word is a number. It is small enough that products
of a matrix and a vector are exact in float64, which BLAS is fast at: a product of two elements is
below 2^33, and 2^19 of them add up to less than 2^53.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRIME = 65537
LONGEST_SUM = 1 << 19  # products that add up without an error in float64

_TOP = 1 << 16  # the one element that needs 17 bits


def random_elements(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Independent and exactly uniform elements, from the operating system.

    2^32 - 1 is 65535 * 65537, so of all 32-bit words only the last one is drawn again.
    """
    count = int(np.prod(shape))
    words = np.frombuffer(os.urandom(4 * count), np.uint32).copy()
    while (last := np.flatnonzero(words == 2**32 - 1)).size:
        words[last] = np.frombuffer(os.urandom(4 * last.size), np.uint32)
    return (words % PRIME).astype(np.int64).reshape(shape)


def product(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """The matrix product of elements, `[..., a, m] @ [..., m, b]`, for m up to 2^19."""
    exact = left.astype(np.float64) @ right.astype(np.float64)
    return np.fmod(exact, PRIME).astype(np.int64)


def product_of(elements: NDArray[np.int64]) -> NDArray[np.int64]:
    """The product over the last axis (not empty), in a tree, so that it takes few operations."""
    while elements.shape[-1] > 1:
        if elements.shape[-1] % 2:
            ones = np.ones((*elements.shape[:-1], 1), np.int64)
            elements = np.concatenate([elements, ones], axis=-1)
        elements = elements[..., ::2] * elements[..., 1::2] % PRIME
    return elements[..., 0]


def inverse(elements: NDArray[np.int64]) -> NDArray[np.int64]:
    """`1 / x` for each element that is not zero (Fermat: `x^(p - 2)`)."""
    found, power, exponent = np.ones_like(elements), elements % PRIME, PRIME - 2
    while exponent:
        if exponent & 1:
            found = found * power % PRIME
        power, exponent = power * power % PRIME, exponent >> 1
    return found


def powers(points: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`[n, count]`: each point to the powers 0 to count - 1."""
    found = np.empty((len(points), count), np.int64)
    column = np.ones_like(points)
    for exponent in range(count):
        found[:, exponent] = column
        column = column * points % PRIME
    return found


def solve(matrix: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Some x with `matrix @ x = right`, by Gaussian elimination; `None` where there is none.

    Args:
        matrix: `[m, n]` elements.
        right: `[m]` elements.
    """
    work = np.concatenate([matrix, right[:, None]], axis=1) % PRIME
    pivots: list[int] = []
    for column in range(matrix.shape[1]):
        row = len(pivots)
        below = np.flatnonzero(work[row:, column])
        if not below.size:
            continue
        work[[row, row + below[0]]] = work[[row + below[0], row]]
        work[row] = work[row] * inverse(work[row, column : column + 1]) % PRIME
        factors = work[:, column].copy()
        factors[row] = 0
        rows = np.flatnonzero(factors)
        work[rows] = (work[rows] - factors[rows, None] * work[row]) % PRIME
        pivots.append(column)
        if len(pivots) == len(work):
            break
    if work[len(pivots) :, -1].any():
        return None
    found = np.zeros(matrix.shape[1], np.int64)
    found[pivots] = work[: len(pivots), -1]
    return found


# ------------------------------------------------------------------------------------- as bytes
def encoded_length(words: int) -> int:
    """How many bytes so many elements take: two each, and a bit that says whether it is 65536."""
    return 2 * words + (words + 7) // 8


def to_bytes(elements: NDArray[np.int64]) -> bytes:
    """`[m]` elements as bytes: the low 16 bits of each, then the 17th bits, eight to a byte."""
    low = (elements & (_TOP - 1)).astype("<u2").tobytes()
    return low + np.packbits((elements >> 16).astype(np.uint8), bitorder="little").tobytes()


def from_bytes(data: bytes, words: int) -> NDArray[np.int64] | None:
    """The elements again, or `None` where the bytes are not what `to_bytes` makes of any."""
    if len(data) != encoded_length(words):
        return None
    found = rows_from_bytes(data, words)
    return None if found is None else found[0]


def rows_from_bytes(data: bytes, words: int) -> NDArray[np.int64] | None:
    """Elements that were written row by row, one after the other.

    Args:
        data: rows of `encoded_length(words)` bytes each.
        words: elements in a row.

    Returns:
        `[rows, words]`, or `None` where a row is not what `to_bytes` makes of any.
    """
    rows = np.frombuffer(data, np.uint8).reshape(-1, encoded_length(words))
    low = np.ascontiguousarray(rows[:, : 2 * words]).view("<u2").astype(np.int64)
    bits = np.unpackbits(rows[:, 2 * words :], axis=1, bitorder="little")
    high = bits[:, :words].astype(np.int64)
    if bits[:, words:].any() or (low * high).any():
        return None
    return low | high << 16
