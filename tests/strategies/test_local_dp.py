"""Local differential privacy: what a client sends, how far its data move it, and its noise."""

from __future__ import annotations

import dataclasses
import math
import shutil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.small import (
    BAD,
    MODULE,
    SIZES,
    VMAP,
    World,
    federation,
    mlp,
    regression,
    same_bits,
    snapshot,
    world,
)
from tests.privacy.test_noise import CRITICAL, kolmogorov
from tests.runs.small_runs import experiment
from tests.runs.small_runs import federation as people
from tests.strategies import oracle
from tests.strategies.test_client_dp import context, neighbours

import hanse
import hanse.runs
from hanse import ConfigError, Experiment, LocalDP, Normalized, Separated, Weighted, ldp_fedavg
from hanse.core.types import Broadcast, ClientContext, Vector
from hanse.data.batching import Epochs
from hanse.engines import InProcess
from hanse.experiment import prepare
from hanse.layers.clip import STEPS
from hanse.privacy import Budget, GaussianEvent, epsilon
from hanse.privacy.ledger import Ledger
from hanse.round import publish
from hanse.selection import Full, Poisson, Selected, Uniform
from hanse.spending import client_epsilons
from hanse.training import rounds

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.core.types import Aggregate
    from hanse.strategy import Strategy

CLIP = 0.05
SILENT = LocalDP(CLIP, 0.0)
STRATEGIES = {
    "fedavg": hanse.fedavg(lr=0.3).replace(layers=(SILENT,)),
    "fedprox": hanse.fedprox(mu=0.5).replace(layers=(SILENT,)),
    "scaffold-2": hanse.scaffold().replace(layers=(dataclasses.replace(SILENT, side_scale=0.1),)),
    "fednova": hanse.fedavg().replace(layers=(Normalized(3.0), SILENT)),
}


def sent(small: World, strategy: Strategy, k: int) -> torch.Tensor:
    """All that one client sends, in units, by the real engine."""
    state = small.start(strategy)
    broadcast = publish(state, strategy, context(small))
    engine = InProcess(strategy, small.task, small.data, MODULE)
    chosen = Selected(np.array([k], np.int64))
    found: Aggregate | None
    found = engine.collect(broadcast, chosen, state.clients, state.direction).aggregate
    assert found is not None
    return torch.cat([found[name].values for name in sorted(found)])


# ---------------------------------------------------------------------- how far a client moves it
@pytest.mark.parametrize("name", STRATEGIES)
def test_no_data_move_what_a_client_sends_further_than_is_declared(name: str) -> None:
    strategy, small = STRATEGIES[name], world()
    declared, largest = STEPS * SILENT.sensitivity / CLIP, 0.0
    mine = sent(small, strategy, 1)
    assert float(mine.norm()) <= STEPS
    for data in neighbours():
        theirs = sent(dataclasses.replace(small, data=data), strategy, 1)
        assert float(theirs.norm()) <= STEPS
        largest = max(largest, float((mine - theirs).norm()))
    assert 0.5 * declared < largest <= declared


def test_a_weighted_update_moves_further() -> None:
    """The negative control: why weights by examples are refused."""
    strategy = hanse.fedavg(lr=0.3).replace(layers=(SILENT, Weighted("examples")))
    small, state = world(), world().start(hanse.fedavg())
    engine = InProcess(strategy, small.task, small.data, MODULE)
    start = publish(small.start(strategy), strategy, context(small))
    found = engine.collect(start, Selected(np.array([1])), state.clients, state.direction)
    assert found.aggregate is not None
    assert float(found.aggregate["delta"].values.norm()) > 10 * STEPS * 2


NUMBERS = st.floats(width=64) | st.sampled_from(
    [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.8e308]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, min_size=55, max_size=55), st.floats(1e-6, 1e6))
def test_whatever_a_client_has_it_sends_whole_numbers_within_the_bound(
    numbers: list[float], clip: float
) -> None:
    small = world()
    layer, size = LocalDP(clip, 0.0), small.task.layout.shared
    values = torch.tensor(numbers, dtype=torch.float64).repeat(2)[:size].unsqueeze(0)
    who = ClientContext(
        np.array([0]), np.array([0]), np.array([7], np.uint64), context(small), values
    )
    update = {"delta": Vector(values, torch.ones(1, dtype=torch.float64))}
    broadcast = Broadcast(values, values[:, :0], {}, context(small))
    after, _ = layer.on_client(update, broadcast, {}, who)
    found = after["delta"].values
    assert sum(int(v) ** 2 for v in found.flatten()) <= STEPS**2
    assert torch.equal(found, found.trunc())
    if not bool(values.isfinite().all()):
        assert not bool(found.any())


