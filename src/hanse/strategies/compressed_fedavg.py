"""Compressed FedAvg: what clients send is sparsified, quantised, or both.

Konečný et al., "Federated learning: strategies for improving communication efficiency", 2016.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.server import ServerSGD
from hanse.strategies.compression import compressed
from hanse.strategies.fedavg import fedavg

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule
    from hanse.strategy import Strategy


def compressed_fedavg(
    *,
    lr: float | Schedule = 0.1,
    fraction: float | None = None,
    bits: int | None = 8,
    choose: Literal["top", "random"] = "top",
    error_feedback: bool = False,
    rotate: bool = False,
    broadcast_bits: int | None = None,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    weighting: Literal["examples", "uniform"] = "examples",
    server: ServerOptimizer = ServerSGD(),
) -> Strategy:
    """FedAvg whose clients send some coordinates of their update, in a few bits each.

    Args:
        lr: the clients' learning rate, or a schedule by round.
        fraction: the part of the coordinates that is sent; `None`: all.
        bits: of each number that is sent, 1 to 16; `None`: as many as the model's.
        choose: which coordinates: the largest ones, or random ones that all clients of a round
            share.
        error_feedback: clients remember what was left out, and add it to their next update.
        rotate: rotate before rounding, so that values are alike.
        broadcast_bits: of each parameter that the server sends; `None`: the model in full.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        weighting: whether every example or every client counts the same.
        server: what is done with the mean.

    Raises:
        StrategyError: what cannot be meant.
    """
    plain = fedavg(
        lr=lr,
        local_epochs=local_epochs,
        batch_size=batch_size,
        momentum=momentum,
        weight_decay=weight_decay,
        weighting=weighting,
        server=server,
    )
    return compressed(
        plain.replace(name="compressed_fedavg"),
        fraction=fraction,
        bits=bits,
        choose=choose,
        error_feedback=error_feedback,
        rotate=rotate,
        broadcast_bits=broadcast_bits,
    )
