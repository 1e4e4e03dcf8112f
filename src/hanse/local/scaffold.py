"""SCAFFOLD: control variates that correct for client drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from hanse.core.errors import StrategyError
from hanse.core.types import LocalTraining, Summed, vector
from hanse.data.batching import Epochs, FullGradient
from hanse.local.optimizer import SGD
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
class ScaffoldSGD(LocalTraining):
    """Local SGD along `g - c_k + c`; the client's control `c_k` and their mean `c` are kept.

    Option I sets `c_k` to the full gradient at the received model (a second pass over the data);
    option II to `c_k - c + (w_global - w_k) / (steps * lr)`, which costs nothing. Corrections cover
    the shared columns: what stays with a client needs none.

    Source: Karimireddy et al., "SCAFFOLD: Stochastic controlled averaging for federated learning",
    ICML 2020, algorithm 1 (lines 10 and 12 at the client, 16 and 17 at the server).
    """

    optimizer: SGD = SGD()
    work: Pass = Epochs()
    option: Literal[1, 2] = 2
    gradient_chunk: int = 1024

    def __post_init__(self) -> None:
        """Refuse what the control variate cannot describe."""
        if self.option not in (1, 2):
            raise StrategyError(
                f"SCAFFOLD with option={self.option!r}",
                why="the paper has two ways to renew a client's control variate",
                instead="option=2 (free), or option=1 (a full gradient a round, more accurate)",
            )
        if self.option == 2 and self.optimizer.momentum:
            raise StrategyError(
                f"SCAFFOLD option 2 with local momentum={self.optimizer.momentum}",
                why="its control variate divides the distance by steps * lr, which holds for plain "
                "SGD steps only",
                instead="option=1, or momentum=0 here and momentum at the server",
            )

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The training pass and, for option I, one full gradient."""
        extra = (FullGradient(self.gradient_chunk),) if self.option == 1 else ()
        return (self.work, *extra)

    def sends(self, layout: ParameterLayout) -> Mapping[str, int]:
        """The update and the change of the control."""
        return {"delta": layout.shared, "control": layout.shared}

    def init_client(self, broadcast: Broadcast) -> Memory:
        """`c_k` = 0 over the shared columns."""
        shared = broadcast.round.layout.shared
        return {"control": torch.zeros(shared, dtype=broadcast.params.dtype)}

    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """`c` = 0."""
        return {"control": torch.zeros(layout.shared, dtype=dtype)}

    def on_broadcast(self, broadcast: Broadcast, state: State) -> Broadcast:
        """Publish `c`."""
        return broadcast.adding(control=state["control"])

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        """The global model and the correction `c - c_k`."""
        state = self.optimizer.start(broadcast)
        state["correction"] = broadcast.extra["control"] - memory["control"]
        if self.option == 1:
            state["received"] = broadcast.params
            state["gradient"] = torch.zeros_like(broadcast.params)
        return state

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        """A corrected step, or a chunk of the full gradient."""
        if pass_number == 0:
            self.optimizer.step(state, gradient, constant=state["correction"])
        else:
            gradient.add_to(state["gradient"], at=state["received"])

    def trained(self, state: Mapping[str, Tensor]) -> Tensor:
        """The parameters after training."""
        return state["params"]

    def effective_steps(self, broadcast: Broadcast, taken: Tensor) -> Tensor:
        """As the optimiser says, for corrected gradients."""
        return self.optimizer.effective_steps(taken, broadcast.round.number)

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        """`delta`, and `control` = the change of `c_k`."""
        delta = difference(state, broadcast)
        if self.option == 1:
            shared = broadcast.round.layout.shared
            change = state["gradient"][:, :shared] - memory["control"]
        else:
            assert client.facts is not None  # noqa: S101 - the engine's promise, for the type checker
            walked = client.facts.steps * self.optimizer.rate(broadcast.round.number)
            if float(walked.min()) > 0:
                change = delta / -walked.unsqueeze(1) - broadcast.extra["control"]
            else:  # a schedule may end at zero: who did not walk learned nothing of its drift
                change = torch.zeros_like(delta)
        update = {"delta": vector(delta), "control": vector(change)}
        return update, {"control": memory["control"] + change}

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """`c = c + sum of changes / population`: c stays the mean of all c_k."""
        change = total["control"].lifted().values / round_.population
        rest: dict[str, Summed] = {k: v for k, v in total.items() if k != "control"}
        return rest, {"control": state["control"] + change}
