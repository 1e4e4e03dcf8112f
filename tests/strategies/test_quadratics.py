"""Two clients with quadratic losses, whose fixed points are known in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import pytest
import torch
from tests.engine.small import World, seeded, world
from torch import Tensor, nn

from hanse.data import PackedClients
from hanse.layers import Normalized
from hanse.models import Execution, squared_error
from hanse.selection import Full
from hanse.strategies import fedavg, feddyn, fednova, fedsgd, scaffold

if TYPE_CHECKING:
    from hanse.strategy import Strategy

RATE, STEPS, ROUNDS = 0.2, 4, 80


class Quadratic(NamedTuple):
    """`(w - best)' hessian (w - best) / 2`, up to a constant."""

    hessian: Tensor  # [2, 2]
    best: Tensor  # [2]


def regression(inputs: list[list[float]], best: list[float]) -> tuple[dict[str, Tensor], Quadratic]:
    """Data without noise: the mean squared error is a quadratic with its minimum at `best`."""
    X, w = torch.tensor(inputs, dtype=torch.float64), torch.tensor(best, dtype=torch.float64)
    return {"x": X, "y": (X @ w).unsqueeze(1)}, Quadratic(2 / len(X) * X.T @ X, w)


STEEP = regression([[2.0, 0.0], [0.0, 0.5]], [1.0, -1.0])
FLAT = regression([[0.3, 0.4], [-0.5, 1.0], [0.1, 1.5], [1.0, 0.2]], [-2.0, 3.0])
CLIENTS = (STEEP[1], FLAT[1])


def weighed(factors: list[Tensor], parts: list[float]) -> Tensor:
    """The point whose pulls towards the clients' minima, each times its factor, cancel."""
    pulls = [p * f for p, f in zip(parts, factors, strict=True)]
    right = torch.stack([A @ q.best for A, q in zip(pulls, CLIENTS, strict=True)]).sum(0)
    point: Tensor = torch.linalg.solve(torch.stack(pulls).sum(0), right)
    return point


def optimum(parts: list[float]) -> Tensor:
    """Of the weighted mean of the losses."""
    return weighed([q.hessian for q in CLIENTS], parts)


def biased(parts: list[float]) -> Tensor:
    """Where FedAvg stops: a client's steps shrink its error by `(I - RATE * hessian) ** STEPS`."""
    eye = torch.eye(2).double()
    shrink = [torch.linalg.matrix_power(eye - RATE * q.hessian, STEPS) for q in CLIENTS]
    return weighed([eye - m for m in shrink], parts)


def limit(strategy: Strategy, data: PackedClients | None = None, rounds: int = ROUNDS) -> Tensor:
    module = seeded(lambda: nn.Linear(2, 1, bias=False))
    small: World = world(
        module,
        data=PackedClients.from_arrays([STEEP[0], FLAT[0]]) if data is None else data,
        loss=squared_error,
        participation=Full(),
    )
    return small.run(strategy, Execution("module", 2), rounds).params


UNEQUAL = (2, 9)


def unequal() -> PackedClients:
    """The same losses, but a client's examples are copies of all its data: a step for each copy."""
    steep = {name: torch.cat([value, value]) for name, value in STEEP[0].items()}  # as many rows
    return PackedClients.from_arrays(
        [
            {name: value.expand(copies, *value.shape) for name, value in client.items()}
            for client, copies in zip((steep, FLAT[0]), UNEQUAL, strict=True)
        ]
    )


def stops(rate: float, *, divided: bool) -> Tensor:
    """Where the mean of updates vanishes, each divided by its number of steps or not."""
    eye = torch.eye(2).double()
    pulls = [
        (eye - torch.linalg.matrix_power(eye - rate * q.hessian, steps)) / (steps if divided else 1)
        for q, steps in zip(CLIENTS, UNEQUAL, strict=True)
    ]
    return weighed(pulls, [0.5, 0.5])


@pytest.mark.parametrize(
    ("weighting", "parts"), [("uniform", [0.5, 0.5]), ("examples", [1 / 3, 2 / 3])]
)
def test_fedavg_stops_at_its_biased_fixed_point(
    weighting: Literal["uniform", "examples"], parts: list[float]
) -> None:
    strategy = fedavg(lr=RATE, local_epochs=STEPS, batch_size=None, weighting=weighting)
    found = limit(strategy)
    assert float((found - biased(parts)).abs().max()) < 1e-8
    assert float((found - optimum(parts)).abs().max()) > 0.1


# Controls are not weighted, so weighting the models changes SCAFFOLD's way, not where it ends.
@pytest.mark.parametrize("weighting", ["uniform", "examples"])
@pytest.mark.parametrize("option", [1, 2])
def test_scaffold_reaches_the_optimum_of_the_mean_over_clients(
    option: Literal[1, 2], weighting: Literal["uniform", "examples"]
) -> None:
    found = limit(
        scaffold(lr=RATE, option=option, local_epochs=STEPS, batch_size=None, weighting=weighting)
    )
    assert float((found - optimum([0.5, 0.5])).abs().max()) < 1e-8
    assert float((found - optimum([1 / 3, 2 / 3])).abs().max()) > 0.1


def test_fedsgd_reaches_the_optimum_of_the_mean_over_examples() -> None:
    found = limit(fedsgd(lr=0.5))
    assert float((found - optimum([1 / 3, 2 / 3])).abs().max()) < 1e-8


def test_fednova_stops_where_the_mean_of_its_directions_vanishes() -> None:
    for factory, divided in ((fednova, True), (fedavg, False)):
        strategy = factory(lr=RATE, batch_size=1, weighting="uniform")
        found = limit(strategy, unequal())
        assert float((found - stops(RATE, divided=divided)).abs().max()) < 1e-8


def test_with_small_rates_fednova_stops_at_the_optimum_and_fedavg_does_not() -> None:
    # So this is true of the training above, too; at such rates it would take too many rounds.
    gaps = [float((stops(1e-5, divided=d) - optimum([0.5, 0.5])).norm()) for d in (True, False)]
    assert gaps[0] < 1e-3
    assert gaps[1] > 0.3


# Control variates make the corrected gradients vanish at the optimum, so any positive factors of
# the clients' updates, those of unequal steps or of their division, leave it the fixed point.
@pytest.mark.parametrize("normalized", [False, True])
def test_scaffold_reaches_the_optimum_with_unequal_steps_normalised_or_not(
    normalized: bool,
) -> None:
    strategy = scaffold(lr=RATE, batch_size=1)
    if normalized:
        strategy = strategy.replace(layers=(Normalized(), *strategy.layers))
    found = limit(strategy, unequal(), rounds=200)
    assert float((found - optimum([0.5, 0.5])).abs().max()) < 1e-8


@pytest.mark.parametrize("equal_steps", [True, False])
def test_feddyn_reaches_the_optimum_of_the_mean_over_clients(equal_steps: bool) -> None:
    if equal_steps:
        strategy, data = feddyn(lr=RATE, alpha=1.0, local_epochs=STEPS, batch_size=None), None
    else:
        strategy, data = feddyn(lr=RATE, alpha=1.0, batch_size=1), unequal()
    found = limit(strategy, data, rounds=200)
    assert float((found - optimum([0.5, 0.5])).abs().max()) < 1e-8
