"""DP-SGD at every client: examples are protected, also from the server.

Abadi et al., "Deep learning with differential privacy", CCS 2016, as the local training of
federated averaging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.data.poisson import PoissonSteps
from hanse.layers import Weighted
from hanse.local import SGD, LocalSGD, ProximalSGD
from hanse.privacy import ExampleDP
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def dp_sgd(
    *,
    lr: float | Schedule = 0.1,
    clip: float = 1.0,
    noise_multiplier: float = 1.0,
    rate: float = 0.1,
    steps: int = 10,
    divisor: float = 10.0,
    noise: Literal["seeded", "os"] = "seeded",
    exact: bool = False,
    mu: float = 0.0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """Federated averaging whose clients clip the gradient of every example, and add noise.

    It is meant for few clients with many examples each. Every client counts the same.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        clip: the largest norm of an example's gradient.
        noise_multiplier: the noise's standard deviation divided by the clip norm; 0: no noise, and
            no privacy.
        rate: the probability that an example is in a step's batch.
        steps: how many steps every client takes in a round.
        divisor: by what a step's noisy sum is divided, a public number: about `rate` times the
            examples of a usual client.
        noise: from the run's seed, for experiments, or from the operating system, to protect.
        exact: whether the bound holds to the last bit, at several times the cost.
        mu: how strongly clients are held near the global model, as in FedProx.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        server: what is done with the mean of the updates.

    Raises:
        StrategyError: a number that cannot be meant.
    """
    optimizer, work = SGD(lr, momentum, weight_decay), PoissonSteps(rate, steps)
    return Strategy(
        ProximalSGD(optimizer, work, mu) if mu else LocalSGD(optimizer, work),
        layers=(Weighted("uniform"),),
        server=server,
        name="dp_sgd",
        examples=ExampleDP(clip, noise_multiplier, divisor, noise, exact),
    )
