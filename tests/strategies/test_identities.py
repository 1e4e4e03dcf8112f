"""Strategies that must be one another, by mathematics."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import pytest
from tests.engine.small import MODULE, VMAP, largest_difference, same_bits, snapshot, world

if TYPE_CHECKING:
    from hanse.models import Execution

from hanse.selection import Full
from hanse.server import ServerAdam, ServerSGD
from hanse.strategies import fedavg, fedprox, fedsgd, scaffold


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
@pytest.mark.parametrize("execution", [MODULE, VMAP], ids=["module", "vmap"])
def test_one_local_step_on_all_data_is_fedsgd(
    weighting: Literal["examples", "uniform"], execution: Execution
) -> None:
    one_step = fedavg(lr=0.3, batch_size=None, local_epochs=1, weighting=weighting)
    gradient = fedsgd(lr=0.3, weighting=weighting)
    found, expected = world().run(one_step, execution), world().run(gradient, execution)
    assert float((found.params - expected.params).abs().max()) < 1e-12


def test_adam_sees_the_same_direction_from_a_local_step_and_from_a_gradient() -> None:
    # Adaptive servers look at the size of delta too: the client's rate of 1 makes them equal.
    server = ServerAdam(0.05)
    one_step = fedavg(lr=1.0, batch_size=None, server=server)
    gap = largest_difference(
        snapshot(world().run(one_step)), snapshot(world().run(fedsgd(server=server)))
    )
    assert gap < 1e-11


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fedprox_without_pull_is_fedavg(momentum: float) -> None:
    free = world().run(fedprox(mu=0, local_epochs=2, momentum=momentum, weight_decay=0.01))
    plain = world().run(fedavg(local_epochs=2, momentum=momentum, weight_decay=0.01))
    assert same_bits(snapshot(free), snapshot(plain))


def test_a_pull_to_the_origin_is_weight_decay() -> None:
    small = world()
    zero = dataclasses.replace(origin := small.start(fedavg()), params=origin.params * 0)
    pulled, _ = small.step(zero, fedprox(mu=0.7, local_epochs=3))
    decayed, _ = small.step(zero, fedavg(weight_decay=0.7, local_epochs=3))
    assert float((pulled.params - decayed.params).abs().max()) < 1e-14
    assert float(pulled.params.abs().max()) > 1e-3


def test_a_single_client_has_no_drift_for_scaffold_to_correct() -> None:
    alone = world(sizes=(17,), participation=Full())
    plain = alone.run(fedavg(local_epochs=2))
    corrected = alone.run(scaffold(local_epochs=2))
    assert float((plain.params - corrected.params).abs().max()) < 1e-13


def test_uniform_and_example_weights_agree_where_clients_are_as_large() -> None:
    same_size = world(sizes=(8,) * 11)
    one = same_size.run(fedavg(weighting="examples"))
    other = same_size.run(fedavg(weighting="uniform"))
    assert float((one.params - other.params).abs().max()) < 1e-14


def test_a_server_rate_scales_the_mean_of_the_models() -> None:
    small = world()
    start = small.start(fedavg()).params
    full = small.run(fedavg(), rounds=1).params - start
    half = small.run(fedavg(server=ServerSGD(0.5)), rounds=1).params - start
    assert float((half - full / 2).abs().max()) < 1e-15
