"""Who takes part in a round."""

from hanse.selection.cohorts import Full, Participation, Poisson, Uniform

__all__ = ["Full", "Participation", "Poisson", "Uniform"]
