"""Clipping to a norm and rounding to a grid, in one, such that the bound holds to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def clipped(parts: Sequence[Tensor], unit: float, limit: int) -> list[Tensor]:
    """Each client's vector, shortened to `limit` units at most, in whole units.

    Rounding is towards zero in each coordinate, so it shortens, too. The bound holds in exact
    arithmetic: squares of whole numbers whose sum is below 2^53 add up without an error in any
    order, and where floating point has left a vector too long, each of its coordinates is moved by
    one towards zero. It does so by a relative error of at most m * 2^-52, which is less than half a
    unit for `m * limit < 2^51`: two thousand million coordinates at 2^20.

    A vector of zeros stays one. One that is not finite becomes zeros: whoever sends it counts as
    one who does not take part.

    Args:
        parts: `[K, m_i]` each, in float64, together one vector `[K, m]` for each client.
        unit: the grid's.
        limit: the largest norm, in units; at most 2^26, so that its square is below 2^53.

    Returns:
        The parts, as whole numbers in float64.
    """
    units, peak, norm = _units(parts)
    factor = torch.minimum(peak / unit, limit / norm.clamp(min=1.0)).unsqueeze(1)
    whole = [(part * factor).trunc() for part in units]
    # Floating point leaves a vector longer by less than half a unit (see above). With each of its
    # coordinates moved by one, |v|^2 becomes at most |v|^2 - |v|, so once is enough; and nothing is
    # asked of the numbers, for which a graphics card would have to be waited for.
    step = (_square(whole) > limit**2).unsqueeze(1)
    return [part - part.sign() * step for part in whole]


def within(parts: Sequence[Tensor], clip: float) -> Tensor:
    """Whose vector is not longer than `clip`, `[K]`: false for what is not finite."""
    _, peak, norm = _units(parts)
    finite = torch.stack([part.isfinite().all(dim=1) for part in parts]).all(dim=0)
    return (peak * norm <= clip) & finite


def _units(parts: Sequence[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
    """The vectors with a largest coordinate of one, that coordinate, and their norms (>= 1, or 0).

    So nothing overflows and nothing vanishes, whatever the size of a vector.
    """
    peak = torch.stack([part.abs().amax(dim=1) for part in parts]).amax(dim=0)
    usable = peak.isfinite() & (peak > 0)
    peak = torch.where(usable, peak, 0.0)
    divisor = torch.where(usable, peak, 1.0).unsqueeze(1)
    units = [torch.where(usable.unsqueeze(1), part / divisor, 0.0) for part in parts]
    return units, peak, _square(units).sqrt()


def _square(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.square().sum(dim=1) for part in parts]).sum(dim=0)
