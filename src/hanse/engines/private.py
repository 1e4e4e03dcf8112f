"""Gradients that are clipped example by example and noised, in the place of gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.models.gradient import ByAddress, accumulate
from hanse.models.per_example import SUMS
from hanse.models.per_example.one_by_one import OneByOne, bind, seed_row
from hanse.privacy.clipping import clipped
from hanse.privacy.examples import STEPS

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.types import Scalar
    from hanse.models import Execution, Task
    from hanse.models.gradient import Batch, Executor
    from hanse.privacy import ExampleDP


class PrivateExecutor:
    """An executor whose gradients are noisy sums of clipped ones, divided by a public number."""

    def __init__(self, task: Task, execution: Execution, privacy: ExampleDP) -> None:
        """Prepare the path that an execution names.

        Raises:
            Unchained: the path `dense` for a model that is no chain.
        """
        self._privacy = privacy
        self._sums = SUMS[execution.path](task)
        self._exact = _ExactSums(task) if privacy.exact else None
        self._last: Batch | None = None

    def add_to(
        self, batch: Batch, at: Tensor, target: Tensor, scale: Scalar, keep: Scalar
    ) -> Tensor:
        """As `Executor.add_to`.

        Raises:
            StrategyError: a step asks for a second gradient.
        """
        if batch is self._last:
            raise StrategyError(
                "a local training that takes two gradients in a step, with ExampleDP",
                why="each is a release, and one for each step is accounted for",
                instead="a pass of its own for the second gradient, or one gradient in a step",
            )
        self._last = batch
        with torch.no_grad():
            whole, losses = self._whole(batch, at)
            if self._privacy.noise_multiplier:
                for row, total in enumerate(whole):
                    key = derive(batch.keys[row], "private", batch.pass_number, batch.step)
                    self._privacy.add_noise(total, key)
            gradient = whole.mul_(self._privacy.unit / self._privacy.divisor).to(at.dtype)
            accumulate([target], [gradient], scale, keep)
        return losses

    def clear(self) -> None:
        """Forget all vectors."""
        self._last = None
        self._sums.clear()
        if self._exact is not None:
            self._exact.clear()

    def _whole(self, batch: Batch, at: Tensor) -> tuple[Tensor, Tensor]:
        """The sums in whole units of the grid, `[k, P]` in double precision, and the losses."""
        if self._exact is not None:
            return self._exact(batch, at, self._privacy)
        sums, losses = self._sums(batch, at, self._privacy.clip)
        return sums.double().mul_(1 / self._privacy.unit).round_(), losses


class _ExactSums:
    """Sums of whole numbers: each example's gradient depends on that example alone.

    What floating point does to it is the same whoever else is in the batch; it is then clipped and
    rounded by `clipped`, whose bound is exact, and sums of whole numbers are exact.
    """

    def __init__(self, task: Task) -> None:
        self._one, self._views = OneByOne(task), ByAddress(task.layout.views)

    def __call__(self, batch: Batch, at: Tensor, privacy: ExampleDP) -> tuple[Tensor, Tensor]:
        sums = torch.zeros(at.shape, dtype=torch.float64, device=at.device)
        losses = torch.zeros(len(at), dtype=at.dtype, device=at.device)
        for row, count in enumerate(batch.counts.tolist()):
            bind(self._one.params, self._views(at[row]))
            seed_row(batch, row, at.device)
            for place in range(count):
                gradient, loss = self._one.gradient(batch.x[row, place], batch.y[row, place])
                (part,) = clipped([gradient.double().unsqueeze(0)], privacy.unit, STEPS)
                sums[row] += part[0]
                losses[row] += loss * batch.weights[row, place]
        return sums, losses

    def clear(self) -> None:
        self._views.clear()


def private(task: Task, execution: Execution, privacy: ExampleDP | None) -> Executor | None:
    """What takes the place of a path's executor, where examples are protected."""
    return None if privacy is None else PrivateExecutor(task, execution, privacy)
