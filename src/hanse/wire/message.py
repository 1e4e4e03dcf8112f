"""What a message is: named entries, made of parts, made of arrays."""

from __future__ import annotations

import math
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanse.core.errors import WireError
from hanse.wire.packing import MOST_BITS, Packed, packed_length

if TYPE_CHECKING:
    from collections.abc import Collection

Array = Tensor | Packed
"""A tensor of one of `DTYPES`, or packed integers."""

DTYPES = MappingProxyType({
    1: torch.float64,
    2: torch.float32,
    3: torch.float16,
    4: torch.bfloat16,
    5: torch.int64,
    6: torch.int32,
    7: torch.int16,
    8: torch.int8,
    9: torch.uint64,
    10: torch.uint32,
    11: torch.uint16,
    12: torch.uint8,
    13: torch.bool,
})  # fmt: skip
"""The numbers that stand for types of numbers in messages. They are never given to another."""

PACKED = 0x40
"""Integers of b bits have the number `PACKED + b`."""

Length = TypeVar("Length", int, NDArray[np.int64])

CODES = MappingProxyType({dtype: code for code, dtype in DTYPES.items()})

ALIGNMENT = 8
MOST_ENTRIES = 0xFFFF
MOST_NAME = 0xFF  # bytes in UTF-8
MOST_PARTS = 0xFF  # of an entry
MOST_ARRAYS = 1 << 13  # of a message: to read so many takes a tenth of a second, and a few MB
MOST_DIMENSIONS = 8
MOST_TABLE = 1 << 22  # bytes of names, tags, types and shapes
MOST_NUMBERS = 1 << 48  # of an array, a dimension of zero counted as one


class Kind(IntEnum):
    """What a message is about."""

    BROADCAST = 1
    UPDATE = 2
    TENSORS = 3


class Tag(IntEnum):
    """What a part of an entry means: the one table, for all that ever travels.

    A number is never given to another meaning. From `Tag.OWN` on they are yours, for spaces of
    your own.
    """

    TENSOR = 0
    """One array: the tensor itself."""
    VECTOR = 1
    """The values `[m]` of a vector, and its scale, 0-d; its spaces follow."""
    KNOWN = 2
    """A space that the server knows without being told; no array."""
    ROUND = 3
    """The facts of a round."""
    SUPPORT = 16
    """Coordinates of a client's own: their code, and the size of the vector."""
    COORDINATES = 17
    """Coordinates that are drawn: the key, the size, and whether there is a factor."""
    GRID = 18
    """A code, of whole numbers: steps, and the lengths of the runs that share one."""
    NARROW = 19
    """A code, of floating-point numbers in 16 bits; no array."""
    ROTATION = 20
    """A random rotation: the key, the size, and the block."""
    WHOLE = 21
    """Whole numbers that are added exactly: how large they are at most."""
    OWN = 0x8000


class Part(NamedTuple):
    """Arrays, and what they mean."""

    tag: int
    arrays: tuple[Array, ...]


class Entry(NamedTuple):
    """Something with a name."""

    name: str
    parts: tuple[Part, ...]


class Message(NamedTuple):
    """What is sent at once."""

    kind: Kind
    entries: tuple[Entry, ...]


class Spec(NamedTuple):
    """An array without its numbers."""

    code: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers.

        Raises:
            WireError: no such type of numbers.
        """
        count = math.prod(self.shape)
        if PACKED < self.code <= PACKED + MOST_BITS:
            return packed_length(count, self.code - PACKED)
        if self.code not in DTYPES:
            raise WireError(
                f"an array of type number {self.code}",
                why="this version of Hanse knows no such type",
                instead="a message of a version that both sides have",
            )
        return count * DTYPES[self.code].itemsize


def spec(array: Array) -> Spec:
    """An array without its numbers.

    Raises:
        WireError: its type does not travel.
    """
    if isinstance(array, Packed):
        return Spec(PACKED + array.bits, array.shape)
    if array.dtype not in CODES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in CODES)
        raise WireError(
            f"a tensor of {array.dtype}",
            why="that type has no number in messages",
            instead=f"one of {known}",
        )
    return Spec(CODES[array.dtype], tuple(array.shape))


def padded(nbytes: Length) -> Length:
    """The next multiple of `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def check_name(name: str, others: Collection[str]) -> None:
    """Refuse an entry's name that is there already, empty, too long, or not printable.

    Raises:
        WireError: it is.
    """
    encoded = name.encode("utf-8", errors="replace")
    if name in others or not name.isprintable() or not 0 < len(encoded) <= MOST_NAME:
        raise WireError(
            f"an entry named {name!r:.80}" + ", twice" * (name in others),
            why=f"a name is printable, has 1 to {MOST_NAME} bytes, and is there once",
            instead="a short word of its own for each entry",
        )


def check_array(array: Spec) -> None:
    """Refuse too many dimensions or numbers.

    Raises:
        WireError: there are.
    """
    at_most(len(array.shape), MOST_DIMENSIONS, "dimensions of an array")
    if min(array.shape, default=0) < 0:
        raise WireError(
            f"an array of shape {list(array.shape)}",
            why="no dimension is negative",
            instead="the shape of a tensor",
        )
    at_most(math.prod(max(d, 1) for d in array.shape), MOST_NUMBERS, "numbers in an array")


def at_most(found: int, most: int, what: str) -> None:
    """Refuse more than `most`.

    Raises:
        WireError: there are more.
    """
    if found > most:
        raise WireError(
            f"{found} {what}",
            why=f"there are at most {most}, so that reading a message takes little memory",
            instead="several messages",
        )
