"""Training as a loop: what rounds say, when they stop, and what is chosen or refused before."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.engine.small import (
    CLASSES,
    FEATURES,
    MODULE,
    SIZES,
    clients,
    federation,
    mlp,
    same_bits,
    seeded,
    snapshot,
    world,
)
from torch import nn

from hanse.core.errors import ConfigError, DivergenceError, ModelError, StrategyError
from hanse.core.types import ServerOptimizer
from hanse.data import Federation, PackedClients
from hanse.experiment import Experiment, prepare
from hanse.layers import Weighted
from hanse.local import SGD, CosineDecay, LocalSGD
from hanse.models import Execution, cross_entropy, squared_error
from hanse.round import FederationState
from hanse.selection import Full, Poisson, Uniform
from hanse.server import ServerAdam, ServerSGD
from hanse.strategies import fedavg, fedprox, fedsgd, scaffold
from hanse.strategy import Strategy
from hanse.training import advice, rounds

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.types import RoundContext, State
    from hanse.selection import Participation
    from hanse.training import Round


def experiment(strategy: Strategy | None = None, **parts: object) -> Experiment:
    given = {"rounds": 3, "participation": Full(), "execution": MODULE, **parts}
    return Experiment(strategy or fedavg(), federation(), mlp(), **given)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------- rounds
def test_round_0_is_the_model_before_training() -> None:
    first = next(rounds(experiment()))
    assert first.number == 0
    assert first.result is None
    assert first.train_loss is None
    assert set(first.evaluations) == {"test"}
    x = clients().fields["x"]
    assert torch.equal(first.model()(x), mlp()(x))


def test_rounds_are_counted_and_evaluated_when_due() -> None:
    seen = list(rounds(experiment(rounds=5, evaluate_every=2)))
    assert [r.number for r in seen] == [0, 1, 2, 3, 4, 5]
    assert [bool(r.evaluations) for r in seen] == [True, False, True, False, True, True]
    assert all(r.seconds > 0 for r in seen)


def test_unseen_clients_are_evaluated_beside_the_others() -> None:
    held = PackedClients.from_arrays({"stranger": {"x": np.ones((3, 4)), "y": np.zeros(3, int)}})
    data = dataclasses.replace(federation(), unseen=held)
    last = list(rounds(Experiment(fedavg(), data, mlp(), rounds=1)))[-1]
    assert {k: len(e.clients) for k, e in last.evaluations.items()} == {"test": 11, "unseen": 1}


def test_the_train_loss_is_the_cohorts_mean_by_examples() -> None:
    small = world(participation=Full())
    first = list(islice(rounds(experiment(fedsgd(), rounds=1, seed=small.seed)), 2))[1]
    with torch.no_grad():
        x, y = small.data.fields["x"], small.data.fields["y"]
        expected = float(nn.functional.cross_entropy(mlp()(x), y))
    assert first.train_loss == pytest.approx(expected, abs=1e-12)


def test_the_seed_decides_the_run_and_nothing_else_does() -> None:
    def last(seed: int) -> Round:
        torch.rand(seed + 1)  # torch's own generator is elsewhere each time
        return list(rounds(experiment(seed=seed, participation=Uniform(count=4))))[-1]

    assert same_bits(snapshot(last(1).state), snapshot(last(1).state))
    assert not same_bits(snapshot(last(1).state), snapshot(last(2).state))


def test_a_model_that_is_made_gets_its_weights_from_the_seed() -> None:
    def start(seed: int) -> torch.Tensor:
        make = lambda: nn.Linear(FEATURES, CLASSES).double()  # noqa: E731 - as users write it
        return next(rounds(dataclasses.replace(experiment(seed=seed), model=make))).state.params

    before = torch.get_rng_state()
    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in rounds(experiment(rounds=1)):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --------------------------------------------------------------------------------- divergence
def steep(strategy: Strategy, **parts: object) -> Experiment:
    """A regression whose gradients grow with what they are too large for."""
    data = Federation(clients(labels=False))
    module = seeded(lambda: nn.Linear(FEATURES, 1))
    given = {"rounds": 50, "loss": squared_error, "participation": Full(), **parts}
    return Experiment(strategy, data, module, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("strategy", "advised"),
    [
        (fedavg(lr=0.6), ["lr=0.6", "fedprox"]),
        (fedsgd(lr=2.0), ["server rate", "2.0"]),
        (fedprox(lr=0.6, mu=0.1), ["lr=0.6", "larger mu", "0.1"]),
        (scaffold(lr=0.6), ["lr=0.6"]),
    ],
    ids=["fedavg", "fedsgd", "fedprox", "scaffold"],
)
def test_an_exploding_loss_stops_the_run_with_advice(
    strategy: Strategy, advised: list[str]
) -> None:
    losses: list[float | None] = []
    with pytest.raises(DivergenceError, match="diverged") as caught:
        losses.extend(r.train_loss for r in rounds(steep(strategy)))
    assert len(losses) < 50
    for words in advised:
        assert words in caught.value.instead
    assert caught.value.instead == advice(strategy)


def two_clients(targets: tuple[float, float], cohorts: list[int]) -> Experiment:
    """A model that says 0, hardly trained, on one client in each round: first these ones."""
    data = Federation(
        PackedClients.from_arrays(
            [{"x": np.ones((4, 1)), "y": np.full((4, 1), y)} for y in targets]
        )
    )
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(module.weight)
    one = Uniform(count=1)
    small = world(module, data=data.train, loss=squared_error, participation=one)  # type: ignore[arg-type]
    seeds = (dataclasses.replace(small, seed=seed) for seed in range(1000))
    seed = next(
        s.seed for s in seeds if [s.cohort(n + 1)[0] for n in range(len(cohorts))] == cohorts
    )
    return Experiment(
        fedavg(lr=1e-9), data, module, len(cohorts), squared_error, participation=one, seed=seed
    )


@dataclass(frozen=True)
class Factors:
    """Rates at which a step multiplies the error of `stepping` by minus these factors."""

    factors: tuple[float, ...]

    def rate(self, round_number: int) -> float:
        return (1 + self.factors[round_number - 1]) / 2


def stepping(*factors: float, participation: Participation | None = None) -> Experiment:
    """Two clients of whom each says that a model which says 0 should say 1."""
    one = {"x": np.ones((4, 1)), "y": np.ones((4, 1))}
    clients = PackedClients.from_arrays([one, one])
    data = Federation(clients, test=clients)
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(module.weight)
    strategy = fedavg(lr=Factors(factors), batch_size=None)
    return Experiment(
        strategy, data, module, len(factors), squared_error, participation=participation
    )


def test_the_third_bad_round_in_a_row_stops_the_run_and_no_earlier_one() -> None:
    passing = [r.train_loss for r in rounds(stepping(4, 1, 0.25, 4, 1, 0.25, 1))]
    assert passing[1:] == pytest.approx([1, 16, 16, 1, 16, 16, 1])
    seen: list[int] = []
    with pytest.raises(DivergenceError, match=r"training loss is 16, .* 3 times in a row"):
        seen.extend(r.number for r in rounds(stepping(1, 4, 1, 1, 1, 1)))
    assert seen == [0, 1, 2, 3, 4]


def test_a_resumed_run_diverges_where_the_unbroken_one_does() -> None:
    experiment = stepping(4, 1, 1, 1, 1)
    half = list(islice(rounds(experiment), 3))[-1].state
    seen: list[int] = []
    with pytest.raises(DivergenceError, match="round 4 diverged"):
        seen.extend(r.number for r in rounds(prepare(experiment), start=half))
    assert seen == [3]


def test_less_than_ten_times_the_first_loss_is_no_divergence() -> None:
    assert len(list(rounds(stepping(3, 1, 1, 1, 1)))) == 6


def test_a_cohort_that_finds_its_data_hard_is_no_divergence() -> None:
    losses = [r.train_loss for r in rounds(two_clients((1.0, 4.0), [0, 0, 1, 1, 1, 0]))]
    assert losses[1:] == pytest.approx([1, 1, 16, 16, 16, 1])


def test_with_partial_participation_the_evaluated_clients_tell_divergence() -> None:
    seen: list[int] = []
    with pytest.raises(DivergenceError, match=r"loss on test clients is 16, .* 3 times in a row"):
        seen.extend(r.number for r in rounds(stepping(4, 1, 1, 1, participation=Uniform(count=1))))
    assert seen == [0, 1, 2]


def test_where_nobody_can_be_evaluated_an_explosion_still_stops_the_run() -> None:
    federation = steep(fedavg(lr=1.4, batch_size=None)).data
    alone = Federation(federation.train)
    experiment = steep(fedavg(lr=1.4, batch_size=None), participation=Uniform(count=2))
    experiment = dataclasses.replace(experiment, data=alone, rounds=200)
    with pytest.raises(DivergenceError, match=r"training loss of the cohort .* above 1000 times"):
        list(rounds(experiment))


def test_a_mu_that_overshoots_is_told_to_be_smaller_when_it_diverges() -> None:
    with pytest.raises(DivergenceError, match="diverged") as caught:
        list(rounds(steep(fedprox(lr=0.1, mu=40.0))))
    assert "a smaller mu" in caught.value.instead


def test_a_first_loss_of_zero_is_no_measure_of_divergence() -> None:
    losses = [r.train_loss for r in rounds(two_clients((0.0, 1.0), [0, 1, 1, 1, 1]))]
    assert losses[1:] == pytest.approx([0, 1, 1, 1, 1])


def test_advice_names_what_can_be_changed() -> None:
    assert "5 epochs or steps" in advice(fedavg(local_epochs=5))
    assert "epochs" not in advice(fedavg(local_epochs=1))
    assert "ServerAdam(lr=0.01" in advice(fedavg(server=ServerAdam()))
    assert "server" not in advice(fedavg(server=ServerSGD(1.0)))
    assert "fedprox" not in advice(scaffold())
    assert "fedprox" not in advice(fedprox())
    assert "CosineDecay" in advice(fedavg(lr=CosineDecay(0.1, rounds=5)))
    assert "smaller rate" in advice(Strategy(LocalSGD(SGD(0.5))))


class Own(ServerOptimizer):
    """A server of a user's own, no dataclass."""

    def init(self, size: int, dtype: torch.dtype) -> State:
        return {}

    def step(
        self, params: Tensor, delta: Tensor, state: State, round_: RoundContext
    ) -> tuple[Tensor, State]:
        return params + delta, state


