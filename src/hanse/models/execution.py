"""How a run's gradients are computed, and which ways give a model the right numbers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from hanse.core.device import generators
from hanse.core.errors import HanseError, ModelError
from hanse.models.executors import EXECUTORS, Unchained
from hanse.models.gradient import Batch, Precision
from hanse.models.kinds import check_state, is_batch_norm, who_returns_no_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hanse.models.task import Task

PathName = Literal["module", "vmap", "dense"]

_NUDGE = 0.1  # of parameters, when a model is examined
_APART = 1e-4  # of the norm of a gradient: more than single precision's rounding explains


@dataclass(frozen=True)
class Execution:
    """How a run's gradients are computed; part of the run, since it decides the last bits.

    Attributes:
        path: `"module"`: one client at a time through the module itself; `"vmap"`: a block of
            clients at once; `"dense"`: likewise, by batched products, for chains of linear layers.
        block: clients in a block.
        why: why they were chosen.
        precision: of the model's products: `"full"`, the type of its parameters; `"bfloat16"`, for
            parameters of single precision, which stay what they are.
    """

    path: PathName
    block: int
    why: str = "chosen by the user"
    precision: Precision = "full"

    def __post_init__(self) -> None:
        """Refuse what no engine offers."""
        if self.path not in EXECUTORS:
            raise ModelError(
                f"execution path {self.path!r}",
                why="there is no such path",
                instead="'module' (one client at a time, for every model), 'vmap' (clients in "
                "blocks) or 'dense' (blocks of clients, for chains of linear layers)",
            )
        whole = isinstance(self.block, int) and not isinstance(self.block, bool)
        if not whole or self.block < 1:
            raise ModelError(
                f"a block of {self.block!r} clients",
                why="a block is what is trained together",
                instead="a whole number of clients, 1 or more, such as 16",
            )
        if self.precision not in get_args(Precision):
            raise ModelError(
                f"precision {self.precision!r}",
                why="it is in what a model's products are computed",
                instead="'full' (the type of the parameters), or 'bfloat16'",
            )


def check_execution(execution: Execution, task: Task, x: Tensor, y: Tensor) -> None:
    """Refuse a chosen path that would give other numbers than one client at a time.

    Args:
        execution: what was chosen.
        task: the model.
        x: a few examples `[n, ...]`, to try the model on.
        y: their targets `[n, ...]`.

    Raises:
        ModelError: the model needs another path, or cannot be used on these examples.
    """
    if execution.precision != "full" and task.dtype != torch.float32:
        raise ModelError(
            f"precision {execution.precision!r} for parameters of {task.dtype}",
            why="it spares digits of single precision, and double precision is there for digits",
            instead="precision 'full', or model.float() before the run",
        )
    probe(task, x, y)
    reason = why_not(execution.path, task, x, y)
    if reason is not None:
        raise ModelError(
            f"path {execution.path!r} for a model of which {reason}",
            why="several clients at once would not get what each gets alone",
            instead="path 'module', or none: it is then chosen for the model",
        )


def why_not(path: PathName, task: Task, x: Tensor, y: Tensor) -> str | None:
    """Why a path would give other numbers than one client at a time, if it would."""
    if path == "module":
        return None
    for reason in _reasons(task):
        return reason
    if _couples_examples(task, x, y):
        return "an example's loss depends on the rest of its batch"
    return _why_not_equal(path, task, x, y)


def loss_couples(task: Task, x: Tensor, y: Tensor) -> bool:
    """Whether an example's loss depends on the others of its batch, given the model's outputs.

    Give it many examples: Cox's partial likelihood, for one, couples none if all are censored.

    Args:
        task: the model and its loss.
        x: examples `[n, ...]`.
        y: their targets `[n, ...]`.
    """
    module = copy.deepcopy(task.module).eval()
    with torch.no_grad(), torch.random.fork_rng(generators(x.device)):
        _nudge(module)
        outputs = module(x)
        together = task.loss(outputs, y)
        if not together.dim():
            return True
        alone = [task.loss(outputs[k : k + 1], y[k : k + 1]) for k in range(len(x))]
    return not _close(together, torch.cat(alone))


def on_exact_batches(execution: Execution, *, wanted: bool) -> Execution:
    """What a loss that couples examples is computed by: the module, without padding.

    Args:
        execution: what was chosen for the model.
        wanted: whether the user chose it.

    Raises:
        ModelError: the user chose a path that pads.
    """
    if execution.path == "module":
        return execution
    reason = "an example's loss depends on the rest of its batch"
    if not wanted:
        return Execution("module", 1, reason)
    raise ModelError(
        f"path {execution.path!r} for a loss of which {reason}",
        why="batches are padded there to the length of the longest",
        instead="path 'module', or none: it is then chosen for the loss",
    )


def why_slower_in_blocks(task: Task) -> str | None:
    """Why blocks of clients are not worth a trial on a CPU, if they are not."""
    slow = (nn.modules.conv._ConvNd, nn.RNNBase)  # noqa: SLF001 - no public base
    for name, part in task.module.named_modules():
        if isinstance(part, slow):
            kind = f"{name or 'the whole'} ({type(part).__name__})"
            return f"{kind} runs fastest one client at a time on a CPU"
    return None


def _reasons(task: Task) -> Iterator[str]:
    for name, part in task.trained().named_modules():
        kind = f"{name or 'the whole'} ({type(part).__name__})"
        if is_batch_norm(part) and part.training:
            yield f"{kind} computes with a batch's statistics, and padding would enter them"
        random = isinstance(part, nn.modules.dropout._DropoutNd)  # noqa: SLF001 - no public base
        if random and part.p > 0 and part.training:
            yield f"{kind} draws random numbers, a stream of its own for each client"
        if any(b.is_floating_point() for b in part.buffers(recurse=False)):
            yield f"{kind} has buffers, which each client has its own values of"


def _couples_examples(task: Task, x: Tensor, y: Tensor) -> bool:
    """Whether an example's loss in a batch differs from its loss alone."""
    module = task.trained()
    rows = [(x[k : k + 1], y[k : k + 1]) for k in range(len(x))]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            _nudge(module)
            together = task.loss(module(x), y)
            alone = torch.cat([task.loss(module(one), target) for one, target in rows])
    except (RuntimeError, ValueError):  # it cannot do with a single example
        return True
    return not _close(together, alone)


