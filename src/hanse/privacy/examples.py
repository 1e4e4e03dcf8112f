"""Differential privacy of examples: what each client's steps release, and with what noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.privacy.events import GaussianEvent
from hanse.privacy.noise import discrete_gaussian, operating_system, rounded_gaussian
from hanse.privacy.wide_noise import wide_gaussian

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.rng import Key, Keys

STEPS = 1 << 20
"""The clip norm in units of the grid."""
_ALLOWANCE = 1 << 10  # units: a thousandth of the clip norm, for what rounding does to a sum
_MOST = 1024.0  # of a noise multiplier: more is a mistake
_SHORTEST, _LONGEST = 1e-6, 1e6  # of a clip norm: squares of what is beyond vanish, or overflow


@dataclass(frozen=True)
class ExampleDP:
    """The guarantee that an example's part in a client's training can hardly be told.

    In each step the gradient of every example of the batch is clipped to the norm `clip`; they are
    added up, noise is added to the sum, and it is divided by `divisor`. That takes the place of the
    gradient, whatever the algorithm does with it. Batches must be `PoissonSteps`.

    Source: Abadi et al., "Deep learning with differential privacy", CCS 2016, algorithm 1, with
    discrete noise (see `hanse.privacy.noise`) and a public divisor.

    Attributes:
        clip: the largest norm of an example's gradient.
        noise_multiplier: the noise's standard deviation divided by the clip norm; 0: clipping
            alone, which protects nobody.
        divisor: by what the noisy sum is divided: a public number, the same for all clients, such
            as the number of examples that a batch of a usual client has.
        noise: `"seeded"`: drawn from the run's seed, so that runs repeat bit for bit, for
            experiments; `"os"`: from the operating system, for a model that is to protect somebody.
        exact: examples go through the model one at a time, and each is clipped and rounded in whole
            numbers: the bound holds to the last bit, and a step takes several times as long.

    Raises:
        StrategyError: what cannot be meant.
    """

    clip: float = 1.0
    noise_multiplier: float = 1.0
    divisor: float = 10.0
    noise: Literal["seeded", "os"] = "seeded"
    exact: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not (_is_number(self.clip) and _SHORTEST <= self.clip <= _LONGEST):
            raise StrategyError(
                f"ExampleDP(clip={self.clip!r})",
                why="it is the largest norm of an example's gradient",
                instead=f"a number from {_SHORTEST:g} to {_LONGEST:g}, such as 1.0",
            )
        if not (_is_number(self.noise_multiplier) and 0 <= self.noise_multiplier <= _MOST):
            raise StrategyError(
                f"ExampleDP(noise_multiplier={self.noise_multiplier!r})",
                why="it is the noise's standard deviation in units of the clip norm, and what is "
                f"above {_MOST:g} would leave nothing to learn from",
                instead=f"a number from 0 to {_MOST:g}, such as 1.0",
            )
        if not (_is_number(self.divisor) and 0 < self.divisor < math.inf):
            raise StrategyError(
                f"ExampleDP(divisor={self.divisor!r})",
                why="noisy sums are divided by it, and it is public: the number of a client's "
                "examples would be released",
                instead="a number above 0, the same for all clients, such as 10.0",
            )
        if self.noise not in ("seeded", "os"):
            raise StrategyError(
                f"ExampleDP(noise={self.noise!r})",
                why="there is no such noise",
                instead="'seeded' (experiments that repeat) or 'os' (to protect somebody)",
            )
        if not isinstance(self.exact, bool):
            raise StrategyError(
                f"ExampleDP(exact={self.exact!r})",
                why="either examples are clipped in whole numbers or they are not",
                instead="True or False",
            )

    @property
    def unit(self) -> float:
        """The distance between two numbers of the grid, before the division."""
        return self.clip / STEPS

    def sensitivity(self, size: int) -> int:
        """How far one example more or less moves a sum, in units of the grid.

        With `exact` that is the clip norm. Otherwise the sum of `size` numbers is rounded to the
        grid, by which two sums may come apart by one more unit in each coordinate; and what single
        precision does to a sum is allowed for by a thousandth of the clip norm.
        """
        if self.exact:
            return STEPS
        return STEPS + math.isqrt(size) + 1 + _ALLOWANCE

    def sigma(self, size: int) -> int:
        """The noise's standard deviation in units of the grid, for sums of `size` numbers."""
        return math.ceil(float(self.noise_multiplier) * self.sensitivity(size))

    def event(self, rate: float, count: int) -> GaussianEvent:
        """What `count` steps release of a client's examples, as an accountant reads it.

        Args:
            rate: the probability that an example is in a step's batch.
            count: how many steps.

        Raises:
            ConfigError: there is no noise.
        """
        drawn: Literal["none", "poisson"] = "none" if rate == 1 else "poisson"
        z = float(self.noise_multiplier)
        return GaussianEvent(z, drawn, float(rate), adjacency="add-remove-example", count=count)

    def add_noise(self, whole: Tensor, key: Key | Keys) -> None:
        """Add noise to each number of a sum `[P]` in whole units, in double precision."""
        sigma = self.sigma(len(whole))
        drawn: NDArray[np.float64] | NDArray[np.int64]
        if self.noise == "seeded":
            drawn = rounded_gaussian(sigma, len(whole), derive(key, "example-dp"))
        elif self.exact:
            drawn = discrete_gaussian(sigma, len(whole), operating_system)
        else:
            drawn = wide_gaussian(sigma, len(whole), operating_system)
        whole.add_(torch.from_numpy(drawn).to(whole.device))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
