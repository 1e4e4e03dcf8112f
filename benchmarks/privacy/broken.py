"""`ClientDP` with a bug, one each: what an audit is there to find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.core.types import Vector
from hanse.layers import ClientDP
from hanse.layers.client_dp import CLIP
from hanse.layers.clip import STEPS, rows_of
from hanse.privacy import GaussianEvent

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Memory, RoundContext, Update
    from hanse.selection import Participation


@dataclass(frozen=True)
class WithoutNoise(ClientDP):
    """The noise is left out."""

    def _noised(self, values: Tensor, sigma: float, name: str, round_: RoundContext) -> Tensor:
        del sigma
        return super()._noised(values, 0.0, name, round_)


@dataclass(frozen=True)
class WithoutClip(ClientDP):
    """The clip is left out; updates are rounded to the grid as they are."""

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Round only."""
        unit = float(broadcast.extra[CLIP]) / STEPS
        rows = rows_of(update, broadcast.round.layout, self.side_scale, "ClientDP", "flat")
        ones = torch.ones(len(client.id), dtype=torch.float64)
        return {name: Vector((row / unit).trunc(), ones) for name, row in rows.items()}, memory


@dataclass(frozen=True)
class NoiseByCohort(ClientDP):
    """The noise is divided by the size of the cohort, and then the sum with it once more."""

    def _noised(self, values: Tensor, sigma: float, name: str, round_: RoundContext) -> Tensor:
        return super()._noised(values, sigma / round_.expected, name, round_)


@dataclass(frozen=True)
class HalfTheNoise(ClientDP):
    """The noise has half the standard deviation that is accounted for."""

    def _noised(self, values: Tensor, sigma: float, name: str, round_: RoundContext) -> Tensor:
        return super()._noised(values, sigma / 2, name, round_)


@dataclass(frozen=True)
class SampledInName(ClientDP):
    """The accountant is told of sampling that does not take place."""

    def event(self, participation: Participation, population: int) -> GaussianEvent:
        """As if each client were drawn with a probability of 5 %."""
        del participation, population
        return GaussianEvent(float(self.noise_multiplier), "poisson", 0.05)


BUGS: dict[str, type[ClientDP]] = {
    "noise left out": WithoutNoise,
    "clip left out": WithoutClip,
    "noise divided by the cohort": NoiseByCohort,
    "sampling in name only, 5 rounds": SampledInName,
    "half the noise": HalfTheNoise,
}
SUBTLE = "half the noise"
"""The one that a thousand canaries do not prove."""