# ------------------------------------------------------------------------------ what it computes
def test_the_server_takes_the_mean_over_those_it_asked() -> None:
    small = world(participation=Uniform(count=5))
    strategy = ldp_fedavg(lr=0.1, clip=CLIP, noise_multiplier=0.0, batch_size=4)
    found = small.run(strategy, rounds=1).direction
    expected = torch.zeros_like(found)
    for k in small.cohort(1):
        model = oracle.trained(small, small.task.module, 1, k, Epochs(1, 4), lr=0.1)
        delta = oracle.vector(model) - oracle.vector(small.task.module)
        expected += delta * min(1.0, CLIP / float(delta.norm())) / 5
    assert float((found - expected).abs().max()) <= 2.001 * CLIP / STEPS


def test_nobody_came_and_nothing_is_released() -> None:
    small, strategy = world(participation=Poisson(1e-9)), ldp_fedavg()
    start = small.start(strategy)
    state, _ = small.step(start, strategy)
    assert torch.equal(state.params, start.params)


def test_single_precision_stays_single_precision() -> None:
    state = world(dtype=torch.float32).run(ldp_fedavg(), rounds=2)
    assert {t.dtype for t in (state.params, state.direction)} == {torch.float32}


# ------------------------------------------------------------------------------------- its noise
@pytest.mark.parametrize("source", ["seeded", "os"])
def test_each_client_s_noise_has_its_sigma_and_no_other(
    source: Literal["seeded", "os"],
) -> None:
    small, z, size = world(), 1.3, 60_000
    layer = LocalDP(CLIP, z, noise=source)
    noise = layer._noise(  # noqa: SLF001 - the noise of a model that is larger than these
        torch.zeros(2, size, dtype=torch.float64),
        "delta",
        ClientContext(
            np.arange(2), np.arange(2), np.array([5, 6], np.uint64), context(small),
            torch.ones(2),
        ),
    ).numpy()  # fmt: skip
    bound = CRITICAL if source == "seeded" else 3.5
    for one in noise:
        assert kolmogorov(one, z * STEPS) < bound
        assert kolmogorov(one, 0.9 * z * STEPS) > bound
        assert kolmogorov(one, 1.1 * z * STEPS) > bound
    assert abs(np.corrcoef(*noise)[0, 1]) < 5 / math.sqrt(size)


def test_the_sum_that_the_server_gets_has_the_noise_of_each_of_its_clients() -> None:
    """By the real engine: what n clients add has n times the variance of one's."""
    small = world(participation=Full())
    noisy = ldp_fedavg(clip=1e-9, noise_multiplier=3.0)
    found = torch.cat(
        [small.step(small.start(noisy), noisy)[0].direction]
        + [dataclasses.replace(small, seed=s).run(noisy, rounds=1).direction for s in range(40)]
    )
    spread = float(found.square().mean().sqrt()) * len(SIZES) / 1e-9
    assert spread == pytest.approx(3.0 * math.sqrt(len(SIZES)), rel=0.06)


def test_a_client_s_noise_does_not_depend_on_its_block() -> None:
    strategy = ldp_fedavg(clip=1e-9, noise_multiplier=3.0)
    small = world()
    one, other = (small.run(strategy, execution, 2) for execution in (MODULE, VMAP))
    assert float((one.params - other.params).abs().max()) < 1e-14


def test_noise_of_the_operating_system_cannot_be_repeated() -> None:
    small, strategy = world(), ldp_fedavg(noise="os")
    one, other = (snapshot(small.run(strategy, rounds=1)) for _ in range(2))
    assert not same_bits(one, other)


@pytest.mark.parametrize("name", ["fedavg", "scaffold-2"])
def test_a_client_that_fails_sends_noise_like_any_other_and_remembers_nothing_new(
    name: str,
) -> None:
    strategy = STRATEGIES[name]
    *_, last = strategy.layers
    noisy = strategy.replace(layers=(dataclasses.replace(last, noise_multiplier=2.0),))  # type: ignore[type-var]
    small = regression(BAD, chosen=(BAD,))
    start = small.start(noisy)
    state, result = small.step(start, noisy)
    assert bool((state.direction != 0).all())  # something came, and it was noise
    assert 0.2 < float(state.direction.norm()) / (2 * CLIP * math.sqrt(len(state.direction))) < 3
    assert [one.client for one in result.dropped] == [BAD]  # who it was is known here
    assert all(bool(v.isfinite().all()) for v in snapshot(state).values())
    for slot in state.clients.rows.get(BAD, ()):
        assert not any(bool(value.any()) for value in slot.values())
    silent, _ = small.step(small.start(strategy), strategy)
    assert not bool(silent.direction.any())


