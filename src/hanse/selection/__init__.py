"""Who takes part in a round, and who of them is too slow for it."""

from hanse.selection.cohorts import Full, Participation, Poisson, Uniform
from hanse.selection.separated import Separated
from hanse.selection.stragglers import Selected, Stragglers

__all__ = ["Full", "Participation", "Poisson", "Selected", "Separated", "Stragglers", "Uniform"]
