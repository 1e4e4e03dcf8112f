"""Messages as bytes, and bytes as messages. docs/wire.md has the format, byte by byte."""

from __future__ import annotations

import struct
import sys
import warnings
import zlib
from typing import TYPE_CHECKING, NamedTuple

import torch

from hanse.core.errors import WireError
from hanse.wire.message import (
    DTYPES,
    MOST_TABLE,
    PACKED,
    Array,
    Entry,
    Kind,
    Message,
    Part,
    Spec,
    padded,
)
from hanse.wire.packing import Packed
from hanse.wire.table import arrays_of, damaged, read_table, table_length, table_of, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from hanse.wire.table import Table

MAGIC = b"\x95HNS"
VERSION = 1
LIMIT = 1 << 32
"""Bytes of the longest message that is read, unless another limit is given."""

_HEADER = struct.Struct("<4sBBHQI")  # magic, version, kind, entries, length, length of the table
_CHECKSUM = struct.Struct("<I")  # the CRC-32 of all bytes but its own
START = _HEADER.size + _CHECKSUM.size

Bytes = bytes | bytearray | memoryview


def length(message: Message) -> int:
    """How many bytes `encode` would make, from shapes alone.

    Raises:
        WireError: the message cannot be written.
    """
    table = table_of(message.entries)
    numbers = sum(padded(array.nbytes) for array in arrays_of(table))
    return START + padded(table_length(table)) + numbers


def encode(message: Message) -> bytes:
    """A message as bytes: its tensors' numbers as they are, after a header and a table.

    Raises:
        WireError: the message cannot be written.
    """
    table = table_of(message.entries)
    written = write_table(table)
    pieces: list[Bytes] = [written, bytes(padded(len(written)) - len(written))]
    for entry in message.entries:
        for part in entry.parts:
            for array in part.arrays:
                numbers = _numbers(array)
                pieces += [numbers, bytes(padded(len(numbers)) - len(numbers))]
    total = START + sum(map(len, pieces))
    kind, entries = Kind(message.kind), len(message.entries)
    header = _HEADER.pack(MAGIC, VERSION, kind, entries, total, len(written))
    checksum = zlib.crc32(header)
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return b"".join([header, _CHECKSUM.pack(checksum), *pieces])


def decode(received: Bytes, *, kind: Kind | None = None, limit: int = LIMIT) -> Message:
    """The message in some bytes, all of which are looked at before anything is made of them.

    Its tensors are views of the bytes: nothing is copied, and they are for reading only. Who wants
    to change one copies it first.

    Args:
        received: a whole message, and nothing else.
        kind: what it must be about; `None`: anything.
        limit: of its length, in bytes.

    Raises:
        WireError: it is longer, damaged, of another kind or version, or no message at all.
    """
    view = memoryview(received).cast("B")
    header = _header(view, limit)
    if header.total != len(view):
        raise damaged(
            f"{len(view)} bytes of a message that has {header.total}",
            "some are missing" if len(view) < header.total else "more is there than was sent",
        )
    found = zlib.crc32(view[START:], zlib.crc32(view[: _HEADER.size]))
    if found != header.checksum:
        raise damaged(
            f"a message with checksum {header.checksum:08x}, whose bytes have {found:08x}",
            "it was changed on its way",
        )
    if kind is not None and header.kind != kind:
        raise WireError(
            f"a message of kind {header.kind.name}",
            why=f"{kind.name} was asked for here",
            instead=f"a message of kind {kind.name}",
        )
    start = START + padded(header.table)
    if start > header.total:
        raise damaged(f"a table of {header.table} bytes", "the message ends before it does")
    end = START + header.table
    table = read_table(view[START:end], header.entries, header.total - start)
    _check_padding(view, table, end, start)
    return Message(header.kind, tuple(_entries(table, _Numbers(view, start))))


def declared_length(start: Bytes, *, limit: int = LIMIT) -> int:
    """The length that the first `START` bytes of a message declare.

    Raises:
        WireError: it is above the limit, or no message begins like this.
    """
    return _header(memoryview(start).cast("B"), limit).total


