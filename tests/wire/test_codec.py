"""Messages as bytes and back: nothing is lost, and the bytes are those of the description."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.wire import by_hand
from torch import Tensor

from hanse.core.errors import StrategyError, WireError
from hanse.core.layout import ParameterLayout
from hanse.core.types import Broadcast, RoundContext, Vector, vector
from hanse.wire import (
    START,
    Array,
    Entry,
    Kind,
    Message,
    Packed,
    Part,
    Size,
    Tag,
    alike,
    broadcast_message,
    declared_length,
    decode,
    encode,
    length,
    pack,
    read_broadcast,
    read_update,
    unpack,
    update_lengths,
    update_message,
)
from hanse.wire.message import DTYPES

LAYOUT = ParameterLayout(("a", "b"), ((2,), (1,)), 2)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """Any bits of any type and shape, or packed integers."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        bits = draw(st.integers(1, 16))
        return pack(torch.from_numpy(np.asarray(random.integers(0, 2**bits, shape))), bits)
    dtype = draw(st.sampled_from(list(DTYPES.values())))
    raw = random.bytes(math.prod(shape) * dtype.itemsize)
    data = torch.tensor(list(raw), dtype=torch.uint8)
    return (data & 1 if dtype is torch.bool else data).view(dtype).view(shape)


parts = st.builds(Part, st.integers(0, 0xFFFF), st.lists(arrays(), max_size=3).map(tuple))
names = st.text(min_size=1, max_size=20).filter(str.isprintable)
messages = st.builds(
    Message,
    st.sampled_from(Kind),
    st.dictionaries(names, st.lists(parts, max_size=3).map(tuple), max_size=4).map(
        lambda found: tuple(Entry(name, made) for name, made in found.items())
    ),
)


def flat(message: Message) -> list[object]:
    """All of a message in a form that compares bit by bit."""
    found: list[object] = [message.kind]
    for entry in message.entries:
        found.append(entry.name)
        for part in entry.parts:
            found.append(part.tag)
            for array in part.arrays:
                if isinstance(array, Packed):
                    found.append((array.bits, array.shape, array.data.tolist()))
                else:
                    data = array.contiguous().view(-1).view(torch.uint8)
                    found.append((array.dtype, tuple(array.shape), data.tolist()))
    return found


@given(messages, st.booleans())
def test_every_message_comes_back_bit_for_bit(message: Message, writable: bool) -> None:
    written = encode(message)
    assert len(written) == length(message) == declared_length(written[:START])
    found = decode(bytearray(written) if writable else written, kind=message.kind)
    assert flat(found) == flat(message)
    assert encode(found) == written


def test_nan_payloads_and_negative_zero_survive() -> None:
    bits = torch.tensor([0x7FC12345, -0x80000000, 0x7F812345, -0x3FEDCB], dtype=torch.int32)
    sent = Vector(bits.view(torch.float32).unsqueeze(0), bits[2:3].view(torch.float32))
    found = read_update(decode(encode(update_message({"delta": sent}))), {})["delta"]
    assert torch.equal(found.values.view(torch.int32), bits.unsqueeze(0))
    assert torch.equal(found.scale.view(torch.int32), bits[2:3])


@pytest.mark.parametrize("draft", [by_hand.update(delta=(1.0, -2.5, 3.0), weight=(7.0,)),
                                   by_hand.broadcast((1.0, 2.0), control=(3.0, 4.0)),
                                   by_hand.opaque()])  # fmt: skip
def test_the_codec_reads_and_writes_what_the_description_says(draft: by_hand.Draft) -> None:
    written = draft.message()
    assert encode(decode(written)) == written


def test_an_update_of_the_description_is_the_update_it_describes() -> None:
    found = read_update(decode(by_hand.update(delta=(1.0, -2.5), w=(7.0,)).message()), {})
    assert list(found) == ["delta", "w"]
    assert found["delta"].values.tolist() == [[1.0, -2.5]]
    assert found["w"].scale.tolist() == [1.0]
    packed = decode(by_hand.opaque().message()).entries[2].parts[0].arrays[0]
    assert isinstance(packed, Packed)
    assert unpack(packed).tolist() == [0, 1, 2, 3, 6]


