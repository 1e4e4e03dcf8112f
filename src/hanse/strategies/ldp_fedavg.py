"""LDP-FedAvg: federated averaging in which each client adds its own noise.

Kasiviswanathan, Lee, Nissim, Raskhodnikova and Smith, "What can we learn privately?", SIAM Journal
on Computing 2011 (the local model); Geyer, Klein and Nabi, "Differentially private federated
learning: a client level perspective", 2017, has the same clip, with noise at the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.data.batching import Epochs
from hanse.layers import LocalDP
from hanse.local import SGD, LocalSGD, ProximalSGD
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def ldp_fedavg(
    *,
    lr: float | Schedule = 0.1,
    clip: float = 0.5,
    noise_multiplier: float = 4.0,
    noise: Literal["seeded", "os"] = "seeded",
    mu: float = 0.0,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """Each client clips its update and adds noise before it sends it: the server is not trusted.

    Every client counts the same.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        clip: the largest norm of an update.
        noise_multiplier: the standard deviation of each client's noise divided by the clip norm; 0:
            no noise, and no privacy. Two updates of a client may be two clip norms apart.
        noise: from the run's seed, for experiments, or from the operating system, to protect.
        mu: how strongly clients are held near the global model, as in FedProx.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        server: what is done with the mean of the noisy updates.

    Raises:
        StrategyError: a number that cannot be meant.
    """
    optimizer, work = SGD(lr, momentum, weight_decay), Epochs(local_epochs, batch_size)
    local = ProximalSGD(optimizer, work, mu) if mu else LocalSGD(optimizer, work)
    layer = LocalDP(clip, noise_multiplier, noise=noise)
    return Strategy(local, layers=(layer,), server=server, name="ldp_fedavg")
