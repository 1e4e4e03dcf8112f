"""Clients that do only a part of their work in time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hanse.core.errors import ConfigError
from hanse.core.rng import derive, hash_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.core.rng import Keys

_WHO, _HOW_MUCH = np.array(0, np.uint64), np.array(1, np.uint64)
_BELOW_ONE = math.nextafter(1.0, 0.0)


class Selected(NamedTuple):
    """Clients of a round, and how much of their work each of them does.

    Attributes:
        ids: `[n]`.
        shares: `[n]`, above 0 and at most 1; `None`: all of it.
    """

    ids: NDArray[np.int64]
    shares: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Stragglers:
    """In each round a part of the cohort is stopped before its work is done.

    `fraction * cohort` clients, drawn anew in each round, have done a uniformly drawn share of
    their local work when the round's time is over; where that is no whole number it is rounded up
    or down at random, so that it holds on average for cohorts of any size. What becomes of the
    work is the strategy's matter (`Strategy.partial`). A client's local steps are cut, not its
    epochs: a step that has begun is finished, so everyone takes at least one. Where an epoch is one
    step this is the paper's law, between 1 and E epochs; and it says something where E is 1, too.

    Source: Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, section 5.2,
    with fractions of 0, 0.5 and 0.9.

    Attributes:
        fraction: of the cohort, from 0 to 1.
        least: the smallest share that is drawn, from 0 to below 1.
    """

    fraction: float
    least: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not _is_number(self.fraction) or not 0 <= self.fraction <= 1:
            raise ConfigError(
                f"stragglers with fraction={self.fraction!r}",
                why="it is a part of each cohort",
                instead="a number from 0 to 1, such as 0.9",
            )
        if not _is_number(self.least) or not 0 <= self.least < 1:
            raise ConfigError(
                f"stragglers with least={self.least!r}",
                why="it is the smallest part of its work that a straggler does, and who does all "
                "of it is none",
                instead="a number from 0 to below 1, such as 0.2",
            )

    def count(self, cohort: int, key: Keys) -> int:
        """How many clients of a cohort are stragglers; `key` is the round's."""
        whole, rest = divmod(round(self.fraction * cohort, 9), 1)  # 0.3 * 10 is 3, not a hair less
        drawn = int(hash_grid(derive(key, "count"), _WHO)) >> 11
        return int(whole) + (drawn * 2.0**-53 < rest)

    def shares(self, ids: NDArray[np.int64], key: Keys) -> NDArray[np.float64]:
        """The part of its work that each client does, `[n]`: 1 for who is no straggler.

        Args:
            ids: `[n]`, the cohort; its order does not matter.
            key: of the round.
        """
        keys = derive(key, ids)
        drawn = (hash_grid(keys, _HOW_MUCH) >> np.uint64(11)) * 2.0**-53
        late = np.argsort(hash_grid(keys, _WHO), kind="stable")[: self.count(len(ids), key)]
        shares = np.ones(len(ids))
        shares[late] = np.minimum(self.least + (1 - self.least) * drawn[late], _BELOW_ONE)
        return shares


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
