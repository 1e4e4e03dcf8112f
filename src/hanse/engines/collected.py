"""What a cohort's work amounts to, gathered span by span in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.types import Exchange
from hanse.engines.measurement import ClientFacts, Dropped, dropped, joined, pairwise_cosine
from hanse.engines.span import SpanResult, part_tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hanse.core.types import Aggregate, Aggregation, RoundContext
    from hanse.engines.cohort import Cohort
    from hanse.memory import Slots

    Remembered = tuple[NDArray[np.int64], Slots]


@dataclass(frozen=True, eq=False)
class Collected:
    """What a cohort's work amounts to.

    Attributes:
        aggregate: what the aggregation made of it; `None` if no update could be used.
        memory: ids and memories of the accepted clients.
        dropped: the others, with the reason.
        facts: measurements of every client that trained.
        pairwise_cosine: the mean cosine between the updates of two clients; NaN for one client.
        exchange: how the exchanges behind the contributions went.
    """

    aggregate: Aggregate | None
    memory: list[tuple[NDArray[np.int64], Slots]]
    dropped: tuple[Dropped, ...]
    facts: ClientFacts
    pairwise_cosine: float
    exchange: Exchange = Exchange()


class Collection:
    """Spans' results, whatever order they come in: the total is merged in a fixed one."""

    def __init__(self, aggregation: Aggregation, cohort: Cohort) -> None:
        """Nothing yet."""
        self._aggregation, self._cohort = aggregation, cohort
        self._tree = part_tree(aggregation.merge)
        self._results: dict[int, SpanResult] = {}

    def add(self, span: int, result: SpanResult) -> None:
        """Take in the result of span number `span`."""
        if result.part is not None:
            self._tree.push(span, result.part, level=self._cohort.level)
        self._results[span] = result._replace(part=None)

    def collected(self, round_: RoundContext) -> Collected:
        """What all of it amounts to."""
        results = [self._results[span] for span in sorted(self._results)]
        facts = joined([result.facts for result in results])
        part, aggregate, exchange = self._tree.total(), None, Exchange()
        if part is not None:
            opening = self._aggregation.opening(part.total, round_)
            exchange = self._aggregation.exchange(part.total, opening)
            if not exchange.failure:
                aggregate = self._aggregation.finish(part.total, opening)
        lost = (Dropped(client, reason) for client, reason in sorted(exchange.lost.items()))
        return Collected(
            aggregate,
            [_of_the_summed(*entry, exchange) for result in results for entry in result.memory],
            (*dropped(facts), *lost),
            facts,
            pairwise_cosine(facts, None if part is None else part.units),
            exchange,
        )


def _of_the_summed(ids: NDArray[np.int64], slots: Slots, exchange: Exchange) -> Remembered:
    """The memories of those whose contribution is in the aggregate."""
    if not exchange.lost and not exchange.failure:
        return ids, slots
    rows = [row for row, client in enumerate(ids.tolist()) if client not in exchange.lost]
    if exchange.failure:
        rows = []
    kept = tuple({name: value[rows] for name, value in slot.items()} for slot in slots)
    return ids[rows], kept
