"""A model's named tensors as one flat vector and back, without copies."""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from hanse.core.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterLayout:
    """Where each named tensor lies in a flat vector `[P]`: shared columns first, local ones last.

    Shared columns travel between client and server. Local columns (FedBN's normalisation, FedPer's
    head) are trained like the others but never leave their client; since they are the last ones,
    `vector[..., :layout.shared]` is a view of all that may travel.

    Attributes:
        names: the tensors' names, in the order of their columns.
        shapes: their shapes.
        shared: the number of leading columns that travel.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    shared: int

    @classmethod
    def of_parameters(cls, module: nn.Module, local: Sequence[str] = ()) -> ParameterLayout:
        """The trainable parameters of `module`; frozen ones are left out, tied ones counted once.

        Args:
            module: the model.
            local: glob patterns (`"head.*"`); parameters whose names match stay with their client.
        """
        named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        return _arrange(named, local, module.named_parameters(remove_duplicate=False))

    @classmethod
    def of_buffers(cls, module: nn.Module, local: Sequence[str] = ()) -> ParameterLayout:
        """The floating-point buffers of a state dictionary (BatchNorm's running statistics).

        Integer buffers (counters) are neither averaged nor sent: a mean of counters means nothing.
        """
        saved = module.state_dict()
        named = {n: b for n, b in module.named_buffers() if n in saved and b.is_floating_point()}
        return _arrange(named, local, module.named_buffers(remove_duplicate=False))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of columns of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @cached_property
    def size(self) -> int:
        """P, the number of columns."""
        return sum(self.sizes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first column of each tensor."""
        return tuple(accumulate((0, *self.sizes)))[:-1]

    @property
    def local(self) -> int:
        """The number of trailing columns that stay with their client."""
        return self.size - self.shared

    def views(self, flat: Tensor) -> list[Tensor]:
        """Each tensor as a view into `flat` `[..., P]`, shaped `[..., *shape]`, in layout order."""
        lead = flat.shape[:-1]
        return [
            flat[..., start : start + size].view((*lead, *shape))
            for start, size, shape in zip(self.offsets, self.sizes, self.shapes, strict=True)
        ]

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The named tensors as one new vector `[P]`, detached."""
        parts = [tensors[name].detach().reshape(-1) for name in self.names]
        return torch.cat(parts) if parts else torch.zeros(0)

    def columns(self, pattern: str) -> Tensor:
        """A mask `[P]`, true in the columns of the tensors whose names match the glob `pattern`."""
        mask = torch.zeros(self.size, dtype=torch.bool)
        for name, start, size in zip(self.names, self.offsets, self.sizes, strict=True):
            if fnmatch.fnmatchcase(name, pattern):
                mask[start : start + size] = True
        return mask


def check_patterns(module: nn.Module, local: Iterable[str]) -> None:
    """Refuse a pattern of local tensors that matches nothing.

    Raises:
        ModelError: a pattern matches neither a trainable parameter nor a floating-point buffer.
    """
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    layouts = ParameterLayout.of_parameters(module), ParameterLayout.of_buffers(module)
    kept = {id(tensors[name]) for layout in layouts for name in layout.names}
    everything = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    names = [name for name, tensor in everything if id(tensor) in kept]
    for pattern in local:
        if not fnmatch.filter(names, pattern):
            raise ModelError(
                f"local = {pattern!r} matches no parameter or buffer of the model",
                why="nothing would stay with the clients, though you asked for it",
                instead=f"a glob over the model's names; {did_you_mean(pattern, names)}",
            )


def _arrange(
    named: Mapping[str, Tensor], local: Sequence[str], everything: Iterable[tuple[str, Tensor]]
) -> ParameterLayout:
    """Lay out what is named, local ones last; a tied tensor is local by any of its names."""
    names_of: dict[int, list[str]] = {}
    for name, tensor in everything:
        names_of.setdefault(id(tensor), []).append(name)
    stays = {
        name: any(fnmatch.fnmatchcase(n, p) for p in local for n in names_of[id(tensor)])
        for name, tensor in named.items()
    }
    names = sorted(named, key=lambda name: stays[name])  # stable: the model's order within each
    return ParameterLayout(
        names=tuple(names),
        shapes=tuple(tuple(named[name].shape) for name in names),
        shared=sum(named[name].numel() for name in names if not stays[name]),
    )
