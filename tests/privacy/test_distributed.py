"""Noise that clients add together: its size, its bound, and what a client can move."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.engine.small import SIZES, VMAP, World, federation, mlp, world

import hanse
from hanse import DistributedDP, SecureSum, fedavg_secagg
from hanse.core.rng import generator
from hanse.layers.clip import STEPS
from hanse.layers.distributed_dp import shares_of
from hanse.privacy import Budget, GaussianEvent, epsilon
from hanse.privacy.distributed import excess, multiplier
from hanse.privacy.ledger import Ledger
from hanse.selection import Full
from hanse.training import rounds

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

EVERYBODY = len(SIZES)


# --------------------------------------------------------------------------------- the bound
def pmf(sigma: float, shares: int) -> np.ndarray:
    """Of a sum of discrete Gaussians on `-reach … reach`, by convolution."""
    reach = math.ceil(12 * sigma)
    one = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    one /= one.sum()
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    return total


def renyi(p: np.ndarray, shift: int, order: float) -> float:
    """The divergence of p from itself shifted, where neither has vanished."""
    a, b = p[shift:], p[: len(p) - shift]
    there = (a > 1e-250) & (b > 1e-250)
    terms = order * np.log(a[there]) + (1 - order) * np.log(b[there])
    return float(np.log(np.exp(terms).sum()) / (order - 1))


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("shares", [1, 2, 5, 9])
@pytest.mark.parametrize("shift", [1, 2])
def test_the_divergence_of_a_sum_is_within_the_bound(sigma: float, shares: int, shift: int) -> None:
    z = multiplier(shift, sigma, shares, coordinates=1)  # type: ignore[arg-type]
    p = pmf(sigma, shares)
    for order in (1.5, 2.0, 4.0, 8.0):
        assert renyi(p, shift, order) <= order / (2 * z * z) * (1 + 1e-9)


def test_the_bound_is_that_of_a_gaussian_where_the_grid_is_fine() -> None:
    layer = DistributedDP(0.5, 1.3, survivors=900, colluders=50)
    found = layer.event(Full(), 1000)
    assert found.adjacency == "zero-out"
    assert found.sampling == "none"
    assert 1.3 * (1 - 1e-9) <= found.noise_multiplier <= 1.3 * (1 + 1e-4)
    # tau is there all the same: with a coarse grid it costs.
    assert multiplier(1, 1, 100) < 0.5 * multiplier(1, 1, 100, coordinates=1)
    assert excess(1000.0, 10) > 0


@given(st.floats(0.5, 4), st.integers(2, 300))
def test_the_excess_is_the_sum_of_the_paper_or_a_little_more(sigma: float, shares: int) -> None:
    terms = [math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in range(1, shares)]
    exact = 10 * math.fsum(terms)
    assert exact <= excess(sigma, shares) <= exact * 1.25 + 1e-300


def test_more_noise_more_shares_and_fewer_coordinates_never_cost_more() -> None:
    assert multiplier(4, 4, 10) > multiplier(4, 3, 10)
    assert multiplier(4, 4, 11, 10) > multiplier(4, 4, 10, 10)
    assert multiplier(4, 1, 10, 10) > multiplier(4, 1, 10, 1000)
    with pytest.raises(hanse.ConfigError, match="1/2"):
        excess(0.4, 2)


# --------------------------------------------------------------------------------- the noise
COLUMNS = 20_000


def noise_of(shares: int, layer: DistributedDP, first: int = 0) -> Tensor:
    """The sum of what so many clients add, in clip norms, of this layer's own draws."""
    from tests.strategies.test_secure_sums import context

    client = replace(context(shares), key=np.arange(first, first + shares, dtype=np.uint64))
    drawn = shares_of(torch.zeros(shares, COLUMNS), layer.share, layer.noise, client, "delta")
    return drawn.sum(0) / STEPS


@pytest.mark.parametrize("noise", ["seeded", "os"])
def test_the_noise_of_the_fewest_survivors_is_as_claimed(noise: str) -> None:
    layer = DistributedDP(0.5, 1.5, survivors=12, colluders=4, noise=noise)  # type: ignore[arg-type]
    drawn = noise_of(8, layer).numpy()
    assert stats.kstest(drawn, stats.norm(0, 1.5).cdf).pvalue > 1e-4
    for wrong in (0.9, 1.1):
        assert stats.kstest(drawn, stats.norm(0, 1.5 * wrong).cdf).pvalue < 1e-6
    more = noise_of(12, layer, 100).numpy()
    assert stats.kstest(more, stats.norm(0, 1.5 * math.sqrt(12 / 8)).cdf).pvalue > 1e-4


def test_shares_of_clients_are_independent_and_of_rounds_too() -> None:
    layer = DistributedDP(0.5, 1.0, survivors=3)
    one, other = noise_of(1, layer, 0), noise_of(1, layer, 1)
    assert torch.equal(one, noise_of(1, layer, 0))
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 5 / math.sqrt(COLUMNS)


