"""The loss gradient of K clients, by two paths that compute the same numbers.

`vmap`: all clients of the block at once, with `torch.func`. `module`: one client at a time through
the module itself, which works for every module and gives BatchNorm and losses that couple examples
their exact batches.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from hanse.core.errors import ModelError
from hanse.core.rng import derive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hanse.core.layout import ParameterLayout
    from hanse.core.rng import Keys
    from hanse.core.types import Scalar
    from hanse.models.losses import Loss
    from hanse.models.task import Task

_CACHED_VIEWS = 16


class Batch(NamedTuple):
    """One step's batches of k clients."""

    x: Tensor  # [k, B, ...]
    y: Tensor  # [k, B, ...]
    weights: Tensor  # [k, B], zero where a row is padding
    counts: Tensor  # [k], the rows that are no padding; they come first
    buffers: Tensor  # [k, b], changed in place by modules that keep statistics
    keys: Keys  # [k], the clients' keys, for the module's own randomness (dropout)
    pass_number: int
    step: int  # of the pass


class Executor(Protocol):
    """Computes gradients for some rows of a batch at a time."""

    def gradients(self, batch: Batch, at: Tensor) -> Iterator[tuple[slice, list[Tensor], Tensor]]:
        """Yield rows, their gradients by tensor `[r, *shape]`, and their losses `[r]`."""


class BoundGradient:
    """A `Gradient` of one step's batches.

    The losses that its first call meets are added to `losses` `[>= k]`, if given.
    """

    def __init__(
        self, executor: Executor, views: ViewCache, batch: Batch, losses: Tensor | None
    ) -> None:
        """Bind an executor to a batch."""
        self._executor, self._views, self._batch = executor, views, batch
        self._losses = losses

    def __call__(self, at: Tensor) -> Tensor:
        """The gradient `[k, P]` at `at`."""
        result = torch.zeros(at.shape, dtype=at.dtype)
        self.add_to(result, at)
        return result

    def add_to(
        self, target: Tensor, at: Tensor, *, scale: Scalar = 1.0, keep: Scalar = 1.0
    ) -> None:
        """`target = keep * target + scale * gradient(at)`, in place."""
        for rows, gradients, losses in self._executor.gradients(self._batch, at):
            views = self._views(target[rows])
            with torch.no_grad():
                if not (isinstance(keep, float) and keep == 1.0):
                    torch._foreach_mul_(views, keep)
                # The type checker does not know that a 0-d tensor is a number too.
                torch._foreach_add_(views, gradients, alpha=scale)  # type: ignore[arg-type]
                if self._losses is not None:
                    self._losses[rows] += losses
        self._losses = None


class ViewCache:
    """The last few vectors' views: making them anew costs more than a small model's step."""

    def __init__(self, layout: ParameterLayout) -> None:
        """For vectors of one layout."""
        self._layout = layout
        self._known: dict[tuple[int, int, int], list[Tensor]] = {}

    def __call__(self, flat: Tensor) -> list[Tensor]:
        """The views of `flat` `[k, P]`; an entry keeps memory alive, so addresses are unique."""
        key = (flat.data_ptr(), len(flat), flat.stride(0))
        views = self._known.get(key)
        if views is None:
            if len(self._known) >= _CACHED_VIEWS:
                self._known.clear()
            views = self._known[key] = self._layout.views(flat)
        return views

    def clear(self) -> None:
        """Forget all views, so that a block's memory can be freed."""
        self._known.clear()


class VmapExecutor:
    """All rows at once."""

    def __init__(self, task: Task, views: ViewCache) -> None:
        """Prepare the batched function of a private copy of the task's module."""
        module, names, loss = copy.deepcopy(task.module).train(), task.layout.names, task.loss

        def batch_loss(params: tuple[Tensor, ...], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
            outputs = functional_call(module, dict(zip(names, params, strict=True)), (x,))
            return _weighted(loss, outputs, y, weights, exact=False)

        value = grad_and_value(batch_loss)
        self._each = vmap(value, in_dims=(0, 0, 0, 0))
        self._same = vmap(value, in_dims=(None, 0, 0, 0))
        self._views = views

    def gradients(self, batch: Batch, at: Tensor) -> Iterator[tuple[slice, list[Tensor], Tensor]]:
        """One item: all rows."""
        if at.stride(0) == 0:  # every client at the same point: its products need no batching
            params = [view[0] for view in self._views(at)]
            found, losses = self._same(tuple(params), batch.x, batch.y, batch.weights)
        else:
            params = self._views(at)
            found, losses = self._each(tuple(params), batch.x, batch.y, batch.weights)
        yield slice(0, len(batch.x)), list(found), losses.detach()


class ModuleExecutor:
    """One row at a time through a private copy of the module, its tensors laid over the row's."""

    def __init__(self, task: Task, views: ViewCache) -> None:
        """Copy the module; `views` is unused: a row's tensors are the module's own."""
        del views
        self._module = copy.deepcopy(task.module).train()
        named_parameters = dict(self._module.named_parameters())
        named_buffers = dict(self._module.named_buffers())
        self._params = [named_parameters[name] for name in task.layout.names]
        self._buffers = [named_buffers[name] for name in task.buffers.names]
        self._layout, self._buffer_layout, self._loss = task.layout, task.buffers, task.loss
        self._bound: tuple[int, int] | None = None

    def gradients(self, batch: Batch, at: Tensor) -> Iterator[tuple[slice, list[Tensor], Tensor]]:
        """An item for each row."""
        for row in range(len(batch.x)):
            self._bind(at[row], batch.buffers[row])
            seed = derive(batch.keys[row], "module", batch.pass_number, batch.step)
            torch.default_generator.manual_seed(int(seed))
            count = int(batch.counts[row])
            x, y, weights = batch.x[row, :count], batch.y[row, :count], batch.weights[row, :count]
            loss = _weighted(self._loss, self._forward(x), y, weights, exact=True)
            found = torch.autograd.grad(
                loss, self._params, allow_unused=True, materialize_grads=True
            )
            yield slice(row, row + 1), [g.unsqueeze(0) for g in found], loss.detach().reshape(1)

    def _forward(self, x: Tensor) -> Tensor:
        try:
            outputs: Tensor = self._module(x)
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
        for parameter, view in zip(self._params, self._layout.views(params), strict=True):
            parameter.data = view
        for buffer, view in zip(self._buffers, self._buffer_layout.views(buffers), strict=True):
            buffer.data = view
        self._bound = address


def _weighted(loss: Loss, outputs: Tensor, y: Tensor, weights: Tensor, *, exact: bool) -> Tensor:
    losses = loss(outputs, y)
    if losses.dim() == 1:
        return (losses * weights).sum()
    if losses.dim() == 0 and exact:
        return losses * weights.sum()
    raise ModelError(
        f"the loss returned a tensor of shape {list(losses.shape)} for {len(weights)} examples",
        why="examples are weighted one by one, so that short batches and padding are exact",
        instead="reduction='none': one loss per example"
        + ("" if exact else " (a 0-d loss that couples examples needs the path 'module')"),
    )


_EXECUTORS: dict[str, Callable[[Task, ViewCache], Executor]] = {
    "vmap": VmapExecutor,
    "module": ModuleExecutor,
}


def make_executor(path: str, task: Task) -> tuple[Executor, ViewCache]:
    """The executor of a path, and the views it shares with the gradients bound to it."""
    views = ViewCache(task.layout)
    return _EXECUTORS[path](task, views), views
