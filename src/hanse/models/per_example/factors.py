"""By what an example's gradient is multiplied, so that its norm is no longer than a bound."""

from __future__ import annotations

import torch
from torch import Tensor

# Of a norm: more than single precision may be off, so that what is clipped is not too long.
_MARGIN = 2.0**-16
_PIECE = 512  # numbers whose squares are summed in the values' own precision
AT_ONCE = 1024
"""Examples that are looked at together at most: what lies in memory stays small."""


def factors(squares: Tensor, clip: float) -> Tensor:
    """`min(1, clip / norm)`, and 0 where there is no finite norm.

    Args:
        squares: the squares of gradients' norms, in double precision.
        clip: the largest norm.
    """
    norms = squares.sqrt()
    shortened = (clip * (1 - _MARGIN) / norms).clamp(max=1.0)
    return torch.where(norms.isfinite(), shortened, 0.0)


def kept(values: Tensor, usable: Tensor) -> Tensor:
    """The examples' rows, with zeros in those that are not used: zero times NaN would be NaN.

    Args:
        values: `[*usable.shape, ...]`.
        usable: whose row stays.
    """
    if bool(usable.all()):
        return values
    more = values.dim() - usable.dim()
    return torch.where(usable.reshape(*usable.shape, *(1,) * more), values, 0.0)


def square(values: Tensor, start: int) -> Tensor:
    """The sums of the squares over the dimensions from `start` on, in double precision.

    Long ones are summed in pieces, whose norms are taken in the values' own precision: what that
    leaves out is far below the margin that `factors` keeps.
    """
    flat = values.flatten(start)
    if flat.shape[-1] > _PIECE and not flat.shape[-1] % _PIECE:
        pieces: Tensor = torch.linalg.vector_norm(
            flat.reshape(*flat.shape[:-1], -1, _PIECE), dim=-1
        )
        return pieces.double().square().sum(-1)
    norms: Tensor = torch.linalg.vector_norm(flat, dim=start, dtype=torch.float64)
    return norms.square()
