"""Runs beside each other: what they reached, what they spent, and client by client."""

from hanse.comparison.comparing import Comparison, compare
from hanse.comparison.measures import Goal
from hanse.comparison.pairs import Contrast, Pair
from hanse.comparison.statistics import Interval

__all__ = ["Comparison", "Contrast", "Goal", "Interval", "Pair", "compare"]
