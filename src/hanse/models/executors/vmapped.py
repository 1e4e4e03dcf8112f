"""All clients of a block at once, with `torch.func`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.func import functional_call, grad_and_value, vmap

from hanse.models.gradient import ByAddress, Terms, accumulate, in_precision, per_example

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.types import Scalar
    from hanse.models.gradient import Batch
    from hanse.models.task import Task


class VmapExecutor:
    """For modules made of operations that `torch.func` can batch."""

    def __init__(self, task: Task, terms: Terms = Terms()) -> None:
        """Prepare the batched function of a private copy of the task's module."""
        module, names, loss = task.trained(), task.layout.names, task.loss

        full = terms.precision == "full"

        def low(params: tuple[Tensor, ...], x: Tensor) -> Tensor:
            with in_precision(terms.precision, x.device):
                outputs: Tensor = functional_call(module, dict(zip(names, params, strict=True)), x)
            return outputs.to(params[0].dtype)

        def batch_loss(params: tuple[Tensor, ...], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
            named = dict(zip(names, params, strict=True))
            outputs = functional_call(module, named, (x,)) if full else low(params, x)
            return (per_example(loss, outputs, y, len(x), exact=False) * weights).sum()

        def scaled_loss(
            params: tuple[Tensor, ...], x: Tensor, y: Tensor, weights: Tensor, scaled: Tensor
        ) -> tuple[Tensor, Tensor]:
            named = dict(zip(names, params, strict=True))
            outputs = functional_call(module, named, (x,)) if full else low(params, x)
            losses = per_example(loss, outputs, y, len(x), exact=False)
            return (losses * scaled).sum(), (losses * weights).sum()

        value = grad_and_value(batch_loss)
        self._each = vmap(value, in_dims=(0, 0, 0, 0))
        self._same = vmap(value, in_dims=(None, 0, 0, 0))
        scaled = grad_and_value(scaled_loss, has_aux=True)
        self._each_scaled = vmap(scaled, in_dims=(0, 0, 0, 0, 0))
        self._same_scaled = vmap(scaled, in_dims=(None, 0, 0, 0, 0))
        self._waits = terms.waits
        self._views = ByAddress(task.layout.views)

    def add_to(
        self, batch: Batch, at: Tensor, target: Tensor, scale: Scalar, keep: Scalar
    ) -> Tensor:
        """As `Executor.add_to`."""
        params = self._views(at)
        if not self._waits and not isinstance(scale, float):
            found, losses = self._by_weights(params, at, batch, scale)
            scale = 1.0
        elif at.stride(0) == 0:  # every client at the same point: its products need no batching
            shared = tuple(view[0] for view in params)
            found, losses = self._same(shared, batch.x, batch.y, batch.weights)
        else:
            found, losses = self._each(tuple(params), batch.x, batch.y, batch.weights)
        with torch.no_grad():
            accumulate(self._views(target), list(found), scale, keep)
        found_losses: Tensor = losses.detach()
        return found_losses

    def _by_weights(
        self, params: list[Tensor], at: Tensor, batch: Batch, scale: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The gradients times `scale`, which is not read, and the losses."""
        inputs = batch.x, batch.y, batch.weights, batch.weights * scale
        if at.stride(0) == 0:
            shared = tuple(view[0] for view in params)
            found, (_, losses) = self._same_scaled(shared, *inputs)
        else:
            found, (_, losses) = self._each_scaled(tuple(params), *inputs)
        return found, losses

    def clear(self) -> None:
        """Forget all vectors."""
        self._views.clear()
