"""FedSGD's client: one gradient over all its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.core.types import LocalTraining, vector
from hanse.data.batching import FullGradient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Gradient, Memory, Update
    from hanse.data.batching import Pass
    from hanse.data.poisson import PoissonSteps


@dataclass(frozen=True)
class FullGradientStep(LocalTraining):
    """Send the negative gradient of the local mean loss at the global model.

    Nothing is trained at the client: the server's optimiser takes the step. With
    `PoissonSteps(1.0, 1)` the gradient may be a private one (`ExampleDP`).
    Source: McMahan et al., AISTATS 2017, section 2 (FederatedSGD).
    """

    work: FullGradient | PoissonSteps = FullGradient()

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Every example once."""
        return (self.work,)

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        """A running total, and where the gradient is taken."""
        return {"total": torch.zeros_like(broadcast.params), "at": broadcast.params}

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        """One chunk of the examples."""
        gradient.add_to(state["total"], at=state["at"], scale=-1.0)

    def trained(self, state: Mapping[str, Tensor]) -> None:
        """Nothing is trained here."""
        return

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        """`delta` = minus the gradient, over the shared columns."""
        return {"delta": vector(state["total"][:, : broadcast.round.layout.shared])}, memory
