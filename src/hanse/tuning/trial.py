"""What trials have in common: clients that are all alike, and the first round of some of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.types import RoundContext
from hanse.data import Block
from hanse.engines.cohort import Cohort

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.layout import ParameterLayout
    from hanse.core.types import Broadcast
    from hanse.engines.span import Trainer
    from hanse.memory import Slots

SAMPLE = 4
"""Examples that a model is tried on."""


@dataclass(frozen=True, eq=False)
class Few:
    """Clients that all have the same few examples: what a trial needs of data."""

    fields: dict[str, Tensor]
    size: int
    clients: int

    def __len__(self) -> int:
        """As many as any trial needs."""
        return self.clients

    def name(self, client: int) -> str:
        """A name."""
        return f"client {client}"

    def sizes(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for all, [K]."""
        return np.full(len(ids), self.size, np.int64)

    def block(self, ids: NDArray[np.int64]) -> Block:
        """The same examples for all."""
        return Block(self.fields, np.zeros(len(ids), np.int64), self.sizes(ids))

    def cohort(self, clients: int) -> Cohort:
        """So many of them, in one block."""
        ids = np.arange(clients)
        return Cohort(ids, self.sizes(ids), clients, level=0)


def in_words(seconds: float, alone: float | None) -> str:
    """Why a path was chosen: a client's time by it and, if it is another, by itself.

    With the day: whoever recalls the choice repeats the words.
    """
    day = datetime.now(tz=UTC).date().isoformat()
    words = f"measured on {day}: {1e3 * seconds:.2g} ms a client"
    if alone is not None:
        words += f", {1e3 * alone:.2g} ms one at a time through the module"
    return words


def first_round(clients: int, layout: ParameterLayout) -> RoundContext:
    """The first round of so many clients."""
    return RoundContext(
        number=1,
        key=np.uint64(0),
        population=clients,
        expected=float(clients),
        cohort=clients,
        setting="cross-silo",
        layout=layout,
    )


def nothing_remembered(trainer: Trainer, broadcast: Broadcast, clients: int) -> Slots:
    """What so many clients remember before their first round, `[K, ...]`."""
    initial = trainer.initial(broadcast)
    return tuple({k: v.expand(clients, *v.shape) for k, v in one.items()} for one in initial)
