"""Partial work: what is kept is the plain loop cut short, what is dropped was never there."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.device.small import CPU, Recorder, device_run
from tests.engine.small import (
    MODULE,
    VMAP,
    Chosen,
    federation,
    largest_difference,
    mlp,
    same_bits,
    snapshot,
    world,
)
from tests.strategies.oracle import federated_averaging, vector
from tests.strategies.table import TABLE
from tests.strategies.test_scaffold import algorithm_1, assert_is
from torch import Tensor

from hanse.core.errors import ConfigError, DivergenceError, StrategyError
from hanse.core.rng import derive
from hanse.core.types import LocalTraining
from hanse.data.batching import Epochs, FullGradient, Pass, Steps, plan, steps
from hanse.engines.on_device import Place
from hanse.experiment import Experiment, prepare
from hanse.layers import Weighted
from hanse.local import SGD, LocalSGD, ProximalSGD, ScaffoldSGD
from hanse.models import Execution
from hanse.records import fingerprint
from hanse.selection import Full, Poisson, Stragglers, Uniform
from hanse.strategies import fedavg, fedprox, fedsgd, scaffold
from hanse.strategy import Strategy
from hanse.training import rounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.core.types import Broadcast, ClientContext, Gradient, Memory, Update

EXECUTIONS = (MODULE, VMAP, Execution("dense", 16))
works = pytest.mark.parametrize("work", [Epochs(3, 4), Epochs(4, None), Steps(7, 4)], ids=repr)
HALF = Stragglers(0.5)


@works
@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_kept_work_is_the_first_part_of_all_of_it(work: Pass, mu: float) -> None:
    small = world(stragglers=Stragglers(0.7))
    strategy = Strategy(ProximalSGD(SGD(0.1, 0.9), work, mu), partial="keep")
    expected = federated_averaging(small, mlp(), work, rate=lambda _: 0.1, momentum=0.9, mu=mu)
    whole = federated_averaging(world(), mlp(), work, rate=lambda _: 0.1, momentum=0.9, mu=mu)
    assert float((vector(expected) - vector(whole)).abs().max()) > 1e-3
    for execution in EXECUTIONS:
        found = small.run(strategy, execution).params
        assert float((found - vector(expected)).abs().max()) < 1e-12, execution


@works
def test_dropped_work_was_never_there(work: Pass) -> None:
    small = world(stragglers=HALF)
    strategy = Strategy(LocalSGD(SGD(0.2), work))
    expected = federated_averaging(small, mlp(), work, rate=lambda _: 0.2, drop=True)
    for execution in EXECUTIONS:
        found = small.run(strategy, execution).params
        assert float((found - vector(expected)).abs().max()) < 1e-12, execution


@works
@pytest.mark.parametrize("option", [1, 2])
def test_scaffold_with_kept_work_is_algorithm_1_with_fewer_steps(
    option: Literal[1, 2], work: Pass
) -> None:
    small = world(stragglers=Stragglers(0.7), participation=Full())
    strategy = Strategy(
        ScaffoldSGD(SGD(0.1), work, option, gradient_chunk=4),
        (Weighted("uniform"),),
        partial="keep",
    )
    expected = algorithm_1(small, work, option, lr=0.1)
    for execution in (MODULE, VMAP, Execution("dense", 16)):
        assert_is(small.run(strategy, execution), expected)


def test_each_strategy_does_what_its_paper_does_unless_told_otherwise() -> None:
    chosen = {s.name: s.partial for s in (fedavg(), fedsgd(), scaffold(), fedprox())}
    assert chosen == {"fedavg": "drop", "fedsgd": "drop", "scaffold": "drop", "fedprox": "keep"}
    assert fedavg().replace(partial="keep").partial == "keep"


@pytest.mark.parametrize("name", TABLE)
def test_without_a_straggler_the_bits_are_those_of_before(name: str) -> None:
    for execution in (VMAP, Execution("dense", 3)):
        none = world(stragglers=Stragglers(0.0)).run(TABLE[name], execution, rounds=2)
        before = world().run(TABLE[name], execution, rounds=2)
        assert same_bits(snapshot(none), snapshot(before))


def test_who_is_dropped_is_named_with_what_it_did() -> None:
    small, strategy = world(stragglers=HALF), fedavg()
    _, result = small.step(small.start(strategy), strategy)
    late = {k: share for k, share in small.shares(1).items() if share < 1}
    assert len(late) == 4  # of seven
    assert {d.client: d.reason for d in result.dropped} == {
        k: f"straggler: did {int(100 * share)} % of its work in time" for k, share in late.items()
    }
    assert (result.cohort, result.accepted) == (7, 3)
    assert set(result.facts.id) == set(small.cohort(1)) - set(late)


@dataclasses.dataclass(frozen=True)
class Told(LocalSGD):
    """Notes what it is told of its steps."""

    seen: dict[int, float] = dataclasses.field(default_factory=dict)

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        assert client.facts is not None
        self.seen.update(zip(client.id.tolist(), client.facts.steps.tolist(), strict=True))
        return super().finish(state, broadcast, memory, client)


@works
@pytest.mark.parametrize("execution", EXECUTIONS, ids=repr)
def test_the_facts_tell_the_steps_that_were_taken(work: Pass, execution: Execution) -> None:
    small, local = world(stragglers=Stragglers(0.7)), Told(SGD(0.1), work)
    strategy = Strategy(local, partial="keep")
    _, result = small.step(small.start(strategy), strategy, execution)
    assert local.seen == {k: len(small.batches(work, 1, k)) for k in small.cohort(1)}
    assert sorted(result.facts.id) == small.cohort(1)


@pytest.mark.parametrize(
    "name", [n for n, s in TABLE.items() if s.name not in ("fedsgd", "fedsgd_secagg")]
)
def test_every_strategy_can_keep_partial_work(name: str) -> None:
    small = world(stragglers=Stragglers(0.8), participation=Full())
    strategy = TABLE[name].replace(partial="keep")
    alone = snapshot(small.run(strategy, Execution("vmap", 1), rounds=1))
    together = snapshot(small.run(strategy, Execution("vmap", 16), rounds=1))
    assert largest_difference(together, alone) < 1e-10
    assert not same_bits(together, snapshot(world(participation=Full()).run(strategy, rounds=1)))


@pytest.mark.parametrize("path", ["module", "vmap", "dense"])
def test_blocks_change_nothing_but_the_last_bits(path: Literal["module", "vmap", "dense"]) -> None:
    small = world(stragglers=Stragglers(0.8), participation=Full())
    for name in ("scaffold-1-chunks", "fedprox-steps"):
        strategy = TABLE[name].replace(partial="keep")
        alone = snapshot(small.run(strategy, Execution(path, 1), rounds=2))
        for block in (2, 5):
            found = snapshot(small.run(strategy, Execution(path, block), rounds=2))
            assert largest_difference(found, alone) < 1e-12, (name, block)


@pytest.mark.parametrize("name", ["fedprox", "scaffold-1-chunks", "fedprox-steps"])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_device_computes_the_same_state(name: str, recorded: bool) -> None:
    small, execution = world(stragglers=Stragglers(0.7)), Execution("vmap", 5)
    strategy = TABLE[name].replace(partial="keep")
    place = Place(CPU, Recorder() if recorded else None)
    found = device_run(small, strategy, execution, place=place)
    assert largest_difference(snapshot(found), snapshot(small.run(strategy, execution))) < 1e-12


@dataclasses.dataclass(frozen=True)
class TwoWalks(LocalTraining):
    """A second pass that trains, with a number of its own that each step doubles."""

    chunk: int = 4

    @property
    def passes(self) -> tuple[Pass, ...]:
        return Epochs(2, 4), FullGradient(self.chunk)

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        return {"params": broadcast.params.clone(), "rate": torch.tensor(0.01).double()}

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        gradient.add_to(state["params"], state["params"], scale=-float(state["rate"]))
        if pass_number:
            state["rate"].mul_(2)

    def trained(self, state: Mapping[str, Tensor]) -> Tensor:
        return state["params"]

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        return LocalSGD().finish(state, broadcast, memory, client)


def test_a_later_pass_is_walked_by_each_as_if_it_were_alone() -> None:
    small = world(stragglers=Stragglers(0.8), participation=Full())
    strategy = Strategy(TwoWalks(), partial="keep")
    alone = small.run(strategy, Execution("vmap", 1), rounds=1)
    together = small.run(strategy, Execution("vmap", 16), rounds=1)
    assert float((alone.params - together.params).abs().max()) < 1e-12


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), min_size=1, max_size=6),
    st.sampled_from([Epochs(3, 4), Epochs(5, None), Steps(9, 4), Epochs(2, 50)]),
)
def test_a_plan_cut_short_is_the_beginning_of_the_whole(
    clients: list[tuple[int, float]], pass_: Pass
) -> None:
    sizes, shares = np.array([n for n, _ in clients]), np.array([s for _, s in clients])
    taken = np.maximum(np.ceil(shares * steps(pass_, sizes)), 1).astype(np.int64)
    order = np.argsort(-taken, kind="stable")
    starts, keys = (np.cumsum(sizes) - sizes)[order], derive(5, order)
    sizes, taken = sizes[order], taken[order]
    cut = list(plan(pass_, sizes, starts, keys, torch.float64, taken))
    for k, count in enumerate(taken):
        one = slice(k, k + 1)
        alone = list(plan(pass_, sizes[one], starts[one], keys[one], torch.float64))[:count]
        mine = [batch for batch in cut if k < batch.active]
        assert len(mine) == count
        for found, expected in zip(mine, alone, strict=True):
            n = int(expected.counts[0])
            assert int(found.counts[k]) == n
            assert torch.equal(found.rows[k, :n], expected.rows[0, :n])
            assert torch.equal(found.weights[k, :n], expected.weights[0, :n])
            assert not found.weights[k, n:].any()


# ------------------------------------------------------------------------------ whole runs
def test_a_resumed_run_gives_the_bits_of_an_unbroken_one() -> None:
    for strategy in (fedprox(local_epochs=2), scaffold()):
        experiment = Experiment(
            strategy,
            federation(),
            mlp(),
            rounds=5,
            participation=Uniform(count=6),
            stragglers=HALF,
            execution=VMAP,
        )
        unbroken = list(rounds(experiment))
        resumed = list(rounds(prepare(experiment), start=unbroken[2].state))
        assert same_bits(snapshot(resumed[-1].state), snapshot(unbroken[-1].state))
        dropped = [r.result.dropped for r in unbroken if r.result is not None]
        assert [r.result.dropped for r in resumed if r.result is not None] == dropped[2:]


def test_a_run_is_not_resumed_with_other_stragglers() -> None:
    experiment = Experiment(fedprox(), federation(), mlp(), execution=VMAP)
    found = {
        str(fingerprint(prepare(dataclasses.replace(experiment, stragglers=stragglers))))
        for stragglers in (None, HALF, Stragglers(0.4), Stragglers(0.5, least=0.1))
    }
    assert len(found) == 4


def test_a_round_of_stragglers_alone_changes_nothing() -> None:
    small = world(stragglers=Stragglers(1.0), participation=Chosen((1, 4)))
    for strategy in (fedavg(), scaffold()):
        start = small.start(strategy)
        after, result = small.step(start, strategy)
        assert (result.cohort, result.accepted, len(result.dropped)) == (2, 0, 2)
        assert same_bits(snapshot(after), snapshot(start))
        assert after.round == 1


def test_cohorts_of_stragglers_alone_are_no_divergence() -> None:
    experiment = Experiment(
        fedavg(),
        federation(),
        mlp(),
        rounds=20,
        participation=Poisson(0.2),
        stragglers=Stragglers(0.5),
    )
    results = [r.result for r in rounds(experiment) if r.result is not None]
    nobody = [r for r in results if r.dropped and not r.accepted]
    assert nobody  # a cohort of one, half of which is rounded up
    assert all("straggler" in d.reason for r in nobody for d in r.dropped)


def test_updates_that_are_not_finite_are_still_a_divergence() -> None:
    experiment = Experiment(
        fedavg(lr=1e30, local_epochs=9),
        federation(),
        mlp(),
        rounds=9,
        stragglers=Stragglers(0.3),
    )
    with pytest.raises(DivergenceError):
        list(rounds(experiment))


def test_nobody_left_in_any_round_is_refused() -> None:
    everyone = Experiment(fedavg(), federation(), mlp(), stragglers=Stragglers(1.0))
    with pytest.raises(ConfigError, match="drops stragglers"):
        prepare(everyone)
    prepare(dataclasses.replace(everyone, strategy=fedprox()))
    prepare(dataclasses.replace(everyone, stragglers=Stragglers(0.9)))


def test_a_part_of_one_gradient_is_refused() -> None:
    kept = Experiment(
        fedsgd().replace(partial="keep"), federation(), mlp(), stragglers=Stragglers(0.5)
    )
    with pytest.raises(StrategyError, match="not the gradient of anything"):
        prepare(kept)
    prepare(dataclasses.replace(kept, strategy=fedsgd()))
