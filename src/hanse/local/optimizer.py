"""The client's optimiser: stochastic gradient descent on a block of parameter vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.core.errors import StrategyError
from hanse.local.schedules import Schedule, check_coefficient, check_rate, rate_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.types import Broadcast, Gradient, Scalar


@dataclass(frozen=True)
class SGD:
    """SGD with momentum and weight decay, as `torch.optim.SGD` defines them.

    `v = momentum * v + g + weight_decay * w`, then `w = w - lr * v`. The momentum buffer starts at
    zero in every round: it belongs to the round's start, not to the client.

    Attributes:
        lr: the rate, or a schedule by round.
        momentum: the heavy-ball coefficient, in [0, 1).
        weight_decay: the coefficient of the L2 penalty's gradient.
    """

    lr: float | Schedule = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse coefficients that cannot be meant."""
        check_rate(self.lr, "lr")
        check_coefficient(self.momentum, "momentum", below=1.0)
        check_coefficient(self.weight_decay, "weight_decay")

    def rate(self, round_number: int) -> float:
        """The rate of a round."""
        return rate_of(self.lr, round_number)

    def start(self, broadcast: Broadcast) -> dict[str, Tensor]:
        """The state of a block: `params` `[K, P]`, `rate` 0-d and, with momentum, `velocity`."""
        params = broadcast.params.clone()
        number = self.rate(broadcast.round.number)
        rate = torch.full((), number, dtype=torch.float64, device=params.device)
        state = {"params": params, "rate": rate}
        if self.momentum:
            state["velocity"] = torch.zeros_like(params)
        return state

    def effective_steps(self, taken: Tensor, round_number: int, *, decay: float = 0.0) -> Tensor:
        """How many plain steps a walk of `taken` `[K]` steps amounts to: `||a||_1`, `[K]`.

        From where it starts, a walk goes `-lr * sum_j a_j * g_j`, where g_j is the gradient of the
        j-th batch, plus weight decay's at the start; what decay and a proximal term add as the walk
        goes on is in the factors a_j. Their sum is how far constant gradients of one would lead.
        With momentum and decay together some a_j may be negative; the sum remains what makes a mean
        of gradients of a walk.

        Source: Wang et al., "Tackling the objective inconsistency problem in heterogeneous
        federated optimization", NeurIPS 2020, section 4: `(t - m (1 - m^t) / (1 - m)) / (1 - m)`
        with momentum m, `(1 - (1 - lr mu)^t) / (lr mu)` with a proximal term.

        Args:
            taken: how many steps each client took.
            round_number: whose rate they were taken with.
            decay: a further multiple of the parameters, as `step` is given.

        Raises:
            StrategyError: the terms that pull the parameters back undo the walk.
        """
        decay += self.weight_decay
        if not (self.momentum or decay):
            return taken
        rate, walked, velocity = self.rate(round_number), 0.0, 0.0
        sums = [0.0]
        for _ in range(int(taken.max())):
            velocity = self.momentum * velocity + 1 - rate * decay * walked
            walked += velocity
            sums.append(walked)
        if min(sums[1:], default=1.0) <= 0:
            raise StrategyError(
                f"lr={rate:g} with weight decay and mu of {decay:g} together",
                why="a step pulls the parameters back by more than they have gone, so that there "
                "is no number of steps to divide a client's update by",
                instead=f"a product of the two well below 1, such as lr={0.1 / decay:.1g}",
            )
        return torch.tensor(sums, dtype=taken.dtype, device=taken.device)[taken.long()]

    def step(
        self,
        state: Mapping[str, Tensor],
        gradient: Gradient,
        *,
        decay: Scalar = 0.0,
        constant: Tensor | None = None,
    ) -> None:
        """One step along `gradient + (weight_decay + decay) * w + constant`, in place.

        The direction is affine in `w`, so the gradient goes straight into what it changes.

        Args:
            state: as `start` made it.
            gradient: the loss gradient of this step's batches.
            decay: a further multiple of the parameters (a proximal term's mu); a 0-d tensor if it
                changes from round to round.
            constant: a correction `[K, c]` of the first c columns (control variates, the proximal
                term's anchor).
        """
        params, rate = state["params"], state["rate"]
        decay = decay + self.weight_decay  # not in place: it may be a tensor of the state
        decays = isinstance(decay, torch.Tensor) or bool(decay)
        if not self.momentum:
            keep = 1 - rate * decay if decays else 1.0
            gradient.add_to(params, at=params, scale=-rate, keep=keep)
            if constant is not None:
                _leading(params, constant).addcmul_(constant, rate, value=-1)
            return
        velocity = state["velocity"]
        gradient.add_to(velocity, at=params, keep=self.momentum)
        if isinstance(decay, torch.Tensor):
            velocity.addcmul_(params, decay)
        elif decays:
            velocity.add_(params, alpha=decay)
        if constant is not None:
            _leading(velocity, constant).add_(constant)
        # Not `alpha=rate`: a number on a graphics card would be waited for.
        params.addcmul_(velocity, rate, value=-1)


def _leading(rows: Tensor, like: Tensor) -> Tensor:
    return rows[:, : like.shape[1]]
