"""How a run's gradients are computed: chosen for the model, or checked if the user chose."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hanse.core.errors import HanseError, ModelError
from hanse.models.executors.vmapped import VmapExecutor
from hanse.models.gradient import Batch

if TYPE_CHECKING:
    from hanse.models.task import Task

_BLOCK = 16  # clients; more did not pay in trials
_BLOCK_BYTES = 4 * 2**20  # of a block's parameters: within a few times a core's L2 cache
_NUDGE = 0.1  # of parameters, when a model is examined


@dataclass(frozen=True)
class Execution:
    """How a run's gradients are computed; part of the run, since it decides the last bits.

    Attributes:
        path: `"vmap"` or `"module"`.
        block: clients per block, a power of two.
        why: why this path was chosen.
    """

    path: Literal["module", "vmap", "dense"]
    block: int
    why: str = "chosen by the user"

    def __post_init__(self) -> None:
        """Refuse what no engine offers."""
        if self.path not in ("module", "vmap", "dense"):
            raise ModelError(
                f"execution path {self.path!r}",
                why="there is no such path",
                instead="'vmap' (clients in blocks) or 'module' (one client at a time)",
            )
        whole = isinstance(self.block, int) and not isinstance(self.block, bool)
        if not whole or self.block < 1 or self.block & (self.block - 1):
            raise ModelError(
                f"a block of {self.block!r} clients",
                why="sums are merged in a binary tree over blocks, so that the bits do not depend "
                "on the order of arrival",
                instead="a power of two: 1, 2, 4, 8, 16, …",
            )


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
    reason = _why_slower_in_blocks(task) or why_not_in_blocks(task, x, y)
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
        if isinstance(part, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - no public base
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
        VmapExecutor(task).add_to(batch, both, torch.zeros_like(both), 1.0, 1.0)
    except (RuntimeError, ModelError, ValueError, TypeError) as error:
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
        measured = {name: metric(outputs, y) for name, metric in task.metrics.items()}
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
    if not _is_per_example(losses, len(y)):
        raise ModelError(
            f"the loss returned {_shape(losses)} for {len(y)} examples",
            why="examples are weighted one by one, so that short batches and padding are exact",
            instead="one loss per example, [n] (reduction='none')",
        )
    for name, values in measured.items():
        if not _is_per_example(values, len(y)):
            raise ModelError(
                f"the metric {name!r} returned {_shape(values)} for {len(y)} examples",
                why="it is averaged over each client's examples",
                instead="a value per example, [n]; or hanse.models.whole(metric) of all of them",
            )


def _is_per_example(values: object, examples: int) -> bool:
    """Whether values are a tensor `[n]`, or 0-d: one for all examples."""
    return isinstance(values, Tensor) and tuple(values.shape) in ((), (examples,))


def _shape(values: object) -> str:
    return f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
