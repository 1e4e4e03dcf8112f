"""Canaries: their directions, their coins, and how they come into a federation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.runs.small_runs import federation

from hanse.auditing.canaries import Canaries, CanaryClients, Without, evidence
from hanse.data import LazyClients, select_clients
from hanse.selection import Full, Poisson, Uniform

sizes = st.integers(2, 80).flatmap(
    lambda columns: st.tuples(st.just(columns), st.integers(1, columns - 1))
)


@given(sizes, st.integers(0, 2**63), st.integers(0, 10**6))
def test_directions_are_orthonormal_and_their_products_are_what_they_are(
    size: tuple[int, int], seed: int, first: int
) -> None:
    columns, count = size
    canaries = Canaries(first, count, seed)
    found = canaries.directions(canaries.ids, columns)
    assert torch.allclose(found @ found.T, torch.eye(count, dtype=torch.float64), atol=1e-12)
    vector = torch.from_numpy(np.random.default_rng(0).normal(size=columns))
    assert np.allclose(canaries.products(vector), (found @ vector).numpy(), atol=1e-10)


def test_directions_of_a_large_model_are_exact() -> None:
    canaries = Canaries(0, 10**6 - 1, 0)
    found = canaries.directions(np.array([0, 499_999, 999_998]), 10**6)
    assert torch.allclose(found @ found.T, torch.eye(3, dtype=torch.float64), atol=1e-9)


def test_coins_are_fair_and_differ_by_seed() -> None:
    ids = np.arange(7, 10_007)
    tossed = Canaries(7, 10_000, 0).coins(ids)
    assert abs(tossed.mean() - 0.5) < 4 * 0.005
    other = Canaries(7, 10_000, 1).coins(ids)
    assert abs((tossed == other).mean() - 0.5) < 4 * 0.005


def test_who_is_absent_lost_the_toss_unless_it_decides_a_sign() -> None:
    there = Canaries(5, 40, 3)
    assert set(there.absent) == set(there.ids[~there.coins(there.ids)])
    signed = Canaries(5, 40, 3, signed=True)
    assert not len(signed.absent)
    sent = signed.sent(signed.ids, 50, 0.5) / signed.length / 0.5
    assert np.array_equal(
        (sent * signed.directions(signed.ids, 50)).sum(dim=1).numpy() > 0, signed.coins(signed.ids)
    )


def test_canaries_are_longer_than_the_clip_but_for_those_below_an_adaptive_one() -> None:
    some = Canaries(0, 64, 0, below=0.25)
    norms = some.sent(some.ids, 100, 0.5).norm(dim=1)
    assert abs(int((norms < 0.5).sum()) - 16) <= 1
    assert bool((norms[norms < 0.5] > 0.4999).all())
    assert bool((norms[norms >= 0.5] > 10).all())


@pytest.mark.parametrize("lazy", [False, True])
def test_clients_stay_who_they_are_with_canaries_behind_them(lazy: bool) -> None:
    packed = federation().train
    inner = packed
    if lazy:

        def load(k: int) -> dict[str, torch.Tensor]:
            return dict(select_clients(packed, np.array([k])).fields)

        inner = LazyClients(len(packed), load, namer=packed.name)
    both = CanaryClients(inner, 3)
    real = len(inner)
    assert len(both) == real + 3
    assert (both.name(2), both.name(real + 1)) == (packed.name(2), "canary 1")
    ids = np.array([real, 4, real + 2, 0, 2])
    assert both.sizes(ids).tolist() == [2, *packed.sizes(ids[[1]]), 2, *packed.sizes(ids[3:])]
    found = select_clients(both, ids)
    for place, k in enumerate(ids):
        mine = found.fields["x"][found.offsets[place] : found.offsets[place + 1]]
        source = k if k < real else 0
        whole = select_clients(packed, np.array([source])).fields["x"]
        assert torch.equal(mine, whole if k < real else whole[:2])
    assert torch.equal(
        select_clients(both, np.array([1, 3])).fields["y"],
        select_clients(packed, np.array([1, 3])).fields["y"],
    )


@pytest.mark.parametrize("inner", [Full(), Poisson(0.3), Uniform(count=20)])
def test_who_is_absent_changes_nothing_for_the_others(inner: Full | Poisson | Uniform) -> None:
    absent = np.array([3, 50, 51, 99])
    without = Without(inner, absent)
    assert without.expected(100) == inner.expected(100)
    for number in range(20):
        key = np.array(number, np.uint64)
        drawn, left = inner.select(100, key), without.select(100, key)
        assert left.tolist() == [k for k in drawn if k not in absent]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=5), st.floats(0.3, 5), st.floats(0.01, 1))
def test_evidence_is_the_ratio_of_the_two_laws(x: list[float], noise: float, rate: float) -> None:
    """Densities of N(0, z^2), and of N(1, z^2) or N(-1, z^2) in a part q of the rounds."""

    def density(at: float, mean: float) -> float:
        return math.exp(-((at - mean) ** 2) / (2 * noise**2))

    for at, found, sign in zip(
        x,
        evidence(np.array(x), noise, rate, signed=False),
        evidence(np.array(x), noise, rate, signed=True),
        strict=True,
    ):
        there, none = (1 - rate) * density(at, 0) + rate * density(at, 1), density(at, 0)
        other = (1 - rate) * density(at, 0) + rate * density(at, -1)
        if min(there, none, other) > 1e-200:
            assert found == pytest.approx(math.log(there / none), abs=1e-6)
            assert sign == pytest.approx(math.log(there / other), abs=1e-6)
