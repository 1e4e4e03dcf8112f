"""Messages that must be refused: damaged on their way, or made to do harm."""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from tests.wire import by_hand
from tests.wire.by_hand import (
    FLOAT32,
    FLOAT64,
    INT64,
    PACKED,
    UINT8,
    UINT64,
    Array,
    Draft,
    Part,
    sealed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1 << 21
HUGE = (2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)

ITEM_BITS = {FLOAT64: 64, FLOAT32: 32, INT64: 64, UINT64: 64, UINT8: 8, PACKED + 3: 3}

DRAFTS = (
    by_hand.update(delta=(1.0, -2.5, 3.0, 0.5, 0.25), weight=(7.0,)),
    by_hand.broadcast((1.0, 2.0), control=(3.0, 4.0)),
    by_hand.opaque(),
)


def hostile(seed: int) -> tuple[str, bytes]:
    """What is wrong with it, and the message; by turns, with everything else drawn."""
    random = np.random.default_rng(seed)
    make = KINDS[seed % len(KINDS)]
    if make is _too_many_arrays and seed % 8:  # each takes a tenth of a second
        make = _flipped_bits
    draft = DRAFTS[int(random.integers(len(DRAFTS)))]
    return make.__name__.strip("_"), make(draft, random)


def _pick(random: np.random.Generator, draft: Draft) -> tuple[int, int, int]:
    """An entry, a part and an array that there are."""
    places = [
        (e, p, a)
        for e, entry in enumerate(draft.entries)
        for p, part in enumerate(entry.parts)
        for a in range(len(part.arrays))
    ]
    return places[int(random.integers(len(places)))]


def _array(random: np.random.Generator, draft: Draft) -> tuple[tuple[int, int, int], Array]:
    at = _pick(random, draft)
    return at, draft.entries[at[0]].parts[at[1]].arrays[at[2]]


# ------------------------------------------------------------------------ damaged on their way
def _flipped_bits(draft: Draft, random: np.random.Generator) -> bytes:
    message = bytearray(draft.message())
    for bit in random.choice(8 * len(message), int(random.integers(1, 5)), replace=False):
        message[bit // 8] ^= 1 << bit % 8
    return bytes(message)


def _cut_short(draft: Draft, random: np.random.Generator) -> bytes:
    message = draft.message()
    return message[: int(random.integers(len(message)))]


def _something_behind(draft: Draft, random: np.random.Generator) -> bytes:
    return draft.message() + random.bytes(int(random.integers(1, 40)))


def _bytes_swapped(draft: Draft, random: np.random.Generator) -> bytes:
    message = bytearray(draft.message())
    while True:
        one, other = random.integers(0, len(message), 2)
        if message[one] != message[other]:
            message[one], message[other] = message[other], message[one]
            return bytes(message)


def _noise(draft: Draft, random: np.random.Generator) -> bytes:
    start = b"\x95HNS\x01" if random.random() < 0.5 else b""
    return start + random.bytes(int(random.integers(0, 400)))


# ---------------------------------------------------------- the checksum is right from here on
def _cut_short_and_sealed(draft: Draft, random: np.random.Generator) -> bytes:
    message = draft.message()[: -8 * int(random.integers(1, 3))]
    total = struct.pack("<Q", len(message)) if random.random() < 0.5 else message[8:16]
    return sealed(message[:8] + total + message[16:])


def _something_behind_and_sealed(draft: Draft, random: np.random.Generator) -> bytes:
    return replace(draft, behind=random.bytes(int(random.integers(1, 40)))).message()


def _another_magic(draft: Draft, random: np.random.Generator) -> bytes:
    return replace(draft, magic=b"\x80\x04\x95\x10").message()  # how a pickle begins


def _another_version(draft: Draft, random: np.random.Generator) -> bytes:
    return replace(draft, version=int(random.choice([0, 2, 255]))).message()


def _an_unknown_kind(draft: Draft, random: np.random.Generator) -> bytes:
    return replace(draft, kind=int(random.integers(4, 256))).message()


def _wrong_number_of_entries(draft: Draft, random: np.random.Generator) -> bytes:
    right = len(draft.entries)
    wrong = int(random.choice([0, right - 1, right + 1, 0xFFFF]))
    return replace(draft, count=wrong).message()


def _huge_total(draft: Draft, random: np.random.Generator) -> bytes:
    return replace(draft, total=int(random.choice(np.array(HUGE, np.uint64)))).message()


def _wrong_length_of_the_table(draft: Draft, random: np.random.Generator) -> bytes:
    right = sum(len(entry.told()) for entry in draft.entries)
    near = right + int(random.choice([-9, -8, -1, 1, 8, 9]))
    return replace(draft, table=int(random.choice([0, near, 2**31, 2**32 - 1]))).message()


def _huge_dimension(draft: Draft, random: np.random.Generator) -> bytes:
    at, array = _array(random, draft)
    shape = [max(dimension, 1) for dimension in array.shape] or [1]
    shape[int(random.integers(len(shape)))] = int(random.choice(np.array(HUGE, np.uint64)))
    return draft.with_array(*at, shape=tuple(shape)).message()


def _dimensions_that_overflow(draft: Draft, random: np.random.Generator) -> bytes:
    """Their product is 0, or small, in 64 bits."""
    at, _ = _array(random, draft)
    shape = [(2**32, 2**32), (2**63, 2), (2**62, 4, 2**62, 0), (0, 2**63), (2**33, 2**33, 2**33)]
    return draft.with_array(*at, shape=shape[int(random.integers(len(shape)))]).message()


def _another_shape(draft: Draft, random: np.random.Generator) -> bytes:
    """Arrays that would reach into the next one, or leave something over."""
    at, array = _array(random, draft)
    bits = ITEM_BITS[array.code]
    wanted = [n for n in range(200) if -(-n * bits // 64) != -(-len(array.data) // 8)]
    return draft.with_array(*at, shape=(int(random.choice(wanted)),)).message()


def _too_many_dimensions(draft: Draft, random: np.random.Generator) -> bytes:
    at = _pick(random, draft)
    shape = (1,) * int(random.integers(9, 256))
    return draft.with_array(*at, shape=shape).message()


def _wrong_number_of_dimensions(draft: Draft, random: np.random.Generator) -> bytes:
    at, array = _array(random, draft)
    return draft.with_array(*at, dimensions=(len(array.shape) + 1) % 256).message()


def _an_unknown_type(draft: Draft, random: np.random.Generator) -> bytes:
    at, _ = _array(random, draft)
    known = {*range(1, 14), *range(PACKED + 1, PACKED + 17)}
    unknown = [code for code in range(256) if code not in known]
    return draft.with_array(*at, code=int(random.choice(unknown))).message()


def _a_name_twice(draft: Draft, random: np.random.Generator) -> bytes:
    return draft.with_entry(0, name=draft.entries[1].name).message()


def _a_bad_name(draft: Draft, random: np.random.Generator) -> bytes:
    names = [
        b"",
        b"\xff\xfe",
        b"a\x00b",
        b"a\nb",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        "\u202eab".encode(),
    ]
    return draft.with_entry(0, name=names[int(random.integers(len(names)))]).message()


def _a_name_longer_than_the_table(draft: Draft, random: np.random.Generator) -> bytes:
    at = len(draft.entries) - 1
    return draft.with_entry(at, length=int(random.integers(200, 256))).message()


def _wrong_number_of_parts(draft: Draft, random: np.random.Generator) -> bytes:
    at = len(draft.entries) - 1
    right = len(draft.entries[at].parts)
    return draft.with_entry(at, count=int(random.choice([0, right + 1, 255]))).message()


def _wrong_number_of_arrays(draft: Draft, random: np.random.Generator) -> bytes:
    at = len(draft.entries) - 1
    right = len(draft.entries[at].parts[0].arrays)
    wrong = int(random.choice([right - 1, right + 1, 255]))
    return draft.with_part(at, 0, count=wrong).message()


def _something_between(draft: Draft, random: np.random.Generator) -> bytes:
    """Padding that is not zero: behind the table, an array, or packed numbers."""
    message = bytearray(draft.message())
    table = sum(len(entry.told()) for entry in draft.entries)
    free, at = list(range(24 + table, 24 + table + -table % 8)), 24 + table + -table % 8
    for array in draft.arrays():
        end = at + len(array.data)
        at = end + -len(array.data) % 8
        free += range(end, at)
    message[int(random.choice(free))] = int(random.integers(1, 256))
    return sealed(bytes(message))


def _bits_behind_packed_numbers(draft: Draft, random: np.random.Generator) -> bytes:
    data = bytes([0b10001000, 0b11100110])
    return DRAFTS[2].with_array(2, 0, 0, data=data).message()


def _truths_beside_true_and_false(draft: Draft, random: np.random.Generator) -> bytes:
    array = Array(13, (3,), bytes([0, 1, int(random.integers(2, 256))]))
    return DRAFTS[2].with_part(0, 0, arrays=(array,)).message()


def _too_many_arrays(draft: Draft, random: np.random.Generator) -> bytes:
    """Empty ones, which take ten bytes each here and a thousand in memory."""
    return _many_arrays(draft.kind)


@cache
def _many_arrays(kind: int) -> bytes:
    part = Part(0, (Array(FLOAT32, (0,), b""),) * 255).told()
    table = b"".join(bytes([1]) + name + bytes([255]) + part * 255 for name in (b"a", b"b"))
    body = by_hand.filled(table)
    fields = b"\x95HNS", 1, kind, 2, by_hand.HEADER + len(body), len(table), 0
    return sealed(struct.pack("<4sBBHQII", *fields) + body)


def _too_long(draft: Draft, random: np.random.Generator) -> bytes:
    zeros = Array(FLOAT32, (LIMIT // 4,), bytes(LIMIT))
    return draft.with_array(0, 0, 0, code=FLOAT32, shape=zeros.shape, data=zeros.data).message()


KINDS: tuple[Callable[[Draft, np.random.Generator], bytes], ...] = (
    _flipped_bits,
    _cut_short,
    _something_behind,
    _bytes_swapped,
    _noise,
    _cut_short_and_sealed,
    _something_behind_and_sealed,
    _another_magic,
    _another_version,
    _an_unknown_kind,
    _wrong_number_of_entries,
    _huge_total,
    _wrong_length_of_the_table,
    _huge_dimension,
    _dimensions_that_overflow,
    _another_shape,
    _too_many_dimensions,
    _wrong_number_of_dimensions,
    _an_unknown_type,
    _a_name_twice,
    _a_bad_name,
    _a_name_longer_than_the_table,
    _wrong_number_of_parts,
    _wrong_number_of_arrays,
    _something_between,
    _bits_behind_packed_numbers,
    _truths_beside_true_and_false,
    _too_many_arrays,
    _too_long,
)
