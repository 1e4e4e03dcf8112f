"""Finds out whether a model is a chain of linear layers with elementwise functions between."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from hanse.models.executors.tuned import is_plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.core.layout import ParameterLayout
    from hanse.models.task import Task


class Unchained(Exception):  # noqa: N818 - it is an answer, not an error
    """Why a model is no chain, in words that follow "a model of which"."""


class Activation(NamedTuple):
    """An elementwise function: what it does, and its derivative times a gradient.

    Both work on tensors of any shape. The derivative is given the function's output, or its input
    where `keeps_input` says so.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    keeps_input: bool


class Link(NamedTuple):
    """A linear layer, by the places of its tensors in the layout, and the function behind it."""

    weight: int
    bias: int | None
    activation: Activation | None


_aten = torch.ops.aten
_RELU = Activation(torch.relu_, lambda g, out: _aten.threshold_backward(g, out, 0), False)
_TANH = Activation(torch.tanh_, _aten.tanh_backward, False)
_SIGMOID = Activation(torch.sigmoid_, _aten.sigmoid_backward, False)
_SILU = Activation(F.silu, _aten.silu_backward, True)
_GELU = Activation(F.gelu, _aten.gelu_backward, True)

_MODULES: dict[type[nn.Module], Activation] = {
    nn.ReLU: _RELU,
    nn.Tanh: _TANH,
    nn.Sigmoid: _SIGMOID,
    nn.SiLU: _SILU,
}
_FUNCTIONS: dict[Any, Activation] = {
    F.relu: _RELU,
    torch.relu: _RELU,
    "relu": _RELU,
    F.tanh: _TANH,
    torch.tanh: _TANH,
    "tanh": _TANH,
    F.sigmoid: _SIGMOID,
    torch.sigmoid: _SIGMOID,
    "sigmoid": _SIGMOID,
    F.silu: _SILU,
    F.gelu: _GELU,
}
_FLATTENING: tuple[Any, ...] = (torch.flatten, torch.reshape, "flatten", "view", "reshape")
_SHAPES: tuple[Any, ...] = ("size", getattr, operator.getitem, len)


def chain(task: Task) -> tuple[Link, ...]:
    """The links of a task's model, first one first.

    That the model really computes what its chain does is for the caller to compare: the names of
    the operations are looked at here, not their arguments.

    Raises:
        Unchained: the model is something else.
    """
    module = task.trained()
    _check_parameters(module, task.layout)
    try:
        # Within a sequence, so that a model that is a single layer is called as a layer too.
        graph = fx.Tracer().trace(nn.Sequential(module))
    except Exception as error:  # the user's code may do anything with a stand-in for a tensor
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unchained(f"its forward cannot be traced: {text:.120}") from error
    links: list[Link] = []
    last: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder":
            last = node
        elif node.op == "output":
            if node.args != (last,):
                raise Unchained("its output is not what its last layer returns")
        elif node.target not in _SHAPES:
            if not node.args or node.args[0] is not last:
                raise Unchained(f"{node.name} is not applied to what comes before it")
            links = _linked(links, node, module, task.layout)
            last = node
    if not links:
        raise Unchained("it has no linear layer")
    if len({link.weight for link in links}) < len(links):
        raise Unchained("a layer is called twice")
    return tuple(links)


def _linked(
    links: list[Link], node: fx.Node, module: nn.Module, layout: ParameterLayout
) -> list[Link]:
    """The chain with one more operation."""
    name = str(node.target).partition(".")[2]  # without the sequence around the model
    part = module.get_submodule(name) if node.op == "call_module" else None
    if type(part) is nn.Linear:
        prefix = f"{name}." if name else ""
        bias = None if part.bias is None else layout.names.index(f"{prefix}bias")
        return [*links, Link(layout.names.index(f"{prefix}weight"), bias, None)]
    harmless = isinstance(part, nn.Identity | nn.Flatten) or (
        isinstance(part, nn.Dropout) and (part.p == 0 or not part.training)
    )
    if harmless or node.target in _FLATTENING:
        return links
    found = _FUNCTIONS.get(node.target) if part is None else _MODULES.get(type(part))
    if isinstance(part, nn.GELU) and part.approximate == "none":
        found = _GELU
    if found is None:
        kind = node.name if part is None else f"{name} ({type(part).__name__})"
        raise Unchained(f"{kind} is no linear layer, and no function known here")
    if part is None and (len(node.args) > 1 or set(node.kwargs) - {"inplace"}):
        raise Unchained(f"{node.name} is called with arguments that are not known here")
    if not links or links[-1].activation is not None:
        raise Unchained(f"{node.name} does not follow a linear layer")
    return [*links[:-1], links[-1]._replace(activation=found)]


def _check_parameters(module: nn.Module, layout: ParameterLayout) -> None:
    owners = {
        f"{name}.{kind}" if name else kind: part
        for name, part in module.named_modules()
        for kind, _ in part.named_parameters(recurse=False)
    }
    for name, part in owners.items():
        if type(part) is not nn.Linear:
            raise Unchained(f"{name} belongs to a {type(part).__name__}")
        if name not in layout.names:
            raise Unchained(f"{name} is not trained, or has two names")
    if not all(is_plain(part) for part in module.modules()):
        raise Unchained("a layer has hooks")
