"""Secrets in shares: any `threshold` of them give the secret, fewer tell nothing about it.

Source: Shamir, "How to share a secret", Communications of the ACM 22(11), 1979; the repair of wrong
shares is decoding of a Reed-Solomon code (Welch and Berlekamp, US patent 4 633 470, 1986; McEliece
and Sarwate, "On sharing secrets and Reed-Solomon codes", Communications of the ACM 24(9), 1981).

A secret is cut into 16-bit words, each shared with a polynomial of its own over GF(65537).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ProtocolError
from hanse.secagg.field import (
    LONGEST_SUM,
    PRIME,
    inverse,
    powers,
    product,
    product_of,
    random_elements,
    solve,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def share(
    secret: bytes | bytearray, threshold: int, points: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Shares of a secret, one for each point.

    Args:
        secret: an even number of bytes, 2m.
        threshold: how many shares give it back.
        points: `[n]` different elements, none of them zero, n >= threshold.

    Returns:
        `[n, m]` elements.

    Raises:
        ProtocolError: points or a threshold that cannot be meant.
    """
    _check(threshold, points)
    words = np.frombuffer(secret, "<u2").astype(np.int64)
    coefficients = np.concatenate([words[None], random_elements((threshold - 1, len(words)))])
    shares = product(powers(points, threshold), coefficients)
    coefficients[:] = 0  # they are as good as the secret
    return shares


def weights(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Lagrange's weights at zero, `[t]` for points `[t]`: `sum(weights * shares)` is the secret."""
    differences = (points[None, :] - points[:, None]) % PRIME  # [i, j]: x_j - x_i
    np.fill_diagonal(differences, 1)
    below = product_of(differences) * points % PRIME
    return product_of(points) * inverse(below) % PRIME


def combine(weight: NDArray[np.int64], shares: NDArray[np.int64]) -> bytearray | None:
    """The secret from weights `[t]` and shares `[t, m]`; `None` where a word has 17 bits."""
    words = product(weight[None], shares)[0]
    return None if (words == PRIME - 1).any() else bytearray(words.astype("<u2").tobytes())


def repair(
    points: NDArray[np.int64], shares: NDArray[np.int64], threshold: int
) -> NDArray[np.bool_] | None:
    """Which of the shares are wrong, where at most half of those beyond the threshold are.

    The words of one share are right or wrong together, so a random combination of them is decoded:
    a wrong share passes for a right one with a probability of 1/65537.

    Args:
        points: `[n]`, where the shares were taken.
        shares: `[n, m]`.
        threshold: the number of coefficients of the polynomials.

    Returns:
        `[n]`, or `None` where more are wrong than can be found.
    """
    n = len(points)
    most = (n - threshold) // 2
    if most < 1:
        return None
    y = product(shares, random_elements((shares.shape[1], 1)))[:, 0]
    # Welch and Berlekamp: Q(x) = y * E(x), with E = x^e + ... zero at the wrong shares.
    locator = powers(points, most + 1)
    matrix = np.concatenate(
        [powers(points, threshold + most), -y[:, None] * locator[:, :-1] % PRIME], axis=1
    )
    found = solve(matrix % PRIME, y * locator[:, -1] % PRIME)
    if found is None:
        return None
    error = np.concatenate([found[threshold + most :], [1]])
    # E is zero at all wrong shares, but where fewer are wrong also at some that are right.
    kept = np.flatnonzero(product(locator, error[:, None])[:, 0])[:threshold]
    polynomial = solve(powers(points[kept], threshold), y[kept])
    if polynomial is None or len(kept) < threshold:
        return None
    wrong: NDArray[np.bool_] = product(powers(points, threshold), polynomial[:, None])[:, 0] != y
    return wrong if wrong.sum() <= most else None


def _check(threshold: int, points: NDArray[np.int64]) -> None:
    inside = bool(((points > 0) & (points < PRIME)).all())
    usable = inside and len(np.unique(points)) == len(points)
    if not usable or not 1 <= threshold <= min(len(points), LONGEST_SUM):
        raise ProtocolError(
            f"{len(points)} shares with threshold {threshold}",
            why="each share needs a point of its own, and the threshold at most all shares",
            instead=f"different points from 1 to {PRIME - 1}, a threshold from 1 to their number",
        )