def test_a_broadcast_of_the_description_is_the_broadcast_it_describes() -> None:
    message = decode(by_hand.broadcast((1.0, 2.0), control=(3.0, 4.0)).message())
    found = read_broadcast(message, LAYOUT, torch.tensor([9.0]), torch.tensor([8.0]))
    assert found.params.tolist() == [1.0, 2.0, 9.0]
    assert found.buffers.tolist() == [8.0]
    assert found.extra["control"].tolist() == [3.0, 4.0]
    assert found.round == RoundContext(7, np.uint64(11), 9, 2.5, 2, "cross-silo", LAYOUT)


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**31), st.floats(0, 1e9))
def test_a_broadcast_comes_back(key: int, number: int, expected: float) -> None:
    round_ = RoundContext(number, np.uint64(key), 5, expected, 3, "cross-device", LAYOUT)
    params, buffers = torch.tensor([0.5, 1.5, 2.5]), torch.tensor([4.0, 5.0, 6.0])
    sent = Broadcast(params, buffers, {"mu": torch.tensor(0.1), "m": torch.zeros(2)}, round_)
    message = broadcast_message(sent, shared_buffers=2)
    written = encode(message)
    names = {"params": 2, "buffers": 2, "mu": -1, "m": 2}
    assert len(written) == length(message) == by_hand.broadcast_length(names)
    found = read_broadcast(decode(written), LAYOUT, params[2:], buffers[2:])
    assert found.round == round_
    for one, other in ((found.params, params), (found.buffers, buffers)):
        assert torch.equal(one, other)
    assert {k: v.tolist() for k, v in found.extra.items()} == {
        "mu": pytest.approx(0.1),
        "m": [0, 0],
    }


class Halves(NamedTuple):
    """A space whose numbers travel in half precision; only the first of `size` are kept."""

    size: int
    factor: Tensor
    linear: bool = True
    isometric: bool = False
    common: bool = False
    tag: int = Tag.OWN + 3
    keeps: bool = True

    def lift(self, values: Tensor) -> Tensor:
        kept = values * self.factor.unsqueeze(1)
        return torch.nn.functional.pad(kept, (0, self.size - values.shape[1]))

    def arrays(self, row: int) -> tuple[Array, ...]:
        return torch.tensor(self.size), self.factor[row]

    def sizes(self) -> tuple[Size, ...]:
        return alike(*self.arrays(0))

    def pack(self, values: Tensor) -> Array:
        return values.half()

    def packed_size(self, columns: int) -> Size:
        return Size(1, 2 * columns)

    def unpack(self, packed: Array) -> Tensor:
        assert isinstance(packed, Tensor)
        return packed.float()

    @classmethod
    def read(cls, arrays: tuple[Array, ...], columns: int) -> Halves:
        size, factor = arrays
        assert isinstance(size, Tensor)
        assert isinstance(factor, Tensor)
        assert columns <= int(size)
        return cls(int(size), factor.reshape(1))


def test_a_space_travels_as_it_says() -> None:
    values, factor = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, 2.0])
    sent = Vector(values, torch.tensor([1.0, 10.0]), (Halves(5, factor),))
    for row, length_of in enumerate(update_lengths({"delta": sent})):
        written = encode(update_message({"delta": sent}, row))
        assert len(written) == length_of
        found = read_update(decode(written), {Tag.OWN + 3: Halves.read})["delta"]
        assert torch.equal(found.lifted(), sent.lifted()[row : row + 1])
        assert found.values.dtype == torch.float32
        with pytest.raises(WireError, match=f"part of tag {Tag.OWN + 3}"):
            read_update(decode(written), {})


@dataclass(frozen=True)
class Unsaid:
    """A space that does not say what is sent of it."""

    common: bool
    linear = True
    isometric = True

    def lift(self, values: Tensor) -> Tensor:
        return values


def test_a_space_of_a_clients_own_must_say_what_is_sent_of_it() -> None:
    known = vector(torch.zeros(2, 3))._replace(space=(Unsaid(common=True),))
    written = encode(update_message({"delta": known}))
    assert decode(written).entries[0].parts[1] == Part(Tag.KNOWN, ())
    assert update_lengths({"delta": known}).tolist() == [len(written)] * 2
    own = known._replace(space=(Unsaid(common=False),))
    for write in (update_message, update_lengths):
        with pytest.raises(StrategyError, match="of each client's own"):
            write({"delta": own})


