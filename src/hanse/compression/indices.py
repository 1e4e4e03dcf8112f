"""Which coordinates: a bitmap, or gaps in Rice's code, whichever is smaller.

Ascending indices are told by the gaps between them. A gap g is sent as `g >> r` ones and a zero,
and its lowest r bits; r is such that it suits k indices that are spread evenly over d, so that
nothing but k and d need be known to read them. All lowest bits stand together, then the ones and
zeros. For one index in a hundred that is 8.1 bits an index, where a bitmap has 100.

Source: Rice and Plaunt, "Adaptive variable-length coding for efficient compression of spacecraft
television data", IEEE Trans. Communication Technology, 1971; the parameter: Gallager and van
Voorhis, "Optimal source codes for geometrically distributed integer alphabets", IEEE Trans.
Information Theory, 1975.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.core.errors import WireError
from hanse.wire import Packed, pack, packed_length, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BITMAP, _GAPS = b"\0", b"\1"


def rice_parameter(count: int, size: int) -> int:
    """How many bits of a gap are sent as they are, for `count` indices below `size`.

    The one with the fewest bits on average, where each coordinate is among them with the same
    chance: then gaps are geometric, and a gap has `q^(2^r) / (1 - q^(2^r))` ones.
    """
    left_out = 1 - count / max(size, 1)

    def bits(parameter: int) -> float:
        none = left_out ** (1 << parameter)
        return parameter + (none / (1 - none) if none < 1 else math.inf)

    return min(range(17), key=bits)


def index_bytes(chosen: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """How many bytes `encode_indices` makes of each row of `[K, k]`."""
    rows, count = chosen.shape
    bits = rice_parameter(count, size)
    ones = (_gaps(chosen) >> bits).sum(axis=1)
    coded = packed_length(count, bits) + -(-(ones + count) // 8)
    found: NDArray[np.int64] = 1 + np.minimum(coded, np.full(rows, packed_length(size, 1)))
    return found


def encode_indices(chosen: NDArray[np.int64], size: int) -> bytes:
    """Ascending indices `[k]` below `size`, as bytes."""
    count = len(chosen)
    bits, gaps = rice_parameter(count, size), _gaps(chosen[None])[0]
    ends = np.cumsum((gaps >> bits) + 1) - 1  # where the zeros stand
    flags = np.ones(ends[-1] + 1 if count else 0, np.uint8)
    flags[ends] = 0
    if packed_length(count, bits) + packed_length(len(flags), 1) < packed_length(size, 1):
        return _GAPS + _low(gaps & ((1 << bits) - 1), bits) + _flags(flags)
    bitmap = np.zeros(size, np.uint8)
    bitmap[chosen] = 1
    return _BITMAP + _flags(bitmap)


def decode_indices(data: bytes, count: int, size: int) -> tuple[NDArray[np.int64], int]:
    """The indices, and how many bytes they took.

    Raises:
        WireError: the bytes are not those of `count` indices below `size`.
    """
    form, body = data[:1], data[1:]
    if form == _BITMAP:
        length = packed_length(size, 1)
        found = np.flatnonzero(_unflags(body[:length])[:size]).astype(np.int64)
        if len(body) < length or len(found) != count:
            raise _spoiled(count, size)
        return found, 1 + length
    bits = rice_parameter(count, size)
    low = packed_length(count, bits)
    # No more ones than fit: gaps add up to less than the size.
    most = packed_length(count + (size >> bits) + 1, 1)
    ends = np.flatnonzero(_unflags(body[low : low + most]) == 0)[:count]
    if form != _GAPS or len(body) < low or len(ends) < count:
        raise _spoiled(count, size)
    high = np.diff(ends, prepend=-1) - 1
    gaps = (high << bits) + _unlow(body[:low], count, bits)
    chosen = np.cumsum(gaps + 1) - 1
    if count and chosen[-1] >= size:
        raise _spoiled(count, size)
    used = packed_length(int(ends[-1]) + 1, 1) if count else 0
    return chosen.astype(np.int64), 1 + low + used


def _gaps(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many coordinates are left out before each of the chosen ones, `[K, k]`."""
    return np.diff(chosen, axis=1, prepend=-1) - 1


def _low(numbers: NDArray[np.int64], bits: int) -> bytes:
    if not bits:
        return b""
    return pack(torch.from_numpy(numbers), bits).data.numpy().tobytes()


def _unlow(data: bytes, count: int, bits: int) -> NDArray[np.int64]:
    if not bits or not count:
        return np.zeros(count, np.int64)
    found = unpack(Packed(torch.frombuffer(bytearray(data), dtype=torch.uint8), bits, (count,)))
    return found.numpy().astype(np.int64)


def _flags(flags: NDArray[np.uint8]) -> bytes:
    """Zeros and ones, eight to a byte, the first one lowest."""
    return np.packbits(flags, bitorder="little").tobytes()


def _unflags(data: bytes) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")


def _spoiled(count: int, size: int) -> WireError:
    return WireError(
        f"bytes that are not {count} indices below {size}",
        why="what was sent was cut off or changed on its way",
        instead="the message as it was encoded",
    )
