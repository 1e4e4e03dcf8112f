"""Differential privacy of examples against the server: silos that each add a share of the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from hanse.compression.whole import Whole
from hanse.core.errors import StrategyError
from hanse.core.types import Layer, Summed, Vector
from hanse.layers.clip import STEPS, check_positive
from hanse.layers.distributed_dp import TAIL, check_shares, shares_of
from hanse.privacy.distributed import multiplier
from hanse.privacy.events import GaussianEvent

if TYPE_CHECKING:
    from hanse.core.layout import ParameterLayout
    from hanse.core.types import (
        Aggregate,
        Broadcast,
        ClientContext,
        Memory,
        RoundContext,
        State,
        Update,
    )
    from hanse.selection import Participation

CLIP = "clip"
_MOST_EXAMPLES = 1 << 22  # of a client, that a word has room for; with more it wraps around


@dataclass(frozen=True)
class DistributedExampleDP(Layer):
    """The guarantee that one example can hardly be told from the sum of all silos' gradients.

    Each client adds up its examples' gradients, each clipped to the norm `clip` and rounded to a
    grid of `clip / 2^20` (an `ExampleDP` without noise does it, with `exact=True`), and then its
    share of discrete Gaussian noise. A `SecureSum` adds up what is sent: so there is the noise of
    one for all silos, where each by itself would need as much. It is FedSGD's: one gradient over
    all examples, of a model in double precision, whose sums on that grid are exact.

    Source: Kairouz, Liu and Steinke, ICML 2021, as `DistributedDP`, for sums over examples.

    Attributes:
        clip: the largest norm of an example's gradient.
        noise_multiplier: the noise's standard deviation in the sum, divided by the clip norm.
        survivors: the fewest clients that a sum is opened for; `SecureSum(least=…)` at least.
        colluders: how many of them may tell the server their share of the noise.
        divisor: by what the noisy sum of all clients is divided: a public number, such as the
            number of examples that are expected in all.
        noise: `"seeded"`: drawn from the run's seed, for experiments; `"os"`: from the operating
            system, to protect somebody.

    Raises:
        StrategyError: what cannot be meant.
    """

    clip: float = 1.0
    noise_multiplier: float = 1.0
    survivors: int = 3
    colluders: int = 0
    divisor: float = 100.0
    noise: Literal["seeded", "os"] = "seeded"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_positive("clip", self.clip, "the largest norm of an example's gradient", "1.0")
        check_positive("divisor", self.divisor, "a public number of examples", "1000.0")
        check_shares(self)

    @property
    def share(self) -> int:
        """The sigma of each client's noise, in units of the grid."""
        honest = self.survivors - self.colluders
        return math.ceil(self.noise_multiplier * STEPS / math.sqrt(honest))

    def event(self, participation: Participation, population: int) -> GaussianEvent:
        """What a round releases of each example, to the server as to others.

        Args:
            participation: who takes part; it does not matter.
            population: likewise.
        """
        effective = multiplier(STEPS, self.share, self.survivors - self.colluders)
        return GaussianEvent(effective, adjacency="zero-out-example")

    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """The clip norm, in the model's type of numbers."""
        return {CLIP: torch.tensor(self.clip, dtype=dtype)}

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """From sums of clipped gradients to whole numbers with a share of the noise.

        Raises:
            StrategyError: something else than such a sum.
        """
        sent = update["delta"]
        if set(update) != {"delta"} or sent.space or sent.values.dtype != torch.float64:
            raise StrategyError(
                f"DistributedExampleDP around {', '.join(sorted(update))} in {sent.values.dtype}",
                why="it adds noise to a sum of clipped gradients in whole steps, which double "
                "precision holds exactly, and to nothing else",
                instead="fedsgd_secagg(examples=DistributedExampleDP(…)) with a model in double "
                "precision: model.double()",
            )
        whole = (sent.values * (STEPS / self.clip)).round_()
        drawn = shares_of(whole, self.share, self.noise, client, "distributed-examples")
        space = (Whole(STEPS * _MOST_EXAMPLES + TAIL * self.share),)
        return {"delta": Vector(whole + drawn, torch.ones_like(sent.scale), space)}, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """The unit, and the public divisor."""
        values = total["delta"].values * (self.clip / STEPS / self.divisor)
        return {**total, "delta": Summed(values.to(state[CLIP].dtype))}, state
