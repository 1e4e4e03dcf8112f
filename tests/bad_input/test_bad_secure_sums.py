"""What cannot be meant of secure sums and of noise from clients: refused, with a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.bad_input import test_bad_input as base
from tests.bad_input.test_bad_client_dp import Median
from tests.bad_input.test_bad_input import Bad, filed, fine, fine_file, made, write
from tests.engine.small import Chosen
from tests.runs.small_runs import people

import hanse
from hanse import (
    ClientDP,
    Compress,
    ConfigError,
    DistributedDP,
    DropOuts,
    Full,
    Normalized,
    Quantize,
    RandomK,
    SecureSum,
    StrategyError,
    TopK,
    Uniform,
    Weighted,
    fedavg,
    fedavg_secagg,
    fednova,
    fedsgd_secagg,
    scaffold,
)
from hanse.aggregation import Assumptions, Bound
from hanse.config import read_experiment, with_overrides
from hanse.core.types import Layer, Space, Vector, vector
from hanse.data import Federation, partitioned

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Memory, Update

empty = base.empty  # the fixture


@dataclass(frozen=True, eq=False)
class Own(Space):
    """Columns that a client chooses, or a step that is its own."""

    chosen: Tensor
    size: int
    linear = True
    isometric = True
    common = False

    def lift(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(values), self.size).scatter(1, self.chosen, values)


@dataclass(frozen=True)
class TopTwo(Layer):
    """Each client sends its own two largest coordinates."""

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        delta = update["delta"].lifted()
        _, chosen = delta.abs().topk(2, dim=1)
        sent = Vector(delta.gather(1, chosen), torch.ones_like(delta[:, 0]))
        return {**update, "delta": sent._replace(space=(Own(chosen, delta.shape[1]),))}, memory


@dataclass(frozen=True)
class Telling(Layer):
    """Sends a loss beside the update."""

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        return {**update, "loss": vector(torch.zeros(len(client.id), 1))}, memory


def with_one_empty() -> Federation:
    x, y = people((8,))["person 0"]
    parts = [np.arange(2), np.arange(2, 4), np.arange(4, 6), np.arange(6, 8), np.arange(0)]
    return partitioned(x, y, parts, classes=["a", "b", "c"], may_be_empty=True)


def strategy_of(*overrides: str) -> hanse.Strategy:
    return with_overrides(read_experiment(write()), list(overrides)).experiment().strategy


SECURE = fedavg_secagg()
BY_EXAMPLES = fedavg().replace(aggregation=SecureSum(most_examples=100))
NOISE = DistributedDP(survivors=3)
NOISY = fedavg_secagg(privacy=NOISE)

TABLE: dict[str, Bad] = {
    "two clients": Bad(
        ConfigError,
        "secure aggregation among 2",
        "three clients or more",
        made(strategy=SECURE, participation=Uniform(count=2)),
        fine(strategy=SECURE, participation=Uniform(count=3)),
    ),
    "one client": Bad(
        ConfigError,
        "secure aggregation among 1",
        "three clients or more",
        made(strategy=SECURE, participation=Chosen((1,))),
        fine(strategy=SECURE),
    ),
    "more clients at least than there are": Bad(
        ConfigError,
        "SecureSum(least=40) in cohorts of",
        "larger cohorts",
        made(strategy=fedavg_secagg(secure=SecureSum(least=40))),
        fine(strategy=fedavg_secagg(secure=SecureSum(least=3))),
    ),
    "weights without a public bound": Bad(
        StrategyError,
        "Weighted('examples'), and no bound",
        "SecureSum(most_examples=1000)",
        made(strategy=fedavg().replace(aggregation=SecureSum())),
        fine(strategy=BY_EXAMPLES),
    ),
    "other vectors weighted than the sum takes for weighted": Bad(
        StrategyError,
        "SecureSum that takes delta, buffers",
        "SecureSum(weighted=('delta',))",
        made(strategy=BY_EXAMPLES.replace(layers=(Weighted(vectors=("delta",)),))),
        fine(
            strategy=BY_EXAMPLES.replace(
                layers=(Weighted(vectors=("delta",)),),
                aggregation=SecureSum(most_examples=100, weighted=("delta",)),
            )
        ),
    ),
    "each client's own coordinates": Bad(
        StrategyError,
        "SecureSum of 'delta' in a Own that every client has its own of",
        "RandomK, whose coordinates are drawn from a shared seed",
        made(strategy=SECURE.then(TopTwo())),
        fine(strategy=SECURE),
    ),
    "each client's own coordinates, by top-k": Bad(
        StrategyError,
        "SecureSum of 'delta' in a Support that every client has its own of",
        "RandomK, whose coordinates are drawn from a shared seed",
        made(strategy=SECURE.then(Compress(TopK(0.5)))),
        fine(strategy=SECURE.then(Compress(RandomK(0.5)))),
    ),
    "each client's own step": Bad(
        StrategyError,
        "SecureSum of 'delta' in a Grid that every client has its own of",
        "Quantize(limit=…), with a public limit",
        made(strategy=SECURE.then(Compress(Quantize(8)))),
        fine(strategy=SECURE.then(Compress(Quantize(8, limit=0.1)))),
    ),
    "sums that 64 bits do not hold": Bad(
        StrategyError,
        "steps at most",
        "fewer examples at most",
        made(strategy=fedavg_secagg(secure=SecureSum(most_examples=1 << 62))),
        fine(strategy=fedavg_secagg(secure=SecureSum(clip=2.0**10))),
    ),
    "a clip below the step": Bad(
        ConfigError,
        "numbers up to 1e-09 in steps of",
        "a step between",
        lambda: SecureSum(clip=1e-9),
        lambda: SecureSum(clip=1e-3),
    ),
    "a protocol that there is not": Bad(
        ConfigError,
        "SecureSum(protocol='masked')",
        "'real'",
        lambda: SecureSum(protocol="masked"),  # type: ignore[arg-type]
        lambda: SecureSum(protocol="real"),
    ),
    "sums of two": Bad(
        ConfigError,
        "SecureSum(least=2)",
        "at least 3",
        lambda: SecureSum(least=2),
        lambda: SecureSum(least=3),
    ),
    "half an example": Bad(
        ConfigError,
        "most_examples=0.5",
        "at least 1",
        lambda: SecureSum(most_examples=0.5),  # type: ignore[arg-type]
        lambda: SecureSum(most_examples=1),
    ),
    "more drop-outs than clients": Bad(
        ConfigError,
        "DropOuts(mask=1.5)",
        "from 0 to 1",
        lambda: SecureSum(drops=1.5),
        lambda: SecureSum(drops=0.5),
    ),
    "drop-outs that drop out twice": Bad(
        ConfigError,
        "1.2 in all",
        "no more than 1",
        lambda: DropOuts(share=0.6, mask=0.6),
        lambda: DropOuts(share=0.5, mask=0.5),
    ),
    "a vector's bound below its step": Bad(
        ConfigError,
        "numbers up to 0.1 in steps of 1.0",
        "a step between",
        lambda: Bound("loss", 0.1, 1.0),
        lambda: Bound("loss", 10.0, 1.0),
    ),
    # ------------------------------------------------------------------------------------- noise
    "noise of clients without a secure sum": Bad(
        StrategyError,
        "DistributedDP with Sum",
        "aggregation=SecureSum(least=3)",
        made(strategy=fedavg().replace(layers=(NOISE,))),
        fine(strategy=NOISY),
    ),
    "noise of clients and a median": Bad(
        StrategyError,
        "DistributedDP with Median",
        "aggregation=SecureSum(least=3)",
        made(strategy=NOISY.replace(aggregation=Median())),
        fine(strategy=NOISY),
    ),
    "weights beside the noise": Bad(
        StrategyError,
        "DistributedDP with Weighted",
        "without the Weighted",
        made(strategy=NOISY.replace(layers=(Weighted("uniform"), NOISE))),
        fine(strategy=NOISY),
    ),
    "a layer behind the noise": Bad(
        StrategyError,
        "Telling behind DistributedDP",
        "the other order",
        made(strategy=NOISY.then(Telling())),
        fine(strategy=NOISY),
    ),
    "a loss beside the update": Bad(
        StrategyError,
        "DistributedDP around 'loss'",
        "parts that send nothing of it",
        made(strategy=NOISY.replace(layers=(Telling(), NOISE))),
        fine(strategy=NOISY),
    ),
    "the number of steps beside the update": Bad(
        StrategyError,
        "DistributedDP around 'effective_steps'",
        "parts that send nothing of it",
        made(strategy=fednova().replace(layers=(Normalized(), NOISE), aggregation=SecureSum())),
        fine(strategy=fednova().replace(layers=(Normalized(4.0), NOISE), aggregation=SecureSum())),
    ),
    "noise twice": Bad(
        StrategyError,
        "DistributedDP beside another layer",
        "one of them",
        made(strategy=NOISY.replace(layers=(NOISE, DistributedDP(clip=1.0)))),
        fine(strategy=SECURE.replace(layers=(ClientDP(),))),
    ),
    "noise for more survivors than sums need": Bad(
        StrategyError,
        "DistributedDP(survivors=4) with sums that are opened for 3",
        "SecureSum(least=4)",
        made(
            strategy=scaffold().replace(
                layers=(DistributedDP(survivors=4),), aggregation=SecureSum()
            ),
            participation=Uniform(count=3),
        ),
        fine(
            strategy=scaffold().replace(
                layers=(DistributedDP(survivors=3),), aggregation=SecureSum()
            ),
            participation=Uniform(count=3),
        ),
    ),
    "clients without examples": Bad(
        StrategyError,
        "DistributedDP with 1 clients without examples",
        "min_size=1",
        made(strategy=NOISY, data=with_one_empty(), participation=Full()),
        fine(strategy=NOISY),
    ),
    "rounded Gaussians": Bad(
        StrategyError,
        "mechanism='gaussian'",
        "'discrete-gaussian', of whose sums it is proved",
        lambda: DistributedDP(mechanism="gaussian"),  # type: ignore[arg-type]
        lambda: DistributedDP(mechanism="discrete-gaussian"),
    ),
    "no noise": Bad(
        StrategyError,
        "noise_multiplier=0",
        "SecureSum alone",
        lambda: DistributedDP(noise_multiplier=0),
        lambda: DistributedDP(noise_multiplier=0.1),
    ),
    "two survivors": Bad(
        StrategyError,
        "survivors=2",
        "at least 3",
        lambda: DistributedDP(survivors=2),
        lambda: DistributedDP(survivors=3),
    ),
    "as many colluders as survivors": Bad(
        StrategyError,
        "colluders=3",
        "below `survivors`",
        lambda: DistributedDP(survivors=3, colluders=3),
        lambda: DistributedDP(survivors=3, colluders=2),
    ),
    "noise from somewhere else": Bad(
        StrategyError,
        "noise='numpy'",
        "'os'",
        lambda: DistributedDP(noise="numpy"),  # type: ignore[arg-type]
        lambda: DistributedDP(noise="os"),
    ),
    # ------------------------------------------------------------------------------------- files
    "weights by examples in a file": Bad(
        ConfigError,
        "strategy.weighting = 'examples' with strategy.distributed_dp",
        'weighting = "uniform"',
        filed("strategy.weighting=examples", "strategy.distributed_dp={clip = 0.5}"),
        fine_file("strategy.weighting=uniform", "strategy.distributed_dp={clip = 0.5}"),
    ),
    "a key of secure_sum that there is not": Bad(
        ConfigError,
        "strategy.secure_sum.mask = 2",
        "most_examples",
        filed("strategy.secure_sum={mask = 2}"),
        fine_file("strategy.secure_sum={most_examples = 100, drops = {mask = 0.2}}"),
    ),
    "a key of secure that there is not": Bad(
        ConfigError,
        "strategy.secure.drops.training = 0.1",
        "advertise, confirm, mask",
        filed("strategy.name=fedsgd_secagg", "strategy.secure={drops = {training = 0.1}}"),
        fine_file(
            "strategy.name=fedsgd_secagg",
            'strategy.secure={protocol = "real", drops = {share = 0.1}, bounds = '
            '[{name = "weight", clip = 1.0, step = 1.0}], assumptions = {corrupt = 0.1}}',
            "strategy.privacy={survivors = 3}",
            "run.participation={kind = 'full'}",
        ),
    ),
}


def test_what_files_say_is_what_strategies_are(empty: Path) -> None:
    found = strategy_of(
        "strategy.name=fedsgd_secagg",
        "strategy.secure={drops = {share = 0.1}, assumptions = {corrupt = 0.1}}",
        "strategy.privacy={survivors = 4}",
    )
    assert found == fedsgd_secagg(
        secure=SecureSum(drops=DropOuts(share=0.1), assumptions=Assumptions(corrupt=0.1)),
        privacy=DistributedDP(survivors=4),
    )
    found = strategy_of("strategy.secure_sum={most_examples = 9}")
    assert found == fedavg().replace(aggregation=SecureSum(most_examples=9))
    found = strategy_of("strategy.distributed_dp={survivors = 5}")
    assert found == fedavg().replace(
        layers=(DistributedDP(survivors=5),), aggregation=SecureSum(least=5)
    )


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
