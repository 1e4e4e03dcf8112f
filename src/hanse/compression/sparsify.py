"""Fewer coordinates: the largest ones, or random ones that all clients share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from hanse.compression.compressor import Compressor
from hanse.compression.spaces import Coordinates, Support, as_key
from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.core.types import Vector

if TYPE_CHECKING:
    from hanse.compression.compressor import Source


@dataclass(frozen=True)
class TopK(Compressor):
    """Each client sends its k largest coordinates, by absolute value, and where they are.

    It is biased: `|x - C(x)|^2 <= (1 - k/d) |x|^2`, and what is small is never sent, unless
    `ErrorFeedback` adds it up until it is large. Where values are equal, any of them are taken.

    Source: Aji and Heafield, "Sparse communication for distributed gradient descent", EMNLP 2017;
    the bound: Stich, Cordonnier and Jaggi, "Sparsified SGD with memory", NeurIPS 2018, lemma A.1.

    Attributes:
        fraction: the part of the coordinates that is sent; at least one is.
        count: how many, in the place of `fraction`.
        per: `"model"`: of all coordinates together; `"tensor"`: of each tensor, so that none is
            left out for long, and small ones are sent more than they are worth.

    Raises:
        StrategyError: neither or both of `fraction` and `count`, or what cannot be meant.
    """

    fraction: float | None = None
    count: int | None = None
    per: Literal["model", "tensor"] = "model"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check_amount("TopK", self.fraction, self.count)
        if self.per not in ("model", "tensor"):
            raise StrategyError(
                f"TopK(per={self.per!r})",
                why="the largest are looked for somewhere",
                instead="'model' (among all coordinates) or 'tensor' (in each tensor)",
            )

    @property
    def contracts(self) -> bool:
        """What is left out is a part of what was given."""
        return True

    @property
    def shortens(self) -> bool:
        """It does."""
        return True

    def enter(self, sent: Vector, source: Source) -> Vector:
        """The values `[K, k]` in a `Support`.

        Raises:
            StrategyError: `per="tensor"` of a vector that is not laid out as the model is.
        """
        values, size = sent.values, sent.values.shape[1]
        runs = (size,) if self.per == "model" else tensors_of(sent, source, "TopK(per='tensor')")
        chosen, start = [], 0
        for run in runs:
            k = _amount(self.fraction, self.count, run)
            largest = values[:, start : start + run].abs().topk(k, dim=1, sorted=False).indices
            chosen.append(largest + start)
            start += run
        places = torch.cat(chosen, dim=1).sort(dim=1).values
        return Vector(values.gather(1, places), sent.scale, (*sent.space, Support(places, size)))


@dataclass(frozen=True)
class RandomK(Compressor):
    """All clients of a round send the same k coordinates, drawn from a key that they share.

    Only values travel, and sums are taken of k numbers. Multiplied by d/k once summed, the result
    is right on average: `E[C(x)] = x`, `E|C(x) - x|^2 = (d/k - 1) |x|^2`.

    Source: Konečný et al., "Federated learning: strategies for improving communication efficiency",
    2016, section 3 (random mask); the variance: Stich et al., NeurIPS 2018.

    Attributes:
        fraction: the part of the coordinates that is sent; at least one is.
        count: how many, in the place of `fraction`.
        unbiased: multiply by d/k. Not within `ErrorFeedback`, which sends later what was left out.

    Raises:
        StrategyError: neither or both of `fraction` and `count`, or what cannot be meant.
    """

    fraction: float | None = None
    count: int | None = None
    unbiased: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check_amount("RandomK", self.fraction, self.count)

    @property
    def contracts(self) -> bool:
        """Without the factor: with it, what is sent may be longer than what was given."""
        return not self.unbiased

    @property
    def shortens(self) -> bool:
        """It does."""
        return True

    def enter(self, sent: Vector, source: Source) -> Vector:
        """The values `[K, k]` in `Coordinates`."""
        size = sent.values.shape[1]
        count = _amount(self.fraction, self.count, size)
        key = as_key(derive(source.shared, "random-k"))
        space = Coordinates(key, count, size, size / count if self.unbiased else 1.0)
        values = sent.values[:, space.chosen.to(sent.values.device)]
        return Vector(values, sent.scale, (*sent.space, space))


def tensors_of(sent: Vector, source: Source, who: str) -> tuple[int, ...]:
    """The sizes of the shared tensors, for a vector that consists of them.

    Raises:
        StrategyError: it does not.
    """
    layout, size = source.layout, sent.values.shape[1]
    placed = zip(layout.offsets, layout.sizes, strict=True)
    runs = tuple(n for offset, n in placed if n and offset < layout.shared)
    if sent.space or sum(runs) != size:
        raise StrategyError(
            f"{who} on a vector of {size} numbers, where the model's tensors have {sum(runs)}",
            why="what was shortened or rotated before has no tensors any more",
            instead=f"{who} as the first of a chain, or without the tensors",
        )
    return runs


def _amount(fraction: float | None, count: int | None, size: int) -> int:
    wanted = count if fraction is None else round(fraction * size)
    return min(max(wanted or 0, 1), size)


def _check_amount(name: str, fraction: object, count: object) -> None:
    if (fraction is None) == (count is None):
        raise StrategyError(
            f"{name}(fraction={fraction!r}, count={count!r})",
            why="one of the two says how many coordinates are sent",
            instead=f"{name}(0.01), or {name}(count=100)",
        )
    if fraction is not None and not (
        isinstance(fraction, int | float) and not isinstance(fraction, bool) and 0 < fraction <= 1
    ):
        raise StrategyError(
            f"{name}(fraction={fraction!r})",
            why="it is a part of the coordinates",
            instead=f"a number above 0 and up to 1, such as {name}(0.01)",
        )
    if count is not None and not (
        isinstance(count, int) and not isinstance(count, bool) and count > 0
    ):
        raise StrategyError(
            f"{name}(count={count!r})",
            why="it is a number of coordinates",
            instead=f"a whole number above 0, such as {name}(count=100)",
        )
