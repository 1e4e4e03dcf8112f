"""Layouts: named tensors as columns of one vector, and back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hanse.core.errors import ModelError
from hanse.core.layout import ParameterLayout, check_patterns

shapes = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=6)


class Bag(nn.Module):
    """Parameters of the given shapes, named p0, p1, …, and a buffer beside each."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        for number, shape in enumerate(shapes):
            self.register_parameter(f"p{number}", nn.Parameter(torch.randn(shape)))
            self.register_buffer(f"b{number}", torch.randn(shape))


@given(shapes, st.sets(st.integers(0, 5)))
def test_views_undo_flatten(shapes: list[tuple[int, ...]], local: set[int]) -> None:
    bag = Bag(shapes)
    layout = ParameterLayout.of_parameters(bag, [f"p{number}" for number in local])
    named = dict(bag.named_parameters())
    flat = layout.flatten(named)
    assert flat.shape == (layout.size,)
    for name, view in zip(layout.names, layout.views(flat), strict=True):
        assert torch.equal(view, named[name])
    again = dict(zip(layout.names, layout.views(flat), strict=True))
    assert torch.equal(layout.flatten(again), flat)


@given(shapes, st.integers(1, 3))
def test_views_of_rows_are_the_rows_of_views_and_share_memory(
    shapes: list[tuple[int, ...]], clients: int
) -> None:
    layout = ParameterLayout.of_parameters(Bag(shapes))
    flat = torch.randn(clients, layout.size)
    for number, together in enumerate(layout.views(flat)):
        assert together.shape == (clients, *layout.shapes[number])
        for row in range(clients):
            assert torch.equal(together[row], layout.views(flat[row])[number])
        together.fill_(number)
    expected = [torch.full((size,), float(n)) for n, size in enumerate(layout.sizes)]
    assert torch.equal(flat, torch.cat([torch.zeros(0), *expected]).expand(clients, -1))


@given(shapes, st.sets(st.integers(0, 5)))
def test_local_columns_are_the_last_ones(shapes: list[tuple[int, ...]], local: set[int]) -> None:
    names = [f"p{number}" for number in sorted(local) if number < len(shapes)]
    layout = ParameterLayout.of_parameters(Bag(shapes), names)
    kept = torch.zeros(layout.size, dtype=torch.bool)
    for name in names:
        kept |= layout.columns(name)
    assert torch.equal(kept.nonzero().squeeze(1), torch.arange(layout.shared, layout.size))
    assert layout.local == sum(math.prod(shapes[int(name[1:])]) for name in names)
    within = [n for n in layout.names if n not in names]
    assert within == sorted(within) == list(layout.names[: len(within)])  # the model's order


@given(shapes)
def test_the_columns_of_all_tensors_cover_the_vector_once(shapes: list[tuple[int, ...]]) -> None:
    layout = ParameterLayout.of_parameters(Bag(shapes))
    times = torch.zeros(layout.size, dtype=torch.int64)
    for name in layout.names:
        times += layout.columns(name)
    assert torch.equal(times, torch.ones_like(times))
    assert torch.equal(layout.columns("*"), times.bool())
    assert not layout.columns("q*").any()
    assert list(layout.offsets) == [sum(layout.sizes[:n]) for n in range(len(shapes))]


def test_frozen_parameters_are_left_out_and_tied_ones_counted_once() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    last = nn.Linear(3, 2)
    second.weight = first.weight
    last.bias.requires_grad_(False)
    module = nn.Sequential(first, second, last)
    assert ParameterLayout.of_parameters(module).names == ("0.weight", "2.weight")


def test_only_saved_floating_point_buffers_are_columns() -> None:
    module = nn.BatchNorm1d(3)
    module.register_buffer("scratch", torch.zeros(3), persistent=False)
    layout = ParameterLayout.of_buffers(module, local=["running_mean"])
    assert layout.names == ("running_var", "running_mean")  # not num_batches_tracked
    assert (layout.shared, layout.local) == (3, 3)


def test_flatten_copies_and_detaches() -> None:
    weight = torch.ones(3, requires_grad=True)
    flat = ParameterLayout(("w",), ((3,),), 3).flatten({"w": weight})
    flat.zero_()
    assert torch.equal(weight, torch.ones(3))
    assert not flat.requires_grad


def test_a_pattern_that_matches_nothing_is_refused_with_a_suggestion() -> None:
    check_patterns(nn.BatchNorm1d(3), ["weight", "running_*"])
    with pytest.raises(ModelError, match="did you mean 'running_mean'"):
        check_patterns(nn.BatchNorm1d(3), ["weight", "running_meen"])


@pytest.mark.parametrize("pattern", ["a.*", "b.*", "b.weight"])
def test_a_tied_tensor_is_local_by_any_of_its_names(pattern: str) -> None:
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 2)})
    module["b"].weight = module["a"].weight
    check_patterns(module, [pattern])
    layout = ParameterLayout.of_parameters(module, [pattern])
    local = layout.names[-1:] if pattern == "b.weight" else layout.names[-2:]
    assert "a.weight" in local
    assert layout.local == (9 if pattern == "b.weight" else 12)
