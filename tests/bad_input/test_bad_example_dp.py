"""What cannot be meant of differential privacy of examples: refused by name, with a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from tests.bad_input import test_bad_input as base
from tests.bad_input.test_bad_input import Bad, filed, fine, fine_file, made
from tests.runs.small_runs import CLASSES, FEATURES
from torch import Tensor, nn

import hanse
from hanse import ClientDP, ConfigError, ExampleDP, ModelError, Normalized, StrategyError, Weighted
from hanse.data import Epochs, FullGradient, PoissonSteps, Steps
from hanse.local import SGD, AdaptiveMu, FullGradientStep, LocalSGD, ProximalSGD, ScaffoldSGD
from hanse.models import Execution
from hanse.strategies import dp_sgd, fedavg, feddyn, fedprox, mimelite, scaffold
from hanse.strategies.private import protecting_examples
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hanse.core.types import LocalTraining
    from hanse.data import Pass

empty = base.empty  # the fixture
WORK, UNIFORM = PoissonSteps(0.5, 2), Weighted("uniform")


def private(local: LocalTraining, *layers: object) -> Strategy:
    return Strategy(local, layers or (UNIFORM,), examples=ExampleDP())  # type: ignore[arg-type]


def protecting(strategy: Strategy) -> Strategy:
    return protecting_examples(strategy, ExampleDP(), WORK)


def model(*middle: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(FEATURES, 4), *middle, nn.Linear(4, CLASSES))


class Centred(nn.Module):
    """Takes the mean of the batch off."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Counting(nn.Module):
    """Remembers how large its inputs are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += x.detach().abs().mean()  # type: ignore[operator]
        return x


def coupled(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)


PASSES: dict[str, tuple[Pass, str]] = {
    "epochs": (Epochs(1, 4), "shuffled"),
    "whole batches": (Epochs(1, None), "shuffled"),
    "steps": (Steps(3, 4), "more than once"),
}

TABLE: dict[str, Bad] = {
    **{
        name: Bad(
            StrategyError,
            f"ExampleDP with {work!r}",
            "PoissonSteps(rate=…, count=…)",
            made(strategy=private(LocalSGD(SGD(0.1), work))),
            fine(strategy=private(LocalSGD(SGD(0.1), WORK))),
        )
        for name, (work, _) in PASSES.items()
    },
    "a full gradient in chunks": Bad(
        StrategyError,
        "ExampleDP with FullGradient(chunk=1024)",
        "PoissonSteps",
        made(strategy=private(FullGradientStep(FullGradient()))),
        fine(strategy=private(FullGradientStep(PoissonSteps(1.0, 1)))),
    ),
    "a raw control variate": Bad(
        StrategyError,
        "SCAFFOLD's option 1",
        "option=2",
        made(strategy=private(ScaffoldSGD(SGD(0.1), WORK, option=1))),
        fine(strategy=private(ScaffoldSGD(SGD(0.1), WORK, option=2))),
    ),
    "a raw gradient beside the update": Bad(
        StrategyError,
        "ExampleDP with MimeLite",
        "scaffold(option=2)",
        made(strategy=protecting(mimelite())),
        fine(strategy=protecting(scaffold(option=2))),
    ),
    "weights by examples": Bad(
        StrategyError,
        "ExampleDP with Weighted('examples')",
        'Weighted("uniform")',
        made(strategy=private(LocalSGD(SGD(0.1), WORK), Weighted("examples"))),
        fine(strategy=private(LocalSGD(SGD(0.1), WORK), Normalized(), UNIFORM)),
    ),
    "a mean loss beside the update": Bad(
        StrategyError,
        "ProximalSGD, which sends 'train_loss'",
        "a number for mu",
        made(strategy=private(ProximalSGD(SGD(0.1), WORK, AdaptiveMu()))),
        fine(strategy=private(ProximalSGD(SGD(0.1), WORK, 0.1))),
    ),
    "both kinds of privacy": Bad(
        StrategyError,
        "ExampleDP with ClientDP",
        "one of them",
        made(strategy=dp_sgd().replace(layers=(ClientDP(),))),
        fine(strategy=dp_sgd()),
    ),
    "BatchNorm": Bad(
        StrategyError,
        "'1', a BatchNorm1d",
        "nn.GroupNorm",
        made(strategy=dp_sgd(), model=model(nn.BatchNorm1d(4))),
        fine(strategy=dp_sgd(), model=model(nn.GroupNorm(2, 4))),
    ),
    "BatchNorm that stays with the clients": Bad(
        StrategyError,
        "a BatchNorm1d",
        "nn.LayerNorm",
        made(strategy=dp_sgd(), model=model(nn.BatchNorm1d(4)), local=hanse.models.batch_norm),
        fine(strategy=dp_sgd(), model=model(nn.LayerNorm(4))),
    ),
    "BatchNorm without statistics": Bad(
        StrategyError,
        "a BatchNorm1d",
        "nn.GroupNorm",
        made(strategy=dp_sgd(), model=model(nn.BatchNorm1d(4, track_running_stats=False))),
        fine(strategy=dp_sgd(), model=model(nn.BatchNorm1d(4).eval())),
    ),
    "a buffer that a forward changes": Bad(
        StrategyError,
        "1.seen",
        "persistent=False",
        made(strategy=dp_sgd(), model=model(Counting())),
        fine(strategy=fedavg(), model=model(Counting())),
    ),
    "a model whose examples know each other": Bad(
        ModelError,
        "a Sequential whose outputs for an example depend on the rest",
        "one example at a time",
        made(strategy=dp_sgd(), model=model(Centred())),
        fine(strategy=dp_sgd(), model=model(nn.Dropout(0.5))),
    ),
    "a loss that couples examples": Bad(
        ModelError,
        "the loss 'coupled'",
        "cross_entropy",
        made(strategy=dp_sgd(), loss=coupled),
        fine(strategy=fedavg(), loss=coupled),
    ),
    "half the digits": Bad(
        StrategyError,
        "precision 'bfloat16'",
        "'full'",
        made(strategy=dp_sgd(), execution=Execution("module", 1, precision="bfloat16")),
        fine(strategy=dp_sgd(), execution=Execution("module", 1)),
    ),
    "something else as the privacy of examples": Bad(
        StrategyError,
        "examples=True",
        "ExampleDP(clip=1.0",
        made(strategy=fedavg().replace(examples=True)),
        fine(strategy=protecting(feddyn())),
    ),
    "no clip norm": Bad(
        StrategyError, "clip=0", "such as 1.0", lambda: ExampleDP(clip=0), lambda: ExampleDP(clip=2)
    ),
    "a clip norm that squares lose": Bad(
        StrategyError,
        "clip=1e-30",
        "1e-06",
        lambda: ExampleDP(clip=1e-30),
        lambda: ExampleDP(clip=1e-6),
    ),
    "noise below nothing": Bad(
        StrategyError,
        "noise_multiplier=-1",
        "from 0",
        lambda: ExampleDP(noise_multiplier=-1),
        lambda: ExampleDP(noise_multiplier=0),
    ),
    "a divisor that is secret": Bad(
        StrategyError,
        "divisor=None",
        "the same for all clients",
        lambda: ExampleDP(divisor=None),  # type: ignore[arg-type]
        lambda: ExampleDP(divisor=12.5),
    ),
    "noise from nowhere": Bad(
        StrategyError,
        "noise='random'",
        "'os'",
        lambda: ExampleDP(noise="random"),  # type: ignore[arg-type]
        lambda: ExampleDP(noise="os"),
    ),
    "exact by a word": Bad(
        StrategyError,
        "exact='yes'",
        "True or False",
        lambda: ExampleDP(exact="yes"),  # type: ignore[arg-type]
        lambda: ExampleDP(exact=True),
    ),
    "a rate above one": Bad(
        StrategyError,
        "PoissonSteps(rate=1.5)",
        "at most 1",
        lambda: PoissonSteps(rate=1.5),
        lambda: PoissonSteps(rate=1.0),
    ),
    "no steps": Bad(
        StrategyError,
        "PoissonSteps(count=0)",
        "at least 1",
        lambda: PoissonSteps(count=0),
        lambda: PoissonSteps(count=1),
    ),
    "epochs beside sampled batches in a file": Bad(
        ConfigError,
        "strategy.local_epochs = 2 with strategy.example_dp",
        "rate = 0.1, steps = 10",
        filed("strategy.local_epochs=2", "strategy.example_dp={clip = 0.5}"),
        fine_file("strategy.lr=0.05", "strategy.example_dp={clip = 0.5, rate = 0.3, steps = 2}"),
    ),
    "weights by examples in a file": Bad(
        ConfigError,
        "strategy.weighting = 'examples' with strategy.example_dp",
        "no such line",
        filed("strategy.weighting=examples", "strategy.example_dp={clip = 0.5}"),
        fine_file("strategy.weighting=uniform", "strategy.example_dp={clip = 0.5}"),
    ),
    "a key of example_dp that there is not": Bad(
        ConfigError,
        "strategy.example_dp.sigma = 2",
        "noise_multiplier",
        filed("strategy.example_dp={sigma = 2}"),
        fine_file("strategy.example_dp={noise_multiplier = 2}"),
    ),
    "a number as example_dp": Bad(
        ConfigError,
        "strategy.example_dp = 2",
        "example_dp",
        filed("strategy.example_dp=2"),
        fine_file("strategy.name=dp_sgd", "strategy.clip=2"),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_cannot_be_meant_is_refused_with_a_remedy(
    empty: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "TABLE", TABLE)
    base.test_what_cannot_be_meant_is_refused_with_a_remedy(empty, name)


@pytest.mark.parametrize("name", [name for name, bad in TABLE.items() if bad.works])
def test_the_remedy_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "TABLE", TABLE)
    base.test_the_remedy_works(name)


@pytest.mark.parametrize("name", PASSES)
def test_it_is_said_why_other_batches_do_not_do(name: str) -> None:
    work, why = PASSES[name]
    with pytest.raises(StrategyError) as caught:
        made(strategy=private(LocalSGD(SGD(0.1), work)))()
    assert why in caught.value.why


def test_a_training_without_a_walk_of_its_own_cannot_be_sampled() -> None:
    class Walk:
        passes = (Epochs(),)

    with pytest.raises(StrategyError, match="Walk with examples"):
        protecting(fedprox().replace(local=Walk()))
