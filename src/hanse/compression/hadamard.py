"""The Walsh-Hadamard transform, in place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def hadamard(values: Tensor, block: int) -> Tensor:
    """Transform each run of `block` numbers of `[..., n * block]`, in place; its own inverse.

    Orthonormal: norms are kept. It takes `log2(block)` passes and no second copy.

    Args:
        values: contiguous.
        block: a power of two.
    """
    rows = values.view(-1, block)
    half = 1
    while half < block:
        pairs = rows.view(len(rows), -1, 2, half)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        first.add_(second)
        second.mul_(-2).add_(first)  # a - b = (a + b) - 2 b
        half *= 2
    rows.mul_(1 / math.sqrt(block))
    return values
