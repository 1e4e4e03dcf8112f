"""The table of a message: what its bytes mean, without the numbers themselves."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from hanse.core.errors import WireError
from hanse.wire.message import (
    MOST_ARRAYS,
    MOST_DIMENSIONS,
    MOST_ENTRIES,
    MOST_PARTS,
    MOST_TABLE,
    Spec,
    at_most,
    check_array,
    check_name,
    padded,
    spec,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hanse.wire.message import Entry

_BYTE = struct.Struct("<B")  # the length of a name; how many parts an entry has
_PART = struct.Struct("<HB")  # tag, and how many arrays
_ARRAY = struct.Struct("<BB")  # type of the numbers, and how many dimensions
_DIMENSION = struct.Struct("<Q")


class PartSpec(NamedTuple):
    """A part without its numbers."""

    tag: int
    arrays: tuple[Spec, ...]


class EntrySpec(NamedTuple):
    """An entry without its numbers."""

    name: str
    parts: tuple[PartSpec, ...]


Table = tuple[EntrySpec, ...]


def damaged(found: str, why: str) -> WireError:
    """What is said of bytes that are no message."""
    return WireError(
        found, why=why, instead="have it sent again, and look at who sent it if it happens again"
    )


def table_of(entries: tuple[Entry, ...]) -> Table:
    """The table of some entries.

    Raises:
        WireError: something has no place in a message.
    """
    seen: set[str] = set()
    table, arrays = [], 0
    at_most(len(entries), MOST_ENTRIES, "entries")
    for entry in entries:
        check_name(entry.name, seen)
        seen.add(entry.name)
        at_most(len(entry.parts), MOST_PARTS, f"parts of {entry.name!r}")
        parts = []
        for part in entry.parts:
            at_most(part.tag, 0xFFFF, f"as the tag of a part of {entry.name!r}")
            at_most(len(part.arrays), MOST_PARTS, f"arrays in a part of {entry.name!r}")
            arrays += max(len(part.arrays), 1)
            parts.append(PartSpec(part.tag, tuple(spec(array) for array in part.arrays)))
            for array in parts[-1].arrays:
                check_array(array)
        table.append(EntrySpec(entry.name, tuple(parts)))
    at_most(arrays, MOST_ARRAYS, "arrays")
    at_most(table_length(tuple(table)), MOST_TABLE, "bytes of names and shapes")
    return tuple(table)


def arrays_of(table: Table) -> Iterator[Spec]:
    """All arrays, in the order of their numbers."""
    return (array for entry in table for part in entry.parts for array in part.arrays)


def table_length(table: Table) -> int:
    """The bytes that `write_table` makes."""
    length = 0
    for entry in table:
        length += 2 * _BYTE.size + len(entry.name.encode())
        length += _PART.size * len(entry.parts)
    dimensions = [len(array.shape) for array in arrays_of(table)]
    return length + _ARRAY.size * len(dimensions) + _DIMENSION.size * sum(dimensions)


def write_table(table: Table) -> bytes:
    """A table as bytes, without padding."""
    written = bytearray()
    for entry in table:
        name = entry.name.encode()
        written += _BYTE.pack(len(name)) + name + _BYTE.pack(len(entry.parts))
        for part in entry.parts:
            written += _PART.pack(part.tag, len(part.arrays))
            for array in part.arrays:
                written += _ARRAY.pack(array.code, len(array.shape))
                written += struct.pack(f"<{len(array.shape)}Q", *array.shape)
    return bytes(written)


def read_table(table: memoryview, entries: int, room: int) -> Table:
    """A table from bytes, in which nothing is believed.

    Args:
        table: exactly the table.
        entries: how many there are said to be.
        room: the bytes for numbers: all of them, and no more, must be accounted for.

    Raises:
        WireError: it is not what `write_table` makes, or its numbers do not fill the room.
    """
    reader = _Reader(table, room)
    found: dict[str, EntrySpec] = {}
    for _ in range(entries):
        entry = reader.entry(found)
        found[entry.name] = entry
    if reader.at != len(table):
        raise damaged(
            f"{len(table) - reader.at} bytes behind the last entry of a message's table",
            "nothing belongs there",
        )
    if reader.room:
        raise damaged(f"{reader.room} bytes of a message belong to no array", "nothing is there")
    return tuple(found.values())


class _Reader:
    """Reads a table from left to right, and takes what each array needs from the room."""

    def __init__(self, table: memoryview, room: int) -> None:
        self.at, self.room, self._table, self._arrays = 0, room, table, 0

    def entry(self, others: dict[str, EntrySpec]) -> EntrySpec:
        (length,) = self._take(_BYTE)
        end = self.at + length
        try:
            name = str(self._table[self.at : end], "utf-8")
        except UnicodeDecodeError as error:
            raise damaged("an entry whose name is not UTF-8", str(error)) from error
        self.at = end
        (parts,) = self._take(_BYTE)  # also finds out whether the name was all there
        check_name(name, others)
        return EntrySpec(name, tuple(self._part() for _ in range(parts)))

    def _part(self) -> PartSpec:
        tag, arrays = self._take(_PART)
        self._arrays += max(arrays, 1)  # a part without any takes memory and time as well
        at_most(self._arrays, MOST_ARRAYS, "arrays")
        return PartSpec(tag, tuple(self._array() for _ in range(arrays)))

    def _array(self) -> Spec:
        code, dimensions = self._take(_ARRAY)
        at_most(dimensions, MOST_DIMENSIONS, "dimensions of an array")
        array = Spec(code, tuple(self._take(_DIMENSION)[0] for _ in range(dimensions)))
        check_array(array)
        needed = padded(array.nbytes)
        if needed > self.room:
            raise damaged(
                f"an array of shape {list(array.shape)} that has {array.nbytes} bytes",
                f"only {self.room} bytes of the message are left for it",
            )
        self.room -= needed
        return array

    def _take(self, form: struct.Struct) -> tuple[Any, ...]:
        if self.at + form.size > len(self._table):
            raise damaged("a message's table that ends in an entry", "part of it is missing")
        fields = form.unpack_from(self._table, self.at)
        self.at += form.size
        return fields
