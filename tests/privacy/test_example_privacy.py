"""Differential privacy of examples: what a step releases, how far one moves it, its cost."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from tests.engine.small import (
    MODULE,
    Recorded,
    federation,
    mlp,
    same_bits,
    seeded,
    snapshot,
    world,
)
from tests.privacy.example_batches import batch_of
from tests.privacy.test_noise import CRITICAL, kolmogorov
from tests.strategies import oracle
from torch import Tensor, nn

import hanse
from hanse.core.errors import BudgetError, ConfigError, StrategyError
from hanse.core.rng import derive
from hanse.core.types import LocalTraining
from hanse.data import PackedClients, PoissonSteps, plan
from hanse.engines.private import PrivateExecutor
from hanse.experiment import Experiment, prepare
from hanse.layers import LocalDP, Weighted
from hanse.local import SGD, LocalSGD
from hanse.models import Execution, Task, cnn
from hanse.privacy import Budget, ExampleDP, GaussianEvent, epsilon
from hanse.privacy.examples import STEPS
from hanse.privacy.ledger import Ledger
from hanse.privacy.statement import Statement
from hanse.round import Population
from hanse.soundness import check_example_privacy
from hanse.spending import epsilons, events_of_a_participation, privacy_of
from hanse.strategies import dp_fedavg, dp_sgd
from hanse.strategy import Strategy
from hanse.training import rounds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hanse.core.types import Gradient
    from hanse.models.gradient import Batch

FEATURES, CLASSES = 4, 3


def task(dtype: torch.dtype = torch.float64) -> Task:
    return Task.of(mlp(dtype))


def released(privacy: ExampleDP, batch: Batch, at: Tensor, path: str = "module") -> Tensor:
    """What a step is given in the place of a gradient."""
    executor = PrivateExecutor(Task.of(mlp(at.dtype)), Execution(path, 1), privacy)  # type: ignore[arg-type]
    target = torch.zeros_like(at)
    executor.add_to(batch, at, target, 1.0, 1.0)
    return target


# ------------------------------------------------------------------ how far an example moves a sum
def neighbours(random: np.random.Generator, size: int) -> tuple[Batch, Batch]:
    """A batch, and the same with one example more, anywhere and as bad as can be."""
    x = torch.from_numpy(random.normal(size=(1, size, FEATURES)))
    y = torch.from_numpy(random.integers(0, CLASSES, (1, size)))
    place = int(random.integers(size))
    x[0, place] *= 10.0 ** random.integers(-3, 9)
    others = [k for k in range(size) if k != place]
    return batch_of(x, y), batch_of(x[:, others], y[:, others])


@pytest.mark.parametrize("path", ["module", "dense", "vmap", "exact"])
def test_one_example_moves_a_sum_by_no_more_than_is_declared(path: str) -> None:
    random, found = np.random.default_rng(0), []
    privacy = ExampleDP(0.7, 0.0, 1.0, exact=path == "exact")
    for _ in range(60):
        at = torch.from_numpy(random.normal(size=(1, task().layout.size)))
        batches = neighbours(random, int(random.integers(2, 9)))
        way = "module" if path == "exact" else path
        one, other = (released(privacy, batch, at, way) for batch in batches)
        found.append(float((one - other).norm() / privacy.unit))
    size = task().layout.size
    assert max(found) <= privacy.sensitivity(size) * (1 + 1e-12)
    assert max(found) > 0.99 * STEPS  # it is reached, so it could not be smaller
    assert privacy.sensitivity(size) < 1.0011 * STEPS  # and costs next to nothing


def test_a_realised_batch_as_the_divisor_would_break_the_bound() -> None:
    """The negative control: divided by its size, a batch moves by more than one example may."""
    random, privacy = np.random.default_rng(1), ExampleDP(0.7, 0.0, 1.0)
    worst = 0.0
    for _ in range(60):
        at = torch.from_numpy(random.normal(size=(1, task().layout.size)))
        one, other = neighbours(random, 2)
        mean, alone = released(privacy, one, at) / 2, released(privacy, other, at) / 1
        # What the noise would be made for: clip / the expected size of a batch.
        worst = max(worst, float((mean - alone).norm()) / (privacy.clip / 2))
    assert worst > 1.2


def test_the_divisor_does_not_depend_on_how_many_examples_there_are() -> None:
    at, privacy = torch.zeros(1, task().layout.size, dtype=torch.float64), ExampleDP(1.0, 0.0, 5.0)
    one = batch_of(torch.ones(1, 1, FEATURES, dtype=torch.float64), torch.zeros(1, 1).long())
    many = batch_of(torch.ones(1, 40, FEATURES, dtype=torch.float64), torch.zeros(1, 40).long())
    found, expected = released(privacy, many, at), 40 * released(privacy, one, at)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # each is rounded


# ----------------------------------------------------------------------------------- the noise
def noise_of(privacy: ExampleDP, steps: int = 500) -> Tensor:
    """The noise of many steps on an empty batch, in units of the clip norm."""
    small = Task.of(mlp(torch.float64))
    executor = PrivateExecutor(small, Execution("module", 1), privacy)
    at, found = torch.zeros(1, small.layout.size, dtype=torch.float64), []
    for step in range(steps):
        x = torch.zeros(1, 1, FEATURES, dtype=torch.float64)
        target = torch.zeros_like(at)
        executor.add_to(batch_of(x, torch.zeros(1, 1).long(), (0,), step), at, target, 1.0, 1.0)
        found.append(target[0] * privacy.divisor / privacy.clip)
    return torch.cat(found)


@pytest.mark.parametrize("source", ["seeded", "os"])
@pytest.mark.parametrize("exact", [False, True])
def test_the_noise_has_the_standard_deviation_that_is_accounted_for(
    source: Literal["seeded", "os"], exact: bool
) -> None:
    privacy = ExampleDP(0.3, 1.5, 7.0, source, exact)
    found = noise_of(privacy).numpy()
    units = found * STEPS
    assert float(np.abs(units - np.rint(units)).max()) < 1e-3  # on the grid
    expected = 1.5 * privacy.sensitivity(task().layout.size) / STEPS
    # Draws of the system differ each time, so the bound is wider (2 exp(-2 * 3.5^2) = 5e-11).
    assert kolmogorov(found, expected) < (CRITICAL if source == "seeded" else 3.5)
    for wrong in (0.9, 1.1):
        assert kolmogorov(found, wrong * expected) > 3.5


def test_noise_differs_by_step_client_and_coordinate_and_repeats_with_the_seed() -> None:
    once = noise_of(ExampleDP(noise_multiplier=1.0), 20)
    assert torch.equal(once, noise_of(ExampleDP(noise_multiplier=1.0), 20))
    assert len(torch.unique(once)) > 0.99 * len(once)
    real = ExampleDP(noise_multiplier=1.0, noise="os")
    assert not torch.equal(noise_of(real, 2), noise_of(real, 2))
    two = torch.zeros(2, task().layout.size, dtype=torch.float64)
    empty = batch_of(
        torch.zeros(2, 1, FEATURES, dtype=torch.float64), torch.zeros(2, 1).long(), (0, 0)
    )
    first, second = released(ExampleDP(), empty, two)
    assert not bool((first == second).any())


def test_the_grid_is_fine_beside_the_noise() -> None:
    for exact in (False, True):
        privacy = ExampleDP(2.0, 1.1, exact=exact)
        assert privacy.unit * STEPS == 2.0
        assert privacy.sigma(10**6) >= 1.1 * STEPS
        assert privacy.sigma(10**6) / STEPS < 1.1 * 1.0021
    assert ExampleDP(2.0, 1.0).sigma(10**6) > ExampleDP(2.0, 1.0).sigma(100)
    assert ExampleDP(noise_multiplier=0).sigma(100) == 0
    assert len(drawn_at_most()) == 10


def drawn_at_most() -> Tensor:
    """With as much noise as there can be."""
    whole = torch.zeros(10, dtype=torch.float64)
    ExampleDP(noise_multiplier=1024, noise="os").add_noise(whole, np.uint64(0))
    return whole


# ------------------------------------------------------------------------------ Poisson batches
def drawn(rate: float, sizes: list[int], count: int, seed: int = 0) -> list[list[set[int]]]:
    """Who is drawn: for each step and each client, the examples' numbers."""
    keys = derive(seed, np.arange(len(sizes)))
    starts = np.cumsum([0, *sizes])[:-1]
    found = []
    for batch in plan(PoissonSteps(rate, count), np.array(sizes), starts, keys):
        step = []
        for k, number in enumerate(batch.counts.tolist()):
            rows = (batch.rows[k, :number] - starts[k]).tolist()
            assert len(set(rows)) == len(rows)
            assert set(rows) <= set(range(sizes[k]))
            padding = batch.rows[k, number:]
            assert bool((padding == starts[k]).all())
            assert bool((batch.weights[k, number:] == 0).all())
            torch.testing.assert_close(
                batch.weights[k, :number], torch.full((number,), 1 / (rate * sizes[k]))
            )
            step.append(set(rows))
        found.append(step)
    return found


