"""What cannot be meant of correlated noise and of local differential privacy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.bad_input import test_bad_input as base
from tests.bad_input.test_bad_client_dp import normed, with_one_empty
from tests.bad_input.test_bad_input import Bad, filed, fine, fine_file, made

import hanse
from hanse import (
    AdaptiveClip,
    BinaryTree,
    ClientDP,
    ConfigError,
    Full,
    LocalDP,
    Normalized,
    Poisson,
    Separated,
    Stragglers,
    StrategyError,
    Toeplitz,
    Uniform,
    dp_ftrl,
    fedavg,
    feddyn,
    fednova,
    ldp_fedavg,
    scaffold,
)

if TYPE_CHECKING:
    from pathlib import Path

empty = base.empty  # the fixture

FTRL = dp_ftrl(rounds=100)
TURNS = Separated(2)


def correlated(strategy: hanse.Strategy, *before: object) -> hanse.Strategy:
    return strategy.replace(layers=(*before, ClientDP(correlation=Toeplitz(100))))


def local(strategy: hanse.Strategy, *before: object) -> hanse.Strategy:
    return strategy.replace(layers=(*before, LocalDP()))


TABLE: dict[str, Bad] = {
    "correlated noise and everybody in every round": Bad(
        StrategyError,
        "participation Full()",
        "Separated(separation=…)",
        made(strategy=FTRL, participation=Full()),
        fine(strategy=FTRL, participation=TURNS),
    ),
    "correlated noise and cohorts drawn at random": Bad(
        StrategyError,
        "participation Poisson(rate=0.5)",
        "Separated(separation=…)",
        made(strategy=FTRL, participation=Poisson(0.5)),
        fine(strategy=FTRL, participation=TURNS),
    ),
    "correlated noise and cohorts of a fixed size": Bad(
        StrategyError,
        "participation Uniform(fraction=None, count=2)",
        "Separated(separation=…)",
        made(strategy=FTRL, participation=Uniform(count=2)),
        fine(strategy=FTRL, participation=TURNS),
    ),
    "correlated noise of no size and cohorts drawn at random": Bad(
        StrategyError,
        "participation Poisson(rate=0.5)",
        "Separated(separation=…)",
        made(strategy=dp_ftrl(rounds=100, noise_multiplier=0), participation=Poisson(0.5)),
        fine(strategy=dp_ftrl(rounds=100, noise_multiplier=0), participation=TURNS),
    ),
    "independent noise and clients in turns": Bad(
        StrategyError,
        "participation Separated(separation=2, most=None)",
        "Poisson(rate=…)",
        made(strategy=hanse.dp_fedavg(), participation=TURNS),
        fine(strategy=dp_ftrl(rounds=100, bands=1), participation=TURNS),
    ),
    "more rounds than the noise is made for": Bad(
        StrategyError,
        "10 rounds, and ClientDP with BinaryTree(rounds=9)",
        "rounds=10",
        made(strategy=dp_ftrl(rounds=9, matrix="tree"), participation=TURNS, rounds=10),
        fine(strategy=dp_ftrl(rounds=10, matrix="tree"), participation=TURNS, rounds=10),
    ),
    "turns that end before the rounds": Bad(
        StrategyError,
        "Separated(separation=2, most=3)",
        "most=50",
        made(strategy=FTRL, participation=Separated(2, most=3)),
        fine(strategy=FTRL, participation=Separated(2, most=50)),
    ),
    "correlated noise for SCAFFOLD's controls": Bad(
        StrategyError,
        "ScaffoldSGD, which sends control",
        "fedprox",
        made(strategy=correlated(scaffold()), participation=TURNS),
        fine(strategy=correlated(hanse.fedprox()), participation=TURNS),
    ),
    "an adaptive clip norm with correlated noise": Bad(
        StrategyError,
        "adaptive clip norm with noise that is correlated",
        "a number",
        lambda: ClientDP(AdaptiveClip(), correlation=Toeplitz(9)),
        lambda: ClientDP(0.5, correlation=Toeplitz(9)),
    ),
    "too much noise for 64 bits": Bad(
        StrategyError,
        "noise_multiplier is 300",
        "from 0 to 256",
        lambda: dp_ftrl(rounds=9, noise_multiplier=300),
        lambda: dp_ftrl(rounds=9, noise_multiplier=256),
    ),
    "a matrix that there is not": Bad(
        StrategyError,
        "matrix='band'",
        'matrix="toeplitz"',
        lambda: dp_ftrl(rounds=9, matrix="band"),  # type: ignore[arg-type]
        lambda: dp_ftrl(rounds=9, bands=3),
    ),
    "bands of a tree": Bad(
        StrategyError,
        "matrix='tree' and bands=3",
        "without bands",
        lambda: dp_ftrl(rounds=9, matrix="tree", bands=3),
        lambda: dp_ftrl(rounds=9, matrix="tree"),
    ),
    "more bands than rounds": Bad(
        StrategyError, "bands=…) is 10", "from 1 to 9", lambda: Toeplitz(9, 10)
    ),
    "a tree of no rounds": Bad(
        StrategyError, "BinaryTree(rounds=…) is 0", "from 1 to 16384", lambda: BinaryTree(0)
    ),
    "turns without a separation": Bad(
        ConfigError, "separation=0", "separation=10", lambda: Separated(0), lambda: Separated(10)
    ),
    "turns that nobody has": Bad(
        ConfigError, "most=0", "most=10", lambda: Separated(3, 0), lambda: Separated(3, 10)
    ),
    "more groups than clients": Bad(
        ConfigError,
        "separation=7",
        "separation=6 at most",
        made(strategy=FTRL, participation=Separated(7)),
        fine(strategy=FTRL, participation=Separated(6)),
    ),
    "noise of the clients and of the server": Bad(
        StrategyError,
        "ClientDP and LocalDP in one strategy",
        "LocalDP(…) alone",
        made(strategy=fedavg().replace(layers=(ClientDP(), LocalDP()))),
        fine(strategy=local(fedavg())),
    ),
    "noise of the clients that a server would take back": Bad(
        StrategyError,
        "ClientDP and LocalDP in one strategy",
        "ClientDP(…) alone",
        made(strategy=correlated(fedavg(), LocalDP()), participation=TURNS),
        fine(strategy=correlated(fedavg()), participation=TURNS),
    ),
    "noise of the clients twice": Bad(
        StrategyError,
        "2 LocalDP layers",
        "one of them",
        made(strategy=fedavg().replace(layers=(LocalDP(), LocalDP()))),
        fine(strategy=local(fedavg())),
    ),
    "weights by examples beside noise of the clients": Bad(
        StrategyError,
        "LocalDP with Weighted(by='examples'",
        "without the Weighted",
        made(strategy=fedavg().then(LocalDP())),
        fine(strategy=local(fedavg())),
    ),
    "a layer behind the noise of the clients": Bad(
        StrategyError,
        "Normalized behind LocalDP",
        "layers=(Normalized(…), LocalDP(…))",
        made(strategy=local(fedavg()).then(Normalized(2.0))),
        fine(strategy=local(fedavg(), Normalized(2.0))),
    ),
    "FedNova's steps beside noise of the clients": Bad(
        StrategyError,
        "LocalDP around Normalized, which sends 'effective_steps'",
        "Normalized(steps=…)",
        made(strategy=local(fednova(), Normalized())),
        fine(strategy=local(fednova(), Normalized(steps=3.0))),
    ),
    "FedDyn with noise of the clients": Bad(
        StrategyError,
        "LocalDP around DynamicSGD, which sends 'heard'",
        "scaffold",
        made(strategy=local(feddyn())),
        fine(strategy=local(scaffold())),
    ),
    "BatchNorm's statistics beside noise of the clients": Bad(
        StrategyError,
        "0.running_mean",
        "local=hanse.models.batch_norm",
        made(model=normed, strategy=ldp_fedavg()),
        fine(model=normed, strategy=ldp_fedavg(), local=hanse.models.batch_norm),
    ),
    "stragglers that add noise": Bad(
        StrategyError,
        "LocalDP with Stragglers(fraction=0.5",
        "without stragglers",
        made(strategy=ldp_fedavg(), stragglers=Stragglers(0.5)),
        fine(strategy=ldp_fedavg()),
    ),
    "clients without examples that add noise": Bad(
        StrategyError,
        "LocalDP with 1 clients without examples",
        "min_size=1",
        made(strategy=ldp_fedavg(), data=with_one_empty()),
        fine(strategy=ldp_fedavg()),
    ),
    "a local clip norm NaN": Bad(
        StrategyError, "clip is nan", "0.5", lambda: LocalDP(float("nan")), lambda: LocalDP(0.5)
    ),
    "a local noise multiplier below zero": Bad(
        StrategyError,
        "noise_multiplier is -1",
        "4.0",
        lambda: ldp_fedavg(noise_multiplier=-1),
        lambda: ldp_fedavg(noise_multiplier=4.0),
    ),
    "local noise from nowhere": Bad(
        StrategyError,
        "LocalDP with noise='secret'",
        "'seeded' or 'os'",
        lambda: LocalDP(noise="secret"),  # type: ignore[arg-type]
        lambda: LocalDP(noise="os"),
    ),
    "weights by examples in a file beside local noise": Bad(
        ConfigError,
        "strategy.weighting = 'examples' with strategy.local_dp",
        'weighting = "uniform"',
        filed("strategy.weighting=examples", "strategy.local_dp={clip = 0.5}"),
        fine_file("strategy.weighting=uniform", "strategy.local_dp={clip = 0.5}"),
    ),
    "a key of local_dp that there is not": Bad(
        ConfigError,
        "strategy.local_dp.sigma = 2",
        "noise_multiplier",
        filed("strategy.local_dp={sigma = 2}"),
        fine_file("strategy.local_dp={noise_multiplier = 2}"),
    ),
    "a correlation in a file without its kind": Bad(
        ConfigError,
        "strategy.client_dp.correlation = {'rounds': 9}",
        "toeplitz, tree",
        filed("strategy.client_dp={correlation = {rounds = 9}}"),
        fine_file(
            "strategy.client_dp={correlation = {kind = 'toeplitz', rounds = 9}}",
            "run.participation={kind = 'separated', separation = 2}",
            "run.rounds=9",
        ),
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


def test_an_old_schedule_is_no_schedule_of_one_s_own() -> None:
    """A participation that looks like turns is not taken for it: only what is known is enforced."""

    class Looks(Separated):
        def select(self, population: int, key: object, number: int = 1) -> np.ndarray:
            return np.arange(population)

    with pytest.raises(StrategyError, match="keeps to any such rule"):
        ClientDP(correlation=Toeplitz(9)).event(Looks(3), 10)
