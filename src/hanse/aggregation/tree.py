"""Partial totals merged in one fixed order, whatever order they arrive in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")


class Tree(Generic[T]):
    """A binary tree over block numbers: the same bits for any order of arrival.

    In order, only O(log blocks) partial totals are pending. A missing neighbour counts as nothing.
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
