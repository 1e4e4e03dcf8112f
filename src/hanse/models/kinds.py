"""What a module is made of: how it trains, what stays with a client, and what cannot be trained."""

from __future__ import annotations

import contextlib
import copy
import glob
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from hanse.core.device import generators
from hanse.core.errors import ModelError
from hanse.core.layout import ParameterLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

_TRAINABLE = (torch.float32, torch.float64)


def training_copy(module: nn.Module) -> nn.Module:
    """A copy in the mode that it trains in.

    A part in evaluation mode stays in it: that is how a BatchNorm or a dropout is frozen. If all of
    the module is in evaluation mode it was merely evaluated, and all of it trains.
    """
    copied = copy.deepcopy(module)
    return copied if any(part.training for part in copied.modules()) else copied.train()


def is_batch_norm(part: nn.Module) -> bool:
    """Whether a part normalises by a batch's statistics in training mode."""
    return isinstance(part, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - no public base


def batch_norm(module: nn.Module) -> tuple[str, ...]:
    """The parameters and statistics of all BatchNorm layers, for `Experiment(local=batch_norm)`.

    What is local stays with its client, which makes a strategy FedBN: Li et al., "FedBN: Federated
    learning on non-IID features via local batch normalization", ICLR 2021.

    Args:
        module: the model.

    Returns:
        Their names, as globs.

    Raises:
        ModelError: the module has no BatchNorm with anything to keep.
    """
    known = {
        *ParameterLayout.of_parameters(module).names,
        *ParameterLayout.of_buffers(module).names,
    }
    found = []
    for name, part in module.named_modules():
        if is_batch_norm(part):
            own = (*part._parameters, *part._buffers)  # noqa: SLF001 - without those of its parts
            found += [f"{name}.{kind}" if name else kind for kind in own]
    names = tuple(glob.escape(name) for name in found if name in known)
    if not names:
        raise ModelError(
            f"local = batch_norm for a {type(module).__name__} without a BatchNorm that has "
            "parameters or statistics",
            why="nothing would stay with the clients, though you asked for it",
            instead='nn.BatchNorm1d or nn.BatchNorm2d in the model, or globs: local=("norm.*",)',
        )
    return names


# -------------------------------------------------------------------------- what is refused
class _Refusal(NamedTuple):
    why: str
    instead: str


_LAZY = _Refusal(
    "its parameters have no shape before it has seen an input, and become columns before that",
    "give its sizes (nn.Linear(30, 7)), or call the model on one example before the run",
)
_SYNCHRONISED = _Refusal(
    "it shares statistics between the processes of one training, and clients have their own",
    "nn.BatchNorm2d (1d, 3d), or nn.GroupNorm",
)
_SPECTRAL = _Refusal(
    "its buffers are singular vectors, and the mean of clients' vectors is the vector of nothing",
    "nn.utils.parametrizations.weight_norm, or a penalty in the loss",
)
_SPARSE = _Refusal(
    "its gradients are sparse, and parameters are one dense vector", "the same with sparse=False"
)
_QUANTISED = _Refusal(
    "its weights are integers, or observed on the way to be",
    "train the model in single precision, and quantise what is trained",
)
_WRAPPED = _Refusal(
    "it distributes one training over devices, which is the engine's work here",
    "the module inside: model.module",
)
_COMPILED = _Refusal(
    "its code was made for tensors at fixed places, and each client has others",
    "the module before torch.compile (model._orig_mod); Hanse chooses how to run it",
)


def check_module(module: nn.Module) -> None:
    """Refuse what cannot be trained in rows of one vector, by the name of the part.

    Raises:
        ModelError: the module has such a part or parameter.
    """
    for name, part in module.named_modules():
        refusal = _refusal(part)
        if refusal is not None:
            raise ModelError(
                f"{_called(name, part)} cannot be trained by clients", **refusal._asdict()
            )
    trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
    for name, parameter in trainable.items():
        _check_parameter(name, parameter, module)
    _check_copy(module)
    _check_types(module, trainable)
    _check_overlaps(trainable)


def _refusal(part: nn.Module) -> _Refusal | None:
    kind = type(part)
    if isinstance(part, nn.modules.lazy.LazyModuleMixin) and part.has_uninitialized_params():
        return _LAZY
    if isinstance(part, nn.SyncBatchNorm):
        return _SYNCHRONISED
    if isinstance(part, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _WRAPPED
    if kind.__name__ == "OptimizedModule" and kind.__module__.startswith("torch._dynamo"):
        return _COMPILED
    if kind.__module__.startswith(("torch.ao.", "torch.nn.quantized", "torch.nn.qat")):
        return _QUANTISED
    if getattr(part, "sparse", False) and isinstance(part, nn.Embedding | nn.EmbeddingBag):
        return _SPARSE
    if "_SpectralNorm" in kind.__name__ or any(
        type(hook).__name__ == "SpectralNorm"
        for hook in part._forward_pre_hooks.values()  # noqa: SLF001 - the old form is a hook
    ):
        return _SPECTRAL
    return None


def _check_copy(module: nn.Module) -> None:
    try:
        copy.deepcopy(module)
    except Exception as error:
        holder = next((_called(n, p) for n, p in module.named_modules() if _graph(p)), None)
        raise ModelError(
            f"{holder or type(module).__name__} cannot be copied: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__:.160}",
            why="each run trains copies, and leaves your module as it is",
            instead="tensors in it that are parameters, buffers or detached; "
            "nn.utils.parametrizations.weight_norm instead of nn.utils.weight_norm",
        ) from error


def _graph(part: nn.Module) -> bool:
    """Whether a part has an attribute that autograd computed."""
    return any(isinstance(v, torch.Tensor) and not v.is_leaf for v in vars(part).values())


def _check_parameter(name: str, parameter: Tensor, module: nn.Module) -> None:
    if parameter.dtype.is_complex:
        raise ModelError(
            f"{_owner(name, module)} is {_type(parameter)}",
            why="parameters are one vector of real numbers",
            instead="its real and its imaginary part as two parameters; torch.complex(re, im) in "
            "the forward",
        )
    if parameter.layout is not torch.strided:
        raise ModelError(
            f"{_owner(name, module)} is sparse ({parameter.layout})",
            why="parameters are one dense vector",
            instead="parameter.to_dense()",
        )
    if parameter.is_meta:
        raise ModelError(
            f"{_owner(name, module)} is on the device 'meta', where tensors have no values",
            why="training starts from a model's initial values",
            instead='a model made outside of torch.device("meta")',
        )
    if not bool(parameter.isfinite().all()):
        raise ModelError(
            f"the initial values of {name!r} are not finite",
            why="every update would be NaN",
            instead="initialise the model, or load weights that are finite",
        )


def _check_types(module: nn.Module, trainable: dict[str, nn.Parameter]) -> None:
    dtypes = {p.dtype: name for name, p in reversed(trainable.items())}
    if len(dtypes) == 1 and next(iter(dtypes)) in _TRAINABLE:
        return
    found = ", ".join(f"{name!r} {dtype}" for dtype, name in sorted(dtypes.items(), key=str))
    raise ModelError(
        f"{type(module).__name__} has parameters of types that are not one vector's: {found}",
        why="all of them become one vector, of single or double precision",
        instead="model.float() (or .double()) before the run",
    )


def _check_overlaps(trainable: dict[str, nn.Parameter]) -> None:
    """Two parameters on the same memory would be torn apart, other than one with two names."""
    spans = []
    for name, parameter in trainable.items():
        if parameter.numel():
            last = sum(
                (n - 1) * s for n, s in zip(parameter.shape, parameter.stride(), strict=True)
            )
            first = parameter.data_ptr()
            spans.append((first, first + (last + 1) * parameter.element_size(), name))
    for (_, end, one), (start, _, other) in pairwise(sorted(spans)):
        if start < end:
            raise ModelError(
                f"{one!r} and {other!r} are two parameters on the same memory",
                why="they would be trained as two, and no longer be tied",
                instead="one parameter under both names (other.weight = one.weight), transposed in "
                "the forward where need be",
            )


def _called(name: str, part: nn.Module) -> str:
    return f"{name!r} ({type(part).__name__})" if name else f"the model ({type(part).__name__})"


def _owner(name: str, module: nn.Module) -> str:
    owner = module.get_submodule(name.rpartition(".")[0])
    return f"{name!r} of a {type(owner).__name__}"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# ------------------------------------------------------------------- what a forward gives away
def check_state(module: nn.Module, kept: tuple[str, ...], x: Tensor) -> None:
    """Refuse a forward that keeps something from one client for the next.

    Args:
        module: the model, of which copies are called.
        kept: the buffers that each client has its own values of.
        x: a few examples `[n, ...]`.

    Raises:
        ModelError: a training step changes a buffer that is neither sent nor averaged.
    """
    trained = training_copy(module)
    held = dict(trained.named_buffers())
    before = {name: value.clone() for name, value in held.items()}
    with (
        contextlib.suppress(RuntimeError, ValueError, TypeError, IndexError),
        torch.no_grad(),
        torch.random.fork_rng(generators(x.device)),
    ):
        trained(x)
    for name, value in trained.named_buffers():
        part = trained.get_submodule(name.rpartition(".")[0])
        counts = isinstance(part, nn.modules.batchnorm._NormBase)  # noqa: SLF001 - no public base
        if counts or name not in held:
            continue
        if name in kept and value is not held[name]:
            raise ModelError(
                f"the forward of {_owner(name, trained)} puts another tensor in its place",
                why="each client's values lie in the tensor that was there",
                instead=f"a change in place: self.{name.rpartition('.')[2]}.copy_(…)",
            )
        if name not in kept and not _same(before[name], value):
            raise ModelError(
                f"the forward of {_owner(name, trained)} changes it, and it is {_kept(value)}",
                why="it is neither sent nor averaged, and would pass from one client to the next",
                instead="a floating-point buffer, which is averaged (register_buffer(name, "
                "torch.zeros(…))), or a forward that leaves it alone",
            )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal; NaN is equal to NaN."""
    if one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())  # noqa: PLR0124 - NaN


def _kept(value: Tensor) -> str:
    return (
        f"not in the state_dict() ({_type(value)})" if value.is_floating_point() else _type(value)
    )


def who_returns_no_tensor(module: nn.Module, x: Tensor) -> str | None:
    """The name of the last part called that returns something else than a tensor, if one does."""
    module, found = copy.deepcopy(module).eval(), list[str]()

    def watch(name: str) -> Callable[..., None]:
        def look(part: nn.Module, _: object, output: object) -> None:
            if not isinstance(output, torch.Tensor):
                found.append(f"{_called(name, part)} returns a {type(output).__name__}")

        return look

    for name, part in _parts(module):
        part.register_forward_hook(watch(name))
    with contextlib.suppress(Exception), torch.no_grad():
        module(x)
    return found[-1] if found else None


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, part) for name, part in module.named_modules() if name)
