"""What each client has spent by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ConfigError
from hanse.layers import LocalDP
from hanse.privacy.accounting import epsilon
from hanse.spending.costs import WorstClient, events_of_a_participation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hanse.privacy.accounting import Accountant
    from hanse.round import Population
    from hanse.strategy import Strategy


def client_epsilons(
    strategy: Strategy,
    population: Population,
    rounds: int,
    delta: float,
    accountant: Accountant = "pld",
) -> NDArray[np.float64]:
    """What each client's own releases cost together, under local differential privacy.

    Args:
        strategy: with a `LocalDP`.
        population: who takes part in a round, as `prepare(experiment).population` says.
        rounds: how many, from the first one.
        delta: the probability that a bound does not hold.
        accountant: whose arithmetic.

    Returns:
        `[clients]` epsilon, for two data sets of that client; 0 where it never took part.

    Raises:
        ConfigError: there is no `LocalDP`, or it has no noise; as `hanse.privacy.epsilon`.
    """
    layer = next((layer for layer in strategy.layers if isinstance(layer, LocalDP)), None)
    if layer is None:
        raise ConfigError(
            f"an epsilon for each client of {strategy.name}",
            why="its clients add no noise of their own, so they are protected together or not at "
            "all",
            instead="ldp_fedavg(…), or LocalDP(…) as the last layer",
        )
    cost = WorstClient(layer.event, population)
    turns = sum((cost.turns(n + 1) for n in range(rounds)), np.zeros(population.clients, np.int64))
    by_turns = {
        int(n): epsilon([replace(layer.event, count=int(n))] if n else [], delta, accountant)
        for n in np.unique(turns)
    }
    return np.array([by_turns[int(n)] for n in turns])


def epsilons(
    strategy: Strategy, participations: Sequence[int], delta: float, accountant: Accountant = "pld"
) -> list[float]:
    """What each client's examples have spent; the largest one is the run's.

    Args:
        strategy: with an `ExampleDP`.
        participations: in how many rounds each client has trained, whether its update was used or
            not; a public number.
        delta: the probability that the bound does not hold.
        accountant: whose arithmetic.

    Returns:
        An epsilon for each client, 0 for one that never trained.

    Raises:
        ConfigError: as `hanse.privacy.epsilon`.
    """
    once = events_of_a_participation(strategy)
    spent = {
        times: epsilon([replace(e, count=e.count * times) for e in once], delta, accountant)
        for times in {int(times) for times in participations}
        if times
    }
    return [spent.get(int(times), 0.0) for times in participations]
