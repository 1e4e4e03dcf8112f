"""What strategies must compute, as plain loops with torch's own autograd and optimisers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.small import World

    from hanse.data.batching import Pass


def weights(world: World, cohort: list[int], by: str) -> list[float]:
    """Each client's part of the mean."""
    sizes = [float(len(world.examples(k)[1])) if by == "examples" else 1.0 for k in cohort]
    return [size / sum(sizes) for size in sizes]


def trained(
    world: World,
    module: nn.Module,
    number: int,
    client: int,
    work: Pass,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    mu: float = 0.0,
) -> nn.Module:
    """A copy of `module`, in its own mode, after a client's work with `torch.optim.SGD`."""
    model = copy.deepcopy(module)
    anchor = [p.detach().clone() for p in model.parameters()]
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr, momentum, weight_decay=weight_decay)
    for x, y in world.batches(work, number, client):
        optimizer.zero_grad()
        loss = world.task.loss(model(x), y).mean()
        if mu:
            distance = sum(
                (p - a).square().sum() for p, a in zip(model.parameters(), anchor, strict=True)
            )
            loss = loss + mu / 2 * distance
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


@torch.no_grad()
def mean_state(models: list[nn.Module], parts: list[float]) -> dict[str, Tensor]:
    """The weighted mean of the models' floating-point state; counters as in the first."""
    states = [model.state_dict() for model in models]
    return {
        name: sum((p * s[name] for p, s in zip(parts, states, strict=True)), torch.zeros(()))
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


def federated_averaging(
    world: World,
    module: nn.Module,
    work: Pass,
    *,
    rate: Callable[[int], float],
    by: str = "examples",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    mu: float = 0.0,
    drop: bool = False,
) -> nn.Module:
    """Three rounds of FedAvg (of FedProx, with `mu`) over deep copies of `module`.

    With `drop` only who is no straggler takes part.
    """
    model = copy.deepcopy(module)
    local = {"momentum": momentum, "weight_decay": weight_decay, "mu": mu}
    for number in range(1, 4):
        cohort = world.cohort(number)
        if drop:
            cohort = [k for k in cohort if world.shares(number)[k] == 1]
        models = [trained(world, model, number, k, work, lr=rate(number), **local) for k in cohort]
        model.load_state_dict(mean_state(models, weights(world, cohort, by)))
    return model


def vector(module: nn.Module) -> Tensor:
    """All trainable parameters in one vector."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters() if p.requires_grad])


def gradient(
    module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], at: Tensor, x: Tensor, y: Tensor
) -> Tensor:
    """The gradient of the mean loss at the parameters `at` `[P]`, which `module` then has."""
    params = list(module.parameters())
    nn.utils.vector_to_parameters(at, params)
    found = torch.autograd.grad(loss(module(x), y).mean(), params)
    return torch.cat([g.reshape(-1) for g in found])
