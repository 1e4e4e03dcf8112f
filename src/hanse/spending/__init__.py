"""What a run spends of a privacy budget, and what it promises."""

from hanse.spending.charging import HISTOGRAM, Spending, spending
from hanse.spending.clients import client_epsilons, epsilons
from hanse.spending.costs import (
    Correlated,
    Cost,
    EveryRound,
    WorstClient,
    cost_of,
    events_of_a_participation,
    source_of,
)
from hanse.spending.statements import privacy_of

__all__ = [
    "HISTOGRAM",
    "Correlated",
    "Cost",
    "EveryRound",
    "Spending",
    "WorstClient",
    "client_epsilons",
    "cost_of",
    "epsilons",
    "events_of_a_participation",
    "privacy_of",
    "source_of",
    "spending",
]
