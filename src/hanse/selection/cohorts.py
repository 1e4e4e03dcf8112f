"""Cohorts: full, uniform and Poisson participation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hanse.core.errors import ConfigError
from hanse.core.rng import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.core.rng import Keys


class Participation(Protocol):
    """How a round's cohort is drawn from the population."""

    def expected(self, population: int) -> float:
        """The expected size of a cohort."""

    def select(self, population: int, key: Keys) -> NDArray[np.int64]:
        """The ids of a cohort, ascending; the same for the same key."""


@dataclass(frozen=True)
class Full:
    """Every client in every round."""

    def expected(self, population: int) -> float:
        """The population."""
        return float(population)

    def select(self, population: int, key: Keys) -> NDArray[np.int64]:
        """Everyone."""
        del key
        return np.arange(population, dtype=np.int64)


@dataclass(frozen=True)
class Uniform:
    """A fixed number of clients, drawn uniformly without replacement.

    Attributes:
        fraction: of the population (McMahan et al.'s C); at least one client is drawn.
        count: the number of clients; give one of the two.
    """

    fraction: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Refuse a size that is given twice, not at all, or outside its range."""
        if (self.fraction is None) == (self.count is None):
            raise ConfigError(
                f"uniform participation with fraction={self.fraction} and count={self.count}",
                why="exactly one of them says how large a cohort is",
                instead="Uniform(fraction=0.1), or Uniform(count=10)",
            )
        if self.fraction is not None and not _is_share(self.fraction):
            raise ConfigError(
                f"uniform participation with fraction={self.fraction!r}",
                why="it is a part of the population",
                instead="a number above 0 and at most 1, such as 0.1",
            )
        whole = isinstance(self.count, int) and not isinstance(self.count, bool)
        if self.count is not None and (not whole or self.count < 1):
            raise ConfigError(
                f"uniform participation with count={self.count!r}",
                why="a round needs at least one client, and whole ones",
                instead="count=10, or whatever your federation can bear",
            )

    def expected(self, population: int) -> float:
        """The size of every cohort.

        Raises:
            ConfigError: more clients are wanted than there are.
        """
        if self.fraction is not None:
            return float(max(math.floor(self.fraction * population + 0.5), 1))
        assert self.count is not None  # noqa: S101 - checked above, for the type checker
        if self.count > population:
            raise ConfigError(
                f"uniform participation with count={self.count}",
                why=f"there are only {population} clients",
                instead=f"count={population} at most, or Full()",
            )
        return float(self.count)

    def select(self, population: int, key: Keys) -> NDArray[np.int64]:
        """A cohort."""
        count = int(self.expected(population))
        drawn = generator(key).choice(population, size=count, replace=False, shuffle=False)
        return np.sort(drawn.astype(np.int64))


@dataclass(frozen=True)
class Poisson:
    """Each client independently with probability `rate`; a cohort may be empty.

    This is the sampling that privacy amplification assumes.
    """

    rate: float

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if not _is_share(self.rate):
            raise ConfigError(
                f"Poisson participation with rate={self.rate!r}",
                why="it is the probability that a client takes part",
                instead="a number above 0 and at most 1, such as 0.01",
            )

    def expected(self, population: int) -> float:
        """`rate * population`."""
        return self.rate * population

    def select(self, population: int, key: Keys) -> NDArray[np.int64]:
        """A cohort: a binomial number of clients, then that many uniformly."""
        numbers = generator(key)
        count = numbers.binomial(population, self.rate)
        drawn = numbers.choice(population, size=count, replace=False, shuffle=False)
        return np.sort(drawn.astype(np.int64))


def _is_share(value: object) -> bool:
    """Whether a value is a number above 0 and at most 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
