"""The plain sum; with `Weighted`, a mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

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
        return {name: _sum(vector) for name, vector in contribution.items()}

    def merge(self, left: Aggregate, right: Aggregate) -> Aggregate:
        """Two sums as one, in the place of the left one."""
        return {k: Summed(v.values.add_(right[k].values), v.space) for k, v in left.items()}

    def opening(self, total: Aggregate, round_: RoundContext) -> None:
        """Nothing is hidden, so nothing needs opening."""
        return

    def finish(self, total: Aggregate, opening: None) -> Aggregate:
        """The sum itself."""
        return total


def _sum(vector: Vector) -> Summed:
    values, space = vector.values, vector.space
    while space and not all(s.common and s.linear for s in space):
        # What is lifted need not be linear, so the scale comes first.
        values, space = space[-1].lift(values * vector.scale.unsqueeze(1)), space[:-1]
        vector = vector._replace(scale=torch.ones_like(vector.scale))
    return Summed(vector.scale @ values, space)
