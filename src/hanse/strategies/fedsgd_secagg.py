"""FedSGD whose server sees the sum of the gradients only.

Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017;
noise: Kairouz, Liu and Steinke, "The distributed discrete Gaussian mechanism for federated learning
with secure aggregation", ICML 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.aggregation import SecureSum
from hanse.core.errors import StrategyError
from hanse.data.poisson import PoissonSteps

# Experiment files look them up here.
from hanse.layers import DistributedDP, DistributedExampleDP  # noqa: TC001
from hanse.local import FullGradientStep
from hanse.privacy import ExampleDP
from hanse.strategies.fedsgd import fedsgd
from hanse.strategies.secured import secured

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule
    from hanse.strategy import Strategy


def fedsgd_secagg(
    *,
    lr: float | Schedule | None = None,
    chunk: int = 1024,
    secure: SecureSum = SecureSum(),
    privacy: DistributedDP | None = None,
    examples: DistributedExampleDP | None = None,
    server: ServerOptimizer | None = None,
) -> Strategy:
    """Each client sends the gradient of its mean loss, masked; the server descends along the mean.

    Args:
        lr: the server's learning rate, 0.1 if neither it nor `server` is given.
        chunk: how many examples a client holds in memory at once; it does not change the result.
        secure: how numbers are summed. With `most_examples` every example counts the same, without
            it every client.
        privacy: noise that clients add, so that not even the sum tells of one of them; every client
            then counts the same.
        examples: noise that clients add for single examples, in the place of `privacy`; with a
            model in double precision, and the sum over all examples divided by a public number.
        server: another server optimiser, with its own rate; `None`: `ServerSGD(lr)`.

    Raises:
        StrategyError: a coefficient that cannot be meant, both `lr` and `server`, or `privacy` and
            `examples`.
    """
    by: Literal["examples", "uniform"] = "uniform" if secure.most_examples is None else "examples"
    plain = fedsgd(lr=lr, chunk=chunk, weighting=by, server=server)
    if examples is not None:
        if privacy is not None:
            raise StrategyError(
                f"fedsgd_secagg(privacy={privacy!r:.60}, examples={examples!r:.60})",
                why="one is noise for a client's whole update, the other for each of its examples",
                instead="one of them",
            )
        plain = plain.replace(
            local=FullGradientStep(PoissonSteps(1.0, 1)),
            examples=ExampleDP(examples.clip, 0.0, 1.0, examples.noise, exact=True),
        )
    return secured(plain.replace(name="fedsgd_secagg"), secure, privacy or examples)
