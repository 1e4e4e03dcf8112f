"""FedAvg whose server sees sums only.

Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017;
Bell et al., "Secure single-server aggregation with (poly)logarithmic overhead", CCS 2020; noise:
Kairouz, Liu and Steinke, "The distributed discrete Gaussian mechanism for federated learning with
secure aggregation", ICML 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanse.aggregation import SecureSum
from hanse.data.batching import Epochs
from hanse.layers import DistributedDP, Weighted
from hanse.local import SGD, LocalSGD, ProximalSGD
from hanse.server import ServerSGD
from hanse.strategies.secured import secured
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def fedavg_secagg(
    *,
    lr: float | Schedule = 0.1,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    mu: float = 0.0,
    secure: SecureSum = SecureSum(),
    privacy: DistributedDP | None = None,
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """Clients train as in FedAvg; what the server learns of their updates is the sum.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        mu: how strongly clients are held near the global model, as in FedProx.
        secure: how numbers are summed. With `most_examples` every example counts the same, without
            it every client.
        privacy: noise that clients add, so that not even the sum tells of one of them; every client
            then counts the same.
        server: what is done with the mean; `ServerAdam(…)` makes it FedAdam.

    Raises:
        StrategyError: a coefficient that cannot be meant.
    """
    optimizer, work = SGD(lr, momentum, weight_decay), Epochs(local_epochs, batch_size)
    local = ProximalSGD(optimizer, work, mu) if mu else LocalSGD(optimizer, work)
    weights = Weighted("uniform" if secure.most_examples is None else "examples")
    plain = Strategy(local, layers=(weights,), server=server, name="fedavg_secagg")
    return secured(plain, secure, privacy)
