"""SCAFFOLD: control variates against client drift.

Karimireddy et al., "SCAFFOLD: Stochastic controlled averaging for federated learning", ICML 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.data.batching import Epochs
from hanse.layers import Weighted
from hanse.local import SGD, ScaffoldSGD
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def scaffold(
    *,
    lr: float | Schedule = 0.1,
    option: Literal[1, 2] = 2,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    weighting: Literal["examples", "uniform"] = "uniform",
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """Each client corrects its steps by the difference of the server's and its own drift.

    Clients remember a vector as long as the model, and twice the model travels each way.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        option: how a client renews its control variate: 1, by a full gradient; 2, from its path.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        momentum: of the local SGD (option 1 only).
        weight_decay: of the local SGD.
        weighting: of the model updates; the paper's is uniform. Controls are never weighted, so
            either way the goal is the mean of the clients' losses: weights change the path to it.
        server: what is done with the mean.

    Raises:
        StrategyError: a coefficient that cannot be meant, or option 2 with momentum.
    """
    work = Epochs(local_epochs, batch_size)
    local = ScaffoldSGD(SGD(lr, momentum, weight_decay), work, option)
    return Strategy(local, layers=(Weighted(weighting),), server=server, name="scaffold")
