"""A rotation that evens values out, and numbers in half the bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch

from hanse.compression.compressor import Compressor
from hanse.compression.spaces import HalfFormat, Narrow, Rotation, as_key
from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.core.types import Vector

if TYPE_CHECKING:
    from hanse.compression.compressor import Source


@dataclass(frozen=True)
class Rotate(Compressor):
    """A random rotation that all clients of a round share, so that no value is much the largest.

    `Rotate() >> Quantize(2)` errs less than `Quantize(2)`, where values are very unequal. It sends
    nothing less by itself; sums are taken of rotated vectors. Zeros do not stay zeros.

    Source: Suresh et al., "Distributed mean estimation with limited communication", ICML 2017,
    section 3: random signs, and a Walsh-Hadamard transform.

    Attributes:
        block: values are rotated in blocks of so many, a power of two, of which the last is filled
            with zeros; `None`: all together, which for 200,000 values sends 262,144.

    Raises:
        StrategyError: what cannot be meant.
    """

    block: int | None = 4096

    def __post_init__(self) -> None:
        """Refuse what is no power of two."""
        block = self.block
        if block is not None and not (type(block) is int and block > 0 and not block & (block - 1)):
            raise StrategyError(
                f"Rotate(block={block!r})",
                why="the transform halves a block until one value is left",
                instead="a power of two, such as 4096, or None",
            )

    @property
    def contracts(self) -> bool:
        """Nothing is left out."""
        return True

    def enter(self, sent: Vector, source: Source) -> Vector:
        """The rotated values, `[K, m]` filled up, in a `Rotation`."""
        size = sent.values.shape[1]
        whole = 1 << max(size - 1, 0).bit_length()
        block = whole if self.block is None else min(self.block, whole)
        space = Rotation(as_key(derive(source.shared, "rotate")), size, block)
        return Vector(space.rotated(sent.values), sent.scale, (*sent.space, space))


@dataclass(frozen=True)
class HalfPrecision(Compressor):
    """Values in 16 bits: float16 has 11 bits of precision, bfloat16 the range of single precision.

    What float16 cannot hold, beyond 65504, is cut off there.

    Attributes:
        format: `"float16"` or `"bfloat16"`.

    Raises:
        StrategyError: another format.
    """

    format: HalfFormat = "float16"

    def __post_init__(self) -> None:
        """Refuse another format."""
        if self.format not in get_args(HalfFormat):
            raise StrategyError(
                f"HalfPrecision({self.format!r})",
                why="there is no such format of 16 bits",
                instead="'float16' (more precise) or 'bfloat16' (a larger range)",
            )

    @property
    def contracts(self) -> bool:
        """It rounds to nearest."""
        return True

    def enter(self, sent: Vector, source: Source) -> Vector:
        """The rounded values, in the values' dtype, in `Narrow`."""
        half = getattr(torch, self.format)
        most = torch.finfo(half).max
        values = sent.values.clamp(-most, most).to(half).to(sent.values.dtype)
        return Vector(values, sent.scale, (*sent.space, Narrow(self.format)))
