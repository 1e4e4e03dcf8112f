"""MimeLite: the server's momentum, or Adam, in the clients' steps.

Karimireddy et al., "Breaking the centralized barrier for cross-device federated learning", NeurIPS
2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.data.batching import Epochs
from hanse.layers import Weighted
from hanse.local import SGD, MimeSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.local import Schedule


def mimelite(
    *,
    lr: float | Schedule = 0.1,
    beta1: float = 0.9,
    beta2: float | None = None,
    tau: float = 1e-3,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    weight_decay: float = 0.0,
    weighting: Literal["examples", "uniform"] = "uniform",
) -> Strategy:
    """Clients step with the server's momentum (or Adam's moments), which their gradients renew.

    Clients remember nothing, so it suits federations in which they seldom return. Each reads its
    data once more in a round, for a whole gradient, and twice the model travels each way (with
    `beta2`, three times down).

    Args:
        lr: the clients' learning rate, or a schedule by round.
        beta1: the momentum: the decay of the mean gradient; 0 without `beta2` is FedAvg.
        beta2: the decay of the mean squared gradient, which makes it Adam; `None`: momentum only.
        tau: what is added to the root of the mean squared gradient, in Adam.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        weight_decay: of the clients' losses.
        weighting: of models and gradients; the paper's is uniform.

    Raises:
        StrategyError: a coefficient that cannot be meant.
    """
    optimizer, work = SGD(lr, weight_decay=weight_decay), Epochs(local_epochs, batch_size)
    local = MimeSGD(optimizer, work, beta1, beta2, tau)
    return Strategy(local, layers=(Weighted(weighting),), name="mimelite")
