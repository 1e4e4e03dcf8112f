"""MimeLite: clients walk as the server's optimiser would, with its statistics held still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.core.errors import StrategyError
from hanse.core.types import LocalTraining, vector
from hanse.data.batching import Epochs, FullGradient
from hanse.local.optimizer import SGD
from hanse.local.schedules import check_coefficient, check_rate
from hanse.local.sgd import difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.layout import ParameterLayout
    from hanse.core.types import (
        Aggregate,
        Broadcast,
        ClientContext,
        Gradient,
        Memory,
        RoundContext,
        State,
        Update,
    )
    from hanse.data.batching import Pass


@dataclass(frozen=True)
class MimeSGD(LocalTraining):
    """Local steps along `(1 - beta1) * g + beta1 * m`, divided by `sqrt(v) + tau` with `beta2`.

    The moments m and v are the server's; clients use them and leave them as they are. A second
    pass takes the gradient of a client's loss at the model it received, and the mean of these
    gradients renews the moments: `m = beta1 * m + (1 - beta1) * g`, `v = beta2 * v + (1 - beta2) *
    g^2`. Weight decay is part of the loss, so of both gradients.

    Source: Karimireddy et al., "Breaking the centralized barrier for cross-device federated
    learning" (Mime), NeurIPS 2021, algorithm 1 with the options of MimeLite, for SGD with momentum
    and for Adam without bias correction. As in `ServerAdam`, v starts at `tau^2`.

    Attributes:
        optimizer: the rate and weight decay; the momentum is the server's.
        work: a client's walk through its data.
        beta1: the decay of the first moment; at 0 (and without `beta2`) this is FedAvg.
        beta2: the decay of the second moment, for Adam; `None`: SGD with momentum.
        tau: the adaptivity, in Adam. While v is small, steps are up to `1 / tau` times as long.
        gradient_chunk: examples of the second pass that are read at a time.
    """

    optimizer: SGD = SGD()
    work: Pass = Epochs()
    beta1: float = 0.9
    beta2: float | None = None
    tau: float = 1e-3
    gradient_chunk: int = 1024

    def __post_init__(self) -> None:
        """Refuse coefficients that cannot be meant, and a second momentum."""
        check_coefficient(self.beta1, "beta1", below=1.0)
        if self.beta2 is not None:
            check_coefficient(self.beta2, "beta2", below=1.0)
        check_rate(self.tau, "tau")
        if self.optimizer.momentum:
            raise StrategyError(
                f"MimeLite with local momentum={self.optimizer.momentum}",
                why="clients use the server's momentum, and leave it as it is",
                instead=f"mimelite(beta1={self.optimizer.momentum}): it is the momentum",
            )

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The training pass and one full gradient."""
        return (self.work, FullGradient(self.gradient_chunk))

    @property
    def averaged(self) -> tuple[str, ...]:
        """The gradients, with the updates' weights."""
        return ("delta", "gradient")

    def sends(self, layout: ParameterLayout) -> Mapping[str, int]:
        """The update and the gradient."""
        return {"delta": layout.shared, "gradient": layout.shared}

    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """The moments."""
        state = {"first": torch.zeros(layout.shared, dtype=dtype)}
        if self.beta2 is not None:
            state["second"] = torch.full((layout.shared,), self.tau**2, dtype=dtype)
        return state

    def on_broadcast(self, broadcast: Broadcast, state: State) -> Broadcast:
        """Publish the moments."""
        return broadcast.adding(**{f"{name}_moment": value for name, value in state.items()})

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        """The global model, and what the moments add to and make of each gradient."""
        state, clients = self.optimizer.start(broadcast), len(client.id)
        state["rate"] *= 1 - self.beta1
        state["received"] = broadcast.params
        state["gradient"] = torch.zeros_like(broadcast.params)
        if self.beta1:  # of (1 - beta1) * (g + push)
            push = broadcast.extra["first_moment"] * (self.beta1 / (1 - self.beta1))
            state["push"] = push.expand(clients, -1)
        if self.beta2 is not None:
            divisor = broadcast.extra["second_moment"].sqrt() + self.tau
            state["divisor"] = divisor.expand(clients, -1)
        return state

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        """A step of the server's optimiser, or a chunk of the full gradient."""
        if pass_number:
            gradient.add_to(state["gradient"], at=state["received"])
        elif self.beta2 is None:
            self.optimizer.step(state, gradient, constant=state.get("push"))
        else:
            params = state["params"]
            direction = gradient(params).add_(params, alpha=self.optimizer.weight_decay)
            if self.beta1:
                direction += state["push"]
            params.addcmul_(direction.div_(state["divisor"]), state["rate"], value=-1)

    def trained(self, state: Mapping[str, Tensor]) -> Tensor:
        """The parameters after training."""
        return state["params"]

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        """`delta`, and the `gradient` at the received model."""
        decayed = state["received"] * self.optimizer.weight_decay
        gradient = state["gradient"].add_(decayed)
        return {"delta": vector(difference(state, broadcast)), "gradient": vector(gradient)}, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """Renew the moments."""
        gradient = total["gradient"].lifted().values
        after = {"first": self.beta1 * state["first"] + (1 - self.beta1) * gradient}
        if self.beta2 is not None:
            second = (1 - self.beta2) * gradient.square()
            after["second"] = self.beta2 * state["second"] + second
        return {name: summed for name, summed in total.items() if name != "gradient"}, after
