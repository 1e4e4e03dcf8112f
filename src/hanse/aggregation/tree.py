"""Partial totals merged in one fixed order, whatever order they arrive in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


T = TypeVar("T")


class Tree(Generic[T]):
    """A binary tree over block numbers: the same bits for any order of arrival.

    In order, only O(log blocks) partial totals are pending. A missing neighbour counts as nothing,
    so with blocks of a power of two the tree over clients does not depend on their size.
    """

    def __init__(self, merge: Callable[[T, T], T]) -> None:
        """Merge with `merge(left, right)`."""
        self._merge = merge
        self._pending: dict[tuple[int, int], T] = {}  # (level, number at that level)

    def push(self, number: int, part: T, level: int = 0) -> None:
        """Add the partial total of block `number`, or of node `number` at a higher level."""
        while (level, number ^ 1) in self._pending:
            other = self._pending.pop((level, number ^ 1))
            part = self._merge(other, part) if number & 1 else self._merge(part, other)
            level, number = level + 1, number >> 1
        self._pending[level, number] = part

    def total(self) -> T | None:
        """The total of all blocks pushed, or `None` if there were none."""
        level, nodes = 0, dict(self._pending)
        while len(nodes) > 1:
            for number in sorted(n for at, n in nodes if at == level):
                if (level, number) not in nodes:
                    continue  # merged into its left neighbour
                part = nodes.pop((level, number))
                right = nodes.pop((level, number ^ 1), None)
                part = part if right is None else self._merge(part, right)
                nodes[level + 1, number >> 1] = part
            level += 1
        return next(iter(nodes.values()), None)


def sum_rows(rows: Tensor, positions: NDArray[np.int64] | None = None) -> Tensor:
    """The sum `[m]` of rows `[K, m]` as the same tree: neighbours first.

    Args:
        rows: what is added.
        positions: `[K]`, ascending: the rows' places in the tree, where some are missing.
    """
    if positions is None or _is_gapless(positions):
        return _sum_without_gaps(rows)
    parts: dict[int, Tensor] = dict(zip(positions.tolist(), rows, strict=True))
    while len(parts) > 1:
        merged: dict[int, Tensor] = {}
        for place, part in parts.items():
            left = merged.get(place >> 1)
            merged[place >> 1] = part if left is None else left + part
        parts = merged
    return next(iter(parts.values()))


def _is_gapless(positions: NDArray[np.int64]) -> bool:
    """Whether rows lie side by side from where a subtree begins that has room for all of them."""
    count, first = len(positions), int(positions[0])
    return bool(positions[-1] - first == count - 1) and first % (1 << (count - 1).bit_length()) == 0


def _sum_without_gaps(rows: Tensor) -> Tensor:
    while len(rows) > 1:
        pairs = rows[0 : len(rows) - 1 : 2] + rows[1::2]
        rows = pairs if len(rows) % 2 == 0 else torch.cat([pairs, rows[-1:]])
    return rows[0]
