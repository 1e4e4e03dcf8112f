"""A cohort cut into blocks, and blocks into spans: what is trained together, and sent together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hanse.data.batching import steps_in_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hanse.data.batching import Pass
    from hanse.data.federation import ClientData
    from hanse.selection import Selected

Int64s = NDArray[np.int64]

_SPAN_EXAMPLES = 1 << 14  # planned with one sort, and loaded together where clients are lazy
_SPAN_BLOCKS = 64
_SPANS_A_WORKER = 4  # at least, so that workers end at about the same time
_SPAN_BYTES = 1 << 25  # of memories, which travel with a span


@dataclass(frozen=True, eq=False)
class Cohort:
    """The clients of a round, longest first, in blocks.

    A span is an aligned power of two of blocks: a subtree of the tree that sums are taken in. So
    a span's sum can be taken anywhere, and the bits do not depend on how long spans are.

    Attributes:
        ids: `[n]`, the clients in the order of their places.
        sizes: `[n]`, how many examples each has; never increasing, unless there are stragglers.
        block: clients in a block.
        level: a span has `2 ** level` blocks.
        taken: `[n]`, how many steps of the first pass each takes, never increasing; `None`: all.
    """

    ids: Int64s
    sizes: Int64s
    block: int
    level: int
    taken: Int64s | None = None

    @classmethod
    def of(
        cls,
        data: ClientData,
        selected: Selected,
        work: Pass,
        block: int,
        workers: int = 0,
        remembered: int = 0,
    ) -> Cohort:
        """Sort clients by what they have to do, most first, and choose the spans' length.

        Args:
            data: the clients.
            selected: who trains, and what part of the first pass.
            work: that pass.
            block: clients in a block.
            workers: how many processes the spans are sent to; 0 if they stay here.
            remembered: bytes that each client remembers, and that are sent with a span.
        """
        ids, shares = selected
        sizes, taken = data.sizes(ids), None
        order = np.argsort(-sizes, kind="stable")  # longest first: a block shrinks as clients end
        if shares is not None:
            taken = steps_in_part(work, sizes, shares)
            order = np.lexsort((-sizes, -taken))
            taken = taken[order]
        blocks = max(-(-len(ids) // block), 1)
        limit = min(_SPAN_BLOCKS, _SPAN_EXAMPLES * blocks // max(int(sizes.sum()), 1))
        if workers:
            limit = min(limit, blocks // (_SPANS_A_WORKER * workers))
            limit = min(limit, _SPAN_BYTES // max(remembered * block, 1))
        return cls(ids[order], sizes[order], block, max(limit, 1).bit_length() - 1, taken)

    @property
    def spans(self) -> int:
        """How many spans there are."""
        return -(-len(self.ids) // (self.block << self.level))

    def span(self, number: int) -> slice:
        """The places of a span."""
        return _part(number, self.block << self.level, len(self.ids))

    def members(self, span: int) -> Int64s:
        """The clients of a span."""
        return self.ids[self.span(span)]

    def blocks(self, span: int) -> Iterator[tuple[int, slice]]:
        """The number and the places of each block of a span."""
        first = span << self.level
        for number in range(first, first + (1 << self.level)):
            places = _part(number, self.block, len(self.ids))
            if places.start < places.stop:
                yield number, places


def _part(number: int, length: int, total: int) -> slice:
    return slice(min(number * length, total), min((number + 1) * length, total))
