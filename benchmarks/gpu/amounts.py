"""How much a round has to do, from shapes: operations of the products, and bytes of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks.simulation.models import build

if TYPE_CHECKING:
    from benchmarks.simulation.workloads import Data, Workload

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Amount:
    """What no way around is known to for a round of FedAvg in single precision.

    Attributes:
        operations: multiplications and additions of all products, forwards and backwards.
        moved: bytes that are read or written if nothing is kept in caches: each step reads a
            client's parameters forwards and backwards and changes them in place; at the round's
            beginning and end they are written and read once more; each example is read once.
    """

    operations: float
    moved: float

    def seconds(self, rate: float, bandwidth: float) -> float:
        """The least time, in operations and bytes a second."""
        return max(self.operations / rate, self.moved / bandwidth)


def amount(workload: Workload, data: Data) -> Amount:
    """Of one round in which every client trains for an epoch."""
    module = build(workload)
    forward, first = _products(module, data, workload)
    parameters = sum(value.numel() for value in module.parameters())
    sizes = [data.size(client) for client in range(len(data))]
    steps = sum(-(-size // workload.batch) for size in sizes)
    # Backwards: gradients of weights and of inputs, each as much as forwards; the first layer's
    # inputs need none.
    operations = sum(sizes) * (3 * forward - first)
    passes = 4 * steps + 4 * len(data)
    return Amount(operations, _FLOAT * passes * parameters + data.x.nbytes + data.y.nbytes)


def _products(module: nn.Module, data: Data, workload: Workload) -> tuple[float, float]:
    """Operations forwards of an example: of all layers, and of the first one."""
    found: list[float] = []

    def note(part: nn.Module, inputs: tuple[torch.Tensor, ...], outputs: Any) -> None:  # noqa: ANN401 - a tensor or several
        if isinstance(part, nn.Linear):
            found.append(2 * part.in_features * outputs.numel())
        elif isinstance(part, nn.Conv2d):
            found.append(2 * part.weight[0].numel() * outputs.numel())
        elif isinstance(part, nn.LSTM):
            weights = sum(
                value.numel() for name, value in part.named_parameters() if "bias" not in name
            )
            found.append(2 * weights * inputs[0].shape[1])

    for part in module.modules():
        part.register_forward_hook(note)
    example = torch.from_numpy(data.x[:1])
    with torch.no_grad():
        module(example if workload.is_text else example.float())
    first = 0.0 if isinstance(next(module.children()), nn.Embedding) else found[0]
    return sum(found), first
