"""FedDyn: each client's loss is bent so that all of them agree where the whole is best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.core.types import LocalTraining, Summed, vector
from hanse.data.batching import Epochs
from hanse.local.optimizer import SGD
from hanse.local.schedules import check_coefficient
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
class DynamicSGD(LocalTraining):
    """Local SGD on `F_k(w) - <g_k, w> + alpha/2 * ||w - w_global||^2`.

    A client remembers `g_k`, which becomes `g_k - alpha * (w_k - w_global)`: where the client
    minimised exactly, that is the slope of its loss there. The server keeps `h`, which becomes
    `h - alpha * (sum of w_k - w_global) / population`, and goes `h / alpha` against it from the
    mean of the models. So at a fixed point the slopes of all clients add up to zero, whoever took
    part how often.

    The sum is the mean of the updates times the number of clients that sent one, so the mean must
    be a uniform one. `g_k` covers the shared columns; the pull to the received model all of them
    (what stays with a client was received from itself). With `alpha = 0`, which has no such limit,
    clients remember nothing and the whole is FedAvg.

    Source: Acar et al., "Federated learning based on dynamic regularization", ICLR 2021,
    algorithm 1, with local SGD in the place of exact minimisation.
    """

    optimizer: SGD = SGD()
    work: Pass = Epochs()
    alpha: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a negative pull."""
        check_coefficient(self.alpha, "alpha")

    @property
    def passes(self) -> tuple[Pass, ...]:
        """One walk through the data."""
        return (self.work,)

    @property
    def averaged(self) -> tuple[str, ...]:
        """The mean update, to make the sum of."""
        return ("delta",) if self.alpha else ()

    def sends(self, layout: ParameterLayout) -> Mapping[str, int]:
        """The update, and a one."""
        return {"delta": layout.shared, **({"heard": 1} if self.alpha else {})}

    def init_client(self, broadcast: Broadcast) -> Memory:
        """`g_k` = 0 over the shared columns."""
        shared = broadcast.round.layout.shared
        return {"slope": torch.zeros(shared, dtype=broadcast.params.dtype)} if self.alpha else {}

    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """`h` = 0."""
        return {"h": torch.zeros(layout.shared, dtype=dtype)} if self.alpha else {}

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        """The global model, and the constant part of the gradient, `-g_k - alpha * w_global`."""
        state = self.optimizer.start(broadcast)
        if self.alpha:
            state["constant"] = broadcast.params * -self.alpha
            state["constant"][:, : broadcast.round.layout.shared] -= memory["slope"]
        return state

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        """One SGD step on the bent loss."""
        self.optimizer.step(state, gradient, decay=self.alpha, constant=state.get("constant"))

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
        """`delta`, and a one, by which the server counts whom it heard."""
        delta = difference(state, broadcast)
        if not self.alpha:
            return {"delta": vector(delta)}, memory
        update = {"delta": vector(delta), "heard": vector(torch.ones_like(delta[:, :1]))}
        return update, {"slope": memory["slope"] - self.alpha * delta}

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """`h = h - alpha * sum / population`; the mean model moves by `-h / alpha` more."""
        if not self.alpha:
            return total, state
        rest = {name: summed for name, summed in total.items() if name != "heard"}
        if not self.optimizer.rate(round_.number):  # nobody walked, so nobody pulls h back either
            return rest, state
        mean, heard = total["delta"].lifted().values, total["heard"].lifted().values
        h = state["h"] - self.alpha * mean * (heard / round_.population)
        rest["delta"] = Summed(mean - h / self.alpha)
        return rest, {"h": h}
