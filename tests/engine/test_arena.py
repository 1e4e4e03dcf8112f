"""What is written into shared memory is read from it, here and in a fork."""

from __future__ import annotations

import multiprocessing
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.forked import open_files
from torch import Tensor, nn

from hanse.engines.arena import Arena
from hanse.engines.messages import Place, read, write

DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
)


def tensors() -> st.SearchStrategy[Tensor]:
    """Tensors of any shape and type, permuted, sliced or repeated."""

    def make(draw: Any) -> Tensor:  # noqa: ANN401 - Hypothesis' own
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        dtype = draw(st.sampled_from(DTYPES))
        numbers = torch.arange(int(np.prod(shape)) or 1)[: int(np.prod(shape))]
        tensor = (numbers % 2 if dtype is torch.bool else numbers).to(dtype).reshape(shape)
        tensor = tensor.permute(draw(st.permutations(range(len(shape)))))
        if tensor.dim() and draw(st.booleans()):
            tensor = tensor[::2]
        if tensor.dim() and tensor.shape[0] and draw(st.booleans()):
            tensor = tensor[:1].expand(3, *tensor.shape[1:])
        return tensor

    return st.composite(make)()


@given(st.lists(tensors(), max_size=5), st.integers(0, 1000), st.booleans())
def test_tensors_come_back(given: list[Tensor], at: int, copy: bool) -> None:
    arena = Arena()
    place = write(given, arena, at)
    found = read(arena, place, copy=copy)
    assert len(found) == len(given)
    for one, other in zip(given, found, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert torch.equal(one, other)
    arena.close()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 3, 4),
        torch.zeros(2, 3, 4).permute(2, 0, 1),
        torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.zeros(1, 3).expand(2, 3),
    ],
    ids=lambda tensor: str(tensor.stride()),
)
def test_kernels_find_the_strides_and_the_alignment_that_they_would_have(tensor: Tensor) -> None:
    arena = Arena()
    (found,) = read(arena, write([tensor], arena, 7), copy=False)
    assert found.stride() == tensor.stride()
    assert found.data_ptr() % 64 == 0


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint64).reshape(3, 4)[:, ::2],
        np.zeros((0, 3)),
        np.array(7, dtype=np.uint64),
        np.array([("a", 1)], dtype=[("name", "U3"), ("number", "<i4")]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("copy", [True, False])
def test_arrays_come_back(array: np.ndarray[Any, Any], copy: bool) -> None:
    arena = Arena()
    (found,) = read(arena, write([array], arena), copy=copy)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert (found == array).all()


def test_whatever_else_comes_back() -> None:
    arena = Arena()
    value = {
        "parameter": nn.Parameter(torch.ones(2)),
        "sparse": torch.eye(3).to_sparse(),
        "objects": np.array([None, "x"], dtype=object),
        "ordered": OrderedDict(a=1),
        "set": frozenset({1, 2}),
        "number": np.uint64(7),
        "dtype": torch.float64,
    }
    found = read(arena, write(value, arena), copy=True)
    assert torch.equal(found.pop("sparse").to_dense(), torch.eye(3))
    assert found["objects"].tolist() == [None, "x"]
    assert isinstance(found["parameter"], nn.Parameter)
    for name in ("ordered", "set", "number", "dtype"):
        assert found[name] == value[name]


def test_a_tensor_that_is_met_twice_is_written_once() -> None:
    arena, tensor = Arena(), torch.zeros(1000)
    once, twice = write([tensor], arena), write([tensor, tensor], arena)
    assert twice.at == once.at
    place = write([torch.zeros(1).expand(1 << 40)], arena)
    assert place.at < 100
    assert read(arena, place, copy=False)[0].shape == (1 << 40,)


def test_a_view_sees_the_next_writing_and_a_copy_does_not() -> None:
    arena = Arena()
    place = write([torch.zeros(3), np.zeros(3)], arena)
    views, copies = read(arena, place, copy=False), read(arena, place, copy=True)
    write([torch.ones(3), np.ones(3)], arena)
    assert all(bool((view == 1).all()) for view in views)
    assert all(bool((copy == 0).all()) for copy in copies)


def test_an_arena_that_grows_keeps_what_is_in_it_and_what_is_looked_at() -> None:
    arena = Arena()
    first = write([torch.arange(10)], arena)
    (view,) = read(arena, first, copy=False)
    second = write([torch.arange(1_000_000)], arena, first.end)
    assert torch.equal(read(arena, first, copy=False)[0], torch.arange(10))
    assert torch.equal(read(arena, second, copy=False)[0], torch.arange(1_000_000))
    arena.close()
    assert torch.equal(view, torch.arange(10))


def test_both_sides_of_a_fork_write_read_and_grow() -> None:
    files = open_files()
    arena, context = Arena(), multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def answer() -> None:
        place = Place(*theirs.recv())
        (numbers,) = read(arena, place, copy=False)
        theirs.send(write([numbers * 2], arena, place.end))
        place = Place(*theirs.recv())
        theirs.send(write([read(arena, place, copy=False)[0] + 1], arena, place.end))

    process = context.Process(target=answer)
    process.start()
    for size, factor, more in ((100_000, 2, 0), (3_000_000, 1, 1)):
        numbers = torch.arange(size)
        ours.send(write([numbers], arena))
        assert torch.equal(read(arena, Place(*ours.recv()), copy=True)[0], numbers * factor + more)
    process.join()
    process.close()
    arena.close()
    ours.close()
    theirs.close()
    assert open_files() == files
