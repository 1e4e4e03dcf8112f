"""What clients send as words of a ring, and sums of words as numbers: exact in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from hanse.compression.whole import Whole
from hanse.core.errors import StrategyError
from hanse.core.types import Summed
from hanse.secagg.ring import FixedPoint, Width

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.types import Aggregate, Space, Update, Vector

_FLOAT = torch.float64
WEIGHT = "weight"
_GRID_STEP = 2.0**-8
"""Of whole numbers (a `Grid`'s, say) that are multiplied by weights which need not be whole."""


@dataclass(frozen=True)
class Bound:
    """How the numbers of one vector are written: public, and the same for every client.

    Attributes:
        name: the vector's.
        clip: the largest absolute value of a coordinate, before its weight.
        step: the distance of neighbouring numbers, likewise.
    """

    name: str
    clip: float
    step: float

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        FixedPoint(self.clip, self.step, 1)


OWN = (
    Bound(WEIGHT, 1.0, 1.0),
    Bound("effective_steps", 2.0**16, 2.0**-8),
    Bound("train_loss", 2.0**10, 2.0**-12),
)
"""Of the scalars that Hanse's own parts send."""


class Place(NamedTuple):
    """Where one vector lies among a client's words, and how its numbers are written.

    Attributes:
        name: the vector's.
        columns: how many words.
        space: of the numbers.
        dtype: of the numbers.
        limit: the largest whole number of steps; `None`: whole numbers, which are left alone.
        most: what room is made for, in steps.
        step: between two of them.
        weighted: whether a weight is in it.
    """

    name: str
    columns: int
    space: tuple[Space, ...]
    dtype: torch.dtype
    limit: int | None
    most: int
    step: float
    weighted: bool


class Encoded(NamedTuple):
    """Words of K clients.

    Attributes:
        words: `[K, m + 1]` int64: all vectors, by name; the last one is 1 for a client whose
            numbers were beyond the bounds, and that was made shorter.
        places: of the vectors.
    """

    words: Tensor
    places: tuple[Place, ...]


def encode(
    update: Update,
    bounds: Mapping[str, Bound],
    default: Bound,
    weighted: tuple[str, ...],
    most: int,
) -> Encoded:
    """Updates as words.

    A client whose weight is above `most` counts as one with that weight: what is weighted is made
    shorter in proportion. A vector with a coordinate beyond its bound is made shorter as a whole,
    so it keeps its direction.

    Args:
        update: of K clients.
        bounds: by name.
        default: of a vector without one.
        weighted: the names of the vectors that the weight, if one is sent, is multiplied into.
        most: the largest weight.

    Raises:
        StrategyError: a vector whose sum is not the sum of what clients send.
    """
    rows, places, shortened = [], [], None
    factor = None
    if WEIGHT in update:
        sent = update[WEIGHT].lifted().to(_FLOAT)[:, 0]
        factor = (most / sent.clamp(min=most)).unsqueeze(1)
        shortened = factor[:, 0] < 1
    for name in sorted(update):
        vector, has_weight = update[name], WEIGHT in update and name in (*weighted, WEIGHT)
        place = _place(name, vector, bounds.get(name, default), most if has_weight else 1)
        values = vector.values.to(_FLOAT) * vector.scale.to(_FLOAT).unsqueeze(1)
        place = place._replace(weighted=has_weight)
        if place.limit is None:
            whole = values.round()
        else:
            if has_weight and factor is not None:
                values = values * factor
            values = values / place.step
            peak = values.abs().amax(dim=1) if values.shape[1] else values.new_zeros(len(values))
            beyond = peak.round() > place.limit
            shortened = beyond if shortened is None else shortened | beyond
            within = torch.where(beyond, place.limit / peak, 1.0).unsqueeze(1)
            whole = (values * within).round().clamp(-place.limit, place.limit)
        rows.append(whole.to(torch.int64))
        places.append(place)
    count = rows[0].new_zeros(len(rows[0])) if shortened is None else shortened.to(torch.int64)
    return Encoded(torch.cat([*rows, count.unsqueeze(1)], dim=1), tuple(places))


def width(places: tuple[Place, ...], clients: int) -> Width:
    """Bits of a word: the fewest that hold the sums of so many clients.

    Raises:
        StrategyError: 64 bits do not.
    """
    most = max(clients, *(place.most * clients for place in places))
    if most >= 1 << 63:
        name = max(places, key=lambda place: place.most).name
        raise StrategyError(
            f"sums of {name!r} over {clients} clients of {most:.3g} steps at most",
            why="a word has 64 bits",
            instead="a smaller clip, fewer examples at most, or a larger step",
        )
    return 32 if most < 1 << 31 else 64


def decode(words: Tensor, places: tuple[Place, ...], bits: Width) -> tuple[Aggregate, int]:
    """Sums of words `[m + 1]` as sums of numbers, and how many clients were made shorter."""
    if bits < 64:
        half = 1 << (bits - 1)
        words = ((words + half) & ((1 << bits) - 1)) - half
    total, at = {}, 0
    for place in places:
        part = words[at : at + place.columns].to(_FLOAT) * place.step
        total[place.name] = Summed(part.to(place.dtype), place.space)
        at += place.columns
    return total, int(words[at])


def _place(name: str, vector: Vector, bound: Bound, weight: int) -> Place:
    for space in vector.space:
        if not (space.common and space.linear):
            raise _unlike(name, space)
    columns, dtype = vector.values.shape[1], vector.values.dtype
    last = vector.space[-1] if vector.space else None
    if isinstance(last, Whole):
        return Place(name, columns, vector.space, dtype, None, last.most, 1.0, weighted=False)
    clip, step = bound.clip * weight, bound.step
    most = getattr(last, "most", None)
    if name == WEIGHT:
        pass  # whole numbers of examples
    elif most is not None:  # whole numbers, times weights
        clip, step = float(most) * weight, _GRID_STEP
    else:
        step *= weight
    limit = math.floor(clip / step)
    return Place(name, columns, vector.space, dtype, limit, limit, step, weighted=False)


def _unlike(name: str, space: Space) -> StrategyError:
    what = type(space).__name__
    return StrategyError(
        f"SecureSum of {name!r} in a {what} that every client has its own of",
        why="sums are taken of masked words, so word for word they must mean the same for all; and "
        "what a client would have to send in the clear (which coordinates, which step) tells of "
        "its update",
        instead="the same for all: RandomK, whose coordinates are drawn from a shared seed, in the "
        "place of TopK; Quantize(limit=…), with a public limit",
    )
