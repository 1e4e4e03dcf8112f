"""Compression of any strategy, by a few numbers: as experiment files say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.compression import Quantize, RandomK, Rotate, Sign, TopK
from hanse.compression.chain import Chain
from hanse.core.errors import StrategyError
from hanse.layers import Compress, CompressedBroadcast, ErrorFeedback

if TYPE_CHECKING:
    from hanse.compression import Compressor
    from hanse.core.types import Layer
    from hanse.strategy import Strategy


def compressed(
    strategy: Strategy,
    *,
    fraction: float | None = None,
    bits: int | None = None,
    choose: Literal["top", "random"] = "top",
    error_feedback: bool = False,
    rotate: bool = False,
    broadcast_bits: int | None = None,
    vectors: tuple[str, ...] = ("delta",),
) -> Strategy:
    """A strategy whose clients send less, as the first thing after their training.

    Args:
        strategy: any.
        fraction: the part of the coordinates that is sent; `None`: all.
        bits: of each number that is sent, 1 to 16; `None`: as many as the model's.
        choose: which coordinates: the largest ones, or random ones that all clients of a round
            share.
        error_feedback: clients remember what was left out, and add it to their next update.
        rotate: rotate before rounding, so that values are alike.
        broadcast_bits: of each parameter that the server sends; `None`: the model in full.
        vectors: the names of the vectors that are compressed.

    Raises:
        StrategyError: what cannot be meant.
    """
    before: list[Layer] = []
    if fraction is not None or bits is not None:
        inner = compressor(
            fraction=fraction,
            bits=bits,
            choose=choose,
            error_feedback=error_feedback,
            rotate=rotate,
        )
        before.append(ErrorFeedback(inner, vectors) if error_feedback else Compress(inner, vectors))
    elif rotate or error_feedback or broadcast_bits is None:
        raise StrategyError(
            "compression without fraction and bits",
            why="it is not said what is to be left out of what clients send",
            instead="fraction=0.01, bits=8, or both",
        )
    behind = [] if broadcast_bits is None else [CompressedBroadcast(Quantize(broadcast_bits))]
    # The broadcast's layer has no client half, so any place is right where ClientDP is last.
    return strategy.replace(layers=(*before, *behind, *strategy.layers))


def compressor(
    *,
    fraction: float | None = None,
    bits: int | None = None,
    choose: Literal["top", "random"] = "top",
    error_feedback: bool = False,
    rotate: bool = False,
) -> Compressor:
    """The compressor that these numbers describe; at least one of `fraction` and `bits` is given.

    Within error feedback, numbers are rounded to nearest and random coordinates have no factor d/k:
    what is left out is sent later. Else both are right on average.

    Raises:
        StrategyError: what cannot be meant.
    """
    if choose not in ("top", "random"):
        raise StrategyError(
            f"choose={choose!r}",
            why="it says which coordinates are sent",
            instead="'top' (the largest) or 'random' (the same ones for all clients of a round)",
        )
    stages: list[Compressor] = []
    if fraction is not None:
        stages.append(
            TopK(fraction) if choose == "top" else RandomK(fraction, unbiased=not error_feedback)
        )
    if rotate:
        stages.append(Rotate())
    if bits is not None:
        stages.append(_rounded(bits, nearest=error_feedback))
    return stages[0] if len(stages) == 1 else Chain(tuple(stages))


def _rounded(bits: int, *, nearest: bool) -> Compressor:
    if nearest and bits == 1:
        return Sign()
    return Quantize(bits, "nearest" if nearest else "stochastic")
