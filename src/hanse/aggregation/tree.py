"""Partial totals merged in one fixed order, whatever order they arrive in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


T = TypeVar("T")


class Tree(Generic[T]):
    """A binary tree over block numbers: the same bits for any order of arrival.

    In order, only O(log blocks) partial totals are pending. A missing right neighbour counts as
    nothing, so with blocks of a power of two the tree over clients does not depend on their size.
    """

    def __init__(self, merge: Callable[[T, T], T]) -> None:
        """Merge with `merge(left, right)`."""
        self._merge = merge
        self._pending: dict[tuple[int, int], T] = {}  # (level, number at that level)

    def push(self, number: int, part: T) -> None:
        """Add the partial total of block `number`."""
        level = 0
        while (level, number ^ 1) in self._pending:
            other = self._pending.pop((level, number ^ 1))
            part = self._merge(other, part) if number & 1 else self._merge(part, other)
            level, number = level + 1, number >> 1
        self._pending[level, number] = part

    def total(self) -> T | None:
        """The total of all blocks pushed, or `None` if there were none."""
        in_order = sorted(self._pending, key=lambda node: node[1] << node[0])
        parts = [self._pending[node] for node in in_order]
        if not parts:
            return None
        total = parts.pop()
        while parts:
            total = self._merge(parts.pop(), total)
        return total


def sum_rows(rows: Tensor) -> Tensor:
    """The sum `[m]` of rows `[K, m]` as the same tree: neighbours first."""
    while len(rows) > 1:
        pairs = rows[0::2].clone()
        pairs[: len(rows) // 2] += rows[1::2]
        rows = pairs
    return rows[0]