def test_every_example_is_drawn_by_itself_with_the_rate() -> None:
    steps, rate = 4000, 0.3
    found = drawn(rate, [5, 3], steps)
    hits = np.array(
        [[k in step[0] for k in range(5)] + [k in step[1] for k in range(3)] for step in found]
    )
    spread = math.sqrt(rate * (1 - rate) / steps)
    assert np.abs(hits.mean(0) - rate).max() < 4.5 * spread
    assert np.abs(np.corrcoef(hits.T) - np.eye(8)).max() < 4.5 / math.sqrt(steps)
    assert np.abs(np.corrcoef(hits[:-1].T, hits[1:].T)[:8, 8:]).max() < 4.5 / math.sqrt(steps)
    sizes = hits[:, :5].sum(1)
    assert sizes.min() == 0  # empty batches come
    assert abs(sizes.var() - 5 * rate * (1 - rate)) < 0.1


def test_a_client_is_drawn_the_same_whoever_else_is_in_its_block() -> None:
    keys = derive(0, np.arange(3))
    together = drawn(0.4, [7, 2, 9], 20)
    alone = [
        [set((b.rows[0, : int(b.counts[0])]).tolist())]
        for b in plan(PoissonSteps(0.4, 20), np.array([9]), np.array([0]), keys[2:])
    ]
    assert [step[2] for step in together] == [step[0] for step in alone]