@pytest.mark.parametrize("protocol", ["sum", "real"])
def test_drop_outs_down_to_the_fewest_keep_the_noise(protocol: str) -> None:
    """Over rounds with drop-outs, the noise in the model's step is never less than claimed."""
    layer = DistributedDP(1e-3, 30.0, survivors=8)  # hardly anything but noise
    secure = SecureSum(drops=0.15, protocol=protocol, least=8)  # type: ignore[arg-type]
    strategy = fedavg_secagg(lr=1e-6, privacy=layer, secure=secure)
    small = world(participation=Full())
    state, ratios = small.start(strategy), []
    for _ in range(6):
        after, result = small.step(state, strategy, VMAP)
        survivors = int(result.exchange.numbers["survivors"])
        step = (after.params - state.params) * EVERYBODY / 1e-3
        if result.exchange.failure:
            assert not step.any()
        else:
            assert survivors >= 8
            ratios.append((float(step.std()), 30.0 * math.sqrt(survivors / 8)))
        state = after
    assert ratios
    d = len(state.params)
    for found, claimed in ratios:
        assert abs(found / claimed - 1) < 5 / math.sqrt(2 * d)


# ------------------------------------------------------------------------- what a client can move
@given(st.integers(0, 2**32), st.floats(1e-3, 1e3), st.sampled_from(["flat", "per-layer"]))
def test_no_client_moves_the_sum_by_more_than_the_clip(seed: int, size: float, how: str) -> None:
    small: World = world()
    layer = DistributedDP(0.5, 1.0, clipping=how, side_scale=0.3)  # type: ignore[arg-type]
    from tests.strategies.test_secure_sums import context

    from hanse.core.types import Broadcast, vector

    shared = small.task.layout.shared
    drawn = generator(np.uint64(seed)).normal(size=(2, 3, shared)) * size
    client = context(3)
    broadcast = Broadcast(torch.zeros(3, shared).double(), torch.zeros(3, 0), {}, client.round)
    one, other = map(torch.from_numpy, drawn)
    update = {"delta": vector(one), "control": vector(other)}
    sent, _ = layer.on_client(update, broadcast, {}, client)
    zeros = {name: v._replace(values=torch.zeros_like(v.values)) for name, v in update.items()}
    noise, _ = layer.on_client(zeros, broadcast, {}, client)
    moved = torch.cat([sent[k].values - noise[k].values for k in sent], dim=1)
    assert bool((moved == moved.round()).all())
    assert bool((moved.square().sum(1) <= STEPS**2).all())


# --------------------------------------------------------------------------------- the ledger
def test_a_round_is_charged_without_sampling_as_the_event_says(tmp_path: Path) -> None:
    layer = DistributedDP(0.5, 2.0, survivors=6, noise="os")
    ledger = Ledger.create(tmp_path / "people.ledger", "people", Budget(100.0, 1e-3, "rdp"))
    experiment = hanse.Experiment(
        fedavg_secagg(privacy=layer),
        federation(),
        mlp(),
        rounds=3,
        participation=hanse.Uniform(count=9),
        execution=VMAP,
        ledger=str(ledger.path),
    )
    *_, last = rounds(experiment)
    assert last.number == 3
    spent = Ledger.open(ledger.path).spent()
    expected = epsilon([GaussianEvent(2.0, count=3)], 1e-3, "rdp")
    assert abs(spent / expected - 1) < 1e-4
    assert [e.adjacency for e in ledger.entries()[1:]] == ["zero-out"] * 3


@pytest.mark.parametrize("accountant", ["pld", "opacus-rdp", "opacus-prv"])
def test_what_is_known_of_sums_of_shares_is_known_to_one_accountant(accountant: str) -> None:
    event = GaussianEvent(1.0, adjacency="zero-out")
    assert epsilon([event], 1e-3, "rdp") == epsilon([GaussianEvent(1.0)], 1e-3, "rdp")
    with pytest.raises(hanse.ConfigError, match="that clients add together"):
        epsilon([event], 1e-3, accountant)  # type: ignore[arg-type]
    with pytest.raises(hanse.ConfigError, match="knows who is in a cohort"):
        epsilon([GaussianEvent(1.0, "poisson", 0.1, adjacency="zero-out")], 1e-3, "rdp")


def test_a_ledger_of_another_accountant_is_refused(tmp_path: Path) -> None:
    layer = DistributedDP(0.5, 2.0, survivors=6, noise="os")
    ledger = Ledger.create(tmp_path / "people.ledger", "people", Budget(100.0, 1e-3, "pld"))
    experiment = hanse.Experiment(
        fedavg_secagg(privacy=layer), federation(), mlp(), rounds=3, ledger=str(ledger.path)
    )
    with pytest.raises(hanse.ConfigError, match="--accountant rdp"):
        next(rounds(experiment))
    assert len(ledger.entries()) == 1
