"""Ghost clipping: one forward and one backward pass through a module for all examples.

Norms come from what layers are given and from the gradients by what they return, so that no
gradient of a large linear layer is ever written for a single example (Li et al., "Large language
models can be strong differentially private learners", ICLR 2022; Bu et al., ICML 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hanse.models.executors.tuned import is_plain
from hanse.models.gradient import per_example
from hanse.models.per_example.factors import factors
from hanse.models.per_example.taps import TAPS, Tap, Untapped, Weighting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hanse.models.task import Task


class Ghost:
    """A private copy of a module whose layers note what examples' gradients are made of."""

    def __init__(self, task: Task) -> None:
        """Tap the layers.

        Raises:
            Untapped: a parameter belongs to another kind of layer, or to two.
        """
        self.module, self._loss = task.trained(), task.loss
        named = dict(self.module.named_parameters())
        self.params = [named[name] for name in task.layout.names]
        tape = torch.zeros((), requires_grad=True, device=self.params[0].device)
        self._tape, self.taps = tape, _taps(self.module, task.layout.names, tape)
        self.room = 0  # numbers that the last batch has written out for an example
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)

    def add(self, x: Tensor, y: Tensor, clip: float, views: list[Tensor]) -> Tensor:
        """Add the examples' clipped gradients to `views`, the tensors of a vector.

        Returns:
            The losses `[n]`.

        Raises:
            Untapped: a layer is called twice.
        """
        losses, squares = self.squares(x, y)
        factor = factors(squares, clip)
        weighting = Weighting(factor.to(losses.dtype), factor > 0)
        for tap in self.taps:
            if tap.reached(len(x)):
                tap.add(views, weighting)
                self.room = max(self.room, tap.room())
            tap.clear()
        return losses

    @torch.enable_grad()
    def squares(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Examples' losses, and the squares of their gradients' norms, `[n]` each."""
        for tap in self.taps:
            tap.calls = 0
            tap.clear()
        losses = per_example(self._loss, self.module(x), y, len(x), exact=False)
        squares = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if losses.requires_grad:
            torch.autograd.grad(losses.sum(), [self._tape], allow_unused=True)
        with torch.no_grad():
            for tap in self.taps:
                if tap.reached(len(x)):
                    squares += tap.squares()
        return losses.detach(), squares


def _taps(module: nn.Module, names: tuple[str, ...], tape: Tensor) -> list[Tap]:
    places = {name: place for place, name in enumerate(names)}
    everything = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
    taps: list[Tap] = []
    for name, part in module.named_modules():
        prefix = f"{name}." if name else ""
        own = {k: p for k, p in part.named_parameters(recurse=False) if p.requires_grad}
        if not own:
            continue
        if type(part) not in TAPS or not is_plain(part):
            raise Untapped(f"{name or 'the whole'} is a {type(part).__name__}")
        make, suits = TAPS[type(part)]
        weight, bias = getattr(part, "weight", None), getattr(part, "bias", None)
        unusual = suits is not None and not suits(part)
        if unusual or any(everything.count(id(p)) > 1 for p in own.values()):
            raise Untapped(f"{name or 'the whole'} is no usual {type(part).__name__}")
        if weight is None or any(p is not None and not p.requires_grad for p in (weight, bias)):
            raise Untapped(f"{name or 'the whole'} is trained in part")
        at = None if bias is None else places[f"{prefix}bias"]
        tap = make(part, places[f"{prefix}weight"], at, tape)
        taps.append(tap)
        setattr(part, "forward", tap.forward)  # noqa: B010 - it takes the place of its class's
    return taps
