"""Noise that clients add together: what a sum of discrete Gaussians protects.

The sum of n discrete Gaussians is not a discrete Gaussian, but nearly: Kairouz, Liu and Steinke,
"The distributed discrete Gaussian mechanism for federated learning with secure aggregation", ICML
2021, proposition 14, bound its Rényi divergence of every order a from the same sum shifted by a
whole vector of norm D (and of sum of absolute values D1), in d coordinates, by the least of

    a D^2 / (2 n s^2) + t d
    a/2 (D^2 / (n s^2) + 2 D1 t / (sqrt(n) s) + t^2 d)
    a/2 (D / (sqrt(n) s) + t sqrt(d))^2,    t = 10 sum_{k=1}^{n-1} exp(-2 pi^2 s^2 k / (k + 1)),

for s >= 1/2. Each is at most `a e^2 / 2` with an e that does not depend on a, which is what
Gaussian noise of a multiplier 1 / e has. With a grid as fine as Hanse's, t is less than any number
that a computer tells from zero; it is computed all the same.
"""

from __future__ import annotations

import math

from hanse.core.errors import ConfigError

MOST_COORDINATES = 1 << 40
_LEAST = 0.5  # of sigma: below, nothing is proved
_SMALLEST = math.ulp(0.0)


def excess(sigma: float, shares: int) -> float:
    """t: by how much a sum of discrete Gaussians differs from one; rounded upwards.

    Args:
        sigma: of each share, at least 1/2.
        shares: how many there are.

    Raises:
        ConfigError: a sigma or a number of shares of which nothing is proved.
    """
    if not sigma >= _LEAST or shares < 1:
        raise ConfigError(
            f"{shares} shares of noise with sigma = {sigma!r} each",
            why="of sums of discrete Gaussians something is proved from sigma = 1/2 on",
            instead="more noise, a finer grid, or fewer shares",
        )
    if shares == 1:
        return 0.0
    first = -2 * math.pi**2 * sigma**2
    # The terms fall with k; the first few by themselves, and the rest as if all were like the next.
    few = min(shares - 1, 64)
    terms = math.fsum(math.exp(first * k / (k + 1)) for k in range(1, few + 1))
    rest = shares - 1 - few
    terms += rest * math.exp(first * (few + 1) / (few + 2))
    return max(10 * terms * (1 + 1e-12), _SMALLEST)


def multiplier(
    sensitivity: int, sigma: int, shares: int, coordinates: int = MOST_COORDINATES
) -> float:
    """The noise multiplier of a Gaussian whose divergences are not below those of the sum.

    Args:
        sensitivity: the norm of the largest difference, in whole units.
        sigma: of each share, in the same units.
        shares: how many shares are in the sum at least.
        coordinates: how many there are at most.

    Raises:
        ConfigError: as `excess`.
    """
    t, d = excess(sigma, shares), coordinates
    ratio = sensitivity / (math.sqrt(shares) * sigma)
    absolute = min(math.sqrt(d) * sensitivity, float(sensitivity) ** 2)  # whole numbers
    bounds = (
        math.sqrt(ratio**2 + 2 * t * d),
        math.sqrt(ratio**2 + 2 * absolute * t / (math.sqrt(shares) * sigma) + t * t * d),
        ratio + t * math.sqrt(d),
    )
    return 1 / (min(bounds) * (1 + 1e-12))
