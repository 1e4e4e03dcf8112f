"""Losses of all kinds train: numbers, labels, and survival times with losses of the user's own."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.engine.small import FEATURES, World, seeded, world
from tests.strategies.oracle import federated_averaging, vector
from torch import Tensor, nn

import hanse
from hanse.core.errors import ModelError, StrategyError
from hanse.data import Federation, PackedClients
from hanse.data.batching import Epochs
from hanse.experiment import Experiment, prepare
from hanse.local import ScaffoldSGD
from hanse.models import Execution, Task, cross_entropy, squared_error
from hanse.models.execution import loss_couples

if TYPE_CHECKING:
    from hanse.models import Loss

INTERVALS = 5
SIZES = (12, 7, 31, 1, 20)


def hazards(outputs: Tensor, targets: Tensor) -> Tensor:
    """The likelihood of discrete times `[n, 2]`: interval, and event or censored."""
    interval, event = targets[:, 0], targets[:, 1].to(outputs.dtype)
    survived = (torch.arange(INTERVALS) < interval[:, None]).to(outputs.dtype)
    last = outputs.gather(1, interval[:, None]).squeeze(1)
    return (F.softplus(outputs) * survived).sum(dim=1) + F.softplus(last) - event * last


def cox(outputs: Tensor, targets: Tensor) -> Tensor:
    """The partial likelihood within a batch, by example."""
    risk, time, event = outputs.squeeze(1), targets[:, 0], targets[:, 1].to(outputs.dtype)
    at_risk = time[None, :] >= time[:, None]
    everyone = risk.expand(len(risk), -1).masked_fill(~at_risk, -torch.inf)
    return (everyone.logsumexp(dim=1) - risk) * event


def mean_cox(outputs: Tensor, targets: Tensor) -> Tensor:
    return cox(outputs, targets).mean()


@cache
def survivors() -> PackedClients:
    """Clients whose first feature brings the event forward; a third is censored."""
    random, arrays = np.random.default_rng(1), []
    for n in SIZES:
        x = random.normal(size=(n, FEATURES))
        times = np.clip(2 - x[:, 0] + 0.3 * random.normal(size=n), 0, INTERVALS - 1)
        y = np.stack([times, random.random(n) < 2 / 3], axis=1).astype(np.int64)
        arrays.append({"x": torch.from_numpy(x), "y": torch.from_numpy(y)})
    return PackedClients.from_arrays(arrays)


def numbers() -> PackedClients:
    x = survivors().fields["x"]
    return PackedClients({"x": x, "y": x[:, :1] - 2}, survivors().offsets, survivors().names)


def labels() -> PackedClients:
    x = survivors().fields["x"]
    y = (x[:, 0] > 0).long()
    return PackedClients({"x": x, "y": y}, survivors().offsets, survivors().names)


KINDS: dict[str, tuple[Loss, int, PackedClients]] = {
    "numbers": (squared_error, 1, numbers()),
    "labels": (cross_entropy, 2, labels()),
    "discrete survival": (hazards, INTERVALS, survivors()),
    "cox": (cox, 1, survivors()),
    "cox, one mean": (mean_cox, 1, survivors()),
}


def linear(outputs: int) -> nn.Module:
    return seeded(lambda: nn.Linear(FEATURES, outputs))


def small(kind: str) -> World:
    loss, outputs, data = KINDS[kind]
    return world(linear(outputs), data=data, loss=loss, participation=hanse.Uniform(count=3))


@pytest.mark.parametrize("kind", KINDS)
def test_federated_averaging_of_any_loss_is_a_loop_with_autograd(kind: str) -> None:
    here = small(kind)
    expected = federated_averaging(here, linear(KINDS[kind][1]), Epochs(2, 4), rate=lambda _: 0.1)
    found = here.run(hanse.fedavg(local_epochs=2, batch_size=4), Execution("module", 3))
    assert float((found.params - vector(expected)).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", ["numbers", "labels", "discrete survival"])
@pytest.mark.parametrize("path", ["vmap", "dense"])
def test_losses_by_example_train_in_blocks(kind: str, path: Literal["vmap", "dense"]) -> None:
    one = small(kind).run(hanse.fedavg(), Execution("module", 1))
    block = small(kind).run(hanse.fedavg(), Execution(path, 3))
    assert float((one.params - block.params).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_is_evaluated(kind: str) -> None:
    loss, outputs, data = KINDS[kind]
    experiment = Experiment(
        hanse.fedavg(batch_size=8),
        Federation(data, data),
        linear(outputs),
        rounds=10,
        loss=loss,
        evaluate_every=10,
    )
    first, *_, last = hanse.rounds(experiment)
    before, after = (r.evaluations["test"].overall["loss"] for r in (first, last))
    assert after < 0.95 * before


@pytest.mark.parametrize("kind", KINDS)
def test_who_couples_examples_is_found_out(kind: str) -> None:
    loss, outputs, data = KINDS[kind]
    task = Task.of(linear(outputs), loss=loss)
    coupled = loss_couples(task, data.fields["x"][:64], data.fields["y"][:64])
    assert coupled == kind.startswith("cox")


def late() -> PackedClients:
    """The first few examples are all censored, and so do not look coupled."""
    y = survivors().fields["y"].clone()
    y[:8, 1] = 0
    return PackedClients({**survivors().fields, "y": y}, survivors().offsets, survivors().names)


def test_a_likelihood_whose_first_examples_are_censored_still_gets_exact_batches() -> None:
    common = {"loss": cox, "rounds": 1}
    prepared = prepare(Experiment(hanse.fedavg(), Federation(late()), linear(1), **common))  # type: ignore[arg-type]
    assert prepared.engine.execution.path == "module"
    assert "depends on the rest" in prepared.engine.execution.why
    with pytest.raises(ModelError, match="depends on the rest of its batch") as caught:
        prepare(
            Experiment(
                hanse.fedavg(),
                Federation(late()),
                linear(1),
                execution=Execution("vmap", 3),
                **common,  # type: ignore[arg-type]
            )
        )
    assert "'module'" in caught.value.instead


@pytest.mark.parametrize("loss", [cox, mean_cox])
def test_whole_gradients_of_coupled_examples_are_not_taken_in_parts(loss: Loss) -> None:
    def prepared(strategy: hanse.Strategy, function: Loss) -> object:
        return prepare(
            Experiment(strategy, Federation(survivors()), linear(1), loss=function, rounds=1)
        )

    for strategy in (
        hanse.fedsgd(chunk=30),
        hanse.Strategy(ScaffoldSGD(option=1, gradient_chunk=30), (hanse.Weighted("uniform"),)),
    ):
        with pytest.raises(StrategyError, match="a client has 31") as caught:
            prepared(strategy, loss)
        assert "fedsgd(chunk=31)" in caught.value.instead
    prepared(hanse.fedsgd(chunk=31), loss)
    prepared(hanse.fedavg(), loss)


def test_whole_gradients_by_example_may_be_taken_in_parts() -> None:
    task = Experiment(
        hanse.fedsgd(chunk=3),
        Federation(survivors()),
        linear(INTERVALS),
        loss=hazards,
        rounds=1,
    )
    assert prepare(task).engine.strategy == hanse.fedsgd(chunk=3)
