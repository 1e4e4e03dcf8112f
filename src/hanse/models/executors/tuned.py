"""A private copy of a module that computes the same numbers faster, one client at a time.

Three changes to sequences of layers, each of which leaves values and gradients as they are up to
rounding. A module whose forward is the user's own is left as it is.

- convolutions read their inputs with the channels last, as their kernels like it;
- a ReLU in front of a max-pooling moves behind it, where there is less to do: both are monotone;
- a large linear layer adds its weight gradient to the target by the product that computes it, so
  that no gradient of its size is written.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hanse.core.types import Scalar
    from hanse.models.task import Task

_ANY_ORDER = {
    nn.Conv2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.BatchNorm2d,
    nn.GroupNorm,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.SiLU,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.Flatten,
    nn.Linear,
}
_FORWARD = "forward"  # what a module calls; set on a layer, it takes the place of its class's
_LARGE = 1 << 19  # entries of a weight: below, the detour through Python costs more than it saves


class Tuned(NamedTuple):
    """A module and how to take its gradients.

    Attributes:
        module: the copy, in the mode that it trains in.
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
            aim.target, aim.scale, aim.keep, aim.reached = views[aim.place], scale, keep, False
        found = torch.autograd.grad(loss, self.inputs, allow_unused=True)
        for aim in self.aims:
            if not aim.reached:  # something behind it stops gradients: its own is zero
                aim.target.mul_(keep)
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
        self.reached = False

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = _Straight.apply(x, self.tape, self)  # type: ignore[no-untyped-call]
        return outputs if self.layer.bias is None else outputs + self.layer.bias

    def add(self, down: Tensor, x: Tensor) -> None:
        """`target = keep * target + scale * down' @ x`, in place."""
        self.reached = True
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
    module = task.trained()
    for sequence in _sequences(module):
        _pooling_first(sequence)
    named = dict(module.named_parameters())
    params = [named[name] for name in task.layout.names]
    for convolution in _with_channels_last(list(_in_order(module))):
        setattr(convolution, _FORWARD, _channels_last(convolution.forward))
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


def is_plain(part: nn.Module) -> bool:
    """Whether nothing but its class's own forward happens when the part is called."""
    hooks = (
        part._forward_hooks,  # noqa: SLF001 - no public way to ask
        part._forward_pre_hooks,  # noqa: SLF001 - as above
        part._backward_hooks,  # noqa: SLF001 - as above
        part._backward_pre_hooks,  # noqa: SLF001 - as above
    )
    return not any(hooks) and _FORWARD not in vars(part)


def _with_channels_last(layers: list[nn.Module]) -> list[nn.Conv2d]:
    """The convolutions of a sequence, if no layer behind the first minds the order in memory.

    A module of the user's own may: `view` fails where a reshape would have to copy.
    """
    first = next((k for k, part in enumerate(layers) if type(part) is nn.Conv2d), len(layers))
    if not all(type(part) in _ANY_ORDER and is_plain(part) for part in layers[first:]):
        return []
    return list(dict.fromkeys(part for part in layers if type(part) is nn.Conv2d))


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


def _pooling_first(sequence: nn.Sequential) -> None:
    """Swap every ReLU with the max-pooling behind it."""
    # Not named_children, which leaves out what comes a second time.
    for (first, one), (second, other) in pairwise(list(sequence._modules.items())):  # noqa: SLF001 - as above
        swap = type(one) is nn.ReLU and type(other) is nn.MaxPool2d
        if swap and is_plain(one) and is_plain(other) and not other.return_indices:
            setattr(sequence, first, other)
            setattr(sequence, second, one)


def _large_layers(module: nn.Module, task: Task) -> list[tuple[str, nn.Linear]]:
    """Large linear layers that are sure to be called once, and whose weight is used nowhere else.

    Only in sequences of layers can that be seen.
    """
    everything = [p for part in module.modules() for p in part.parameters(recurse=False)]
    calls = list(_in_order(module))
    found = []
    for name, layer in module.named_modules():
        if type(layer) is not nn.Linear or not is_plain(layer):
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


def _sequences(module: nn.Module) -> Iterator[nn.Sequential]:
    """The module and the sequences in it, as long as each calls its layers once and in order.

    A sequence in a module of another class is not one of them: that may call a part of it, or keep
    what a layer returns.
    """
    if type(module) is nn.Sequential and is_plain(module):
        yield module
        for part in module:
            yield from _sequences(part)


def _in_order(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of those sequences, as often as they are called."""
    for part in module if type(module) is nn.Sequential and is_plain(module) else ():
        nested = type(part) is nn.Sequential and is_plain(part)
        yield from _in_order(part) if nested else (part,)
