"""One client at a time through a private copy of the module, its tensors laid over the client's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hanse.core.errors import ModelError
from hanse.core.rng import seed_for
from hanse.models.executors.tuned import tuned
from hanse.models.gradient import ByAddress, Terms, accumulate, in_precision, per_example

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.types import Scalar
    from hanse.models.gradient import Batch
    from hanse.models.task import Task


class ModuleExecutor:
    """For every module: BatchNorm and losses that couple examples get their exact batches."""

    def __init__(self, task: Task, terms: Terms = Terms()) -> None:
        """Copy the module."""
        self._tuned, self._terms = tuned(task), terms
        self._generators = [torch.default_generator]
        if (device := self._tuned.params[0].device).type == "cuda":
            self._generators.append(torch.cuda.default_generators[device.index])
        named = dict(self._tuned.module.named_buffers())
        self._buffers = [named[name] for name in task.buffers.names]
        self._buffer_layout, self._loss = task.buffers, task.loss
        self._views = ByAddress(task.layout.views)
        self._bound: tuple[int, int] | None = None

    def add_to(
        self, batch: Batch, at: Tensor, target: Tensor, scale: Scalar, keep: Scalar
    ) -> Tensor:
        """As `Executor.add_to`, row by row."""
        waits, factor = self._terms.waits, 1.0
        if waits:
            factor, keep = float(scale), float(keep)
        losses = torch.empty(len(batch.x), dtype=at.dtype, device=at.device)
        for row, count in enumerate(batch.counts.tolist()):
            self._bind(at[row], batch.buffers[row])
            seed = seed_for(int(batch.keys[row]), "module", batch.pass_number, batch.step)
            for generator in self._generators:
                generator.manual_seed(seed)
            if not count:  # nobody was drawn: the gradient is zero
                target[row].mul_(keep)
                losses[row] = 0.0
                continue
            x, y, weights = batch.x[row], batch.y[row], batch.weights[row]
            if count < len(weights):
                x, y, weights = x[:count], y[:count], weights[:count]
            views = self._views(target[row])
            found = per_example(self._loss, self._forward(x), y, count, exact=True)
            # A scalar: given weights for a vector, autograd imports sympy to compare shapes.
            loss = (found * weights).sum()
            # A number that is not to be read scales the loss instead.
            scaled = loss if waits else loss * scale
            gradients = self._tuned.gradients(scaled, views, factor, keep)
            with torch.no_grad():
                accumulate([views[place] for place in self._tuned.places], gradients, factor, keep)
                losses[row] = loss.detach()
        return losses

    def clear(self) -> None:
        """Forget all vectors but the row that was bound last."""
        self._views.clear()

    def _forward(self, x: Tensor) -> Tensor:
        try:
            if self._terms.precision == "full":
                outputs: Tensor = self._tuned.module(x)
            else:
                with in_precision(self._terms.precision, x.device):
                    outputs = self._tuned.module(x)
                outputs = outputs.to(self._tuned.params[0].dtype)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ModelError(
                f"BatchNorm met a batch of {len(x)} example",
                why="it cannot normalise a single value, and a client's last batch may be one",
                instead="nn.GroupNorm, or a batch size that leaves no single example over",
            ) from error
        return outputs

    def _bind(self, params: Tensor, buffers: Tensor) -> None:
        address = (params.data_ptr(), buffers.data_ptr() if buffers.numel() else 0)
        if address == self._bound:
            return
        for parameter, view in zip(self._tuned.params, self._views(params), strict=True):
            parameter.data = view
        for buffer, view in zip(self._buffers, self._buffer_layout.views(buffers), strict=True):
            buffer.data = view
        self._bound = address
