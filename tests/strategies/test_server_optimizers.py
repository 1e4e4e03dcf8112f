"""Server optimisers against the formulas of their papers, number by number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from hanse.core.errors import StrategyError
from hanse.core.layout import ParameterLayout
from hanse.core.types import RoundContext
from hanse.local import ExponentialDecay
from hanse.server import ServerAdagrad, ServerAdam, ServerSGD, ServerYogi

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hanse.core.types import ServerOptimizer

SIZE = 5
DELTAS = torch.from_numpy(np.random.default_rng(0).normal(size=(20, SIZE)))
DELTAS[:, 0] = 0.0  # a coordinate that nobody moves
DELTAS[3:, 1] *= 1e-6  # one whose steps become small


def context(number: int) -> RoundContext:
    layout = ParameterLayout(("w",), ((SIZE,),), SIZE)
    return RoundContext(number, np.uint64(0), 1, 1.0, 1, "cross-silo", layout)


def walk(server: ServerOptimizer) -> Tensor:
    params, state = torch.ones(SIZE).double(), server.init(SIZE, torch.float64)
    for number, delta in enumerate(DELTAS, start=1):
        params, state = server.step(params, delta, state, context(number))
    return params


def algorithm_2(
    second_moment: Callable[[float, float], float], *, lr: float, beta1: float, tau: float
) -> Tensor:
    """Reddi et al. (ICLR 2021), algorithm 2, one coordinate at a time."""
    ends = []
    for coordinate in range(SIZE):
        x, m, v = 1.0, 0.0, tau**2
        for delta in DELTAS[:, coordinate].tolist():
            m = beta1 * m + (1 - beta1) * delta
            v = second_moment(v, delta**2)
            x = x + lr * m / (math.sqrt(v) + tau)
        ends.append(x)
    return torch.tensor(ends, dtype=torch.float64)


def close(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).abs().max()) < 1e-12


def test_fedadagrad_is_algorithm_2() -> None:
    expected = algorithm_2(lambda v, d2: v + d2, lr=0.1, beta1=0.3, tau=0.01)
    assert close(walk(ServerAdagrad(0.1, beta1=0.3, tau=0.01)), expected)


def test_fedyogi_is_algorithm_2() -> None:
    def yogi(v: float, d2: float) -> float:
        return v - (1 - 0.8) * d2 * float(np.sign(v - d2))

    expected = algorithm_2(yogi, lr=0.1, beta1=0.9, tau=0.01)
    assert close(walk(ServerYogi(0.1, beta1=0.9, beta2=0.8, tau=0.01)), expected)


def test_fedadam_is_algorithm_2() -> None:
    expected = algorithm_2(lambda v, d2: 0.8 * v + (1 - 0.8) * d2, lr=0.1, beta1=0.9, tau=0.01)
    assert close(walk(ServerAdam(0.1, beta1=0.9, beta2=0.8, tau=0.01)), expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_server_sgd_is_torchs_on_pseudo_gradients(momentum: float) -> None:
    params = torch.ones(SIZE).double().requires_grad_()
    optimizer = torch.optim.SGD([params], lr=0.3, momentum=momentum)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for delta in DELTAS:
        params.grad = -delta
        optimizer.step()
        schedule.step()
    assert close(walk(ServerSGD(ExponentialDecay(0.3, 0.9), momentum)), params.detach())


@pytest.mark.parametrize("kind", [ServerAdam, ServerYogi, ServerAdagrad])
def test_adaptive_steps_forget_the_scale_of_the_updates(
    kind: type[ServerAdam | ServerYogi | ServerAdagrad],
) -> None:
    # With tau far below the deltas, ten times the deltas take the same way.
    server = kind(0.1, beta1=0.0, tau=1e-12)
    state = server.init(SIZE, torch.float64)
    delta = torch.linspace(1, 2, SIZE).double()
    one, _ = server.step(torch.zeros(SIZE).double(), delta, state, context(1))
    ten, _ = server.step(torch.zeros(SIZE).double(), 10 * delta, state, context(1))
    assert float((one - ten).abs().max()) < 1e-9


@pytest.mark.parametrize("kind", [ServerSGD, ServerAdam, ServerYogi, ServerAdagrad])
@pytest.mark.parametrize("lr", [0.0, -0.1, math.nan, math.inf, True])
def test_a_rate_that_cannot_be_meant_is_refused(
    kind: type[ServerSGD | ServerAdam | ServerYogi | ServerAdagrad], lr: float
) -> None:
    with pytest.raises(StrategyError, match="positive finite"):
        kind(lr)


def test_coefficients_outside_their_range_are_refused() -> None:
    for make in (
        lambda: ServerSGD(momentum=1.0),
        lambda: ServerAdam(beta1=1.0),
        lambda: ServerAdam(beta2=-0.1),
        lambda: ServerYogi(tau=0.0),
        lambda: ServerAdagrad(beta1=math.nan),
    ):
        with pytest.raises(StrategyError):
            make()
