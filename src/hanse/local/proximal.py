"""FedProx's client: local SGD held near the global model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.types import LocalTraining, vector
from hanse.data.batching import Epochs
from hanse.local.adaptive import AdaptiveMu
from hanse.local.optimizer import SGD
from hanse.local.schedules import check_coefficient
from hanse.local.sgd import difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from hanse.core.layout import ParameterLayout
    from hanse.core.types import (
        Aggregate,
        Broadcast,
        ClientContext,
        Gradient,
        Memory,
        RoundContext,
        Scalar,
        State,
        Update,
    )
    from hanse.data.batching import Pass

LOSS = "train_loss"


@dataclass(frozen=True)
class ProximalSGD(LocalTraining):
    """Local SGD on `F_k(w) + mu/2 * ||w - w_global||^2`.

    The term's gradient, `mu * (w - w_global)`, is added as a rule on vectors: no graph is built for
    it. Source: Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, eq. 2.

    With an `AdaptiveMu` the server keeps mu, publishes it, and changes it by the mean training loss
    that clients send, each weighted as its update is.
    """

    optimizer: SGD = SGD()
    work: Pass = Epochs()
    mu: float | AdaptiveMu = 0.01

    def __post_init__(self) -> None:
        """Refuse a negative pull."""
        if not isinstance(self.mu, AdaptiveMu):
            check_coefficient(self.mu, "mu")

    @property
    def passes(self) -> tuple[Pass, ...]:
        """One walk through the data."""
        return (self.work,)

    @property
    def averaged(self) -> tuple[str, ...]:
        """The loss that an adaptive mu follows."""
        return (LOSS,) if isinstance(self.mu, AdaptiveMu) else ()

    def sends(self, layout: ParameterLayout) -> Mapping[str, int]:
        """The update, and the loss if mu follows it."""
        return {"delta": layout.shared, **({LOSS: 1} if isinstance(self.mu, AdaptiveMu) else {})}

    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """An adaptive mu, and what it goes by."""
        return self.mu.init() if isinstance(self.mu, AdaptiveMu) else {}

    def on_broadcast(self, broadcast: Broadcast, state: State) -> Broadcast:
        """Publish an adaptive mu."""
        return broadcast.adding(mu=state["mu"]) if isinstance(self.mu, AdaptiveMu) else broadcast

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        """The global model, and the anchor's constant part of the gradient, `-mu * w_global`."""
        state = self.optimizer.start(broadcast)
        if isinstance(self.mu, AdaptiveMu):
            state["mu"] = broadcast.extra["mu"]
        if self.mu:
            state["anchor"] = broadcast.params * -_mu(self.mu, broadcast.extra)
        return state

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        """One SGD step of the penalised loss."""
        self.optimizer.step(
            state, gradient, decay=_mu(self.mu, state), constant=state.get("anchor")
        )

    def trained(self, state: Mapping[str, Tensor]) -> Tensor:
        """The parameters after training."""
        return state["params"]

    def effective_steps(self, broadcast: Broadcast, taken: Tensor) -> Tensor:
        """As the optimiser says; the term pulls as a decay does."""
        mu = float(_mu(self.mu, broadcast.extra))
        return self.optimizer.effective_steps(taken, broadcast.round.number, decay=mu)

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        """`delta` = trained - global, over the shared columns; the loss, if mu follows it."""
        update = {"delta": vector(difference(state, broadcast))}
        if isinstance(self.mu, AdaptiveMu):
            assert client.facts is not None  # noqa: S101 - the engine's promise, for the type checker
            update[LOSS] = vector(client.facts.loss.unsqueeze(1))
        return update, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """Let an adaptive mu follow the loss."""
        if not isinstance(self.mu, AdaptiveMu):
            return total, state
        rest = {name: summed for name, summed in total.items() if name != LOSS}
        return rest, self.mu.after(total[LOSS].lifted().values[0], state)

    def reported(self, state: State) -> Mapping[str, Tensor]:
        """An adaptive mu, as the next round will use it."""
        return {"mu": state["mu"]} if isinstance(self.mu, AdaptiveMu) else {}


def _mu(mu: float | AdaptiveMu, published: Mapping[str, Tensor]) -> Scalar:
    return published["mu"] if isinstance(mu, AdaptiveMu) else mu
