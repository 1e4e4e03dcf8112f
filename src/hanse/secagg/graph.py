"""Who shares masks and secrets with whom.

In the complete graph, everybody with everybody (Bonawitz et al. 2017). For thousands, each with k
others: clients stand on a ring in a random order, and everybody's neighbours are the k/2 on either
side (the Harary graph of Bell et al., "Secure single-server aggregation with (poly)logarithmic
overhead", CCS 2020). The order follows from a seed by a rule that is written here and
depends on no library's generator, so everybody can check it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LABEL = b"hanse secagg 1 order"


@dataclass(frozen=True)
class Graph:
    """A graph on clients 0 to `size - 1`.

    Attributes:
        size: the number of clients.
        degree: neighbours of each: `size - 1`, or an even number below it.
        seed: what the order on the ring follows from; of no use in the complete graph.
    """

    size: int
    degree: int
    seed: bytes = b""

    @property
    def is_complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.degree == self.size - 1

    @cached_property
    def ring(self) -> NDArray[np.int64]:
        """`[size]`: the clients in the order on the ring, by SHA-256 of seed and number."""
        keys = [
            hashlib.sha256(_LABEL + self.seed + number.to_bytes(4, "little")).digest()
            for number in range(self.size)
        ]
        return np.array(sorted(range(self.size), key=keys.__getitem__), np.int64)

    @cached_property
    def _place(self) -> NDArray[np.int64]:
        place = np.empty(self.size, np.int64)
        place[self.ring] = np.arange(self.size)
        return place

    def neighbours(self, client: int) -> NDArray[np.int64]:
        """`[degree]`: the others it shares masks and secrets with, ascending."""
        if self.is_complete:
            return np.delete(np.arange(self.size), client)
        half = self.degree // 2
        steps = np.concatenate([np.arange(-half, 0), np.arange(1, half + 1)])
        return np.sort(self.ring[(self._place[client] + steps) % self.size])

    def points(self, owner: int, holders: NDArray[np.int64]) -> NDArray[np.int64]:
        """At which elements of the field the polynomial of `owner` is taken for its holders.

        Args:
            owner: whose secret is shared.
            holders: neighbours, or the owner itself.

        Returns:
            Different numbers from 1 to `degree + 1`. In the complete graph they do not depend on
            the owner, so that one set of weights serves all secrets.
        """
        if self.is_complete:
            return holders + 1
        half = self.degree // 2
        points: NDArray[np.int64] = (self._place[holders] - self._place[owner] + half) % self.size
        return points + 1
