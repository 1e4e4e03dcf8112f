"""What cannot be meant of differential privacy of clients: refused by name, with a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from tests.bad_input import test_bad_input as base
from tests.bad_input.test_bad_input import Bad, filed, fine, fine_file, made
from tests.engine.small import Chosen
from tests.runs.small_runs import CLASSES, FEATURES, people
from torch import nn

import hanse
from hanse import (
    AdaptiveClip,
    ClientDP,
    ConfigError,
    Normalized,
    Poisson,
    Stragglers,
    StrategyError,
    Uniform,
    dp_fedavg,
    fedavg,
    feddyn,
    fednova,
    fedprox,
    scaffold,
)
from hanse.aggregation import Sum
from hanse.data import Federation, partitioned

if TYPE_CHECKING:
    from pathlib import Path

empty = base.empty  # the fixture


def private(strategy: hanse.Strategy, *before: object) -> hanse.Strategy:
    return strategy.replace(layers=(*before, ClientDP()))


@dataclass(frozen=True)
class Median(Sum):
    """Claims to see single updates."""

    @property
    def sees(self) -> Literal["every update"]:  # type: ignore[override]
        return "every update"


@dataclass(frozen=True)
class Slower(Normalized):
    """Comes behind the clip."""


def normed() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, CLASSES))


def with_one_empty() -> Federation:
    x, y = people((6,))["person 0"]
    parts = [np.arange(3), np.arange(3, 6), np.arange(0)]
    return partitioned(x, y, parts, classes=["a", "b", "c"], may_be_empty=True)


TABLE: dict[str, Bad] = {
    "clients without examples": Bad(
        StrategyError,
        "1 clients without examples",
        "min_size=1",
        made(strategy=private(fedavg()), data=with_one_empty()),
        fine(strategy=private(fedavg())),
    ),
    "a clip norm of zero": Bad(
        StrategyError, "clip is 0", "0.5", lambda: dp_fedavg(clip=0), lambda: dp_fedavg(clip=0.5)
    ),
    "a clip norm NaN": Bad(
        StrategyError, "clip is nan", "0.5", lambda: ClientDP(float("nan")), lambda: ClientDP(0.5)
    ),
    "an infinite clip norm": Bad(
        StrategyError, "clip is inf", "0.5", lambda: ClientDP(float("inf"))
    ),
    "a word for the clip norm that there is not": Bad(
        StrategyError,
        "clip is 'median'",
        "'adaptive'",
        lambda: dp_fedavg(clip="median"),  # type: ignore[arg-type]
        lambda: dp_fedavg(clip="adaptive"),
    ),
    "a negative noise multiplier": Bad(
        StrategyError,
        "noise_multiplier is -1",
        "1.0",
        lambda: ClientDP(0.5, -1),
        lambda: ClientDP(0.5, 1.0),
    ),
    "a noise multiplier of a million": Bad(
        StrategyError, "1000000", "from 0 to 1024", lambda: ClientDP(0.5, 1_000_000)
    ),
    "noise from nowhere": Bad(
        StrategyError,
        "noise='secret'",
        "'seeded' or 'os'",
        lambda: ClientDP(noise="secret"),  # type: ignore[arg-type]
        lambda: ClientDP(noise="os"),
    ),
    "another way to clip": Bad(
        StrategyError,
        "clipping='per-tensor'",
        "'per-layer'",
        lambda: ClientDP(clipping="per-tensor"),  # type: ignore[arg-type]
        lambda: ClientDP(clipping="per-layer"),
    ),
    "an adaptive clip norm for each layer": Bad(
        StrategyError,
        "adaptive clip norm with clipping='per-layer'",
        "clipping='flat'",
        lambda: ClientDP(AdaptiveClip(), clipping="per-layer"),
        lambda: ClientDP(AdaptiveClip()),
    ),
    "a quantile of one": Bad(
        StrategyError,
        "quantile=…) is 1",
        "0.5",
        lambda: AdaptiveClip(quantile=1),
        lambda: AdaptiveClip(quantile=0.5),
    ),
    "a quantile without noise": Bad(
        StrategyError,
        "count_noise=…) is 0",
        "2.0",
        lambda: AdaptiveClip(count_noise=0),
        lambda: AdaptiveClip(count_noise=2.0),
    ),
    "a quantile with too little noise": Bad(
        StrategyError,
        "noise of 0.15 on its count, in cohorts of 3",
        "count_noise=1.1",
        made(strategy=dp_fedavg(clip="adaptive")),
        fine(strategy=dp_fedavg(clip=AdaptiveClip(count_noise=1.1))),
    ),
    "weights by examples": Bad(
        StrategyError,
        "Weighted(by='examples'",
        "without the Weighted",
        made(strategy=fedavg().then(ClientDP())),
        fine(strategy=private(fedavg())),
    ),
    "a layer behind the clip": Bad(
        StrategyError,
        "Slower behind ClientDP",
        "layers=(Slower(…), ClientDP(…))",
        made(strategy=private(fedavg()).then(Slower(2.0))),
        fine(strategy=private(fedavg(), Slower(2.0))),
    ),
    "noise twice": Bad(
        StrategyError,
        "2 ClientDP layers",
        "one of them",
        made(strategy=private(fedavg()).then(ClientDP())),
        fine(strategy=private(fedavg())),
    ),
    "FedNova's steps": Bad(
        StrategyError,
        "Normalized, which sends 'effective_steps'",
        "Normalized(steps=…)",
        made(strategy=private(fednova(), Normalized())),
        fine(strategy=private(fednova(), Normalized(steps=3.0))),
    ),
    "a public number of steps below zero": Bad(
        StrategyError,
        "Normalized(steps=…) is -1",
        "",
        lambda: Normalized(steps=-1),
        lambda: Normalized(steps=1),
    ),
    "FedDyn": Bad(
        StrategyError,
        "DynamicSGD, which sends 'heard'",
        "scaffold",
        made(strategy=private(feddyn())),
        fine(strategy=private(scaffold())),
    ),
    "a mu that follows the loss": Bad(
        StrategyError,
        "ProximalSGD, which sends 'train_loss'",
        "fedprox(mu=0.1)",
        made(strategy=private(fedprox(mu="adaptive"))),
        fine(strategy=private(fedprox(mu=0.1))),
    ),
    "BatchNorm's statistics": Bad(
        StrategyError,
        "0.running_mean",
        "local=hanse.models.batch_norm",
        made(model=normed, strategy=dp_fedavg()),
        fine(model=normed, strategy=dp_fedavg(), local=hanse.models.batch_norm),
    ),
    "an aggregation that sees single updates": Bad(
        StrategyError,
        "ClientDP with Median",
        "aggregation=Sum()",
        made(strategy=dp_fedavg().replace(aggregation=Median())),
        fine(strategy=dp_fedavg().replace(aggregation=Sum())),
    ),
    "a participation of one's own": Bad(
        StrategyError,
        "participation Chosen(ids=(0, 1))",
        "Poisson(rate=…)",
        made(strategy=dp_fedavg(), participation=Chosen((0, 1))),
        fine(strategy=dp_fedavg(), participation=Uniform(count=2)),
    ),
    "stragglers": Bad(
        StrategyError,
        "ClientDP with Stragglers(fraction=0.5",
        "without stragglers",
        made(strategy=dp_fedavg(), stragglers=Stragglers(0.5)),
        fine(strategy=dp_fedavg(), participation=Poisson(0.5)),
    ),
    "weights by examples in a file": Bad(
        ConfigError,
        "strategy.weighting = 'examples' with strategy.client_dp",
        'weighting = "uniform"',
        filed("strategy.weighting=examples", "strategy.client_dp={clip = 0.5}"),
        fine_file("strategy.weighting=uniform", "strategy.client_dp={clip = 0.5}"),
    ),
    "a key of client_dp that there is not": Bad(
        ConfigError,
        "strategy.client_dp.sigma = 2",
        "noise_multiplier",
        filed("strategy.client_dp={sigma = 2}"),
        fine_file("strategy.client_dp={noise_multiplier = 2}"),
    ),
    "an adaptive clip norm in a file with a key that there is not": Bad(
        ConfigError,
        "strategy.clip.gamma = 0.5",
        "quantile",
        filed("strategy.name=dp_fedavg", "strategy.clip={gamma = 0.5}"),
        fine_file("strategy.name=dp_fedavg", "strategy.clip={quantile = 0.5, count_noise = 2.0}"),
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
