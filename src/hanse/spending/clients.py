"""What each client has spent by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ConfigError
from hanse.layers import LocalDP
from hanse.privacy.accounting import epsilon
from hanse.spending.costs import WorstClient

if TYPE_CHECKING:
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
