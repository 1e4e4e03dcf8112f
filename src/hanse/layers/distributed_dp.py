"""Differential privacy of clients against the server: each adds a share of the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from hanse.compression.whole import Whole
from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.core.types import Layer, Summed, Vector
from hanse.layers.clip import FLOAT, STEPS, check_positive, dense, is_number, rows_of, whole_numbers
from hanse.layers.weighting import AVERAGED
from hanse.privacy.distributed import multiplier
from hanse.privacy.events import GaussianEvent
from hanse.privacy.noise import discrete_gaussian, operating_system, seeded

if TYPE_CHECKING:
    from torch import Tensor

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
    from hanse.privacy.noise import Words
    from hanse.selection import Participation

CLIP = "clip"
_MOST = 1024.0  # of a noise multiplier: more is a mistake
TAIL = 12  # standard deviations of a share that a word has room for


class Shares(Protocol):
    """What layers whose clients add noise have in common."""

    @property
    def noise_multiplier(self) -> float:
        """Of the sum."""

    @property
    def survivors(self) -> int:
        """The fewest clients in a sum."""

    @property
    def colluders(self) -> int:
        """Of them, whose noise does not count."""

    @property
    def noise(self) -> Literal["seeded", "os"]:
        """Where it is from."""


@dataclass(frozen=True)
class DistributedDP(Layer):
    """The guarantee that a client's update can hardly be told from the sum, not even by the server.

    A client clips all that it sends, as one vector, to the norm `clip`, rounds it to a grid of
    `clip / 2^20`, and adds its share of discrete Gaussian noise. A `SecureSum` adds up what is
    sent. The shares of `survivors - colluders` clients make noise of `noise_multiplier` clip norms;
    with fewer survivors the round comes to nothing, with more there is more noise.

    Neighbouring federations have the same clients, one of whom sends zeros in one of them: who
    takes part is known to the server anyway. So nothing is gained by sampling, and every client's
    part in every round counts. It is the last layer, and there is no `Weighted` beside it.

    Source: Kairouz, Liu and Steinke, "The distributed discrete Gaussian mechanism for federated
    learning with secure aggregation", ICML 2021, algorithms 1 and 2, without the rotation, on a
    grid so fine that rounding towards zero costs nothing.

    Attributes:
        clip: the largest norm of an update.
        noise_multiplier: the noise's standard deviation in the sum, divided by the clip norm.
        survivors: the fewest clients that a sum is opened for; `SecureSum(least=…)` at least.
        colluders: how many of them may tell the server their share of the noise.
        clipping: `"flat"`: one norm for all; `"per-layer"`: each of the L tensors that are sent is
            clipped to `clip / sqrt(L)`.
        side_scale: what the vectors beside `delta` are multiplied by, as in `ClientDP`.
        noise: `"seeded"`: drawn from the run's seed, for experiments; `"os"`: from the operating
            system, to protect somebody.
        mechanism: what shares are drawn from.

    Raises:
        StrategyError: what cannot be meant, and noise whose sum protects less than is claimed.
    """

    clip: float = 0.5
    noise_multiplier: float = 1.1
    survivors: int = 3
    colluders: int = 0
    clipping: Literal["flat", "per-layer"] = "flat"
    side_scale: float = 1.0
    noise: Literal["seeded", "os"] = "seeded"
    mechanism: Literal["discrete-gaussian"] = "discrete-gaussian"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_positive("clip", self.clip, "the largest norm of an update", "0.5")
        check_positive("side_scale", self.side_scale, "a factor", "0.1")
        check_shares(self)
        if str(self.mechanism) != "discrete-gaussian":
            gaussian = "gaussian" in str(self.mechanism)
            raise StrategyError(
                f"DistributedDP(mechanism={self.mechanism!r})",
                why="what is added up in a ring is whole numbers, and sums of rounded Gaussians "
                "are not known to protect as a Gaussian of their variance does"
                if gaussian
                else "there is no such noise",
                instead="'discrete-gaussian', of whose sums it is proved",
            )
        if self.clipping not in ("flat", "per-layer"):
            raise StrategyError(
                f"DistributedDP(clipping={self.clipping!r})",
                why="there is no such way",
                instead="'flat' or 'per-layer'",
            )

    # ------------------------------------------------------------------------- what it promises
    @property
    def share(self) -> int:
        """The sigma of each client's noise, in units of the grid."""
        honest = self.survivors - self.colluders
        return math.ceil(self.noise_multiplier * STEPS / math.sqrt(honest))

    def event(self, participation: Participation, population: int) -> GaussianEvent:
        """What a round releases, to the server as to others, as an accountant reads it.

        Of the sum of shares its Rényi divergences are known (`hanse.privacy.distributed`): the
        event has no smaller ones. Other accountants refuse it.

        Args:
            participation: who takes part; it does not matter.
            population: likewise.
        """
        effective = multiplier(STEPS, self.share, self.survivors - self.colluders)
        return GaussianEvent(effective, adjacency="zero-out")

    # ------------------------------------------------------------------------------- the halves
    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """The clip norm, in the model's type of numbers."""
        return {CLIP: torch.tensor(self.clip, dtype=dtype)}

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Clip, round, and add a share of the noise.

        Raises:
            StrategyError: a vector that cannot be clipped with the others.
        """
        layout = broadcast.round.layout
        rows = rows_of(
            dense(update, drawn=False), layout, self.side_scale, "DistributedDP", self.clipping
        )
        whole = whole_numbers(rows, layout, self.clip / STEPS, self.clipping)
        ones = torch.ones(len(client.id), dtype=FLOAT, device=broadcast.params.device)
        space = (Whole(STEPS + TAIL * self.share),)
        return {
            name: Vector(
                values + shares_of(values, self.share, self.noise, client, name), ones, space
            )
            for name, values in whole.items()
        }, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """The unit, and the mean of what is averaged over the expected cohort."""
        after = {}
        for name, summed in total.items():
            factor = self.clip / STEPS / (1.0 if name == "delta" else self.side_scale)
            factor /= round_.expected if name in AVERAGED else 1.0
            after[name] = Summed((summed.values * factor).to(state[CLIP].dtype))
        return after, state


def check_shares(layer: Shares) -> None:
    """Refuse shares of noise that cannot be meant.

    Raises:
        StrategyError: numbers out of their ranges.
    """
    if not (is_number(layer.noise_multiplier) and 0 < layer.noise_multiplier <= _MOST):
        raise StrategyError(
            f"{type(layer).__name__}(noise_multiplier={layer.noise_multiplier!r})",
            why="it is the standard deviation of the sum's noise in units of the clip norm",
            instead=f"a number above 0, {_MOST:g} at most, such as 1.0; without noise, "
            "SecureSum alone",
        )
    if type(layer.survivors) is not int or layer.survivors < 3:
        raise StrategyError(
            f"{type(layer).__name__}(survivors={layer.survivors!r})",
            why="it is the fewest clients that a secure sum is opened for",
            instead="a whole number of at least 3, and below the size of a cohort by as many "
            "as may drop out",
        )
    if type(layer.colluders) is not int or not 0 <= layer.colluders < layer.survivors:
        raise StrategyError(
            f"{type(layer).__name__}(survivors={layer.survivors}, colluders={layer.colluders!r})",
            why="noise that the server is told protects nobody, so somebody else must add some",
            instead="a whole number from 0 to below `survivors`",
        )
    if layer.noise not in ("seeded", "os"):
        raise StrategyError(
            f"{type(layer).__name__}(noise={layer.noise!r})",
            why="there is no such way",
            instead="'seeded' or 'os'",
        )


def shares_of(values: Tensor, sigma: int, noise: str, client: ClientContext, name: str) -> Tensor:
    """Independent noise for each client, `[K, m]`, in whole numbers."""
    drawn = torch.empty(values.shape, dtype=FLOAT, device="cpu")
    for row in range(len(values)):
        words: Words = operating_system
        if noise == "seeded":
            words = seeded(derive(client.key[row], "distributed-dp", name))
        drawn[row] = torch.from_numpy(discrete_gaussian(sigma, values.shape[1], words))
    return drawn.to(values.device)
