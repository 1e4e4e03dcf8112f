"""Whole numbers of 1 to 16 bits each, one behind another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hanse.core.errors import WireError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BITS = 16
_TOGETHER = 8  # so many numbers fill whole bytes, whatever their bits


class Packed(NamedTuple):
    """Numbers from 0 to `2 ** bits - 1`, packed as `hanse.wire.pack` does.

    Attributes:
        data: uint8 `[ceil(n * bits / 8)]`; number i is in the bits from `i * bits` on, its lowest
            bit first, where bit b of the whole is bit `b % 8` of byte `b // 8`. Bits behind the
            last number are zero.
        bits: of each number, 1 to 16.
        shape: of the numbers; n is its product.
    """

    data: Tensor
    bits: int
    shape: tuple[int, ...]


def packed_length(count: int, bits: int) -> int:
    """The bytes of `count` numbers of `bits` bits."""
    return -(-count * bits // 8)


def pack(values: Tensor, bits: int) -> Packed:
    """Pack whole numbers.

    Args:
        values: integers of any shape, from 0 to `2 ** bits - 1`.
        bits: 1 to 16.

    Raises:
        WireError: a number does not fit.
    """
    _check(values, bits)
    flat = values.detach().cpu().reshape(-1).numpy()
    if bits == 8:
        data = flat.astype(np.uint8)
    elif bits == 16:
        data = flat.astype("<u2").view(np.uint8)
    else:
        data = _packed(flat, bits)
    return Packed(torch.from_numpy(data), bits, tuple(values.shape))


def unpack(packed: Packed) -> Tensor:
    """The numbers, int32, in a new tensor of the packed shape."""
    data, bits = packed.data.numpy(), packed.bits
    count = math.prod(packed.shape)
    if bits == 8:
        values = data.astype(np.int32)
    elif bits == 16:
        values = np.ascontiguousarray(data).view("<u2").astype(np.int32)
    else:
        values = _unpacked(data, bits, count)
    return torch.from_numpy(values).reshape(packed.shape)


def _check(values: Tensor, bits: int) -> None:
    if not 1 <= bits <= MOST_BITS:
        raise WireError(
            f"numbers of {bits} bits",
            why=f"from 1 to {MOST_BITS} bits are packed",
            instead="more bits are a tensor of int32, float16 or float32",
        )
    if values.dtype.is_floating_point or values.dtype.is_complex:
        raise WireError(
            f"{values.dtype} to be packed",
            why="only whole numbers are",
            instead="values.to(torch.int32), where they are whole",
        )
    if values.numel():
        low, high = (int(number) for number in values.aminmax())
        if low < 0 or high >= 1 << bits:
            raise WireError(
                f"numbers from {low} to {high} in {bits} bits",
                why=f"they hold 0 to {(1 << bits) - 1}",
                instead="more bits, or numbers with the smallest one taken off",
            )


def _places(bits: int) -> list[tuple[int, int, int]]:
    """For each of eight numbers and each byte that it touches: both, and the shift to the left."""
    return [
        (number, byte, 8 * byte - number * bits)
        for number in range(_TOGETHER)
        for byte in range(number * bits // 8, ((number + 1) * bits - 1) // 8 + 1)
    ]


def _packed(flat: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    groups = -(-len(flat) // _TOGETHER)
    # A row for each place in a group: operations then run along memory.
    numbers = np.zeros((_TOGETHER, groups), np.uint16)
    whole = len(flat) // _TOGETHER
    numbers[:, :whole] = flat[: whole * _TOGETHER].reshape(-1, _TOGETHER).T
    if whole < groups:
        rest = flat[whole * _TOGETHER :]
        numbers[: len(rest), whole] = rest
    data = np.zeros((bits, groups), np.uint8)
    for number, byte, shift in _places(bits):
        moved = numbers[number] >> shift if shift > 0 else numbers[number] << -shift
        data[byte] |= moved.astype(np.uint8)
    return np.ascontiguousarray(data.T).reshape(-1)[: packed_length(len(flat), bits)]


def _unpacked(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int32]:
    groups = -(-count // _TOGETHER)
    padded = np.zeros(groups * bits, np.uint8)
    padded[: len(data)] = data
    columns = np.ascontiguousarray(padded.reshape(groups, bits).T)
    numbers = np.zeros((_TOGETHER, groups), np.uint16)
    for number, byte, shift in _places(bits):
        wide = columns[byte].astype(np.uint16)
        numbers[number] |= wide << shift if shift > 0 else wide >> -shift
    numbers &= (1 << bits) - 1
    return np.ascontiguousarray(numbers.T).reshape(-1)[:count].astype(np.int32)