def test_at_rate_one_every_batch_is_all_there_is() -> None:
    for step in drawn(1.0, [4, 6], 3):
        assert step == [set(range(4)), set(range(6))]


def test_plain_training_on_poisson_batches_is_torchs_own() -> None:
    """Without privacy: an unbiased gradient of the mean loss, and no step for an empty batch."""
    work, small = PoissonSteps(0.2, 6), world(sizes=(5, 3, 9), participation=hanse.Full())
    kept = Recorded()
    strategy = Strategy(LocalSGD(SGD(0.3), work), (kept, Weighted("uniform")))
    small.step(small.start(strategy), strategy)
    empty = 0
    for client in (0, 1, 2):
        module = mlp()
        params = oracle.vector(module).clone()
        for x, y in small.batches(work, 1, client):
            empty += not len(x)
            loss = lambda o, t, n=len(small.examples(client)[1]): (  # noqa: E731 - of this client
                small.task.loss(o, t).sum() / (0.2 * n)
            )
            params -= 0.3 * gradient_of(module, loss, params, x, y)
        torch.testing.assert_close(kept.seen[client][0], params - oracle.vector(mlp()))
    assert empty


def gradient_of(module: nn.Module, loss: object, at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    params = list(module.parameters())
    nn.utils.vector_to_parameters(at, params)
    found = torch.autograd.grad(loss(module(x), y), params)  # type: ignore[operator]
    return torch.cat([g.reshape(-1) for g in found])


# ----------------------------------------------------------------------------- whole rounds
def test_without_noise_a_client_walks_along_clipped_gradients() -> None:
    small, kept = world(sizes=(12, 7), participation=hanse.Full()), Recorded()
    strategy = dp_sgd(lr=0.3, clip=0.4, noise_multiplier=0, rate=0.5, steps=4, divisor=3.0)
    strategy = strategy.replace(layers=(kept, *strategy.layers))
    small.step(small.start(strategy), strategy)
    for client in (0, 1):
        params, module = oracle.vector(mlp()).clone(), mlp()
        for x, y in small.batches(PoissonSteps(0.5, 4), 1, client):
            total = torch.zeros_like(params)
            for k in range(len(x)):
                one = gradient_of(
                    module,
                    lambda o, t: small.task.loss(o, t).sum(),
                    params,
                    x[k : k + 1],
                    y[k : k + 1],
                )
                total += one * min(1.0, 0.4 / float(one.norm()))
            params -= 0.3 * total / 3.0
        # The margin of a norm, and the grid.
        torch.testing.assert_close(
            kept.seen[client][0], params - oracle.vector(mlp()), rtol=1e-4, atol=1e-6
        )


def test_workers_give_the_same_bits() -> None:
    strategy = dp_sgd(rate=0.4, steps=3, divisor=4.0)
    ends = []
    for workers in (1, 2):
        experiment = Experiment(
            strategy,
            federation(),
            mlp(),
            rounds=2,
            workers=workers,
            execution=Execution("dense", 2),
        )
        ends.append(list(rounds(experiment))[-1].state)
    assert same_bits(snapshot(ends[0]), snapshot(ends[1]))


def test_a_small_cnn_trains_by_any_path() -> None:
    torch.manual_seed(0)
    data = PackedClients.from_arrays(
        [{"x": torch.randn(6, 1, 8, 8), "y": torch.randint(3, (6,))} for _ in range(3)]
    )
    small = dataclasses.replace(world(cnn(3, side=8), data=data), participation=hanse.Full())
    strategy = dp_sgd(rate=0.5, steps=2, divisor=3.0, lr=0.01)
    expected = snapshot(small.run(strategy, MODULE, 2))["params"]
    for execution in (Execution("module", 2), Execution("vmap", 3)):
        found = snapshot(small.run(strategy, execution, 2))["params"]
        assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_the_path_for_examples_is_never_one_that_writes_all_gradients_out() -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, CLASSES)
        )

    found = prepare(Experiment(dp_sgd(), federation(), seeded(make))).engine.execution
    assert found.path == "module"