def _nudge(module: nn.Module) -> None:
    """Move the weights: a model that starts at zero hides its nature."""
    torch.default_generator.manual_seed(0)
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, dtype=parameter.dtype, device="cpu")
        parameter.add_(drawn.to(parameter.device), alpha=_NUDGE)


def _close(together: Tensor, alone: Tensor) -> bool:
    return torch.allclose(together, alone, rtol=1e-3, atol=1e-5, equal_nan=True)


def _why_not_equal(path: PathName, task: Task, x: Tensor, y: Tensor) -> str | None:
    """Compare the gradients of two different clients with those of one at a time."""
    params, _ = task.initial()
    generator = torch.Generator().manual_seed(0)
    nudge = torch.randn(2, len(params), generator=generator, dtype=params.dtype, device="cpu")
    at = params + _NUDGE * nudge.to(params.device)  # a model that starts at zero hides its nature
    batch = Batch(
        torch.stack([x, x.flip(0)]),
        torch.stack([y, y.flip(0)]),
        torch.full((2, len(x)), 1 / len(x), dtype=params.dtype, device=params.device),
        torch.full((2,), len(x), device="cpu"),
        params.new_zeros(2, task.buffers.size),
        np.zeros(2, np.uint64),
        pass_number=0,
        step=0,
    )
    found, expected = torch.zeros_like(at), torch.zeros_like(at)
    try:
        with torch.random.fork_rng(generators(params.device)):
            EXECUTORS["module"](task).add_to(batch, at, expected, 1.0, 1.0)
            EXECUTORS[path](task).add_to(batch, at, found, 1.0, 1.0)
    except Unchained as error:
        return str(error)
    except (RuntimeError, ModelError, ValueError, TypeError, IndexError) as error:
        kind = "vmapped" if path == "vmap" else "computed by its chain of layers"
        return f"it cannot be {kind}: {str(error).splitlines()[0]:.160}"
    apart = float((found - expected).norm()) / max(float(expected.norm()), 1e-12)
    # Written so that NaN, too, is too far.
    return None if apart <= _APART else f"gradients would differ by {apart:.1e} of their norm"


def probe(task: Task, x: Tensor, y: Tensor) -> None:
    """Try a forward pass and the loss on a few examples.

    Raises:
        ModelError: naming the shapes that do not fit.
    """
    module = copy.deepcopy(task.module).eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = module(x)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        culprit = who_returns_no_tensor(task.module, x)
        if culprit is not None:
            raise ModelError(
                f"{culprit}, and the model fails: {str(error).splitlines()[0]:.160}",
                why="what comes after it takes a tensor",
                instead="a module of your own whose forward passes on the tensor, such as "
                "self.lstm(x)[0]",
            ) from error
        raise ModelError(
            f"the model fails on inputs of shape [n, {', '.join(map(str, x.shape[1:]))}], "
            f"type {x.dtype}: {str(error).splitlines()[0]:.200}",
            why="every client's examples have this shape",
            instead="a model whose first layer takes this shape, or inputs reshaped to the model's",
        ) from error
    _check_outputs(task, outputs, y)
    check_state(task.module, task.buffers.names, x)


def _check_outputs(task: Task, outputs: object, y: Tensor) -> None:
    if not isinstance(outputs, Tensor):
        raise ModelError(
            f"the model ({type(task.module).__name__}) returns a {type(outputs).__name__}",
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
            "(labels: cross_entropy; tokens: next_token; numbers: squared_error)",
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
