"""Cohorts that are apart: every client in its turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ConfigError
from hanse.core.rng import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.core.rng import Keys


@dataclass(frozen=True)
class Separated:
    """The clients are dealt into groups once, at random, and the groups take turns.

    So a client takes part in every `separation`-th round and in no other, however often a run is
    stopped and resumed: that is what noise that is correlated over rounds relies on. The schedule
    is no secret.

    Attributes:
        separation: the number of groups, and of rounds from one turn of a client to the next.
        most: how often a client takes part at most; then nobody is left. `None`: no limit.

    Raises:
        ConfigError: no number of rounds or turns.
    """

    separation: int
    most: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no number of rounds or turns."""
        for name, value in (("separation", self.separation), ("most", self.most)):
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not whole and not (name == "most" and value is None):
                raise ConfigError(
                    f"separated participation with {name}={value!r}",
                    why="it is a number of rounds from one turn of a client to the next"
                    if name == "separation"
                    else "it is how often a client takes part",
                    instead=f"a whole number of at least 1, such as {name}=10",
                )

    def expected(self, population: int) -> float:
        """The mean size of a group; sizes differ by one at most.

        Raises:
            ConfigError: more groups than clients.
        """
        if self.separation > population:
            raise ConfigError(
                f"separated participation with separation={self.separation}",
                why=f"there are only {population} clients, and a group needs one",
                instead=f"separation={population} at most",
            )
        return population / self.separation

    def select(self, population: int, key: Keys, number: int = 1) -> NDArray[np.int64]:
        """The group whose turn it is.

        Args:
            population: how many clients there are.
            key: of the schedule, the same in every round.
            number: of the round, from 1.
        """
        turn, group = divmod(number - 1, self.separation)
        if self.most is not None and turn >= self.most:
            return np.zeros(0, np.int64)
        dealt = generator(key).permutation(population).astype(np.int64)
        return np.sort(dealt[group :: self.separation])
