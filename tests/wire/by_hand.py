"""Messages put together byte by byte, from the format's description and without the codec."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace

FLOAT64, FLOAT32, INT64, UINT64, UINT8, PACKED = 1, 2, 5, 9, 12, 0x40
TENSOR, VECTOR, KNOWN, ROUND = 0, 1, 2, 3
BROADCAST, UPDATE, TENSORS = 1, 2, 3
HEADER = 24


def filled(data: bytes) -> bytes:
    """With zeros up to a multiple of eight."""
    return data + bytes(-len(data) % 8)


def sealed(message: bytes) -> bytes:
    """With the checksum that its bytes have."""
    return message[:20] + struct.pack("<I", zlib.crc32(message[:20] + message[24:])) + message[24:]


@dataclass(frozen=True)
class Array:
    """An array: the number of its type, its dimensions, its bytes."""

    code: int
    shape: tuple[int, ...]
    data: bytes
    dimensions: int | None = None  # what is said of their number

    def told(self) -> bytes:
        said = len(self.shape) if self.dimensions is None else self.dimensions
        return struct.pack("<BB", self.code, said) + struct.pack(
            f"<{len(self.shape)}Q", *self.shape
        )


@dataclass(frozen=True)
class Part:
    tag: int
    arrays: tuple[Array, ...]
    count: int | None = None

    def told(self) -> bytes:
        said = len(self.arrays) if self.count is None else self.count
        return struct.pack("<HB", self.tag, said) + b"".join(a.told() for a in self.arrays)


@dataclass(frozen=True)
class Entry:
    name: bytes
    parts: tuple[Part, ...]
    count: int | None = None
    length: int | None = None

    def told(self) -> bytes:
        length = len(self.name) if self.length is None else self.length
        said = len(self.parts) if self.count is None else self.count
        parts = b"".join(p.told() for p in self.parts)
        return bytes([length]) + self.name + bytes([said]) + parts


@dataclass(frozen=True)
class Draft:
    """All that a message says of itself; what is `None` is said truthfully."""

    kind: int
    entries: tuple[Entry, ...]
    magic: bytes = b"\x95HNS"
    version: int = 1
    count: int | None = None
    total: int | None = None
    table: int | None = None
    behind: bytes = field(default=b"", repr=False)  # the last array

    def arrays(self) -> list[Array]:
        return [a for entry in self.entries for part in entry.parts for a in part.arrays]

    def message(self) -> bytes:
        table = b"".join(entry.told() for entry in self.entries)
        body = filled(table) + b"".join(filled(a.data) for a in self.arrays()) + self.behind
        count = len(self.entries) if self.count is None else self.count
        total = HEADER + len(body) if self.total is None else self.total
        length = len(table) if self.table is None else self.table
        fields = self.magic, self.version, self.kind, count, total, length, 0
        return sealed(struct.pack("<4sBBHQII", *fields) + body)

    def with_entry(self, at: int, **changes: object) -> Draft:
        entries = list(self.entries)
        entries[at] = replace(entries[at], **changes)  # type: ignore[arg-type]
        return replace(self, entries=tuple(entries))

    def with_part(self, at: int, part: int, **changes: object) -> Draft:
        parts = list(self.entries[at].parts)
        parts[part] = replace(parts[part], **changes)  # type: ignore[arg-type]
        return self.with_entry(at, parts=tuple(parts))

    def with_array(self, at: int, part: int, array: int, **changes: object) -> Draft:
        arrays = list(self.entries[at].parts[part].arrays)
        arrays[array] = replace(arrays[array], **changes)  # type: ignore[arg-type]
        return self.with_part(at, part, arrays=tuple(arrays))


def floats(*values: float) -> Array:
    return Array(FLOAT32, (len(values),), struct.pack(f"<{len(values)}f", *values))


def number(value: float) -> Array:
    return Array(FLOAT32, (), struct.pack("<f", value))


def update(**vectors: tuple[float, ...]) -> Draft:
    """An update of single precision, with scale 1."""
    return Draft(
        UPDATE,
        tuple(
            Entry(name.encode(), (Part(VECTOR, (floats(*values), number(1.0))),))
            for name, values in vectors.items()
        ),
    )


def broadcast(params: tuple[float, ...], **extra: tuple[float, ...]) -> Draft:
    """Round 7 of 9 clients, of which 2 train, of 2.5 expected, with key 11."""
    facts = (
        Array(INT64, (3,), struct.pack("<3q", 7, 9, 2)),
        Array(UINT64, (1,), struct.pack("<Q", 11)),
        Array(FLOAT64, (), struct.pack("<d", 2.5)),
        Array(UINT8, (10,), b"cross-silo"),
    )
    tensors = {"params": params, "buffers": (), **extra}
    return Draft(
        BROADCAST,
        (
            Entry(b"round", (Part(ROUND, facts),)),
            *(Entry(k.encode(), (Part(TENSOR, (floats(*v),)),)) for k, v in tensors.items()),
        ),
    )


def opaque() -> Draft:
    """A matrix, an empty tensor, and five numbers of three bits."""
    matrix = Array(FLOAT32, (2, 3), struct.pack("<6f", *range(6)))
    five = Array(PACKED + 3, (5,), bytes([0b10001000, 0b01100110]))
    return Draft(
        TENSORS,
        (
            Entry(b"matrix", (Part(TENSOR, (matrix,)),)),
            Entry(b"empty", (Part(TENSOR, (Array(INT64, (4, 0), b""),)),)),
            Entry(b"five", (Part(TENSOR, (five,)),)),
        ),
    )


def update_length(columns: dict[str, int], itemsize: int = 4) -> int:
    """The bytes of an update without spaces: its numbers, its scales, and what says so."""
    table = sum(1 + len(name) + 1 + (2 + 1) + (1 + 1 + 8) + (1 + 1) for name in columns)
    numbers = sum(-(-n * itemsize // 8) * 8 + 8 for n in columns.values())
    return HEADER + -(-table // 8) * 8 + numbers


def broadcast_length(
    tensors: dict[str, int], itemsize: int = 4, *, setting: str = "cross-device"
) -> int:
    """The bytes of a broadcast of vectors; -1 columns: a number."""
    table = 1 + 5 + 1 + 3 + 10 + 10 + 2 + 10
    numbers = 24 + 8 + 8 + -(-len(setting) // 8) * 8
    for name, columns in tensors.items():
        table += 1 + len(name) + 1 + 3 + (10 if columns >= 0 else 2)
        numbers += -(-abs(columns) * itemsize // 8) * 8
    return HEADER + -(-table // 8) * 8 + numbers
