"""FedSGD: one full gradient from each client, one step at the server.

McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
AISTATS 2017, section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.core.errors import StrategyError
from hanse.data.batching import FullGradient
from hanse.layers import Weighted
from hanse.local import FullGradientStep
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule


def fedsgd(
    *,
    lr: float | Schedule | None = None,
    chunk: int = 1024,
    weighting: Literal["examples", "uniform"] = "examples",
    server: ServerOptimizer | None = None,
) -> Strategy:
    """Each client sends the gradient of its mean loss; the server descends along their mean.

    Args:
        lr: the server's learning rate, 0.1 if neither it nor `server` is given.
        chunk: how many examples a client holds in memory at once; it does not change the result.
        weighting: whether every example or every client counts the same.
        server: another server optimiser, with its own rate; `None`: `ServerSGD(lr)`.

    Raises:
        StrategyError: a coefficient that cannot be meant, or both `lr` and `server`.
    """
    if lr is not None and server is not None:
        raise StrategyError(
            f"fedsgd(lr={lr!r}, server={server!r})",
            why="FedSGD takes its only step at the server, so there would be two rates for it",
            instead="one of them: fedsgd(lr=0.1), or fedsgd(server=ServerAdam(lr=0.01))",
        )
    local = FullGradientStep(FullGradient(chunk))
    return Strategy(
        local,
        layers=(Weighted(weighting),),
        server=server or ServerSGD(0.1 if lr is None else lr),
        name="fedsgd",
    )
