"""An accountant by hand, for events without sampling: zero-concentrated differential privacy.

Bun and Steinke, "Concentrated Differential Privacy", TCC 2016: a Gaussian release with noise
multiplier z is rho-zCDP with rho = 1 / (2 z^2) (proposition 1.6), rho adds up (lemma 1.7), and
epsilon = rho + 2 sqrt(rho ln(1 / delta)) (proposition 1.3).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hanse.privacy.events import GaussianEvent


def zcdp(events: Sequence[GaussianEvent], delta: float, accountant: str = "rdp") -> float:
    assert all(event.sampling == "none" for event in events)
    rho = sum(event.count / (2 * event.noise_multiplier**2) for event in events)
    return epsilon_of(rho, delta)


def epsilon_of(rho: float, delta: float) -> float:
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def rounds_within(epsilon: float, delta: float, noise_multiplier: float) -> int:
    """How many releases fit a budget: the equation solved for rho."""
    log = math.log(1 / delta)
    rho = (math.sqrt(log + epsilon) - math.sqrt(log)) ** 2
    return math.floor(2 * rho * noise_multiplier**2)
