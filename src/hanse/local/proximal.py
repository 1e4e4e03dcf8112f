"""FedProx's client: local SGD held near the global model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.types import LocalTraining, vector
from hanse.data.batching import Epochs
from hanse.local.optimizer import SGD
from hanse.local.schedules import check_coefficient
from hanse.local.sgd import difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Gradient, Memory, Update
    from hanse.data.batching import Pass


@dataclass(frozen=True)
class ProximalSGD(LocalTraining):
    """Local SGD on `F_k(w) + mu/2 * ||w - w_global||^2`.

    The term's gradient, `mu * (w - w_global)`, is added as a rule on vectors: no graph is built for
    it. Source: Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, eq. 2.
    """

    optimizer: SGD = SGD()
    work: Pass = Epochs()
    mu: float = 0.01

    def __post_init__(self) -> None:
        """Refuse a negative pull."""
        check_coefficient(self.mu, "mu")

    @property
    def passes(self) -> tuple[Pass, ...]:
        """One walk through the data."""
        return (self.work,)

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        """The global model, and the anchor's constant part of the gradient, `-mu * w_global`."""
        state = self.optimizer.start(broadcast)
        if self.mu:
            state["anchor"] = broadcast.params * -self.mu
        return state

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        """One SGD step of the penalised loss."""
        self.optimizer.step(state, gradient, decay=self.mu, constant=state.get("anchor"))

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
        """`delta` = trained - global, over the shared columns."""
        return {"delta": vector(difference(state, broadcast))}, memory