def test_advice_is_given_for_a_server_of_ones_own() -> None:
    assert "smaller rate" in advice(fedavg(server=Own()))


def test_advice_for_fedprox_without_pull_names_a_number() -> None:
    assert "(0 now; try ten times as much)" not in advice(fedprox(mu=0))


# -------------------------------------------------------------------- settings and soundness
def test_a_setting_announces_what_it_decided() -> None:
    silo = prepare(Experiment(fedavg(), federation(), mlp()))
    assert silo.chosen == (
        "participation = Full()",
        "evaluate_every = 1",
        "evaluation_clients = all",
        "client memory = kept",
    )
    assert silo.evaluate_every == 1
    assert silo.population.participation == Full()

    device = prepare(Experiment(fedavg(), federation(), mlp(), setting="cross-device"))
    assert device.chosen == (
        "participation = Uniform(fraction=0.01, count=None)",
        "evaluate_every = 10",
        "evaluation_clients = 1000",
        "client memory = stale",
    )
    assert device.population.participation.expected(5000) == 50


def test_what_the_user_chose_is_not_announced() -> None:
    chosen = experiment(evaluate_every=7, evaluation_clients=4, participation=Poisson(0.5))
    prepared = prepare(chosen)
    assert prepared.chosen == ("client memory = kept",)
    assert prepared.evaluate_every == 7
    assert prepared.population.participation == Poisson(0.5)
    ids = prepared.evaluated["test"]
    assert len(ids) == len(set(ids.tolist())) == 4
    assert np.array_equal(ids, prepare(chosen).evaluated["test"])


