"""The seam between algorithms and speed: a loss gradient, bound to one step's batches.

How it is computed is an executor's business; `hanse.models.executors` has one for each path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch

from hanse.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hanse.core.rng import Keys
    from hanse.core.types import Scalar
    from hanse.models.losses import Loss

_CACHED = 16
T = TypeVar("T")

Precision = Literal["full", "bfloat16"]
"""In what a model's products are computed: the type of its parameters, or bfloat16. Parameters,
losses and what is added to parameters are in the parameters' type in any case."""


class Terms(NamedTuple):
    """How an executor computes, besides its path.

    Attributes:
        precision: of the model's products.
        waits: whether numbers may be read, for which a graphics card would have to be waited for.
    """

    precision: Precision = "full"
    waits: bool = True


class Batch(NamedTuple):
    """One step's batches of k clients."""

    x: Tensor  # [k, B, ...]
    y: Tensor  # [k, B, ...]
    weights: Tensor  # [k, B], zero where a row is padding
    counts: Tensor  # [k], the rows that are no padding; they come first
    buffers: Tensor  # [k, b], changed in place by modules that keep statistics
    keys: Keys  # [k], the clients' keys, for the module's own randomness (dropout)
    pass_number: int
    step: int  # of the pass


class Executor(Protocol):
    """Computes gradients by one path, on a private copy of the model."""

    def add_to(
        self, batch: Batch, at: Tensor, target: Tensor, scale: Scalar, keep: Scalar
    ) -> Tensor:
        """`target = keep * target + scale * gradient(at)`, in place; `target` may be `at`.

        Args:
            batch: of k clients.
            at: `[k, P]`, where gradients are taken; a stride of zero: at the same point for all.
            target: `[k, P]`, what is changed.
            scale: of the gradient.
            keep: of what was there; a row that is zero stays finite whatever `keep` is.

        Returns:
            The losses `[k]`.
        """

    def clear(self) -> None:
        """Forget all vectors, so that a block's memory can be freed."""


class BoundGradient:
    """A `Gradient` of one step's batches.

    The losses that its first call meets are added to `losses` `[>= k]`, if given.
    """

    def __init__(self, executor: Executor, batch: Batch, losses: Tensor | None) -> None:
        """Bind an executor to a batch."""
        self._executor, self._batch, self._losses = executor, batch, losses

    def __call__(self, at: Tensor) -> Tensor:
        """The gradient `[k, P]` at `at`."""
        result = torch.zeros(at.shape, dtype=at.dtype, device=at.device)
        self.add_to(result, at)
        return result

    def add_to(
        self, target: Tensor, at: Tensor, *, scale: Scalar = 1.0, keep: Scalar = 1.0
    ) -> None:
        """`target = keep * target + scale * gradient(at)`, in place."""
        losses = self._executor.add_to(self._batch, at, target, scale, keep)
        if self._losses is not None:
            self._losses[: len(losses)] += losses
            self._losses = None


class ByAddress(Generic[T]):
    """What was made of the last few vectors: to make views anew costs more than a small step."""

    def __init__(self, make: Callable[[Tensor], T]) -> None:
        """`make` turns a vector `[k, P]` into what is kept; it must hold on to its memory."""
        self._make = make
        self._known: dict[tuple[int, int, int], T] = {}

    def __call__(self, flat: Tensor) -> T:
        """What belongs to `flat`; since an entry keeps memory alive, addresses are unique."""
        key = (flat.data_ptr(), len(flat), flat.stride(0))
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            found = self._known[key] = self._make(flat)
        return found

    def clear(self) -> None:
        """Forget all of it."""
        self._known.clear()


def per_example(loss: Loss, outputs: Tensor, y: Tensor, examples: int, *, exact: bool) -> Tensor:
    """The losses `[n]` of n examples; with `exact`, a 0-d mean stands for all of them.

    Raises:
        ModelError: the loss returned something else.
    """
    losses = loss(outputs, y)
    if losses.dim() == 1 and len(losses) == examples:
        return losses
    if losses.dim() == 0 and exact:
        return losses.expand(examples)
    raise ModelError(
        f"the loss returned a tensor of shape {list(losses.shape)} for {examples} examples",
        why="examples are weighted one by one, so that short batches and padding are exact",
        instead="reduction='none': one loss per example"
        + ("" if exact else " (a 0-d loss that couples examples needs the path 'module')"),
    )


def in_precision(precision: Precision, device: torch.device) -> torch.autocast:
    """Products inside are computed in this precision.

    Without the cache of weights: their addresses are the same for different clients, and what a
    recorded graph has in its cache would be gone when it is replayed.
    """
    return torch.autocast(
        device.type,
        dtype=torch.bfloat16,
        enabled=precision == "bfloat16",
        cache_enabled=False,
    )


def accumulate(targets: list[Tensor], gradients: list[Tensor], scale: Scalar, keep: Scalar) -> None:
    """`targets = keep * targets + scale * gradients`, in place."""
    if not (isinstance(keep, float) and keep == 1.0):
        torch._foreach_mul_(targets, keep)
    # The type checker does not know that a 0-d tensor is a number too.
    torch._foreach_add_(targets, gradients, alpha=scale)  # type: ignore[arg-type]
