"""Sums of gradients that are clipped example by example, by one path each.

The sums are all that is written out: `[K, P]`, never a gradient for each example of a large layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hanse.models.per_example.dense import DenseSums
from hanse.models.per_example.module import ModuleSums
from hanse.models.per_example.vmapped import VmapSums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.models.gradient import Batch
    from hanse.models.task import Task

__all__ = ["SUMS", "ClippedSums"]


class ClippedSums(Protocol):
    """Sums over the examples of a batch, each one's gradient clipped by itself."""

    def __call__(self, batch: Batch, at: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """The sums `[k, P]` of clipped gradients, and the losses `[k]` by the batch's weights.

        An example whose gradient has no finite norm counts as zeros.

        Args:
            batch: of k clients.
            at: `[k, P]`, where gradients are taken.
            clip: the largest norm of an example's gradient.
        """

    def clear(self) -> None:
        """Forget all vectors, so that a block's memory can be freed."""


class _Maker(Protocol):
    def __call__(self, task: Task) -> ClippedSums: ...


SUMS: Mapping[str, _Maker] = {"module": ModuleSums, "vmap": VmapSums, "dense": DenseSums}
"""By the name of an execution's path."""
