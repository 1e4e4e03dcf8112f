"""All that a client sends, clipped as one vector and rounded to a grid: the one way to do it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

from hanse.compression import Coordinates
from hanse.core.errors import StrategyError
from hanse.core.types import Vector
from hanse.privacy.clipping import clipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.layout import ParameterLayout
    from hanse.core.types import Space, Update

STEPS = 1 << 20
"""The clip norm in units of the grid. Sums of up to 2^32 clients are exact in float64."""

FLOAT = torch.float64


Clipping = Literal["flat", "per-layer"]


def dense(update: Update, *, drawn: bool) -> Update:
    """What K clients send, lifted: which coordinates a client sends must tell nothing of its data.

    So noise covers every coordinate of what is released, whoever took part, and what a compressor
    has made longer is clipped again.

    Args:
        update: what is sent.
        drawn: whether coordinates that are drawn for all clients may stay alone.
    """
    after = {}
    for name, sent in update.items():
        if not _wants_lift(sent.space, drawn=drawn):
            after[name] = sent
            continue
        values = sent.values * sent.scale.unsqueeze(1)
        values, space = in_full(values, sent.space, drawn=drawn)
        after[name] = Vector(values, torch.ones_like(sent.scale), space)
    return after


def in_full(
    values: Tensor, space: tuple[Space, ...], *, drawn: bool
) -> tuple[Tensor, tuple[Space, ...]]:
    """Numbers lifted as `dense` does it, and the spaces that are left."""
    while _wants_lift(space, drawn=drawn):
        values, space = space[-1].lift(values), space[:-1]
    return values, space


def _wants_lift(space: tuple[Space, ...], *, drawn: bool) -> bool:
    return not all(drawn and type(one) is Coordinates for one in space)


def rows_of(
    update: Update, layout: ParameterLayout, side_scale: float, who: str, clipping: Clipping
) -> dict[str, Tensor]:
    """What K clients send, `[K, S]` each in float64, scales multiplied in.

    Args:
        update: what is sent, made `dense`.
        layout: of the model.
        side_scale: what vectors beside `delta` are multiplied by.
        who: the layer that asks, for messages.
        clipping: as it will be clipped.

    Raises:
        StrategyError: a vector that cannot be clipped with the others.
    """
    for name, sent in update.items():
        _refuse_unlike(name, sent, layout.shared, who, clipping)
    return {
        name: sent.values.to(FLOAT)
        * (sent.scale.to(FLOAT) * (1.0 if name == "delta" else side_scale)).unsqueeze(1)
        for name, sent in update.items()
    }


def whole_numbers(
    rows: Mapping[str, Tensor],
    layout: ParameterLayout,
    unit: float,
    clipping: Clipping,
) -> dict[str, Tensor]:
    """The same, each client's shortened to `STEPS` units at most, in whole units.

    Args:
        rows: of `rows_of`; numbers that are not finite become zeros.
        layout: of the model.
        unit: the grid's.
        clipping: of all of it at once, or of each of L tensors to the L-th part of the square.
    """
    if clipping == "flat":
        parts = clipped(list(rows.values()), unit, STEPS)
        return dict(zip(rows, parts, strict=True))
    tensors = _tensors(layout)
    limit = math.isqrt(STEPS**2 // (len(tensors) * len(rows)))
    return {
        name: torch.cat([clipped([row[:, part]], unit, limit)[0] for part in tensors], dim=1)
        for name, row in rows.items()
    }


def check_positive(name: str, value: object, what: str, example: str) -> None:
    """Refuse what is no number above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise StrategyError(
            f"{name} is {value!r}",
            why=f"it is {what}",
            instead=f"a number above 0, such as {example}",
        )


def is_number(value: object) -> bool:
    """Whether it is one; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tensors(layout: ParameterLayout) -> list[slice]:
    """The columns of each shared tensor."""
    placed = zip(layout.offsets, layout.sizes, strict=True)
    return [slice(o, o + size) for o, size in placed if size and o < layout.shared]


def _refuse_unlike(name: str, sent: Vector, shared: int, who: str, clipping: Clipping) -> None:
    if sent.space and clipping == "per-layer":
        raise StrategyError(
            f"clipping='per-layer' behind a layer that draws coordinates of {name!r}",
            why="those coordinates are of no tensor any more",
            instead="clipping='flat'",
        )
    columns = getattr(sent.space[0], "size", 0) if sent.space else sent.values.shape[1]
    if name == "buffers" or columns != shared:
        raise StrategyError(
            f"{who} around {name!r}, of {columns} numbers",
            why="in one norm with the update it would take most of it, and beside it it would be "
            "released without noise",
            instead="parts that send nothing of it: no Weighted, and with buffers that stay with "
            "the clients (local=hanse.models.batch_norm)",
        )
