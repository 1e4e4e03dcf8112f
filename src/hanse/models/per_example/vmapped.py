"""Every example's gradient written out, by `torch.func`: for modules that it can batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.func import functional_call, grad_and_value, vmap

from hanse.models.gradient import ByAddress, per_example
from hanse.models.per_example.factors import AT_ONCE, factors, kept, square

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.models.gradient import Batch
    from hanse.models.task import Task

_ROOM = 1 << 25  # numbers in gradients that are written out at once


class VmapSums:
    """For modules made of operations that `torch.func` can batch, several clients at once."""

    def __init__(self, task: Task) -> None:
        """Prepare the batched function of a private copy of the task's module."""
        module, names, loss = task.trained(), task.layout.names, task.loss
        self.module = module

        def of_one(params: tuple[Tensor, ...], x: Tensor, y: Tensor) -> Tensor:
            named = dict(zip(names, params, strict=True))
            outputs = functional_call(module, named, (x.unsqueeze(0),))
            return per_example(loss, outputs, y.unsqueeze(0), 1, exact=False).sum()

        # Dropout draws for each example by itself.
        self.each = vmap(grad_and_value(of_one), in_dims=(None, 0, 0), randomness="different")
        self._blocks = vmap(self.each, in_dims=(0, 0, 0), randomness="different")
        self._size = task.layout.size
        self._views = ByAddress(task.layout.views)

    def __call__(self, batch: Batch, at: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """As `ClippedSums`."""
        clients, width = batch.weights.shape
        sums = torch.zeros(at.shape, dtype=at.dtype, device=at.device)
        views, params = self._views(sums), tuple(self._views(at))
        losses = torch.zeros(clients, dtype=at.dtype, device=at.device)
        together = max(min(_ROOM // (self._size * clients), AT_ONCE, width), 1)
        places = torch.arange(width, device=at.device)
        real = places < batch.counts.to(at.device).unsqueeze(1)
        for first in range(0, width, together):
            part = slice(first, first + together)
            gradients, found = self._blocks(params, batch.x[:, part], batch.y[:, part])
            squares = torch.stack([square(each, 2) for each in gradients]).sum(0)
            factor = torch.where(real[:, part], factors(squares, clip), 0.0)
            for view, each in zip(views, gradients, strict=True):
                flat = kept(each.flatten(2), factor > 0)
                weights = factor.to(flat.dtype).unsqueeze(1)
                view.view(clients, -1).add_(torch.bmm(weights, flat).squeeze(1))
            losses += torch.where(real[:, part], found * batch.weights[:, part], 0.0).sum(1)
        return sums, losses

    def clear(self) -> None:
        """Forget all vectors."""
        self._views.clear()
