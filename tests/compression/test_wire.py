"""Indices in few bits, and compressed vectors as messages: exact, and counted to the byte."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compression.cases import COLUMNS, TABLE, entered, rows

from hanse.compression import READERS, Coordinates, Grid, Rotation, Support, TopK
from hanse.compression.indices import (
    decode_indices,
    encode_indices,
    index_bytes,
    rice_parameter,
)
from hanse.core.errors import WireError
from hanse.core.types import Vector, vector
from hanse.wire import (
    Entry,
    Kind,
    Message,
    Packed,
    Part,
    Tag,
    decode,
    encode,
    pack,
    packed_length,
    read_update,
    update_lengths,
    update_message,
    vector_bytes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.wire import Array

every = pytest.mark.parametrize("name", TABLE)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


# ------------------------------------------------------------------------------- messages
@every
@every_dtype
def test_a_message_is_as_long_as_counted_and_gives_the_same_bits(
    name: str, dtype: torch.dtype
) -> None:
    sent = entered(TABLE[name], rows(4, dtype=dtype)).scaled(
        torch.tensor([1.0, 0.5, 3.0, 1e-3], dtype=dtype)
    )
    update = {"delta": sent, "weight": vector(torch.ones(4, 1, dtype=dtype))}
    counted, alone = update_lengths(update), vector_bytes(sent)
    for row in range(4):
        message = update_message(update, row)
        data = encode(message)
        assert len(data) == counted[row]
        bare = sum(
            array.data.numel() if isinstance(array, Packed) else array.nbytes
            for part in message.entries[0].parts
            for array in part.arrays
        )
        assert bare == alone[row]
        back = read_update(decode(data, kind=Kind.UPDATE), READERS)["delta"]
        assert back.values.dtype is dtype
        assert torch.equal(back.values[0], sent.values[row])
        assert torch.equal(back.lifted()[0], sent.lifted()[row])
        assert len(encode(update_message({"delta": back}))) == update_lengths({"delta": back})[0]


@pytest.mark.parametrize("bits", range(1, 17))
def test_numbers_take_their_bits(bits: int) -> None:
    sent = entered(TABLE[f"bits-{bits}"], rows(1, dtype=torch.float32))
    bare = int(vector_bytes(sent)[0])
    assert bare == math.ceil(COLUMNS * bits / 8) + 4 + 4 + 8  # scale, step, and the bits


def test_only_values_travel_of_random_coordinates() -> None:
    few, many = (entered(TABLE["random"], rows(1, columns=n)) for n in (2_000, 200_000))
    assert int(vector_bytes(few)[0]) - 8 * 200 == int(vector_bytes(many)[0]) - 8 * 20_000


# ------------------------------------------------------------------------------- indices
def drawn(count: int, size: int, seed: int) -> NDArray[np.int64]:
    chosen = np.random.default_rng(seed).choice(size, count, replace=False)
    return np.sort(chosen).astype(np.int64)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1), st.integers(0, 2**32), st.booleans())
def test_indices_come_back_and_are_counted(size: int, part: float, seed: int, tail: bool) -> None:
    count = round(part * size)
    chosen = drawn(count, size, seed)
    if tail:  # all at one end, which suits the parameter least
        chosen = np.arange(size - count, size)
    data = encode_indices(chosen, size)
    assert len(data) == int(index_bytes(chosen[None], size)[0])
    found, used = decode_indices(data + b"\xff\xff", count, size)
    assert used == len(data)
    assert np.array_equal(found, chosen)


def test_the_shorter_of_bitmap_and_gaps_is_taken() -> None:
    size = 8000
    for count in (1, 10, 80, 800, 3000, 4000, 6000, 8000):
        chosen = drawn(count, size, count)
        bits = rice_parameter(count, size)
        gaps = np.diff(chosen, prepend=-1) - 1
        coded = math.ceil(count * bits / 8) + math.ceil((int((gaps >> bits).sum()) + count) / 8)
        data = encode_indices(chosen, size)
        assert len(data) == 1 + min(coded, size // 8)
        assert data[0] == (0 if size // 8 <= coded else 1)


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.03, 0.1, 0.3])
def test_gaps_take_little_more_than_there_is_to_know(fraction: float) -> None:
    size = 100_000
    count = int(fraction * size)
    entropy = math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)
    least = entropy / math.log(2) / 8
    found = len(encode_indices(drawn(count, size, 1), size))
    assert least <= found < 1.04 * least + 8


def test_no_parameter_would_do_much_better() -> None:
    size, count = 50_000, 700
    gaps = np.diff(drawn(count, size, 2), prepend=-1) - 1
    costs = [count * (r + 1) + int((gaps >> r).sum()) for r in range(17)]
    assert costs[rice_parameter(count, size)] <= 1.03 * min(costs)


def test_of_nothing_no_indices_are_sent() -> None:
    coded = encode_indices(np.zeros(0, np.int64), 0)
    assert decode_indices(coded, 0, 0)[0].tolist() == []
    assert index_bytes(np.zeros((3, 0), np.int64), 0).tolist() == [len(coded)] * 3


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 80), st.integers(0, 300))
def test_any_bytes_are_indices_in_order_or_refused(data: bytes, count: int, size: int) -> None:
    try:
        found, used = decode_indices(data, min(count, size), size)
    except WireError:
        return
    assert used <= len(data)
    assert len(found) == min(count, size)
    assert bool((np.diff(found) > 0).all())
    assert not len(found) or 0 <= found[0] <= found[-1] < size


# ---------------------------------------------------------------- what somebody else has made
def number(value: int) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.int64)


KEY = torch.from_numpy(np.array(7, np.uint64))
AMOUNTS = torch.tensor([2, 10])
COED = torch.from_numpy(np.frombuffer(encode_indices(np.array([1, 5]), 10), np.uint8).copy())
STEP = torch.ones(1)
BAD = [
    (Tag.SUPPORT, (COED,), 2),
    (Tag.SUPPORT, (COED[:-1], AMOUNTS), 2),
    (Tag.SUPPORT, (torch.cat([COED, COED]), AMOUNTS), 2),
    (Tag.SUPPORT, (COED, torch.tensor([2, 1])), 2),
    (Tag.SUPPORT, (COED, torch.tensor([2, 1 << 40])), 2),
    (Tag.SUPPORT, (COED, torch.tensor([2, -10])), 2),
    (Tag.SUPPORT, (COED, torch.tensor([2])), 2),
    (Tag.SUPPORT, (COED.to(torch.int8), AMOUNTS), 2),
    (Tag.SUPPORT, (COED[:0], torch.tensor([0, 0])), 0),
    (Tag.SUPPORT, (COED, AMOUNTS), 3),
    (Tag.COORDINATES, (KEY, AMOUNTS, torch.tensor(1.0).double()), 3),
    (Tag.COORDINATES, (KEY, torch.tensor([20, 10]), torch.tensor(1.0).double()), 2),
    (Tag.COORDINATES, (KEY, AMOUNTS, torch.tensor(math.inf).double()), 2),
    (Tag.COORDINATES, (KEY, AMOUNTS, torch.tensor([1.0]).double()), 2),
    (Tag.COORDINATES, (KEY.reshape(1), AMOUNTS, torch.tensor(1.0).double()), 2),
    (Tag.COORDINATES, (KEY, AMOUNTS), 2),
    (Tag.GRID, (), 2),
    (Tag.GRID, (STEP,), 2),
    (Tag.GRID, (STEP, number(17)), 2),
    (Tag.GRID, (STEP, number(0)), 2),
    (Tag.GRID, (STEP.to(torch.int64), number(8)), 2),
    (Tag.GRID, (torch.tensor([math.nan]), number(8)), 2),
    (Tag.GRID, (torch.ones(2), number(8)), 2),
    (Tag.GRID, (torch.ones(2), number(8), torch.tensor([1, 0])), 2),
    (Tag.GRID, (torch.ones(2), number(8), torch.tensor([0, 1, 9])), 2),
    (Tag.GRID, (torch.ones(2), number(8), torch.tensor([1 << 40, 1])), 2),
    (Tag.GRID, (torch.ones(2), number(8), torch.tensor([0, 6, 9])), 10),
    (Tag.GRID, (torch.ones(2), number(8), torch.tensor([3, 6])), 10),
    (Tag.GRID, (torch.ones(1, 2), number(8)), 2),
    (Tag.GRID, (STEP, number(8), AMOUNTS, AMOUNTS), 2),
    (Tag.NARROW, (), 2),
    (Tag.NARROW, (torch.zeros(0),), 2),
    (Tag.NARROW, (torch.zeros(1, dtype=torch.float16),), 2),
    (Tag.ROTATION, (KEY, number(10), number(12)), 2),
    (Tag.ROTATION, (KEY, number(-1), number(16)), 2),
    (Tag.ROTATION, (KEY, number(10), number(0)), 2),
    (Tag.ROTATION, (KEY, number(10)), 2),
    (Tag.ROTATION, (KEY, number(10), number(16)), 32),
]


@pytest.mark.parametrize(("tag", "arrays", "columns"), BAD)
def test_spaces_that_no_compressor_makes_are_refused(
    tag: Tag, arrays: tuple[torch.Tensor, ...], columns: int
) -> None:
    with pytest.raises(WireError):
        READERS[tag](arrays, columns)


def test_the_good_ones_among_them_are_read() -> None:
    support = READERS[Tag.SUPPORT]((COED, AMOUNTS), 2)
    assert isinstance(support, Support)
    assert support.chosen.tolist() == [[1, 5]]
    grid = READERS[Tag.GRID]((torch.ones(2), number(8), torch.tensor([0, 6, 9])), 9)
    assert isinstance(grid, Grid)
    assert grid.runs == (6, 3)
    assert isinstance(READERS[Tag.ROTATION]((KEY, number(10), number(16)), 16), Rotation)
    amounts = (KEY, AMOUNTS, torch.tensor(1.0).double())
    assert isinstance(READERS[Tag.COORDINATES](amounts, 2), Coordinates)


@pytest.mark.parametrize("name", ["top", "random", "bits-runs", "rotate-2", "top-rotate-3"])
@pytest.mark.parametrize("more", [-1, 1, 16])
def test_more_or_fewer_values_than_their_spaces_hold_are_refused(name: str, more: int) -> None:
    message = update_message({"delta": entered(TABLE[name], rows(1))})
    (entry,) = message.entries
    values, scale = entry.parts[0].arrays
    columns = values.shape[0] + more
    other: Array = torch.ones(columns, dtype=torch.float64)
    if isinstance(values, Packed):
        other = Packed(
            torch.zeros(packed_length(columns, values.bits)).byte(), values.bits, (columns,)
        )
    parts = (Part(Tag.VECTOR, (other, scale)), *entry.parts[1:])
    with pytest.raises(WireError):
        read_update(Message(Kind.UPDATE, (Entry("delta", parts),)), READERS)
    assert read_update(message, READERS)["delta"].lifted().shape == (1, COLUMNS)


def test_values_that_do_not_belong_to_their_grid_are_refused() -> None:
    grid = Grid(4, torch.ones(1, 1))
    assert grid.unpack(pack(torch.tensor([0, 14]), 4)).tolist() == [-7, 7]
    for other in (torch.ones(2), pack(torch.tensor([15]), 4), pack(torch.tensor([1]), 5)):
        with pytest.raises(WireError):
            grid.unpack(other)


def test_a_row_of_a_block_is_sent_with_its_own_indices() -> None:
    values = torch.zeros(2, 100)
    values[0, 3], values[1, 99] = 1.0, 1.0
    sent = entered(TopK(count=1), values)
    for row, place in ((0, 3), (1, 99)):
        back = read_update(update_message({"delta": sent}, row), READERS)["delta"]
        assert int(back.lifted().argmax()) == place
    assert isinstance(sent, Vector)