@dataclasses.dataclass(frozen=True)
class TwoGradients(LocalSGD, LocalTraining):
    """Takes a second gradient in the same step."""

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        gradient(state["params"])
        super().step(state, gradient, pass_number)


def test_a_second_gradient_in_a_step_is_not_given_for_nothing() -> None:
    small = world()
    for local in (
        TwoGradients(SGD(0.1), PoissonSteps(0.3, 2)),
        LocalSGD(SGD(0.1), PoissonSteps(0.3, 2)),
    ):
        strategy = Strategy(local, (Weighted("uniform"),), examples=ExampleDP())
        if isinstance(local, TwoGradients):
            with pytest.raises(StrategyError, match="two gradients in a step"):
                small.run(strategy)
        else:
            small.run(strategy)


# ----------------------------------------------------------------------------- what it costs
def test_a_participation_costs_its_steps_at_their_rate() -> None:
    strategy = dp_sgd(noise_multiplier=1.3, rate=0.05, steps=7)
    (event,) = events_of_a_participation(strategy)
    assert event == GaussianEvent(1.3, "poisson", 0.05, adjacency="add-remove-example", count=7)
    (whole,) = events_of_a_participation(dp_sgd(rate=1.0, steps=3))
    assert (whole.sampling, whole.rate, whole.count) == ("none", 1.0, 3)
    assert events_of_a_participation(dp_fedavg()) == ()


def test_the_largest_epsilon_is_that_of_whoever_took_part_most_often() -> None:
    strategy = dp_sgd(noise_multiplier=1.1, rate=0.01, steps=10)
    found = epsilons(strategy, [100, 0, 3, 100], 1e-5, "rdp")
    # 1000 releases at rate 0.01 with noise 1.1, a number that Opacus and dp-accounting agree on.
    assert found[0] == found[3] == max(found) == pytest.approx(1.711770, abs=1e-5)
    assert found[1] == 0.0
    assert 0 < found[2] < found[0]


