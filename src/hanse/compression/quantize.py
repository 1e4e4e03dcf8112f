"""Fewer bits: whole numbers times a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from hanse.compression.compressor import Compressor, uniforms
from hanse.compression.spaces import Grid, levels, spread
from hanse.compression.sparsify import tensors_of
from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.core.types import Vector

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.compression.compressor import Source


@dataclass(frozen=True)
class Quantize(Compressor):
    """Values become whole numbers of `bits` bits, times a step that is sent beside them.

    The step is `peak / L`, with the largest absolute value of the vector, and L = 2^(bits - 1) - 1.
    Zero stays zero; one bit is plus or minus the peak. Stochastic rounding is unbiased, with an
    error below one step (two with one bit), nearest rounding has at most half a step.

    Source: Alistarh et al., "QSGD", NeurIPS 2017, section 3.1, with the largest value in the place
    of the norm, as in Suresh et al., "Distributed mean estimation with limited communication", ICML
    2017, section 2.

    Attributes:
        bits: 1 to 16.
        rounding: `"stochastic"`, up or down such that it is right on average, or `"nearest"`.
        per: what has a step of its own: the `"vector"`, each `"tensor"` of the model, or each run
            of so many values.
        limit: a public largest value in the place of the vector's; what is beyond is cut off. Sums
            are then taken of whole numbers. It must not depend on anybody's data.

    Raises:
        StrategyError: what cannot be meant.
    """

    bits: int = 8
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    per: Literal["vector", "tensor"] | int = "vector"
    limit: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not (type(self.bits) is int and 1 <= self.bits <= 16):
            raise StrategyError(
                f"Quantize(bits={self.bits!r})",
                why="a number has 1 to 16 bits; with more, single precision has none to lose",
                instead="a whole number from 1 to 16, such as Quantize(8)",
            )
        if self.rounding not in ("stochastic", "nearest"):
            raise StrategyError(
                f"Quantize(rounding={self.rounding!r})",
                why="there is no such way to round",
                instead="'stochastic' (right on average) or 'nearest' (with half the error)",
            )
        if self.bits == 1 and self.rounding == "nearest":
            raise StrategyError(
                "Quantize(1, rounding='nearest')",
                why="every value would become plus or minus the largest one: longer than it was",
                instead="Sign(), whose step is the mean of the absolute values",
            )
        _check_per(self.per, "Quantize")
        if self.limit is not None and (
            not isinstance(self.limit, int | float) or not 0 < self.limit < math.inf
        ):
            raise StrategyError(
                f"Quantize(limit={self.limit!r})",
                why="it is the largest value that can be sent",
                instead="a number above 0, or none: then it is the vector's own",
            )
        if self.limit is not None and self.per != "vector":
            raise StrategyError(
                f"Quantize(per={self.per!r}, limit={self.limit!r})",
                why="with a public limit there is one step for all",
                instead="one of the two",
            )

    @property
    def contracts(self) -> bool:
        """Rounding to nearest does: a value never moves further than to zero."""
        return self.rounding == "nearest"

    def enter(self, sent: Vector, source: Source) -> Vector:
        """Whole numbers, in the values' dtype, in a `Grid`."""
        values, most = sent.values, levels(self.bits)
        if self.limit is None:
            runs = runs_of(self.per, sent, source, "Quantize(per='tensor')")
            step = _of_runs(values.abs(), runs, mean=False) / most
        else:
            runs = ()
            step = torch.tensor(self.limit / most, dtype=values.dtype, device=values.device)
        # A step of zero (of zeros, or of what is too small to be divided) leaves zeros.
        wide = spread(torch.where(step > 0, step, torch.ones_like(step)), runs)
        numbers = (values / wide).clamp_(-most, most)
        if self.rounding == "nearest":
            whole = numbers.round_()
        else:
            drawn = uniforms(derive(source.own, "quantize"), values)
            whole = _stochastic(numbers, drawn, self.bits)
        return Vector(whole, sent.scale, (*sent.space, Grid(self.bits, step, runs)))


@dataclass(frozen=True)
class Sign(Compressor):
    """One bit for each value, its sign, and the mean of the absolute values beside them.

    Of all multiples of the signs this one is nearest. A zero gets a sign by chance, or values that
    are always zero would all drift one way. It is biased: use it within `ErrorFeedback`.

    Source: Karimireddy et al., "Error feedback fixes SignSGD and other gradient compression
    schemes", ICML 2019, section 4.

    Attributes:
        per: what has a mean of its own: the `"vector"`, each `"tensor"` of the model, or each run
            of so many values.

    Raises:
        StrategyError: what cannot be meant.
    """

    per: Literal["vector", "tensor"] | int = "vector"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check_per(self.per, "Sign")

    @property
    def contracts(self) -> bool:
        """By `|x|_1^2 / (d |x|_2^2)` (their lemma 8)."""
        return True

    def enter(self, sent: Vector, source: Source) -> Vector:
        """-1 and 1 in a `Grid`."""
        values = sent.values
        runs = runs_of(self.per, sent, source, "Sign(per='tensor')")
        step, signs = _of_runs(values.abs(), runs, mean=True), values.sign()
        zero = signs == 0
        if bool(zero.any()):
            drawn = uniforms(derive(source.own, "sign"), values)
            signs = torch.where(zero, torch.where(drawn < 0.5, -1.0, 1.0).to(signs), signs)
        return Vector(signs, sent.scale, (*sent.space, Grid(1, step, runs)))


def runs_of(
    per: Literal["vector", "tensor"] | int, sent: Vector, source: Source, who: str
) -> tuple[int, ...]:
    """The lengths of the runs that have a step each; none where there is one step for a row."""
    size = sent.values.shape[1]
    if per == "vector" or (isinstance(per, int) and per >= size):
        return ()
    if per == "tensor":
        return tensors_of(sent, source, who)
    whole, rest = divmod(size, per)
    return (per,) * whole + ((rest,) if rest else ())


def _of_runs(values: Tensor, runs: tuple[int, ...], *, mean: bool) -> Tensor:
    """The mean or the largest of each run, `[K, g]`."""
    parts = torch.split(values, list(runs), dim=1) if runs else (values,)
    if mean:
        return torch.stack([part.mean(dim=1) for part in parts], dim=1)
    return torch.stack([part.amax(dim=1) for part in parts], dim=1)


def _stochastic(numbers: Tensor, drawn: Tensor, bits: int) -> Tensor:
    """Up with the probability of the part behind the point; exact, as floor and part are."""
    if bits == 1:
        return torch.where(drawn * 2 - 1 < numbers, 1.0, -1.0).to(numbers)
    low = numbers.floor()
    return low + (drawn < numbers - low)


def _check_per(per: object, name: str) -> None:
    if per in ("vector", "tensor") or (type(per) is int and per > 0):
        return
    raise StrategyError(
        f"{name}(per={per!r})",
        why="it says which values share a step",
        instead="'vector', 'tensor', or a number of values, such as 256",
    )
