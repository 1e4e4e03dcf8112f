"""DP-FedAvg: federated averaging with differential privacy of clients.

McMahan et al., "Learning differentially private recurrent language models", ICLR 2018; adaptive
clipping: Andrew et al., "Differentially private learning with adaptive clipping", NeurIPS 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.core.errors import StrategyError
from hanse.data.batching import Epochs
from hanse.layers import AdaptiveClip, ClientDP
from hanse.local import SGD, LocalSGD, ProximalSGD
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def dp_fedavg(
    *,
    lr: float | Schedule = 0.1,
    clip: float | Literal["adaptive"] | AdaptiveClip = 0.5,
    noise_multiplier: float = 1.1,
    clipping: Literal["flat", "per-layer"] = "flat",
    noise: Literal["seeded", "os"] = "seeded",
    mu: float = 0.0,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """Each client's update is clipped, and the server adds noise to their sum.

    It is meant for many clients and Poisson participation. Every client counts the same.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        clip: the largest norm of an update; `"adaptive"` or `AdaptiveClip(…)`: it follows a
            quantile of the updates' norms, and `Round.reported["clip"]` shows it.
        noise_multiplier: the noise's standard deviation divided by the clip norm; 0: no noise, and
            no privacy.
        clipping: one norm for the whole update, or the same for each tensor of it.
        noise: from the run's seed, for experiments, or from the operating system, to protect.
        mu: how strongly clients are held near the global model, as in FedProx.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        server: what is done with the noisy mean; `ServerAdam(…)` makes it DP-FedAdam.

    Raises:
        StrategyError: a number that cannot be meant.
    """
    if clip == "adaptive":
        clip = AdaptiveClip()
    elif isinstance(clip, str | type):
        raise StrategyError(
            f"clip is {clip!r}",
            why="it is a number, or a rule that changes it",
            instead="a number such as 0.5, 'adaptive', or AdaptiveClip(start=0.1)",
        )
    optimizer, work = SGD(lr, momentum, weight_decay), Epochs(local_epochs, batch_size)
    local = ProximalSGD(optimizer, work, mu) if mu else LocalSGD(optimizer, work)
    layer = ClientDP(clip, noise_multiplier, clipping, noise=noise)
    return Strategy(local, layers=(layer,), server=server, name="dp_fedavg")
