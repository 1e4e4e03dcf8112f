"""FedNova: federated averaging for clients that take different numbers of steps.

Wang et al., "Tackling the objective inconsistency problem in heterogeneous federated optimization",
NeurIPS 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.data.batching import Epochs
from hanse.layers import Normalized, Weighted
from hanse.local import SGD, LocalSGD, ProximalSGD
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def fednova(
    *,
    lr: float | Schedule = 0.1,
    mu: float = 0.0,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    weighting: Literal["examples", "uniform"] = "examples",
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """Updates are divided by their number of steps, averaged, and multiplied by the mean number.

    Federated averaging counts clients with many steps (more examples, more epochs, faster machines)
    for more than their weight. Here their weights are all that counts.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        mu: how strongly clients are held near the global model, as in FedProx.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        weighting: whether every example or every client counts the same.
        server: what is done with the mean.

    Raises:
        StrategyError: a coefficient that cannot be meant.
    """
    optimizer, work = SGD(lr, momentum, weight_decay), Epochs(local_epochs, batch_size)
    local = ProximalSGD(optimizer, work, mu) if mu else LocalSGD(optimizer, work)
    layers = (Normalized(), Weighted(weighting))
    return Strategy(local, layers=layers, server=server, name="fednova", partial="keep")
