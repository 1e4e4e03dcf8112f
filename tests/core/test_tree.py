"""Sums in one fixed order, whatever order their parts arrive in."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.core.test_vectors import Doubled, Padded, Squared
from torch import Tensor, nn

from hanse.aggregation import Sum, Tree
from hanse.aggregation.tree import sum_rows
from hanse.core.layout import ParameterLayout
from hanse.core.types import ClientContext, RoundContext, Vector, vector

blocks = st.sampled_from([1, 2, 4, 8, 16])


def bracketed(left: str, right: str) -> str:
    return f"({left}{right})"


def rows(count: int) -> Tensor:
    """Numbers of many sizes, whose sum depends on the order."""
    random = np.random.default_rng(count)
    values = random.normal(size=(count, 64)) * 10.0 ** random.integers(-4, 5, (count, 1))
    return torch.from_numpy(values).float()


def in_blocks(values: Tensor, block: int) -> Tensor:
    tree: Tree[Tensor] = Tree(torch.add)
    for number, start in enumerate(range(0, len(values), block)):
        tree.push(number, sum_rows(values[start : start + block]))
    total = tree.total()
    assert total is not None
    return total


@given(st.integers(1, 20).flatmap(lambda n: st.permutations(range(n))))
def test_the_order_of_arrival_does_not_matter(order: list[int]) -> None:
    tree, sorted_tree = Tree(bracketed), Tree(bracketed)
    for number in order:
        tree.push(number, chr(97 + number))
    for number in sorted(order):
        sorted_tree.push(number, chr(97 + number))
    assert tree.total() == sorted_tree.total()


@given(st.lists(st.integers(0, 30), min_size=1, unique=True))
def test_nor_does_it_where_blocks_are_missing_and_none_is_lost(order: list[int]) -> None:
    tree, sorted_tree = Tree(bracketed), Tree(bracketed)
    for number in order:
        tree.push(number, chr(65 + number))
    for number in sorted(order):
        sorted_tree.push(number, chr(65 + number))
    total = tree.total()
    assert total == sorted_tree.total()
    assert total is not None
    assert [c for c in total if c not in "()"] == [chr(65 + number) for number in sorted(order)]


def test_the_tree_pairs_neighbours() -> None:
    tree = Tree(bracketed)
    for number, letter in enumerate("abcdefg"):
        tree.push(number, letter)
    assert tree.total() == "(((ab)(cd))((ef)g))"


def test_nothing_pushed_is_no_total() -> None:
    assert Tree(bracketed).total() is None


def test_only_logarithmically_many_totals_are_pending_in_order() -> None:
    merged: list[str] = []

    def merge(left: str, right: str) -> str:
        merged.append(right)
        return left

    tree = Tree(merge)
    for number in range(1000):
        tree.push(number, "x")
        assert number + 1 - len(merged) <= (number + 1).bit_length()


@given(st.integers(1, 40), blocks)
def test_blocks_of_a_power_of_two_give_the_same_bits(count: int, block: int) -> None:
    values = rows(count)
    assert torch.equal(in_blocks(values, block), in_blocks(values, 1))


@given(st.integers(2, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_whoever_is_missing_blocks_give_the_same_tree(case: tuple[int, set[int]]) -> None:
    count, missing = case
    trees = {block: Tree(bracketed) for block in (1, 2, 4, 8)}
    for block, tree in trees.items():
        for start in range(0, count, block):
            part: Tree[str] = Tree(bracketed)
            for k in range(start, min(start + block, count)):
                if k not in missing:
                    part.push(k - start, chr(65 + k))
            total = part.total()
            if total is not None:
                tree.push(start // block, total)
    assert len({tree.total() for tree in trees.values()}) == 1


@given(st.sets(st.integers(0, 40), min_size=1), blocks)
def test_rows_with_gaps_are_summed_as_that_tree(present: set[int], block: int) -> None:
    values, places = rows(41), np.array(sorted(present))
    alone: Tree[Tensor] = Tree(torch.add)
    together: Tree[Tensor] = Tree(torch.add)
    for place in places.tolist():
        alone.push(place, values[place])
    for start in range(0, 41, block):
        inside = places[(places >= start) & (places < start + block)]
        if len(inside):
            together.push(start // block, sum_rows(values[inside], inside))
    one, other = alone.total(), together.total()
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)


@given(st.integers(1, 40))
def test_a_tree_sums_as_exactly_as_it_can(count: int) -> None:
    # A pairwise sum's error is within log2(n) roundings of the sum of magnitudes (Higham, 1993).
    values = rows(count)
    exact = values.double().sum(0)
    bound = values.double().abs().sum(0) * 2.0**-24 * max(count.bit_length(), 1)
    assert bool(((in_blocks(values, 4).double() - exact).abs() <= bound).all())


def test_sum_rows_leaves_its_rows_alone() -> None:
    values = rows(7)
    before = values.clone()
    sum_rows(values)
    assert torch.equal(values, before)


def a_round(clients: int) -> RoundContext:
    layout = ParameterLayout.of_parameters(nn.Linear(1, 1))
    return RoundContext(1, np.uint64(0), clients, float(clients), clients, "cross-silo", layout)


def context(count: int) -> ClientContext:
    ids = np.arange(count, dtype=np.int64)
    return ClientContext(ids, ids, ids.astype(np.uint64), a_round(count), torch.ones(count))


def test_sums_are_taken_inside_the_innermost_common_linear_space() -> None:
    values = torch.arange(6.0).reshape(2, 3) + 1
    total = Sum()
    own = Doubled(common=False)
    for spaces, kept in (
        ((), ()),
        ((Padded(1), Doubled()), (Padded(1), Doubled())),
        ((Padded(1), own), (Padded(1),)),
        ((Padded(1), own, Doubled()), (Padded(1),)),
        ((Squared(), Doubled()), ()),
    ):
        sent = Vector(values, torch.tensor([1.0, 3.0]), spaces)
        found = total.block(total.contribution({"delta": sent}, context(2)), context(2))["delta"]
        assert found.space == kept
        assert torch.equal(found.lifted().values, sent.lifted().sum(0))


def test_merging_adds_each_vector_by_name() -> None:
    total = Sum()
    one = total.block({"a": vector(torch.ones(2, 3)), "b": vector(torch.ones(2, 1))}, context(2))
    other = total.block({"a": vector(torch.ones(1, 3)), "b": vector(torch.ones(1, 1))}, context(1))
    merged = total.finish(total.merge(one, other), None)
    assert {name: sums.values.tolist() for name, sums in merged.items()} == {
        "a": [3.0, 3.0, 3.0],
        "b": [3.0],
    }