# --------------------------------------------------------------------------------- what it costs
def test_a_replaced_data_set_counts_twice() -> None:
    assert LocalDP(0.5, 4.0).event == GaussianEvent(2.0, adjacency="replace")


def charged(path: Path, **changes: Any) -> Experiment:  # noqa: ANN401 - fields
    if not path.exists():
        Ledger.create(path, "people", Budget(1e6, 1e-3, "rdp"))
    strategy = ldp_fedavg(noise="os", noise_multiplier=2.0)
    given = {"strategy": strategy, "participation": Uniform(count=2), "rounds": 6}
    return experiment(data=people(), ledger=str(path), **{**given, **changes})


def turns(model: Experiment, *walks: tuple[int, int]) -> int:
    """How often the client takes part that does so most often, in walks from a round to a round."""
    population, seen = prepare(model).population, np.zeros(6, int)
    for first, last in walks:
        for number in range(first + 1, last + 1):
            seen[population.cohort(number, "drop")[0].ids] += 1
    return int(seen.max())


def paid(path: Path) -> float:
    events = Ledger.open(path).account().events()
    assert {event.adjacency for event in events} == {"replace"}
    return sum(event.count / event.noise_multiplier**2 for event in events)


@pytest.mark.parametrize(
    "participation", [Uniform(count=2), Full(), Poisson(0.4), Separated(3)], ids=str
)
def test_the_ledger_is_charged_for_the_worst_client(
    participation: Any,  # noqa: ANN401 - of any kind
    tmp_path: Path,
) -> None:
    path = tmp_path / "people.ledger"
    model = charged(path, participation=participation)
    for done in rounds(model):
        if done.number:
            assert paid(path) == pytest.approx(turns(model, (0, done.number)), rel=1e-5)
    assert len(Ledger.open(path).entries()) == 1 + 6
    own = client_epsilons(model.strategy, prepare(model).population, 6, 1e-3, accountant="rdp")
    assert own.shape == (6,)
    assert own.max() == pytest.approx(Ledger.open(path).spent(), rel=1e-4)


def test_each_client_has_an_epsilon_of_its_own() -> None:
    small = world(participation=Uniform(count=4))
    strategy = ldp_fedavg(noise_multiplier=3.0)
    found = client_epsilons(strategy, small.population, 5, 1e-5)
    cohorts = [small.cohort(n) for n in range(1, 6)]
    for k in range(len(SIZES)):
        times = sum(k in cohort for cohort in cohorts)
        events = [GaussianEvent(1.5, adjacency="replace")] * times
        assert found[k] == pytest.approx(epsilon(events, 1e-5), rel=1e-9)
    assert len(set(found)) > 2
    with pytest.raises(ConfigError, match="dp_fedavg"):
        client_epsilons(hanse.dp_fedavg(), small.population, 5, 1e-5)


def test_rounds_that_are_computed_again_are_charged_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "people.ledger"
    model = charged(path, checkpoint_every=2)
    prepared = prepare(model)
    going = hanse.runs.carry_on(prepared, hanse.runs.start(prepared, tmp_path / "run"))
    while next(going).number < 3:
        pass
    shutil.copytree(tmp_path / "run", tmp_path / "killed")  # as it is if the process ends here
    going.close()
    hanse.resume(tmp_path / "killed", model)
    assert paid(path) >= turns(model, (0, 3), (2, 6)) * (1 - 1e-12)
    assert paid(path) == pytest.approx(turns(model, (0, 3)) + turns(model, (2, 6)), rel=1e-5)


def test_a_run_that_lost_nothing_is_charged_as_an_unbroken_one(tmp_path: Path) -> None:
    path = tmp_path / "people.ledger"
    model = charged(path)
    hanse.run(dataclasses.replace(model, rounds=2), tmp_path / "run")
    hanse.resume(tmp_path / "run", model)
    assert paid(path) == pytest.approx(turns(model, (0, 6)), rel=1e-5)


def test_a_run_says_who_is_charged_and_where_noise_comes_from() -> None:
    def said(**changes: Any) -> str:  # noqa: ANN401 - arguments of the strategy
        one = Experiment(ldp_fedavg(**changes), federation(), mlp(), 2, execution=VMAP)
        return "\n".join(prepare(one).warnings)

    assert "client_epsilons" in said()
    assert "whoever knows the seed" in said()
    assert "operating system" in said(noise="os")
    assert "nobody is protected" in said(noise_multiplier=0.0)
    assert "no guarantee covers them" in said()


def test_what_is_measured_of_a_round_does_without_a_client_that_failed() -> None:
    small, strategy = regression(BAD), STRATEGIES["fedavg"]
    _, result = small.step(small.start(strategy), strategy)
    assert math.isfinite(result.pairwise_cosine)
    assert result.accepted == len(SIZES) - 1
