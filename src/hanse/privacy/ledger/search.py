"""How often something fits, asking seldom: an accountant takes its time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def most_that_fit(cost: Callable[[int], float], limit: float, most: int) -> int:
    """The largest n from 0 to `most` with `cost(n) <= limit`; 0 if there is none.

    Regula falsi on the square of the cost, which grows about evenly where costs add up like the
    epsilons of many releases; and bisection wherever that gains too little.

    Args:
        cost: does not fall as n grows.
        limit: at least 0.
        most: at least 0.
    """
    nothing = cost(0)
    low, below = 0, nothing
    high, above = most + 1, math.inf  # nobody asked yet whether it is too many
    halve = False
    while high - low > 1:
        if halve:
            guess = (low + high) // 2
        elif math.isfinite(above):
            guess = _meets(low, below, high, above, limit)
        else:
            guess = _meets(0, nothing, low, below, limit)
        guess = min(max(guess, low + 1), high - 1)
        before, price = high - low, cost(guess)
        if price <= limit:
            low, below = guess, price
        else:
            high, above = guess, price
        halve = not halve and math.isfinite(above) and 2 * (high - low) > before
    return low


def _meets(low: int, below: float, high: int, above: float, limit: float) -> int:
    """Where the line through the squares of two costs meets the limit's."""
    rise, left = above * above - below * below, limit * limit - below * below
    if not 0 < rise < math.inf or not left / rise < 1e18:
        return 2 * high
    return low + int((high - low) * (left / rise))
