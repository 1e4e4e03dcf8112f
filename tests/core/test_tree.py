"""Sums in one fixed order, whatever order their parts arrive in."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.core.test_vectors import Doubled, Padded, Squared
from torch import nn

from hanse.aggregation import Sum, Tree
from hanse.core.layout import ParameterLayout
from hanse.core.types import ClientContext, RoundContext, Vector, vector


def bracketed(left: str, right: str) -> str:
    return f"({left}{right})"


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


@given(
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))),
    st.integers(0, 4),
)
def test_subtrees_may_be_summed_elsewhere(case: tuple[int, set[int]], level: int) -> None:
    count, missing = case
    present = [k for k in range(count) if k not in missing]
    alone, together = Tree(bracketed), Tree(bracketed)
    for k in present:
        alone.push(k, chr(65 + k))
    for start in range(0, count, 1 << level):
        part: Tree[str] = Tree(bracketed)
        for k in present:
            if start <= k < start + (1 << level):
                part.push(k, chr(65 + k))
        total = part.total()
        if total is not None:
            together.push(start >> level, total, level=level)
    assert together.total() == alone.total()


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


def test_a_sum_leaves_what_is_sent_alone() -> None:
    sent = vector(torch.ones(3, 4))
    block = Sum().block({"delta": sent}, context(3))
    Sum().merge(block, Sum().block({"delta": sent}, context(3)))
    assert torch.equal(sent.values, torch.ones(3, 4))


def test_merging_adds_each_vector_by_name() -> None:
    total = Sum()
    one = total.block({"a": vector(torch.ones(2, 3)), "b": vector(torch.ones(2, 1))}, context(2))
    other = total.block({"a": vector(torch.ones(1, 3)), "b": vector(torch.ones(1, 1))}, context(1))
    merged = total.finish(total.merge(one, other), None)
    assert {name: sums.values.tolist() for name, sums in merged.items()} == {
        "a": [3.0, 3.0, 3.0],
        "b": [3.0],
    }