class _Header(NamedTuple):
    kind: Kind
    entries: int
    total: int
    table: int
    checksum: int


def _header(view: memoryview, limit: int) -> _Header:
    if len(view) < START:
        raise damaged(f"{len(view)} bytes", f"the shortest message has {START}")
    magic, version, kind, entries, total, table = _HEADER.unpack_from(view)
    (checksum,) = _CHECKSUM.unpack_from(view, _HEADER.size)
    if magic != MAGIC:
        raise damaged(f"bytes that begin with {magic.hex()}", f"a message's are {MAGIC.hex()}")
    if version != VERSION:
        raise WireError(
            f"a message of version {version}",
            why=f"this version of Hanse reads version {VERSION}",
            instead="versions of Hanse that belong together, on both sides",
        )
    if kind not in list(Kind):
        raise damaged(f"a message of kind {kind}", "this version of Hanse knows no such kind")
    for found, most, what in ((total, limit, "message"), (table, MOST_TABLE, "message's table")):
        if found > most:
            raise WireError(
                f"a {what} of {found} bytes",
                why=f"at most {most} are read here",
                instead="a smaller one, or a higher limit where messages are so long",
            )
    return _Header(Kind(kind), entries, total, table, checksum)


def _check_padding(view: memoryview, table: Table, end: int, start: int) -> None:
    """A message has one form only, so what lies between arrays is zero."""
    filled = bytearray(view[end:start])
    for array in arrays_of(table):
        nbytes = array.nbytes
        filled += view[start + nbytes : start + padded(nbytes)]
        start += padded(nbytes)
        if array.code > PACKED and nbytes:
            used = _used_bits(array)
            filled.append(view[start - padded(nbytes) + nbytes - 1] >> used if used else 0)
    if any(filled):
        raise damaged("a message with something between its arrays", "only zeros belong there")


def _used_bits(array: Spec) -> int:
    """The bits of the last byte that packed numbers use; 0: all of them."""
    count = 1
    for dimension in array.shape:
        count *= dimension
    return count * (array.code - PACKED) % 8


def _entries(table: Table, numbers: _Numbers) -> Iterator[Entry]:
    for entry in table:
        parts = (
            Part(part.tag, tuple(numbers.take(array) for array in part.arrays))
            for part in entry.parts
        )
        yield Entry(entry.name, tuple(parts))


class _Numbers:
    """Cuts the numbers of a message into arrays, from left to right."""

    def __init__(self, view: memoryview, start: int) -> None:
        _check_order()
        self._bytes, self._at = _as_tensor(view), start

    def take(self, array: Spec) -> Array:
        nbytes = array.nbytes
        data = self._bytes[self._at : self._at + nbytes]
        self._at += padded(nbytes)
        if array.code not in DTYPES:
            return Packed(data, array.code - PACKED, array.shape)
        dtype = DTYPES[array.code]
        if dtype is torch.bool and nbytes and int(data.max()) > 1:
            raise damaged(f"a truth value of {int(data.max())}", "it is 0 or 1")
        return data.view(dtype).view(array.shape)


def _as_tensor(view: memoryview) -> Tensor:
    """Bytes as a tensor that shares their memory, or a copy where they begin at an odd place."""
    with warnings.catch_warnings():
        # Torch has no tensors for reading only. Whose these are is told not to write to them.
        warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)
        shared = torch.frombuffer(view, dtype=torch.uint8)
    return shared if shared.data_ptr() % torch.float64.itemsize == 0 else shared.clone()


def _numbers(array: Array) -> memoryview:
    """The numbers of an array, as they lie in memory."""
    _check_order()
    data = array.data if isinstance(array, Packed) else array
    flat = data.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if len(flat) else memoryview(b"")


def _check_order() -> None:
    if sys.byteorder != "little":
        raise WireError(
            "a computer that stores the highest byte of a number first",
            why="messages are written and read as numbers lie in memory, the lowest byte first",
            instead="a computer with an x86 or ARM processor",
        )
