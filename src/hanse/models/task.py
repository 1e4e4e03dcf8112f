"""A model with its loss and metrics, ready for an engine."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from hanse.core.errors import ModelError
from hanse.core.layout import ParameterLayout, check_patterns
from hanse.models.losses import accuracy, cross_entropy, next_token, next_token_accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from hanse.models.losses import Loss, Metric


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
        local: Sequence[str] = (),
    ) -> Task:
        """Copy `module` and find its columns.

        Args:
            module: the model, with its initial weights.
            loss: per example.
            metrics: by name; `None`: accuracy if the loss is `cross_entropy` or `next_token` (of
                tokens), else none.
            local: globs of the parameters and buffers that stay with their client.

        Raises:
            ModelError: no `nn.Module`, nothing to train, a pattern that matches nothing, weights
                that are not finite or not of one floating-point type, or a BatchNorm whose running
                mean depends on a counter.
        """
        _check(module)
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
    dtypes = {p.dtype for p in trainable.values()}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        raise ModelError(
            f"{type(module).__name__} has parameters of types {sorted(map(str, dtypes))}",
            why="all of them become one vector, of single or double precision",
            instead="model.float() (or .double()) before the run",
        )
    for name, parameter in trainable.items():
        if not bool(parameter.isfinite().all()):
            raise ModelError(
                f"the initial values of {name!r} are not finite",
                why="every update would be NaN",
                instead="initialise the model, or load weights that are finite",
            )
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.momentum is None:  # noqa: SLF001 - no public base
            raise ModelError(
                f"{name!r} is a {type(part).__name__} with momentum=None",
                why="its running mean depends on a counter of batches, and counters of different "
                "clients have no mean",
                instead="momentum=0.1, or nn.GroupNorm",
            )