def test_memory_that_will_be_stale_is_warned_about() -> None:
    def warned(strategy: Strategy, setting: str, *local: str) -> tuple[str, ...]:
        return prepare(
            experiment(strategy, setting=setting, participation=Full(), local=local)
        ).warnings

    (warning,) = warned(scaffold(), "cross-device")
    assert "stale" in warning
    assert "fedprox" in warning
    assert warned(scaffold(), "cross-silo") == ()
    assert warned(fedavg(), "cross-device") == ()
    assert warned(fedavg(), "cross-silo", "2.*") == ()


def test_a_local_head_that_nobody_would_train_is_refused_by_name() -> None:
    with pytest.raises(StrategyError, match=r"2\.weight, 2\.bias"):
        prepare(experiment(fedsgd(), local=("2.*",)))


def test_scaffold_2_refuses_momentum_and_options_there_are_not() -> None:
    with pytest.raises(StrategyError, match="momentum"):
        scaffold(momentum=0.9)
    with pytest.raises(StrategyError, match="option"):
        scaffold(option=3)  # type: ignore[arg-type]
    scaffold(option=1, momentum=0.9)


def test_fedsgd_refuses_two_rates() -> None:
    with pytest.raises(StrategyError, match="one of them"):
        fedsgd(lr=0.1, server=ServerSGD(0.1))


