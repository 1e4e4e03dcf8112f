"""The loss gradient of K clients, by two paths that compute the same numbers.

`vmap`: all clients of the block at once, with `torch.func`. `module`: one client at a time through
the module itself, which works for every module and gives BatchNorm and losses that couple examples
their exact batches.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from hanse.core.errors import HanseError, ModelError
from hanse.core.rng import derive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hanse.core.layout import ParameterLayout
    from hanse.core.rng import Keys
    from hanse.core.types import Scalar
    from hanse.models.losses import Loss
    from hanse.models.task import Task

_BLOCK = 16  # clients; more did not pay in trials
_BLOCK_BYTES = 4 * 2**20  # of a block's parameters: within a few times a core's L2 cache
_CACHED_VIEWS = 16
_NUDGE = 0.1  # of parameters, when a model is examined


@dataclass(frozen=True)
class Execution:
    """How a run's gradients are computed; part of the run, since it decides the last bits.

    Attributes:
        path: `"vmap"` or `"module"`.
        block: clients per block, a power of two.
        why: why this path was chosen.
    """

    path: Literal["vmap", "module"]
    block: int
    why: str = "chosen by the user"

    def __post_init__(self) -> None:
        """Refuse what no engine offers."""
        if self.path not in ("vmap", "module"):
            raise ModelError(
                f"execution path {self.path!r}",
                why="there is no such path",
                instead="'vmap' (clients in blocks) or 'module' (one client at a time)",
            )
        if not isinstance(self.block, int) or self.block < 1 or self.block & (self.block - 1):
            raise ModelError(
                f"a block of {self.block!r} clients",
                why="sums are merged in a binary tree over blocks, so that the bits do not depend "
                "on the order of arrival",
                instead="a power of two: 1, 2, 4, 8, 16, …",
            )


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


def make_executor(execution: Execution, task: Task) -> tuple[Executor, ViewCache]:
    """The executor of a path, and the views it shares with the gradients bound to it."""
    views = ViewCache(task.layout)
    return _EXECUTORS[execution.path](task, views), views


def choose_execution(task: Task, x: Tensor, y: Tensor) -> Execution:
    """Choose the path and the block size for a model, by what it is made of.

    Args:
        task: the model.
        x: a few examples `[n, ...]`, to try the model on.
        y: their targets `[n, ...]`.

    Raises:
        ModelError: the model or the loss cannot be used on these examples.
    """
    probe(task, x, y)
    reason = why_not_in_blocks(task, x, y) or _why_slower_in_blocks(task)
    if reason is not None:
        return Execution("module", 1, reason)
    return Execution("vmap", _BLOCK, "the model can be run for several clients at once")


def check_execution(execution: Execution, task: Task, x: Tensor, y: Tensor) -> None:
    """Refuse a chosen path that would give other numbers than one client at a time.

    Raises:
        ModelError: the model needs the path `"module"`, or cannot be used on these examples.
    """
    probe(task, x, y)
    reason = why_not_in_blocks(task, x, y) if execution.path == "vmap" else None
    if reason is not None:
        raise ModelError(
            f"path 'vmap' for a model of which {reason}",
            why="several clients at once would not get what each gets alone",
            instead="path 'module', or none: it is then chosen for the model",
        )


def why_not_in_blocks(task: Task, x: Tensor, y: Tensor) -> str | None:
    """Why blocks of clients would give other numbers than one client at a time, if they would."""
    for name, part in task.module.named_modules():
        kind = f"{name or 'the whole'} ({type(part).__name__})"
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.affine is not None:  # noqa: SLF001 - no public base
            return f"{kind} computes with a batch's statistics, and padding would enter them"
        if isinstance(part, nn.modules.dropout._DropoutNd):  # noqa: SLF001 - no public base
            return f"{kind} draws random numbers, a stream of its own for each client"
        if any(b.is_floating_point() for b in part.buffers(recurse=False)):
            return f"{kind} has buffers, which each client has its own values of"
    if _couples_examples(task, x, y):
        return "an example's loss depends on the rest of its batch"
    return _why_not_vmapped(task, x, y)


def _why_slower_in_blocks(task: Task) -> str | None:
    slow = (nn.modules.conv._ConvNd, nn.RNNBase)  # noqa: SLF001 - no public base
    for name, part in task.module.named_modules():
        if isinstance(part, slow):
            kind = f"{name or 'the whole'} ({type(part).__name__})"
            return f"{kind} runs fastest one client at a time on a CPU"
    if _BLOCK * task.layout.size * task.dtype.itemsize > _BLOCK_BYTES:
        return "the parameters of a block of clients would not stay in a core's cache"
    return None


def _couples_examples(task: Task, x: Tensor, y: Tensor) -> bool:
    """Whether an example's loss in a batch differs from its loss alone."""
    module = copy.deepcopy(task.module).train()
    rows = [(x[k : k + 1], y[k : k + 1]) for k in range(len(x))]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            for parameter in module.parameters():  # a model that starts at zero hides its nature
                parameter.add_(torch.randn_like(parameter), alpha=_NUDGE)
            together = task.loss(module(x), y)
            alone = torch.cat([task.loss(module(one), target) for one, target in rows])
    except (RuntimeError, ValueError):  # it cannot do with a single example
        return True
    return not torch.allclose(together, alone, rtol=1e-3, atol=1e-5, equal_nan=True)


