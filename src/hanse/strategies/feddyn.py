"""FedDyn: dynamic regularisation.

Acar et al., "Federated learning based on dynamic regularization", ICLR 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanse.data.batching import Epochs
from hanse.layers import Weighted
from hanse.local import SGD, DynamicSGD
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def feddyn(
    *,
    lr: float | Schedule = 0.1,
    alpha: float = 0.1,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """Clients' losses are bent by what they remember, so that all agree where the whole is best.

    Clients remember a vector as long as the model; nothing more travels than in FedAvg. Every
    client counts the same.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        alpha: how strongly clients are held, and how slowly the correction is learned; the paper
            searched 0.001 to 0.1. 0 is FedAvg.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        server: what is done with the corrected mean.

    Raises:
        StrategyError: a coefficient that cannot be meant.
    """
    work = Epochs(local_epochs, batch_size)
    local = DynamicSGD(SGD(lr, momentum, weight_decay), work, alpha)
    return Strategy(local, layers=(Weighted("uniform"),), server=server, name="feddyn")