def test_what_protects_examples_is_not_added_to_what_protects_clients(tmp_path: Path) -> None:
    of_examples, of_clients = events_of_a_participation(dp_sgd())[0], GaussianEvent(1.0)
    with pytest.raises(ConfigError, match=r"add-remove beside .*add-remove-example"):
        epsilon([of_examples, of_clients], 1e-5, "rdp")
    ledger = Ledger.create(tmp_path / "a.ledger", "people", Budget(100.0, 1e-5, "rdp"))
    ledger.charge(of_clients, run="a", round=1)
    with pytest.raises(ConfigError, match="add-remove-example"):
        ledger.charge(of_examples, run="a", round=2)
    assert len(ledger.entries()) == 2


def test_a_run_charges_its_ledger_for_the_client_that_is_in_every_round(tmp_path: Path) -> None:
    strategy = dp_sgd(noise_multiplier=2.0, rate=0.2, steps=3, noise="os")
    (event,) = events_of_a_participation(strategy)
    costs = [epsilon([replace(event, count=3 * n)], 1e-3, "rdp") for n in (2, 3)]
    ledger = Ledger.create(tmp_path / "a.ledger", "people", Budget(sum(costs) / 2, 1e-3, "rdp"))
    done: list[int] = []
    with pytest.raises(BudgetError, match="round 3"):
        done.extend(
            one.number
            for one in rounds(
                Experiment(
                    strategy,
                    federation(),
                    mlp(),
                    rounds=5,
                    ledger=ledger.path,
                    participation=hanse.Uniform(count=2),
                )
            )
        )
    assert done == [0, 1, 2]
    assert ledger.account().events() == [replace(event, count=6)]


def test_batches_that_are_accounted_for_as_secret_are_not_drawn_from_the_seed() -> None:
    one, other, known = (
        prepare(Experiment(dp_sgd(noise=noise), federation(), mlp())).population.seed
        for noise in ("os", "os", "seeded")
    )
    assert len({one, other, known}) == 3
    assert known == 0


def test_a_card_is_refused_until_it_was_tried() -> None:
    strategy, small = dp_sgd(), Task.of(mlp())
    with pytest.raises(ConfigError, match="device = 'cuda'"):
        check_example_privacy(strategy, small, federation().train, device="cuda")
    assert check_example_privacy(strategy, small, federation().train)
    assert not check_example_privacy(hanse.fedavg(), small, federation().train, device="cuda")


def test_what_a_user_must_know_is_said() -> None:
    def said(strategy: Strategy) -> str:
        return " ".join(prepare(Experiment(strategy, federation(), mlp())).warnings)

    assert "nothing is charged to a ledger" in said(dp_sgd())
    assert "drawn from the run's seed" in said(dp_sgd())
    assert "operating system" in said(dp_sgd(noise="os"))
    assert "nobody is protected" in said(dp_sgd(noise_multiplier=0))
    assert "no guarantee covers them" in said(dp_sgd())
    assert "ExampleDP" not in said(hanse.fedavg())
    assert "states no epsilon" not in said(dp_sgd())


def test_clients_that_add_noise_to_their_updates_as_well_are_refused() -> None:
    """What both protect is not added up, and one of them would be stated and charged."""
    strategy = dp_sgd().replace(layers=(LocalDP(),))
    with pytest.raises(StrategyError, match="ExampleDP with LocalDP"):
        prepare(Experiment(strategy, federation(), mlp()))


@dataclasses.dataclass(frozen=True)
class TwoWalks(LocalSGD):
    """A training that draws its examples twice."""

    second: PoissonSteps = PoissonSteps(0.2, 2)

    @property
    def passes(self) -> tuple[Any, ...]:
        return (self.work, self.second)


def test_passes_of_one_rate_are_one_kind_of_release_and_others_are_refused() -> None:
    def stated(rate: float) -> object:
        local = TwoWalks(SGD(0.1), PoissonSteps(0.2, 3), PoissonSteps(rate, 2))
        strategy = Strategy(local, (Weighted("uniform"),), examples=ExampleDP(1.0, 1.0, 4.0))
        return privacy_of(strategy, Population(5, hanse.Full(), "cross-silo", seed=0))

    found = stated(0.2)
    assert isinstance(found, Statement)
    assert found.event is not None
    assert found.event.count == 5
    with pytest.raises(ConfigError, match=r"0\.2, 0\.3") as caught:
        stated(0.3)
    assert "the same rate" in caught.value.instead