def test_what_stays_with_a_client_is_not_in_a_broadcast() -> None:
    round_ = RoundContext(1, np.uint64(1), 2, 2.0, 2, "cross-silo", LAYOUT)
    secret = torch.tensor([1.0, 2.0, 1234.5])
    written = encode(broadcast_message(Broadcast(secret, secret, {}, round_), 2))
    assert struct.pack("<f", 1.0) in written
    assert struct.pack("<f", 1234.5) not in written


def test_decoded_tensors_are_views_of_the_bytes() -> None:
    received = bytearray(encode(update_message({"delta": vector(torch.zeros(1, 3))})))
    values = read_update(decode(received), {})["delta"].values
    where = len(received) - 16 - 8  # three floats and padding, then the scale
    received[where : where + 4] = struct.pack("<f", 5.0)
    assert values.tolist() == [[5.0, 0.0, 0.0]]


def test_bytes_at_an_odd_place_are_read_too() -> None:
    written = encode(update_message({"delta": vector(torch.arange(3.0).double().unsqueeze(0))}))
    for shift in range(1, 9):
        view = memoryview(bytes(shift) + written)[shift:]
        values = read_update(decode(view), {})["delta"].values
        assert values.tolist() == [[0.0, 1.0, 2.0]]
        assert values.data_ptr() % 8 == 0


@given(st.integers(1, 16), st.integers(0, 40), st.integers(0, 2**32))
def test_packed_integers_lie_bit_behind_bit(bits: int, count: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, 2**bits, count)
    packed = pack(torch.from_numpy(numbers), bits)
    whole = sum(int(value) << bits * place for place, value in enumerate(numbers))
    assert bytes(packed.data.tolist()) == whole.to_bytes(-(-count * bits // 8), "little")
    assert unpack(packed).tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("values", "bits", "found"),
    [
        (torch.tensor([4]), 2, "from 4 to 4 in 2 bits"),
        (torch.tensor([-1, 1]), 8, "from -1 to 1"),
        (torch.tensor([1]), 17, "17 bits"),
        (torch.tensor([1]), 0, "0 bits"),
        (torch.tensor([1.5]), 4, "float32"),
    ],
)
def test_what_cannot_be_packed_is_refused(values: torch.Tensor, bits: int, found: str) -> None:
    with pytest.raises(WireError, match=found):
        pack(values, bits)


def one(name: str, *arrays: Array, parts: int = 1, tag: int = 0) -> Message:
    return Message(Kind.TENSORS, (Entry(name, (Part(tag, arrays),) * parts),))


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (one("", torch.zeros(1)), "named ''"),
        (one("ä" * 128, torch.zeros(1)), "named 'äää"),
        (one("a\nb", torch.zeros(1)), "named"),
        (Message(Kind.TENSORS, one("a").entries * 2), "'a', twice"),
        (one("a", torch.zeros(1), parts=256), "256 parts"),
        (one("a", *[torch.zeros(0)] * 256), "256 arrays"),
        (one("a", tag=1 << 16), "65536 as the tag"),
        (one("a", torch.zeros((1,) * 9)), "9 dimensions"),
        (one("a", torch.zeros(1, dtype=torch.complex128)), "complex128"),
        (one("a", torch.zeros(1, dtype=torch.complex64)), "complex64"),
        (one("a", torch.zeros(0, 1 << 49)), "numbers in an array"),
        (
            Message(Kind.TENSORS, tuple(
                Entry(str(k), (Part(0, (torch.zeros(0),) * 250),)) for k in range(33)
            )),
            "8250 arrays",
        ),
        (
            Message(Kind.TENSORS, tuple(Entry(str(k), (Part(0, ()),) * 250) for k in range(33))),
            "8250 arrays",
        ),
    ],
)  # fmt: skip
def test_what_has_no_place_in_a_message_is_not_written(message: Message, found: str) -> None:
    for write in (encode, length):
        with pytest.raises(WireError, match=found):
            write(message)


def test_lengths_of_a_block_are_those_of_its_messages() -> None:
    update = {
        "delta": vector(torch.randn(5, 13)).scaled(torch.arange(5.0)),
        "weight": vector(torch.ones(5, 1, dtype=torch.float64)),
    }
    written = [len(encode(update_message(update, row))) for row in range(5)]
    assert update_lengths(update).tolist() == written
    assert update_lengths({"delta": update["delta"]})[0] == by_hand.update_length({"delta": 13})
