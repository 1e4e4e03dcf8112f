"""Chains of linear layers: norms and sums by products, for a block of clients, without autograd.

The gradient of a linear layer's weight for one example is the outer product of two vectors, whose
norm is the product of theirs. So it need not be written out to be clipped (Goodfellow, "Efficient
per-example gradient computations", 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hanse.models.executors.dense import DenseExecutor
from hanse.models.gradient import ByAddress
from hanse.models.per_example.factors import factors, kept, square

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.models.gradient import Batch
    from hanse.models.task import Task


class DenseSums:
    """For chains of linear layers; see `hanse.models.executors.chain`."""

    def __init__(self, task: Task) -> None:
        """Find the model's chain.

        Raises:
            Unchained: it has none.
        """
        self._dense = DenseExecutor(task)
        self._links, self._views = self._dense.links, ByAddress(task.layout.views)

    def __call__(self, batch: Batch, at: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """As `ClippedSums`."""
        losses, pairs = self._dense.pairs(batch, at)
        places = torch.arange(losses.shape[1], device=losses.device)
        real = places < batch.counts.to(losses.device).unsqueeze(1)
        squares = torch.zeros(real.shape, dtype=torch.float64, device=losses.device)
        for (inputs, down), link in zip(pairs, self._links, strict=True):
            ones = 0.0 if link.bias is None else 1.0
            squares += square(down, 2) * (square(inputs, 2) + ones)
        # What has no finite norm may hold zeros beside infinities, whose product is neither.
        factor = torch.where(real, factors(squares, clip), 0.0)
        usable = factor > 0
        sums = at.new_empty(at.shape)
        views = self._views(sums)
        for (inputs, down), link in zip(pairs, self._links, strict=True):
            scaled = kept(down, usable) * factor.to(down.dtype).unsqueeze(2)
            torch.bmm(scaled.transpose(1, 2), kept(inputs, usable), out=views[link.weight])
            if link.bias is not None:
                torch.sum(scaled, dim=1, out=views[link.bias])
        return sums, torch.where(real, losses * batch.weights, 0.0).sum(1)

    def clear(self) -> None:
        """Forget all vectors."""
        self._dense.clear()
        self._views.clear()
