"""A model with its loss and metrics, ready for an engine."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from hanse.core.errors import ModelError
from hanse.core.layout import ParameterLayout, check_patterns
from hanse.models.kinds import check_module, is_batch_norm, training_copy
from hanse.models.losses import accuracy, cross_entropy, next_token, next_token_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from hanse.models.losses import Loss, Metric


Local: TypeAlias = "Sequence[str] | Callable[[nn.Module], Sequence[str]]"
"""What stays with the clients: globs of names, or a function from a module to them."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is learned: a model, a loss, metrics, and what of the model stays with the clients.

    Attributes:
        module: a private copy of the user's model, which is never edited.
        loss: per example, see `hanse.models.Loss`.
        metrics: by name; larger is better, unless a name ends in `_loss` or `_error`.
        layout: the trainable parameters.
        buffers: the floating-point buffers (BatchNorm's running statistics).
    """

    module: nn.Module
    loss: Loss
    metrics: Mapping[str, Metric]
    layout: ParameterLayout
    buffers: ParameterLayout

    @classmethod
    def of(
        cls,
        module: nn.Module,
        *,
        loss: Loss = cross_entropy,
        metrics: Mapping[str, Metric] | None = None,
        local: Local = (),
    ) -> Task:
        """Copy `module` and find its columns.

        Args:
            module: the model, with its initial weights.
            loss: per example.
            metrics: by name; `None`: accuracy if the loss is `cross_entropy` or `next_token` (of
                tokens), else none.
            local: globs of the parameters and buffers that stay with their client, or a function
                that returns them for the module, such as `hanse.models.batch_norm`.

        Raises:
            ModelError: no `nn.Module`, nothing to train, a pattern that matches nothing, weights
                that are not finite or not of one floating-point type, a BatchNorm whose running
                mean depends on a counter, or a part that cannot be trained by clients.
        """
        _check(module)
        local = local_globs(module, local)
        check_patterns(module, local)
        if metrics is None:
            metrics = _usual_metrics(loss)
        return cls(
            module=copy.deepcopy(module),
            loss=loss,
            metrics=dict(metrics),
            layout=ParameterLayout.of_parameters(module, local),
            buffers=ParameterLayout.of_buffers(module, local),
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type of all parameters."""
        return next(p.dtype for p in self.module.parameters() if p.requires_grad)

    def initial(self) -> tuple[Tensor, Tensor]:
        """The initial parameters `[P]` and buffers `[b]`."""
        params = self.layout.flatten(dict(self.module.named_parameters()))
        buffers = self.buffers.flatten(dict(self.module.named_buffers()))
        return params, buffers.to(self.dtype)

    def trained(self) -> nn.Module:
        """A copy of the module in the mode that it trains in; see `training_copy`."""
        return training_copy(self.module)

    def on(self, device: torch.device) -> Task:
        """The same with its module on a device."""
        if all(tensor.device == device for tensor in self.module.state_dict().values()):
            return self
        return dataclasses.replace(self, module=copy.deepcopy(self.module).to(device))

    def with_values(self, params: Tensor, buffers: Tensor) -> nn.Module:
        """A new copy of the model with these parameters `[P]` and buffers `[b]`."""
        module = copy.deepcopy(self.module)
        write(module, self.layout, params, self.buffers, buffers)
        return module


def local_globs(module: nn.Module, local: Local) -> tuple[str, ...]:
    """What stays with the clients, as globs.

    Raises:
        ModelError: a function finds nothing in this module, or returns something else than texts.
    """
    if not callable(local):
        return tuple(local)
    found = local(module)
    if isinstance(found, str) or not all(isinstance(name, str) for name in found):
        raise ModelError(
            f"local = {getattr(local, '__name__', local)!r} returns {found!r:.80}",
            why="what stays with the clients is chosen by names",
            instead="a function that returns a tuple of globs, such as hanse.models.batch_norm",
        )
    return tuple(found)


@torch.no_grad()
def write(
    module: nn.Module,
    layout: ParameterLayout,
    params: Tensor,
    buffer_layout: ParameterLayout,
    buffers: Tensor,
) -> None:
    """Copy parameters `[P]` and buffers `[b]` into `module`."""
    named_parameters, named_buffers = dict(module.named_parameters()), dict(module.named_buffers())
    for name, value in zip(layout.names, layout.views(params), strict=True):
        named_parameters[name].copy_(value)
    for name, value in zip(buffer_layout.names, buffer_layout.views(buffers), strict=True):
        named_buffers[name].copy_(value)


def _usual_metrics(loss: Loss) -> dict[str, Metric]:
    if loss is cross_entropy:
        return {"accuracy": accuracy}
    return {"accuracy": next_token_accuracy} if loss is next_token else {}


def _check(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"the model is a {type(module).__name__}: {module!r:.80}",
            why="clients train a torch.nn.Module",
            instead="model=nn.Linear(30, 7), or a function without arguments that returns a module",
        )
    trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not trainable:
        raise ModelError(
            f"{type(module).__name__} has no trainable parameter",
            why="there is nothing that clients could learn",
            instead="a model with at least one parameter whose requires_grad is true",
        )
    check_module(module)
    for name, part in training_copy(module).named_modules():
        if is_batch_norm(part) and part.training and part.momentum is None:
            raise ModelError(
                f"{name!r} is a {type(part).__name__} with momentum=None",
                why="its running mean depends on a counter of batches, and counters of different "
                "clients have no mean",
                instead="momentum=0.1, or nn.GroupNorm",
            )
