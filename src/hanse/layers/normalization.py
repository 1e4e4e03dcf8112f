"""FedNova: clients that take more steps do not pull harder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.core.errors import StrategyError
from hanse.core.types import Layer, Summed, vector
from hanse.local.schedules import check_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.core.layout import ParameterLayout
    from hanse.core.types import (
        Aggregate,
        Broadcast,
        ClientContext,
        Memory,
        RoundContext,
        State,
        Update,
    )

STEPS = "effective_steps"


@dataclass(frozen=True)
class Normalized(Layer):
    """Average directions and lengths apart: the new model is `x + mean(steps) * mean(delta/steps)`.

    A client sends its update divided by the number of its effective steps (`||a_k||_1`, see
    `SGD.effective_steps`), and that number; both are averaged with the weights of the `Weighted`
    behind it. So, to first order in the learning rate, where training ends does not depend on how
    many steps each client takes. Where all take as many, it is federated averaging. Buffers are
    averaged as they are, and a client that took no step counts as one that does not want to move.

    Source: Wang et al., "Tackling the objective inconsistency problem in heterogeneous federated
    optimization", NeurIPS 2020, equation 12, with `tau_eff` the mean of `||a_k||_1`.

    Attributes:
        steps: a public number in the place of the mean of steps, as equation 12 leaves it open;
            clients then send no number of theirs. `None`: their mean.
    """

    steps: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no number of steps."""
        if self.steps is not None:
            check_rate(self.steps, "Normalized(steps=…)")

    @property
    def uses_steps(self) -> bool:
        """An update is divided by them."""
        return True

    @property
    def averaged(self) -> tuple[str, ...]:
        """The numbers of steps, with the updates' weights."""
        return ("delta", STEPS) if self.steps is None else ("delta",)

    def sends(self, layout: ParameterLayout) -> Mapping[str, int]:
        """The number of steps, unless a public one is used."""
        return {STEPS: 1} if self.steps is None else {}

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Divide `delta`, and send the number of steps beside it.

        Raises:
            StrategyError: the local training does not say what its steps amount to.
        """
        steps = client.facts.effective_steps if client.facts is not None else None
        if steps is None:
            raise StrategyError(
                "Normalized around a local training without effective steps",
                why="an update is divided by what its steps amount to",
                instead="LocalSGD, ProximalSGD or ScaffoldSGD; or your own effective_steps",
            )
        inverse = torch.where(steps > 0, 1 / steps, torch.zeros_like(steps))
        delta = update["delta"].scaled(inverse)
        if self.steps is not None:
            return {**update, "delta": delta}, memory
        return {**update, "delta": delta, STEPS: vector(steps.unsqueeze(1))}, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """Multiply the mean direction by the mean number of steps, or the public one."""
        rest = {name: summed for name, summed in total.items() if name != STEPS}
        steps = self.steps if self.steps is not None else total[STEPS].lifted().values
        delta = rest["delta"]
        rest["delta"] = Summed(delta.values * steps, delta.space)
        return rest, state
