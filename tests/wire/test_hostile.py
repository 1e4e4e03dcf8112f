"""What is no message is refused, whatever it is, before anything is made of it."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.wire import by_hand
from tests.wire.hostile import DRAFTS, KINDS, LIMIT, hostile

import hanse
from hanse.core.errors import WireError
from hanse.core.layout import ParameterLayout
from hanse.core.types import vector
from hanse.wire import (
    START,
    Kind,
    declared_length,
    decode,
    encode,
    pack,
    read_broadcast,
    read_update,
    update_message,
)

LAYOUT = ParameterLayout(("a", "b"), ((2,), (1,)), 2)
NONE = torch.zeros(0)
PLACE = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(0, 29 * 16, 29 * 4))
def test_hostile_messages_are_refused(first: int) -> None:
    for seed in range(first, first + 29 * 4):
        what, message = hostile(seed)
        try:
            decode(message, limit=LIMIT)
        except WireError:
            continue
        pytest.fail(f"{what}, seed {seed}")


@pytest.mark.slow
def test_ten_thousand_hostile_messages_take_neither_memory_nor_time() -> None:
    source = str(Path(hanse.__file__).parents[1])
    found: dict[str, Any] = json.loads(
        subprocess.run(
            [sys.executable, "-m", "tests.wire.refuse", "10000"],
            check=True,
            capture_output=True,
            text=True,
            cwd=PLACE,
            env={"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
            timeout=280,
        ).stdout
    )
    assert sum(found["refused"].values()) == 10_000
    assert len(found["refused"]) == len(KINDS)
    assert found["most"] < LIMIT


@given(st.integers(0, 2), st.data())
def test_a_single_flipped_bit_is_noticed(which: int, data: st.DataObject) -> None:
    message = bytearray(DRAFTS[which].message())
    bit = data.draw(st.integers(0, 8 * len(message) - 1))
    message[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WireError):
        decode(message)


@given(st.integers(0, 2), st.data())
def test_what_is_read_has_one_form_only(which: int, data: st.DataObject) -> None:
    """Whatever is written over the table and sealed: it is refused, or it is that message."""
    message = bytearray(DRAFTS[which].message())
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, min(len(message), 110) - 1))] = data.draw(
            st.integers(0, 255)
        )
    written = by_hand.sealed(bytes(message))
    try:
        found = decode(written)
    except WireError:
        return
    assert encode(found) == written


@given(st.binary(max_size=300))
def test_noise_is_no_message(noise: bytes) -> None:
    with pytest.raises(WireError):
        decode(noise)


def test_a_length_is_known_before_the_rest_has_come() -> None:
    written = by_hand.update(delta=(1.0,) * 100).message()
    assert declared_length(written[:START]) == len(written)
    with pytest.raises(WireError, match=f"a message of {len(written)} bytes"):
        declared_length(written[:START], limit=len(written) - 1)
    for start in (written[: START - 1], b"\0" + written[1:START]):
        with pytest.raises(WireError):
            declared_length(start)


def test_a_longer_message_than_the_limit_is_refused() -> None:
    written = by_hand.update(delta=(1.0,) * 100).message()
    assert decode(written, limit=len(written))
    with pytest.raises(WireError, match=f"a message of {len(written)} bytes"):
        decode(written, limit=len(written) - 1)


@pytest.mark.parametrize(
    ("kind", "draft"),
    [(Kind.UPDATE, DRAFTS[1]), (Kind.BROADCAST, DRAFTS[0]), (Kind.UPDATE, DRAFTS[2])],
)
def test_a_message_of_another_kind_is_refused(kind: Kind, draft: by_hand.Draft) -> None:
    with pytest.raises(WireError, match=f"{kind.name} was asked for"):
        decode(draft.message(), kind=kind)
    message = decode(draft.message())
    with pytest.raises(WireError, match="was expected"):
        read_update(message, {}) if kind is Kind.UPDATE else read_broadcast(
            message, LAYOUT, NONE, NONE
        )


UPDATE = DRAFTS[0]
BROADCAST = DRAFTS[1]
ONE = by_hand.number(1.0)
PACKED = by_hand.Array(by_hand.PACKED + 8, (3,), bytes(3))
WHOLE = by_hand.Array(by_hand.INT64, (), bytes(8))
NAN, INF = (struct.pack("<d", value) for value in (math.nan, math.inf))
PRECISE = by_hand.Array(by_hand.FLOAT64, (), bytes(8))


@pytest.mark.parametrize(
    ("draft", "found"),
    [
        (UPDATE.with_entry(0, parts=()), "no vector"),
        (UPDATE.with_part(0, 0, tag=by_hand.TENSOR), "no vector"),
        (UPDATE.with_part(0, 0, arrays=()), "no vector"),
        (UPDATE.with_part(0, 0, arrays=(ONE, ONE)), "no vector"),
        (UPDATE.with_part(0, 0, arrays=(by_hand.floats(1.0), by_hand.floats(1.0))), "no vector"),
        (UPDATE.with_part(0, 0, arrays=(by_hand.floats(1.0), WHOLE)), "no vector"),
        (UPDATE.with_part(0, 0, arrays=(by_hand.floats(1.0), PACKED)), "no vector"),
        (UPDATE.with_part(0, 0, arrays=(by_hand.floats(1.0), PRECISE)), "other numbers"),
        (UPDATE.with_part(0, 0, arrays=(PACKED, ONE)), "other numbers"),
        (
            UPDATE.with_entry(0, parts=(*UPDATE.entries[0].parts, by_hand.Part(77, ()))),
            "part of tag 77",
        ),
        (
            UPDATE.with_entry(0, parts=(*UPDATE.entries[0].parts, by_hand.Part(by_hand.KNOWN, ()))),
            "part of tag 2",
        ),
    ],
)
def test_an_update_of_another_form_is_refused(draft: by_hand.Draft, found: str) -> None:
    with pytest.raises(WireError, match=found):
        read_update(decode(draft.message()), {})


def _facts(at: int, array: by_hand.Array) -> by_hand.Draft:
    arrays = list(BROADCAST.entries[0].parts[0].arrays)
    arrays[at] = array
    return BROADCAST.with_part(0, 0, arrays=tuple(arrays))


@pytest.mark.parametrize(
    ("draft", "found"),
    [
        (BROADCAST.with_entry(0, name=b"facts"), "facts of its round"),
        (BROADCAST.with_entry(0, parts=()), "facts of its round"),
        (BROADCAST.with_part(0, 0, tag=by_hand.TENSOR), "facts of its round"),
        (BROADCAST.with_part(0, 0, arrays=()), "facts of its round"),
        (_facts(0, by_hand.Array(by_hand.INT64, (2,), bytes(16))), "facts of its round"),
        (_facts(0, PACKED), "facts of its round"),
        (_facts(1, by_hand.Array(by_hand.INT64, (1,), bytes(8))), "facts of its round"),
        (_facts(2, ONE), "facts of its round"),
        (_facts(3, by_hand.Array(by_hand.UINT8, (2, 2), bytes(4))), "facts of its round"),
        (_facts(3, by_hand.Array(by_hand.UINT8, (65,), b"x" * 65)), "setting"),
        (_facts(3, by_hand.Array(by_hand.UINT8, (2,), b"x\n")), "setting"),
        (_facts(3, by_hand.Array(by_hand.UINT8, (2,), b"x\xff")), "setting"),
        (_facts(0, by_hand.Array(by_hand.INT64, (3,), b"\xff" * 24)), "of round -1"),
        (
            _facts(2, by_hand.Array(by_hand.FLOAT64, (), NAN)),
            "nan expected",
        ),
        (
            _facts(2, by_hand.Array(by_hand.FLOAT64, (), INF)),
            "inf expected",
        ),
        (BROADCAST.with_entry(1, name=b"weights"), "a broadcast with params"),
        (BROADCAST.with_array(1, 0, 0, shape=(1, 2)), "a broadcast with params"),
        (BROADCAST.with_part(1, 0, arrays=(by_hand.floats(1, 2, 3),)), "a broadcast with params"),
        (BROADCAST.with_entry(2, name=b"batches"), "a broadcast with params"),
        (BROADCAST.with_part(2, 0, arrays=(by_hand.number(1.0),)), "a broadcast with params"),
        (BROADCAST.with_part(3, 0, arrays=(PACKED,)), "'control' is no tensor"),
        (BROADCAST.with_part(3, 0, tag=by_hand.VECTOR), "'control' is no tensor"),
    ],
)
def test_a_broadcast_of_another_form_is_refused(draft: by_hand.Draft, found: str) -> None:
    with pytest.raises(WireError, match=found):
        read_broadcast(decode(draft.message()), LAYOUT, NONE, NONE)


def test_a_pickle_is_no_message() -> None:
    harmful = b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93."
    with pytest.raises(WireError, match="begin with 8004951c"):
        decode(harmful + bytes(100))


def test_a_flipped_bit_of_the_numbers_is_noticed() -> None:
    written = bytearray(encode(update_message({"delta": vector(torch.ones(1, 1000))})))
    written[len(written) // 2] ^= 1
    with pytest.raises(WireError, match="checksum"):
        decode(written)


def test_a_checksum_covers_the_header() -> None:
    written = by_hand.update(delta=(1.0,)).message()
    kind = written[:5] + struct.pack("<B", 1) + written[6:]
    with pytest.raises(WireError, match="checksum"):
        decode(kind)


def test_numbers_are_packed_for_the_way_only_where_they_fit() -> None:
    with pytest.raises(WireError):
        pack(torch.tensor([256]), 8)