def test_a_weighting_there_is_not_is_refused() -> None:
    with pytest.raises(StrategyError, match="'size'"):
        Weighted("size")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts",
    [
        {"rounds": 0},
        {"rounds": 2.0},
        {"rounds": True},
        {"evaluate_every": 0},
        {"evaluation_clients": -1},
        {"checkpoint_every": 0},
        {"seed": -1},
        {"seed": 1.5},
        {"setting": "cross-silos"},
        {"strategy": "fedavg"},
        {"data": None},
    ],
    ids=str,
)
def test_what_an_experiment_cannot_mean_is_refused(parts: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(experiment(), **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [2**63, 2**64, 10**30])
def test_a_seed_may_be_any_number_or_is_refused_as_one(seed: int) -> None:
    try:
        found = list(rounds(experiment(seed=seed, rounds=1)))
    except ConfigError:
        return
    assert len(found) == 2


def test_a_cohort_larger_than_the_population_is_refused() -> None:
    with pytest.raises(ConfigError, match="only 11 clients"):
        prepare(experiment(participation=Uniform(count=12)))


@pytest.mark.parametrize("block", [0, -2, True, 1.5])
def test_a_block_has_a_client_at_least(block: int) -> None:
    with pytest.raises(ModelError, match="1 or more"):
        Execution("module", block)


def test_paths_there_are_not_are_refused() -> None:
    with pytest.raises(ModelError, match="'vmap'"):
        Execution("cuda", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "found"),
    [
        ("resnet", "str"),
        (nn.Flatten(), "no trainable parameter"),
        (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3).double()), "float32.*float64"),
        (nn.BatchNorm1d(4, momentum=None), "momentum=None"),
    ],
    ids=["no module", "nothing to train", "two types", "counted mean"],
)
def test_modules_that_cannot_be_averaged_are_refused(module: nn.Module, found: str) -> None:
    with pytest.raises(ModelError, match=found):
        prepare(dataclasses.replace(experiment(), model=module))


def test_weights_that_are_not_finite_are_refused() -> None:
    module = nn.Linear(FEATURES, CLASSES)
    nn.init.constant_(module.bias, float("nan"))
    with pytest.raises(ModelError, match="'bias' are not finite"):
        prepare(dataclasses.replace(experiment(), model=module))


def test_accuracy_is_measured_where_the_loss_is_cross_entropy() -> None:
    assert list(prepare(experiment()).task.metrics) == ["accuracy"]
    assert list(prepare(steep(fedavg())).task.metrics) == []
    assert list(prepare(experiment(metrics={})).task.metrics) == []


def test_replacing_a_part_there_is_not_suggests_one() -> None:
    with pytest.raises(StrategyError, match="did you mean 'server'"):
        fedavg().replace(serve=ServerAdam())
    assert fedavg().replace(server=ServerAdam()) == fedavg(server=ServerAdam())


def test_states_are_compared_by_identity() -> None:
    first = next(rounds(experiment())).state
    assert isinstance(first, FederationState)
    assert first == first  # noqa: PLR0124 - tensors inside must not be asked
    assert len(SIZES) == 11
    assert cross_entropy is experiment().loss
