"""Whole numbers that are to be added exactly, and may wrap around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.core.types import Space
from hanse.wire import Size, Tag, alike

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.wire import Array


@dataclass(frozen=True)
class Whole(Space):
    """Values that are whole numbers already; whoever adds them must not round or shorten them.

    In a ring they wrap around where they are larger than `most`: with noise on them, that is
    computed from what is released, while shortening a client's number would be seen in the noise.

    Attributes:
        most: the largest absolute value that is worth room in a sum; larger ones are so rare that
            they do not matter, or impossible.
    """

    most: int
    linear = True
    isometric = True
    common = True
    tag = Tag.WHOLE
    keeps = False

    def lift(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def arrays(self, row: int) -> tuple[Array, ...]:
        """The largest one that there is room for."""
        return (torch.tensor(self.most, dtype=torch.int64, device="cpu"),)

    def sizes(self) -> tuple[Size, ...]:
        """Of it."""
        return alike(*self.arrays(0))
