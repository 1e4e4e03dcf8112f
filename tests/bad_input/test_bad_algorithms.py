"""What cannot be meant with FedNova, FedDyn, MimeLite and an adaptive mu; see test_bad_input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.bad_input import test_bad_input as base
from tests.bad_input.test_bad_input import Bad, filed, fine, fine_file, made

import hanse
from hanse import (
    ConfigError,
    Normalized,
    StrategyError,
    Weighted,
    fedavg,
    feddyn,
    fednova,
    fedprox,
    fedsgd,
    mimelite,
)
from hanse.local import SGD, AdaptiveMu, DynamicSGD, LocalSGD, MimeSGD, ProximalSGD

if TYPE_CHECKING:
    from pathlib import Path

empty = base.empty  # the fixture

NORMALIZED = fednova()

TABLE: dict[str, Bad] = {
    "FedDyn with a negative alpha": Bad(
        StrategyError, "alpha is -0.1", "0.01", lambda: feddyn(alpha=-0.1), lambda: feddyn(alpha=0)
    ),
    "FedDyn with alpha NaN": Bad(StrategyError, "nan", "0.01", lambda: feddyn(alpha=float("nan"))),
    "FedDyn weighted by examples": Bad(
        StrategyError,
        "FedDyn with updates weighted by 'examples'",
        'Weighted("uniform")',
        made(strategy=feddyn().replace(layers=(Weighted("examples"),))),
        fine(strategy=feddyn().replace(layers=(Weighted("uniform"),))),
    ),
    "FedDyn without weights": Bad(
        StrategyError,
        "DynamicSGD without a Weighted",
        'Weighted("uniform")',
        made(strategy=hanse.Strategy(DynamicSGD(), layers=())),
        fine(strategy=hanse.Strategy(DynamicSGD(), layers=(Weighted("uniform"),))),
    ),
    "FedDyn with normalised updates": Bad(
        StrategyError,
        "Normalized around DynamicSGD",
        "LocalSGD, ProximalSGD or ScaffoldSGD",
        made(strategy=feddyn().replace(layers=(Normalized(), Weighted("uniform")))),
        fine(strategy=NORMALIZED.replace(local=ProximalSGD())),
    ),
    "an adaptive mu that starts below zero": Bad(
        StrategyError,
        "AdaptiveMu(start=…) is -1",
        "0.01",
        lambda: fedprox(mu=AdaptiveMu(start=-1)),
        lambda: fedprox(mu=AdaptiveMu(start=0)),
    ),
    "an adaptive mu that takes no steps": Bad(
        StrategyError,
        "AdaptiveMu(step=…) is 0",
        "0.1",
        lambda: AdaptiveMu(step=0),
        lambda: AdaptiveMu(step=0.1),
    ),
    "an adaptive mu without patience": Bad(
        StrategyError,
        "patience=0",
        "patience=5",
        lambda: AdaptiveMu(patience=0),
        lambda: AdaptiveMu(patience=5),
    ),
    "an adaptive mu with half a patience": Bad(
        StrategyError,
        "patience=2.5",
        "patience=5",
        lambda: AdaptiveMu(patience=2.5),  # type: ignore[arg-type]
    ),
    "a word for mu that there is not": Bad(
        StrategyError,
        "mu is 'adaptve'",
        "'adaptive'",
        lambda: fedprox(mu="adaptve"),  # type: ignore[arg-type]
        lambda: fedprox(mu="adaptive"),
    ),
    "a class for mu": Bad(
        StrategyError,
        "AdaptiveMu",
        "AdaptiveMu(start=0.1)",
        lambda: fedprox(mu=AdaptiveMu),  # type: ignore[arg-type]
        lambda: fedprox(mu=AdaptiveMu()),
    ),
    "an adaptive mu without weights": Bad(
        StrategyError,
        "ProximalSGD without a Weighted behind it that averages 'train_loss'",
        'layers=(Weighted("examples"),)',
        made(strategy=hanse.Strategy(ProximalSGD(mu=AdaptiveMu()), layers=())),
        fine(strategy=hanse.Strategy(ProximalSGD(mu=AdaptiveMu()), (Weighted("examples"),))),
    ),
    "weights that forget the loss of an adaptive mu": Bad(
        StrategyError,
        "'train_loss'",
        "`vectors` left as they are",
        made(
            strategy=fedprox(mu="adaptive").replace(
                layers=(Weighted("examples", vectors=("delta", "buffers")),)
            )
        ),
        fine(strategy=fedprox(mu="adaptive")),
    ),
    "updates normalised twice": Bad(
        StrategyError,
        "2 Normalized",
        'layers=(Normalized(), Weighted("examples"))',
        made(strategy=NORMALIZED.replace(layers=(Normalized(), *NORMALIZED.layers))),
        fine(strategy=NORMALIZED.replace(layers=(Normalized(), Weighted("examples")))),
    ),
    "updates normalised behind their weights": Bad(
        StrategyError,
        "Normalized without a Weighted behind it",
        'layers=(Normalized(), Weighted("examples"))',
        made(strategy=fedavg().then(Normalized())),
        fine(strategy=fedavg().replace(layers=(Normalized(), Weighted("examples")))),
    ),
    "updates normalised and never averaged": Bad(
        StrategyError,
        "'effective_steps'",
        'layers=(Normalized(), Weighted("examples"))',
        made(strategy=hanse.Strategy(LocalSGD(), layers=(Normalized(),))),
    ),
    "gradients normalised": Bad(
        StrategyError,
        "Normalized around FullGradientStep",
        "LocalSGD",
        made(strategy=fedsgd().replace(layers=(Normalized(), Weighted()))),
        fine(strategy=NORMALIZED.replace(local=LocalSGD())),
    ),
    "steps that undo themselves": Bad(
        StrategyError,
        "lr=2 with weight decay and mu of 1 together",
        "lr=0.1",
        made(strategy=fednova(lr=2, mu=1.0)),
        fine(strategy=fednova(lr=0.1, mu=1.0, batch_size=2)),
    ),
    "FedNova with a negative mu": Bad(StrategyError, "mu is -1", "0.01", lambda: fednova(mu=-1)),
    "FedNova with momentum 1": Bad(
        StrategyError, "momentum is 1", "0.9", lambda: fednova(momentum=1)
    ),
    "MimeLite with beta1 of one": Bad(
        StrategyError,
        "beta1 is 1.0",
        "0.9",
        lambda: mimelite(beta1=1.0),
        lambda: mimelite(beta1=0.9),
    ),
    "MimeLite with beta2 of one": Bad(
        StrategyError, "beta2 is 1.0", "0.9", lambda: mimelite(beta2=1.0)
    ),
    "MimeLite with a tau of zero": Bad(
        StrategyError, "tau is 0", "0.1", lambda: mimelite(beta2=0.9, tau=0)
    ),
    "MimeLite with local momentum": Bad(
        StrategyError,
        "local momentum=0.8",
        "mimelite(beta1=0.8)",
        lambda: MimeSGD(SGD(momentum=0.8)),
        lambda: mimelite(beta1=0.8),
    ),
    "MimeLite with what stays local": Bad(
        StrategyError,
        "2.bias",
        "fedavg",
        made(strategy=mimelite(), local=("2.bias",)),
        fine(strategy=fedavg(), local=("2.bias",)),
    ),
    "MimeLite whose gradients are summed": Bad(
        StrategyError,
        "'gradient'",
        "`vectors` left as they are",
        made(strategy=mimelite().replace(layers=(Weighted("uniform", vectors=("delta",)),))),
    ),
    "a word for mu in a file that there is not": Bad(
        ConfigError,
        "strategy.mu = 'adaptve'",
        "mu = ",
        filed("strategy.name=fedprox", "strategy.mu=adaptve"),
        fine_file("strategy.name=fedprox", "strategy.mu=adaptive"),
    ),
    "an adaptive mu in a file with a key that there is not": Bad(
        ConfigError,
        "strategy.mu.begin = 0.5",
        "start",
        filed("strategy.name=fedprox", "strategy.mu={begin = 0.5}"),
        fine_file("strategy.name=fedprox", "strategy.mu={start = 0.5}"),
    ),
    "a momentum of MimeLite in a file": Bad(
        ConfigError,
        "strategy.momentum = 0.9",
        "beta1",
        filed("strategy.name=mimelite", "strategy.momentum=0.9"),
        fine_file("strategy.name=mimelite", "strategy.beta1=0.9"),
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
