"""Batches that are drawn example by example: what the accounting of sampled noise assumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hanse.core.errors import StrategyError
from hanse.core.rng import derive, hash_grid
from hanse.data.packing import offsets_of, rows_of

if TYPE_CHECKING:
    from hanse.core.rng import Keys

Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class PoissonSteps:
    """Each client takes `count` steps; an example is in a step's batch with probability `rate`.

    Each example is drawn for each step by itself, whoever else is drawn. So batches differ in size,
    and one may be empty. How many steps there are does not depend on how many examples there are.

    An example weighs `1 / (rate * n)`: the expected gradient is that of the client's mean loss, and
    an empty batch has none. (Under `ExampleDP` a public divisor takes the place of `rate * n`.)

    Source: Abadi et al., "Deep learning with differential privacy", CCS 2016, section 3.1 (lots).

    Attributes:
        rate: the probability, above 0 and at most 1; 1: every batch is all of the client's data.
        count: steps, at least 1.
    """

    rate: float = 0.1
    count: int = 10

    def __post_init__(self) -> None:
        """Refuse what is no probability and no number of steps."""
        number = isinstance(self.rate, int | float) and not isinstance(self.rate, bool)
        if not number or not 0 < self.rate <= 1:
            raise StrategyError(
                f"PoissonSteps(rate={self.rate!r})",
                why="it is the probability that an example is in a step's batch",
                instead="a number above 0 and at most 1, such as rate=0.1",
            )
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise StrategyError(
                f"PoissonSteps(count={self.count!r})",
                why="it is the number of steps that every client takes",
                instead="a whole number of at least 1, such as count=10",
            )


class Drawn(NamedTuple):
    """The batches of K clients in one step.

    Attributes:
        rows: `[K, B]`, into the block's fields, B the examples of the largest batch, at least 1.
            Padding repeats the client's first row.
        counts: `[K]`, the examples of each batch; they come first.
    """

    rows: Int64s
    counts: Int64s


def drawn(rate: float, sizes: Int64s, starts: Int64s, keys: Keys, step: int) -> Drawn:
    """Draw a step's batches; a client's depends on nothing but its key and its own examples.

    An example's place among the others decides with what number it is drawn, so removing one
    changes nothing for those before it, and gives those behind it other numbers of the same kind.

    Args:
        rate: the probability of each example, above 0 and at most 1.
        sizes: `[K]`, how many examples clients have, each at least 1.
        starts: `[K]`, their first rows in the block's fields.
        keys: `[K]`, their keys for the pass.
        step: of the pass.
    """
    offsets = offsets_of(sizes)
    example = rows_of(np.zeros_like(sizes), sizes)
    bits = hash_grid(np.repeat(derive(keys, "poisson", step), sizes), example.astype(np.uint64))
    # Rounded down, so that nobody is drawn more often than is accounted for.
    chosen = (
        np.flatnonzero(bits < np.uint64(int(rate * 2**64))) if rate < 1 else np.arange(len(bits))
    )
    client = np.searchsorted(offsets, chosen, side="right") - 1
    counts = np.bincount(client, minlength=len(sizes))
    place = rows_of(np.zeros_like(counts), counts)
    rows = np.repeat(starts[:, None], max(int(counts.max(initial=0)), 1), axis=1)
    rows[client, place] = starts[client] + example[chosen]
    return Drawn(rows, counts)
