"""One client at a time through its module: by taps, by `torch.func`, or example by example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from hanse.core.device import generators
from hanse.core.errors import ModelError
from hanse.models.gradient import ByAddress
from hanse.models.per_example.factors import AT_ONCE, factors, kept, square
from hanse.models.per_example.ghost import Ghost
from hanse.models.per_example.one_by_one import OneByOne, bind, seed_row
from hanse.models.per_example.taps import Untapped
from hanse.models.per_example.vmapped import VmapSums

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.models.gradient import Batch
    from hanse.models.task import Task

_TRIED = 4  # examples that ways are compared on
_CLIP = 1e-3  # in the comparison: small, so that norms are compared as well
_APART = 1e-3  # of a sum's norm: more than rounding explains
_ROOM = 1 << 24  # numbers that are written out at once


class _Way(Protocol):
    """Adds the clipped gradients of one client's examples to the tensors of a vector."""

    module: nn.Module
    params: list[nn.Parameter]

    def add(self, x: Tensor, y: Tensor, clip: float, views: list[Tensor]) -> Tensor: ...

    def together(self) -> int: ...


class _Ghostly:
    """By taps."""

    def __init__(self, task: Task) -> None:
        self._ghost = Ghost(task)
        self.module, self.params, self.add = (
            self._ghost.module,
            self._ghost.params,
            self._ghost.add,
        )

    def together(self) -> int:
        return max(min(_ROOM // max(self._ghost.room, 1), AT_ONCE), 1)


class _Batched:
    """By `torch.func`."""

    def __init__(self, task: Task) -> None:
        batched = VmapSums(task)
        self._each, self.module, self._size = batched.each, batched.module, task.layout.size
        named = dict(self.module.named_parameters())
        self.params = [named[name] for name in task.layout.names]

    def add(self, x: Tensor, y: Tensor, clip: float, views: list[Tensor]) -> Tensor:
        gradients, losses = self._each(tuple(p.detach() for p in self.params), x, y)
        squares = torch.stack([square(each, 1) for each in gradients]).sum(0)
        factor = factors(squares, clip)
        for view, each in zip(views, gradients, strict=True):
            flat = kept(each.flatten(1), factor > 0)
            view.add_((factor.to(flat.dtype) @ flat).view(view.shape))
        found: Tensor = losses.detach()
        return found

    def together(self) -> int:
        return max(min(_ROOM // self._size, AT_ONCE), 1)


class _Alone:
    """One by one."""

    def __init__(self, task: Task) -> None:
        self._one = OneByOne(task)
        self.module, self.params = self._one.module, self._one.params

    def add(self, x: Tensor, y: Tensor, clip: float, views: list[Tensor]) -> Tensor:
        losses = []
        sizes = [view.numel() for view in views]
        for example, target in zip(x, y, strict=True):
            gradient, loss = self._one.gradient(example, target)
            factor = factors(square(gradient, 0), clip)
            if factor > 0:
                parts = torch.split(gradient * factor.to(gradient.dtype), sizes)
                for view, part in zip(views, parts, strict=True):
                    view.add_(part.view(view.shape))
            losses.append(loss)
        return torch.stack(losses)

    def together(self) -> int:
        return AT_ONCE


class ModuleSums:
    """For every module whose examples do not know each other."""

    def __init__(self, task: Task) -> None:
        """Nothing is chosen yet: ways are compared on the first examples that come."""
        self._task, self._views = task, ByAddress(task.layout.views)
        self._way: _Way | None = None

    def __call__(self, batch: Batch, at: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """As `ClippedSums`."""
        sums = torch.zeros(at.shape, dtype=at.dtype, device=at.device)
        losses = torch.zeros(len(at), dtype=at.dtype, device=at.device)
        for row, count in enumerate(batch.counts.tolist()):
            if not count:
                continue
            x, y, weights = (field[row, :count] for field in (batch.x, batch.y, batch.weights))
            way = self._way or self._choose(x[:_TRIED], y[:_TRIED])
            seed_row(batch, row, at.device)
            found = self._add(way, (x, y), clip, self._views(at[row]), self._views(sums[row]))
            losses[row] = (found * weights).sum()
        return sums, losses

    def clear(self) -> None:
        """Forget all vectors but the row that was bound last."""
        self._views.clear()

    def _add(
        self,
        way: _Way,
        fields: tuple[Tensor, Tensor],
        clip: float,
        at: list[Tensor],
        views: list[Tensor],
    ) -> Tensor:
        bind(way.params, at)
        together = way.together()
        parts = zip(*(torch.split(field, together) for field in fields), strict=True)
        try:
            return torch.cat([way.add(x, y, clip, views) for x, y in parts])
        except Untapped:  # a forward that does other things with other examples
            self._way = _Alone(self._task)
            for view in views:
                view.zero_()
            return self._add(self._way, fields, clip, at, views)

    def _choose(self, x: Tensor, y: Tensor) -> _Way:
        """The first way that gives what going one by one gives, where that is not nothing."""
        sure = _Alone(self._task)
        expected = self._tried(sure, x, y)
        if not expected.any():
            return sure
        self._way = sure
        for make in (_Ghostly, _Batched):
            try:
                way: _Way = make(self._task)
                found = self._tried(way, x, y)
            except (Untapped, ModelError, RuntimeError, ValueError, TypeError, IndexError):
                continue
            if float((found - expected).norm() / expected.norm()) <= _APART:
                self._way = way
                break
        return self._way

    def _tried(self, way: _Way, x: Tensor, y: Tensor) -> Tensor:
        """The sum `[P]` that a way finds at parameters that hide nothing, without dropout."""
        params, _ = self._task.initial()
        drawn = torch.Generator().manual_seed(0)
        nudge = torch.randn(len(params), generator=drawn, dtype=params.dtype, device="cpu")
        at = params + 0.1 * nudge.to(params.device)
        sums = torch.zeros_like(at)
        random = [m for m in way.module.modules() if isinstance(m, _DROPOUT) and m.training]
        for part in random:
            part.eval()
        bind(way.params, self._task.layout.views(at))
        with torch.random.fork_rng(generators(at.device)):
            way.add(x, y, _CLIP, self._task.layout.views(sums))
        for part in random:
            part.train()
        return sums


_DROPOUT = nn.modules.dropout._DropoutNd  # noqa: SLF001 - no public base