def _why_not_vmapped(task: Task, x: Tensor, y: Tensor) -> str | None:
    params, _ = task.initial()
    both = params.expand(2, -1).clone()
    weights = torch.full((2, len(x)), 1 / len(x), dtype=params.dtype)
    counts = torch.full((2,), len(x))
    keys = np.zeros(2, np.uint64)
    no_buffers = params.new_zeros(2, 0)
    twice = (torch.stack([x, x]), torch.stack([y, y]))
    batch = Batch(*twice, weights, counts, no_buffers, keys, pass_number=0, step=0)
    try:
        for _ in VmapExecutor(task, ViewCache(task.layout)).gradients(batch, both):
            pass
    except (RuntimeError, ModelError, ValueError, TypeError, NotImplementedError) as error:
        return f"it cannot be vmapped: {str(error).splitlines()[0]:.160}"
    return None


def probe(task: Task, x: Tensor, y: Tensor) -> None:
    """Try a forward pass and the loss on a few examples.

    Raises:
        ModelError: naming the shapes that do not fit.
    """
    module = copy.deepcopy(task.module).eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = module(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"the model fails on inputs of shape [n, {', '.join(map(str, x.shape[1:]))}], "
            f"type {x.dtype}: {str(error).splitlines()[0]:.200}",
            why="every client's examples have this shape",
            instead="a model whose first layer takes this shape, or inputs reshaped to the model's",
        ) from error
    _check_outputs(task, outputs, y)


def _check_outputs(task: Task, outputs: object, y: Tensor) -> None:
    if not isinstance(outputs, Tensor):
        raise ModelError(
            f"the model returns a {type(outputs).__name__}",
            why="the loss is called with one tensor of outputs",
            instead="a forward that returns a tensor (wrap the module and return its first output)",
        )
    try:
        losses = task.loss(outputs, y)
        for metric in task.metrics.values():
            metric(outputs, y)
    except HanseError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"the loss or a metric fails on outputs {list(outputs.shape)} and targets "
            f"{list(y.shape)} of type {y.dtype}: {str(error).splitlines()[0]:.200}",
            why="clients could not compute what they should minimise or report",
            instead="as many outputs as there are classes, and a loss made for these targets "
            "(labels: cross_entropy; numbers: squared_error)",
        ) from error
    if losses.dim() > 1 or (losses.dim() == 1 and len(losses) != len(y)):
        raise ModelError(
            f"the loss returned shape {list(losses.shape)} for {len(y)} examples",
            why="examples are weighted one by one, so that short batches and padding are exact",
            instead="one loss per example, [n] (reduction='none')",
        )
