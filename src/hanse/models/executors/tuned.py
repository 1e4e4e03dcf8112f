"""A private copy of a module that computes the same numbers faster, one client at a time.

Three changes, each of which leaves values and gradients as they are up to rounding:

- convolutions read their inputs with the channels last, as their kernels like it;
- a ReLU in front of a max-pooling moves behind it, where there is less to do: both are monotone;
- a large linear layer adds its weight gradient to the target by the product that computes it, so
  that no gradient of its size is written.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hanse.core.types import Scalar
    from hanse.models.task import Task

_FORWARD = "forward"  # what a module calls; set on a layer, it takes the place of its class's
_LARGE = 1 << 19  # entries of a weight: below, the detour through Python costs more than it saves


class Tuned(NamedTuple):
    """A module and how to take its gradients.

    Attributes:
        module: the copy, in training mode.
        params: its trainable parameters, in the layout's order.
        places: the layout's numbers of the parameters that autograd computes the gradients of.
        inputs: those parameters, and what makes autograd visit the other layers.
        aims: the other layers.
    """

    module: nn.Module
    params: list[nn.Parameter]
    places: list[int]
    inputs: list[Tensor]
    aims: list[_Aim]

    def gradients(
        self, loss: Tensor, views: list[Tensor], scale: float, keep: Scalar
    ) -> list[Tensor]:
        """The gradients at `places`; those of the other layers are added to their `views`."""
        for aim in self.aims:
            aim.target, aim.scale, aim.keep = views[aim.place], scale, keep
        found = torch.autograd.grad(loss, self.inputs, allow_unused=True)
        return [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(self.inputs, found, strict=True)
        ][: len(self.places)]


class _Aim:
    """A linear layer whose weight gradient goes straight to its target."""

    def __init__(self, layer: nn.Linear, place: int, tape: Tensor) -> None:
        self.layer, self.place, self.tape = layer, place, tape
        self.target = layer.weight.detach()  # where the next gradient goes
        self.scale = 1.0
        self.keep: Scalar = 1.0

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = _Straight.apply(x, self.tape, self)  # type: ignore[no-untyped-call]
        return outputs if self.layer.bias is None else outputs + self.layer.bias

    def add(self, down: Tensor, x: Tensor) -> None:
        """`target = keep * target + scale * down' @ x`, in place."""
        down, x = down.flatten(0, -2).T, x.flatten(0, -2)
        if isinstance(self.keep, float) and down.dtype == self.target.dtype:
            self.target.addmm_(down, x, beta=self.keep, alpha=self.scale)
            return
        if not (isinstance(self.keep, float) and self.keep == 1.0):
            self.target.mul_(self.keep)
        self.target.add_(down @ x.to(down.dtype), alpha=self.scale)


class _Straight(torch.autograd.Function):
    """`x @ weight'`; the gradient of the weight is not returned but added to its target."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tape: Tensor, aim: _Aim) -> Tensor:  # noqa: ANN401 - torch's
        del tape  # it makes autograd visit this function where `x` needs no gradient
        ctx.save_for_backward(x)
        ctx.aim = aim
        return F.linear(x, aim.layer.weight.detach())

    @staticmethod
    def backward(ctx: Any, down: Tensor) -> tuple[Tensor | None, None, None]:  # noqa: ANN401 - torch's
        (x,), aim = ctx.saved_tensors, ctx.aim
        passed = None
        if ctx.needs_input_grad[0]:
            passed = down @ aim.layer.weight.detach().to(down.dtype)
        aim.add(down, x)  # behind: the target may be the weight itself
        return passed, None, None


def tuned(task: Task) -> Tuned:
    """A tuned copy of a task's module."""
    module = _pooling_first(copy.deepcopy(task.module).train())
    named = dict(module.named_parameters())
    params = [named[name] for name in task.layout.names]
    for part in module.modules():
        if type(part) is nn.Conv2d and _is_plain(part):
            setattr(part, _FORWARD, _channels_last(part.forward))
    tape = torch.zeros((), requires_grad=True, device=params[0].device)
    aims = [
        _Aim(layer, task.layout.names.index(f"{name}.weight"), tape)
        for name, layer in _large_layers(module, task)
    ]
    for aim in aims:
        setattr(aim.layer, _FORWARD, aim.forward)
    taken = {aim.place for aim in aims}
    places = [place for place in range(len(params)) if place not in taken]
    inputs: list[Tensor] = [params[place] for place in places]
    return Tuned(module, params, places, [*inputs, tape] if aims else inputs, aims)


def _is_plain(part: nn.Module) -> bool:
    """Whether nothing but the part's own forward happens when it is called."""
    hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)  # noqa: SLF001 - no public way to ask
    return not any(hooks)


def _channels_last(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        if x.dim() != 4:
            return forward(x)
        _, channels, height, width = x.shape
        if channels == 1:  # both orders are the same memory: only strides tell kernels which it is
            strides = (height * width, 1, width, 1)
            return forward(x.contiguous().as_strided(x.shape, strides))
        return forward(x.contiguous(memory_format=torch.channels_last))

    return run


def _pooling_first(module: nn.Module) -> nn.Module:
    """Swap every ReLU with the max-pooling behind it, in sequences of layers."""
    for part in module.modules():
        if type(part) is not nn.Sequential:
            continue
        # Not named_children, which leaves out what comes a second time.
        for (first, one), (second, other) in pairwise(list(part._modules.items())):  # noqa: SLF001 - as above
            swap = type(one) is nn.ReLU and type(other) is nn.MaxPool2d
            if swap and _is_plain(one) and _is_plain(other) and not other.return_indices:
                setattr(part, first, other)
                setattr(part, second, one)
    return module


def _large_layers(module: nn.Module, task: Task) -> list[tuple[str, nn.Linear]]:
    """Large linear layers that are sure to be called once, and whose weight is used nowhere else.

    Only in sequences of layers can that be seen.
    """
    everything = [p for part in module.modules() for p in part.parameters(recurse=False)]
    calls = list(_in_order(module))
    found = []
    for name, layer in module.named_modules():
        if type(layer) is not nn.Linear or not _is_plain(layer):
            continue
        uses = sum(p is layer.weight for p in everything) + calls.count(layer) - 1
        large = (
            layer in calls
            and layer.weight.numel() >= _LARGE
            and f"{name}.weight" in task.layout.names
        )
        if large and uses == 1:
            found.append((name, layer))
    return found


def _in_order(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of sequences within sequences, as often as they are called."""
    for part in module if type(module) is nn.Sequential else ():
        yield from _in_order(part) if type(part) is nn.Sequential else (part,)
