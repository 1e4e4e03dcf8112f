"""The spaces of compressors, from what was sent of them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from hanse.compression.indices import decode_indices
from hanse.compression.spaces import Coordinates, Grid, Narrow, Rotation, Support
from hanse.compression.whole import Whole
from hanse.core.errors import WireError
from hanse.wire import Tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.wire import Array, Reader

MOST = 1 << 31
"""The longest vector that is read: a message of a few bytes may stand for that many numbers."""


def _support(arrays: tuple[Array, ...], columns: int) -> Support:
    coded, amounts = _tensors(arrays, (torch.uint8, torch.int64))
    count, size = _amounts(amounts, columns)
    data = coded.numpy().tobytes()
    chosen, used = decode_indices(data, count, size)
    if used != len(data):
        raise _damaged("indices with something behind them")
    return Support(torch.from_numpy(chosen).unsqueeze(0), size)


def _coordinates(arrays: tuple[Array, ...], columns: int) -> Coordinates:
    key, amounts, factor = _tensors(arrays, (torch.uint64, torch.int64, torch.float64))
    count, size = _amounts(amounts, columns)
    if factor.dim() or not bool(factor.isfinite()):
        raise _damaged("drawn coordinates with a factor that is no number")
    return Coordinates(_key(key), count, size, float(factor))


def _grid(arrays: tuple[Array, ...], columns: int) -> Grid:
    """With a step for each run, or one for all; 0-d where it is public."""
    step = arrays[0] if len(arrays) in (2, 3) else None
    if not isinstance(step, torch.Tensor) or step.dim() > 1 or not step.is_floating_point():
        raise _damaged("whole numbers without their step")
    bits, *lengths = _tensors(arrays[1:], (torch.int64,) * (len(arrays) - 1))
    if not bool(step.isfinite().all()):
        raise _damaged("whole numbers whose step is no number")
    runs: tuple[int, ...] = ()
    if lengths:
        runs = _runs(lengths[0], len(step) if step.dim() else 0, columns)
    elif step.dim() and len(step) != 1:
        raise _damaged("several steps, and nothing that says what for")
    return Grid(_number(bits, 1, 16), step.unsqueeze(0) if step.dim() else step, runs)


def _narrow(arrays: tuple[Array, ...], _columns: int) -> Narrow:
    if len(arrays) == 1 and isinstance(arrays[0], torch.Tensor) and arrays[0].shape == (0,):
        if arrays[0].dtype is torch.float16:
            return Narrow("float16")
        if arrays[0].dtype is torch.bfloat16:
            return Narrow("bfloat16")
    raise _damaged("numbers in 16 bits of an unknown format")


def _rotation(arrays: tuple[Array, ...], columns: int) -> Rotation:
    key, size, block = _tensors(arrays, (torch.uint64, torch.int64, torch.int64))
    width, total = _number(block, 1, MOST), _number(size, 0, MOST)
    if width & (width - 1):
        raise _damaged(f"a rotation in blocks of {width}")
    space = Rotation(_key(key), total, width)
    if space.padded != columns:
        raise _damaged(f"a rotation of {total} numbers in blocks of {width} as {columns}")
    return space


def _whole_numbers(arrays: tuple[Array, ...], _columns: int) -> Whole:
    (most,) = _tensors(arrays, (torch.int64,))
    return Whole(_number(most, 0, 1 << 62))


READERS: Mapping[int, Reader] = MappingProxyType(
    {
        Tag.SUPPORT: _support,
        Tag.COORDINATES: _coordinates,
        Tag.GRID: _grid,
        Tag.NARROW: _narrow,
        Tag.ROTATION: _rotation,
        Tag.WHOLE: _whole_numbers,
    }
)
"""For `hanse.wire.read_update`: a reader for each space that a compressor enters."""


def _tensors(arrays: tuple[Array, ...], types: tuple[object, ...]) -> tuple[Tensor, ...]:
    found = tuple(array for array in arrays if isinstance(array, torch.Tensor))
    if len(found) != len(arrays) or tuple(array.dtype for array in found) != types:
        raise _damaged("a space that was sent as other arrays than it has")
    return found


def _number(found: Tensor, least: int, most: int) -> int:
    if found.dim() or not least <= int(found) <= most:
        raise _damaged(f"{found.tolist()!r:.80} where a number from {least} to {most} belongs")
    return int(found)


def _amounts(found: Tensor, columns: int) -> tuple[int, int]:
    """How many coordinates of how many."""
    if found.shape != (2,):
        raise _damaged("coordinates that do not say how many they are")
    return _number(found[0], columns, columns), _number(found[1], columns, MOST)


def _key(found: Tensor) -> int:
    if found.dim():
        raise _damaged("several keys where one belongs")
    return int(found.numpy()[()])


def _runs(lengths: Tensor, steps: int, columns: int) -> tuple[int, ...]:
    found: list[int] = lengths.reshape(-1).tolist()
    if len(found) == 3 and not found[0] and 0 < found[1] <= found[2] == columns:
        whole, rest = divmod(found[2], found[1])
        if whole + (rest > 0) == steps:
            return (found[1],) * whole + ((rest,) if rest else ())
    if len(found) != steps or min(found, default=0) <= 0 or sum(found) != columns:
        raise _damaged("steps, and runs that do not belong to them")
    return tuple(found)


def _damaged(found: str) -> WireError:
    return WireError(
        found,
        why="no compressor sends that",
        instead="have it sent again, and look at who sent it if it happens again",
    )
