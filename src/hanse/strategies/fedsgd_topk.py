"""FedSGD whose clients send the largest coordinates: deep gradient compression.

Lin, Han, Mao, Wang and Dally, "Deep gradient compression: reducing the communication bandwidth for
distributed training", ICLR 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.layers import ErrorFeedback
from hanse.strategies.compression import compressor
from hanse.strategies.fedsgd import fedsgd

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule
    from hanse.strategy import Strategy


def fedsgd_topk(
    *,
    lr: float | Schedule | None = None,
    fraction: float = 0.01,
    momentum: float = 0.9,
    bits: int | None = None,
    chunk: int = 1024,
    weighting: Literal["examples", "uniform"] = "examples",
    server: ServerOptimizer | None = None,
) -> Strategy:
    """Each client sends the largest coordinates of what its gradients, with momentum, add up to.

    What is not sent waits at the client. Momentum belongs to the clients (momentum correction): a
    server's would be that of what arrives late. What is sent is taken out of a client's momentum as
    well (momentum factor masking).

    The paper's warm-up, which begins with more coordinates, and its clipping are not in it.

    Args:
        lr: the server's learning rate, 0.1 if neither it nor `server` is given.
        fraction: the part of the coordinates that is sent.
        momentum: of the clients; 0: error feedback alone.
        bits: of each number that is sent; `None`: as many as the model's.
        chunk: how many examples a client holds in memory at once; it does not change the result.
        weighting: whether every example or every client counts the same.
        server: another server optimiser, with its own rate; `None`: `ServerSGD(lr)`.

    Raises:
        StrategyError: what cannot be meant.
    """
    plain = fedsgd(lr=lr, chunk=chunk, weighting=weighting, server=server)
    inner = compressor(fraction=fraction, bits=bits, error_feedback=True)
    layers = (ErrorFeedback(inner, momentum=momentum), *plain.layers)
    return plain.replace(layers=layers, name="fedsgd_topk")
