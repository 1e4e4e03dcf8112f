"""The plain sum; with `Weighted`, a mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hanse.aggregation.tree import sum_rows
from hanse.core.types import Aggregation, Summed

if TYPE_CHECKING:
    from hanse.core.types import Aggregate, ClientContext, RoundContext, Update, Vector


@dataclass(frozen=True)
class Sum(Aggregation):
    """The sum of what clients send, each vector in the last linear space common to all of them."""

    @property
    def sees(self) -> Literal["sum"]:
        """A sum is all that is needed."""
        return "sum"

    def contribution(self, update: Update, client: ClientContext) -> Update:
        """What is sent is what is summed."""
        return update

    def block(self, contribution: Update, client: ClientContext) -> Aggregate:
        """The sum over the rows."""
        return {name: _sum(vector, client) for name, vector in contribution.items()}

    def merge(self, left: Aggregate, right: Aggregate) -> Aggregate:
        """Two sums as one."""
        return {k: Summed(left[k].values + right[k].values, left[k].space) for k in left}

    def opening(self, total: Aggregate, round_: RoundContext) -> None:
        """Nothing is hidden, so nothing needs opening."""
        return

    def finish(self, total: Aggregate, opening: None) -> Aggregate:
        """The sum itself."""
        return total


def _sum(vector: Vector, client: ClientContext) -> Summed:
    values, space = vector.values * vector.scale.unsqueeze(1), vector.space
    while space and not all(s.common and s.linear for s in space):
        values, space = space[-1].lift(values), space[:-1]
    return Summed(sum_rows(values, client.position), space)
