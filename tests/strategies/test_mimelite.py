"""MimeLite against Karimireddy et al. (NeurIPS 2021), algorithm 1, written out with autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
import torch
from tests.engine.small import (
    MODULE,
    VMAP,
    World,
    largest_difference,
    mlp,
    same_bits,
    snapshot,
    world,
)
from tests.strategies.oracle import gradient, vector, weights

from hanse.data.batching import Epochs, Steps
from hanse.layers import Weighted
from hanse.local import SGD, ExponentialDecay, MimeSGD
from hanse.selection import Full
from hanse.server import ServerSGD
from hanse.strategies import fedavg, mimelite
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hanse.data.batching import Pass


def algorithm_1(
    small: World,
    work: Pass,
    *,
    rate: Callable[[int], float],
    beta1: float,
    beta2: float | None = None,
    tau: float = 0.1,
    decay: float = 0.0,
    by: str = "uniform",
    rounds: int = 3,
) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 1, MimeLite: the model and both moments."""
    module, loss = mlp(), small.task.loss
    x = vector(module)
    m, v = torch.zeros_like(x), torch.full_like(x, tau**2)

    def slope(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return gradient(module, loss, at, x, y) + decay * at

    for number in range(1, rounds + 1):
        cohort = small.cohort(number)
        models, gradients = [], []
        for k in cohort:
            y = x.clone()
            for batch in small.batches(work, number, k):
                step = beta1 * m + (1 - beta1) * slope(y, *batch)
                y = y - rate(number) * (step if beta2 is None else step / (v.sqrt() + tau))
            models.append(y)
            gradients.append(slope(x, *small.examples(k)))
        parts = weights(small, cohort, by)
        g = torch.stack([p * one for p, one in zip(parts, gradients, strict=True)]).sum(0)
        x = torch.stack([p * y for p, y in zip(parts, models, strict=True)]).sum(0)
        m = beta1 * m + (1 - beta1) * g
        v = v if beta2 is None else beta2 * v + (1 - beta2) * g**2
    return x, m, v


@pytest.mark.parametrize("work", [Epochs(2, 10), Epochs(3, None), Steps(5, 4)], ids=repr)
@pytest.mark.parametrize("beta2", [None, 0.9])
def test_mimelite_is_algorithm_1(work: Pass, beta2: float | None) -> None:
    small = world()
    strategy = Strategy(
        MimeSGD(SGD(ExponentialDecay(0.1, 0.8)), work, 0.7, beta2, tau=0.1, gradient_chunk=8),
        (Weighted("uniform"),),
    )
    x, m, v = algorithm_1(small, work, rate=lambda n: 0.1 * 0.8 ** (n - 1), beta1=0.7, beta2=beta2)
    for execution in (MODULE, VMAP):
        found = small.run(strategy, execution)
        assert float((found.params - x).abs().max()) < 1e-12
        assert float((found.layers[0]["first"] - m).abs().max()) < 1e-12
        if beta2 is not None:
            assert float((found.layers[0]["second"] - v).abs().max()) < 1e-12


@pytest.mark.parametrize("beta2", [None, 0.9])
@pytest.mark.parametrize("by", ["uniform", "examples"])
def test_weights_and_decay_are_those_of_models_and_gradients_alike(
    beta2: float | None, by: Literal["uniform", "examples"]
) -> None:
    small = world()
    strategy = mimelite(lr=0.05, beta1=0.9, beta2=beta2, tau=0.1, weight_decay=0.2, weighting=by)
    x, m, _ = algorithm_1(
        small, Epochs(), rate=lambda _: 0.05, beta1=0.9, beta2=beta2, decay=0.2, by=by
    )
    found = small.run(strategy)
    assert float((found.params - x).abs().max()) < 1e-12
    assert float((found.layers[0]["first"] - m).abs().max()) < 1e-12


def test_without_momentum_it_is_fedavg_to_the_bit() -> None:
    options = {"local_epochs": 2, "weight_decay": 0.01}
    plain = snapshot(world().run(fedavg(weighting="uniform", **options)))  # type: ignore[arg-type]
    free = snapshot(world().run(mimelite(beta1=0, **options)))  # type: ignore[arg-type]
    free.pop("layers.0.first")  # the mean gradient, which nobody uses
    assert same_bits(plain, free)


def test_a_single_step_on_all_data_is_gradient_descent_with_momentum() -> None:
    # Everyone takes one step from the same model, so the mean step is the server's own: FedAvgM
    # with the old momentum first, whose rate is in the clients.
    small, beta = world(participation=Full()), 0.8
    found = small.run(mimelite(lr=0.3, beta1=beta, batch_size=None), rounds=4)
    plain = fedavg(
        lr=0.3 * (1 - beta),
        batch_size=None,
        weighting="uniform",
        server=ServerSGD(momentum=beta),
    )
    expected = small.run(plain, rounds=4)
    ours, theirs = {"params": found.params}, {"params": expected.params}
    assert largest_difference(ours, theirs) < 1e-13
