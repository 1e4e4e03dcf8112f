"""FedAvg's client: plain local SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.types import LocalTraining, vector
from hanse.data.batching import Epochs
from hanse.local.optimizer import SGD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Gradient, Memory, Update
    from hanse.data.batching import Pass


@dataclass(frozen=True)
class LocalSGD(LocalTraining):
    """Train from the global model for some epochs; send the difference.

    Source: McMahan et al., "Communication-efficient learning of deep networks from decentralized
    data", AISTATS 2017, algorithm 1 (ClientUpdate).
    """

    optimizer: SGD = SGD()
    work: Pass = Epochs()

    @property
    def passes(self) -> tuple[Pass, ...]:
        """One walk through the data."""
        return (self.work,)

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        """The global model, once per client."""
        return self.optimizer.start(broadcast)

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        """One SGD step."""
        self.optimizer.step(state, gradient)

    def trained(self, state: Mapping[str, Tensor]) -> Tensor:
        """The parameters after training."""
        return state["params"]

    def effective_steps(self, broadcast: Broadcast, taken: Tensor) -> Tensor:
        """As the optimiser says."""
        return self.optimizer.effective_steps(taken, broadcast.round.number)

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        """`delta` = trained - global, over the shared columns."""
        return {"delta": vector(difference(state, broadcast))}, memory


def difference(state: Mapping[str, Tensor], broadcast: Broadcast) -> Tensor:
    """Trained minus received parameters over the shared columns, `[K, S]`, in the state's place."""
    shared = broadcast.round.layout.shared
    return state["params"].sub_(broadcast.params)[:, :shared]
