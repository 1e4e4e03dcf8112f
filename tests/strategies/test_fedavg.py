"""FedAvg and FedProx against loops over copies of the module with `torch.optim.SGD`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
from tests.engine.small import MODULE, VMAP, World, mlp, world
from tests.strategies.oracle import federated_averaging, vector

from hanse.data.batching import Epochs, Pass, Steps
from hanse.layers import Weighted
from hanse.local import SGD, ExponentialDecay, LocalSGD
from hanse.strategies import fedavg, fedprox
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from torch import nn


def assert_both_paths(small: World, strategy: Strategy, expected: nn.Module) -> None:
    for execution in (MODULE, VMAP):
        found = small.run(strategy, execution).params
        assert float((found - vector(expected)).abs().max()) < 1e-12, execution


@pytest.mark.parametrize("work", [Epochs(2, 4), Epochs(2, None), Steps(5, 4)], ids=repr)
@pytest.mark.parametrize("by", ["examples", "uniform"])
def test_fedavg_is_the_mean_of_models_trained_by_sgd(
    work: Pass, by: Literal["examples", "uniform"]
) -> None:
    small = world()
    strategy = Strategy(LocalSGD(SGD(0.2), work), (Weighted(by),))
    expected = federated_averaging(small, mlp(), work, rate=lambda _: 0.2, by=by)
    assert_both_paths(small, strategy, expected)


def test_momentum_decay_and_schedule_are_torch_optim_sgds() -> None:
    small, schedule = world(), ExponentialDecay(0.2, 0.5)
    strategy = fedavg(lr=schedule, local_epochs=3, momentum=0.9, weight_decay=0.05)
    expected = federated_averaging(
        small,
        mlp(),
        Epochs(3, 10),
        rate=lambda number: 0.2 * 0.5 ** (number - 1),
        momentum=0.9,
        weight_decay=0.05,
    )
    assert_both_paths(small, strategy, expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_fedprox_descends_the_penalised_loss(momentum: float, decay: float) -> None:
    small = world()
    strategy = fedprox(
        lr=0.1, mu=2.0, local_epochs=3, batch_size=10, momentum=momentum, weight_decay=decay
    )
    expected = federated_averaging(
        small,
        mlp(),
        Epochs(3, 10),
        rate=lambda _: 0.1,
        momentum=momentum,
        weight_decay=decay,
        mu=2.0,
    )
    assert_both_paths(small, strategy, expected)
