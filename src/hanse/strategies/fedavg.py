"""FedAvg: local epochs, then the mean of the models.

McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
AISTATS 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.data.batching import Epochs
from hanse.layers import Weighted
from hanse.local import SGD, LocalSGD
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def fedavg(
    *,
    lr: float | Schedule = 0.1,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    weighting: Literal["examples", "uniform"] = "examples",
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """Each client trains `local_epochs` epochs from the global model; the server takes the mean.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        local_epochs: epochs over the client's data in a round (the paper's E).
        batch_size: examples in a local batch (B); `None`: all the client's data at once.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        weighting: whether every example or every client counts the same.
        server: what is done with the mean; `ServerAdam(…)` makes it FedAdam.

    Raises:
        StrategyError: a coefficient that cannot be meant.
    """
    local = LocalSGD(SGD(lr, momentum, weight_decay), Epochs(local_epochs, batch_size))
    return Strategy(local, layers=(Weighted(weighting),), server=server, name="fedavg")
