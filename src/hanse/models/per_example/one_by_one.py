"""One example at a time through the module: for every module, and exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hanse.core.rng import seed_for
from hanse.models.gradient import per_example

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.models.gradient import Batch
    from hanse.models.task import Task


class OneByOne:
    """A private copy of a module, and its gradient by one example.

    It depends on that example and on nothing else, to the last bit.
    """

    def __init__(self, task: Task) -> None:
        """Copy the module."""
        self.module, self._loss = task.trained(), task.loss
        named = dict(self.module.named_parameters())
        self.params = [named[name] for name in task.layout.names]

    @torch.enable_grad()
    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient `[P]` and the loss of the single example `x` `[...]`."""
        outputs = self.module(x.unsqueeze(0))
        loss = per_example(self._loss, outputs, y.unsqueeze(0), 1, exact=False).sum()
        found = torch.autograd.grad(loss, self.params, allow_unused=True)
        parts = [
            (torch.zeros_like(parameter) if part is None else part).reshape(-1)
            for parameter, part in zip(self.params, found, strict=True)
        ]
        return torch.cat(parts).detach(), loss.detach()


def bind(params: list[torch.nn.Parameter], views: list[Tensor]) -> None:
    """Lay a module's parameters over the tensors of a vector."""
    for parameter, view in zip(params, views, strict=True):
        parameter.data = view


def seed_row(batch: Batch, row: int, device: torch.device) -> None:
    """What a client's module draws (dropout) is its own, as without clipping."""
    seed = seed_for(int(batch.keys[row]), "module", batch.pass_number, batch.step)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
