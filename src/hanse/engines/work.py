"""The engine's side of a block: which examples at which step, and their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hanse.core.rng import derive
from hanse.core.types import Facts
from hanse.data.batching import FullGradient, plan, steps
from hanse.models.gradient import Batch, BoundGradient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from hanse.core.types import ClientContext, Gradient
    from hanse.data.batching import Pass
    from hanse.data.federation import Block
    from hanse.models.gradient import Executor, ViewCache


class BlockWork:
    """The batches of K clients, sorted by their number of examples, most first."""

    def __init__(
        self,
        executor: Executor,
        views: ViewCache,
        passes: tuple[Pass, ...],
        block: Block,
        client: ClientContext,
        buffers: Tensor,
    ) -> None:
        """Bind an executor to a block's data; `buffers` `[K, b]` is changed by training."""
        self.buffers = buffers
        self._executor, self._views = executor, views
        self._passes, self._block, self._client = passes, block, client
        self._dtype = client.examples.dtype
        self._losses = torch.zeros(len(client.id), dtype=self._dtype)

    def steps(self, pass_number: int) -> Iterator[tuple[int, Gradient]]:
        """For each step of a pass: how many leading clients still train, and their gradient."""
        pass_, client = self._passes[pass_number], self._client
        keys = derive(client.key, "pass", pass_number)
        x, y = self._block.fields["x"], self._block.fields["y"]
        first = pass_number == 0
        losses = self._losses if first else None
        # Later passes look at other parameters than those that are sent: their statistics go.
        buffers = self.buffers if first else self.buffers.clone()
        batches = plan(pass_, self._block.sizes, self._block.starts, keys, self._dtype)
        for step, chosen in enumerate(batches):
            active, rows = chosen.active, chosen.rows.reshape(-1)
            shape = chosen.rows.shape
            batch = Batch(
                x=x.index_select(0, rows).view(*shape, *x.shape[1:]),
                y=y.index_select(0, rows).view(*shape, *y.shape[1:]),
                weights=chosen.weights,
                counts=chosen.counts,
                buffers=buffers[:active],
                keys=client.key[:active],
                pass_number=pass_number,
                step=step,
            )
            yield active, BoundGradient(self._executor, self._views, batch, losses)

    def facts(self) -> Facts:
        """Steps taken and mean loss over the first pass."""
        first = self._passes[0]
        taken = torch.from_numpy(steps(first, self._block.sizes)).to(self._dtype)
        # The weights of a full gradient add up to one over all its steps, others' in each step.
        loss = self._losses if isinstance(first, FullGradient) else self._losses / taken
        return Facts(steps=taken, loss=loss)
