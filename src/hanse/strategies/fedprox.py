"""FedProx: FedAvg with clients held near the global model.

Li et al., "Federated optimization in heterogeneous networks", MLSys 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.core.errors import StrategyError
from hanse.data.batching import Epochs
from hanse.layers import Weighted
from hanse.local import SGD, AdaptiveMu, ProximalSGD
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def fedprox(
    *,
    lr: float | Schedule = 0.1,
    mu: float | Literal["adaptive"] | AdaptiveMu = 0.01,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    weighting: Literal["examples", "uniform"] = "examples",
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """Each client minimises its loss plus `mu/2 * ||w - w_global||^2`.

    Where there are stragglers their partial work is kept, as in the paper's section 5.2.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        mu: how strongly clients are held; 0 is FedAvg. `"adaptive"` or `AdaptiveMu(…)`: it follows
            the training loss; `Round.reported["mu"]` shows it.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        weighting: whether every example or every client counts the same.
        server: what is done with the mean.

    Raises:
        StrategyError: a coefficient that cannot be meant.
    """
    if mu == "adaptive":
        mu = AdaptiveMu()
    elif isinstance(mu, str | type):
        raise StrategyError(
            f"mu is {mu!r}",
            why="it is a number, or a rule that changes it",
            instead="a number such as 0.01, 'adaptive', or AdaptiveMu(start=0.1)",
        )
    local = ProximalSGD(SGD(lr, momentum, weight_decay), Epochs(local_epochs, batch_size), mu)
    return Strategy(
        local, layers=(Weighted(weighting),), server=server, name="fedprox", partial="keep"
    )
