"""Differential privacy: what is released, what it costs, and what has been spent."""

from hanse.privacy.accounting import Accountant, accounts_for, epsilon, installed, renyi
from hanse.privacy.calibration import (
    MOST_ROUNDS,
    cohort_needed,
    noise_multiplier,
    noise_ratio,
    rounds_left,
)
from hanse.privacy.correlated import BinaryTree, Correlation, Toeplitz, sensitivity
from hanse.privacy.events import Adjacency, Budget, GaussianEvent, Sampling
from hanse.privacy.examples import ExampleDP

__all__ = [
    "MOST_ROUNDS",
    "Accountant",
    "Adjacency",
    "BinaryTree",
    "Budget",
    "Correlation",
    "ExampleDP",
    "GaussianEvent",
    "Sampling",
    "Toeplitz",
    "accounts_for",
    "cohort_needed",
    "epsilon",
    "installed",
    "noise_multiplier",
    "noise_ratio",
    "renyi",
    "rounds_left",
    "sensitivity",
]
