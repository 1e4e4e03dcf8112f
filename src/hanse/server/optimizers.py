"""Server optimisers: the aggregated `delta` is a direction to go.

Sources: Reddi et al., "Adaptive federated optimization", ICLR 2021, algorithm 2 (Adagrad, Adam and
Yogi, without bias correction, as there); Hsu, Qi and Brown, "Measuring the effects of non-identical
data distribution for federated visual classification", 2019 (momentum, FedAvgM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.core.types import ServerOptimizer
from hanse.local.schedules import Schedule, check_coefficient, check_rate, rate_of

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.types import RoundContext, State


@dataclass(frozen=True)
class ServerSGD(ServerOptimizer):
    """`v = momentum * v + delta`, then `x = x + lr * v`; with momentum, FedAvgM.

    At `lr=1` and `momentum=0` the new model is the mean of the clients' models.
    """

    lr: float | Schedule = 1.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        """Refuse coefficients that cannot be meant."""
        check_rate(self.lr, "server lr")
        check_coefficient(self.momentum, "server momentum", below=1.0)

    def init(self, size: int, dtype: torch.dtype) -> State:
        """The velocity, where there is momentum."""
        return {"velocity": torch.zeros(size, dtype=dtype)} if self.momentum else {}

    def step(
        self, params: Tensor, delta: Tensor, state: State, round_: RoundContext
    ) -> tuple[Tensor, State]:
        """New parameters `[S]` and state."""
        rate = rate_of(self.lr, round_.number)
        if not self.momentum:
            return params.add(delta, alpha=rate), state
        velocity = state["velocity"] * self.momentum + delta
        return params.add(velocity, alpha=rate), {"velocity": velocity}


@dataclass(frozen=True)
class ServerAdam(ServerOptimizer):
    """FedAdam: `v = beta2 * v + (1 - beta2) * delta^2`.

    Attributes:
        lr: the server's rate (the paper's eta).
        beta1: the decay of the first moment.
        beta2: the decay of the second moment.
        tau: the adaptivity; also the square root of the second moment's first value.
    """

    lr: float | Schedule = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse coefficients that cannot be meant."""
        _check_adaptive(self.lr, self.tau, beta1=self.beta1, beta2=self.beta2)

    def init(self, size: int, dtype: torch.dtype) -> State:
        """Both moments."""
        return _moments(size, dtype, self.tau)

    def step(
        self, params: Tensor, delta: Tensor, state: State, round_: RoundContext
    ) -> tuple[Tensor, State]:
        """New parameters `[S]` and state."""
        second = self.beta2 * state["second"] + (1 - self.beta2) * delta.square()
        rate = rate_of(self.lr, round_.number)
        return _adaptive(params, delta, state["first"], second, rate, self.beta1, self.tau)


@dataclass(frozen=True)
class ServerYogi(ServerOptimizer):
    """FedYogi: `v = v - (1 - beta2) * delta^2 * sign(v - delta^2)`; attributes as `ServerAdam`."""

    lr: float | Schedule = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse coefficients that cannot be meant."""
        _check_adaptive(self.lr, self.tau, beta1=self.beta1, beta2=self.beta2)

    def init(self, size: int, dtype: torch.dtype) -> State:
        """Both moments."""
        return _moments(size, dtype, self.tau)

    def step(
        self, params: Tensor, delta: Tensor, state: State, round_: RoundContext
    ) -> tuple[Tensor, State]:
        """New parameters `[S]` and state."""
        square, before = delta.square(), state["second"]
        second = before - (1 - self.beta2) * square * torch.sign(before - square)
        rate = rate_of(self.lr, round_.number)
        return _adaptive(params, delta, state["first"], second, rate, self.beta1, self.tau)


@dataclass(frozen=True)
class ServerAdagrad(ServerOptimizer):
    """FedAdagrad: `v = v + delta^2`; attributes as `ServerAdam`, the paper's beta1 being 0."""

    lr: float | Schedule = 0.01
    beta1: float = 0.0
    tau: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse coefficients that cannot be meant."""
        _check_adaptive(self.lr, self.tau, beta1=self.beta1)

    def init(self, size: int, dtype: torch.dtype) -> State:
        """Both moments."""
        return _moments(size, dtype, self.tau)

    def step(
        self, params: Tensor, delta: Tensor, state: State, round_: RoundContext
    ) -> tuple[Tensor, State]:
        """New parameters `[S]` and state."""
        second = state["second"] + delta.square()
        rate = rate_of(self.lr, round_.number)
        return _adaptive(params, delta, state["first"], second, rate, self.beta1, self.tau)


def _check_adaptive(lr: float | Schedule, tau: float, **betas: float) -> None:
    check_rate(lr, "server lr")
    check_rate(tau, "server tau")
    for name, beta in betas.items():
        check_coefficient(beta, f"server {name}", below=1.0)


def _moments(size: int, dtype: torch.dtype, tau: float) -> State:
    return {
        "first": torch.zeros(size, dtype=dtype),
        "second": torch.full((size,), tau**2, dtype=dtype),
    }


def _adaptive(
    params: Tensor,
    delta: Tensor,
    first: Tensor,
    second: Tensor,
    rate: float,
    beta1: float,
    tau: float,
) -> tuple[Tensor, State]:
    first = beta1 * first + (1 - beta1) * delta
    return params + rate * first / (second.sqrt() + tau), {"first": first, "second": second}
