"""Local differential privacy: each client adds its own noise, and nobody need be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from hanse.compression.whole import Whole
from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.core.types import Layer, Summed, Vector
from hanse.layers.clip import FLOAT, STEPS, check_positive, dense, is_number, rows_of, whole_numbers
from hanse.layers.weighting import AVERAGED
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

_MOST = 1024.0  # of a noise multiplier: more is a mistake

_TAIL = 12  # standard deviations that a word has room for, where sums are secure


@dataclass(frozen=True)
class LocalDP(Layer):
    """The guarantee that what a client sends hardly depends on its data, whoever receives it.

    A client clips all that it sends, as one vector, to the norm `clip`, rounds it to a grid of
    `clip / 2^20`, and adds discrete Gaussian noise in every coordinate, before anything leaves it.
    The server divides the sum by the number of clients that it asked. Every client counts the same,
    and a client whose update is not finite sends noise alone, so that its failure is no news. It is
    the last layer.

    Neighbours are two data sets of one client: its clipped updates are up to `2 clip` apart. A
    client releases once in each round that it takes part in; nothing is gained by sampling, since
    the server knows whom it asks. So each client has an epsilon of its own.

    Source: Kasiviswanathan, Lee, Nissim, Raskhodnikova and Smith, "What can we learn privately?",
    SIAM Journal on Computing 2011 (the local model); the Gaussian mechanism on whole numbers is
    that of `hanse.privacy.noise`.

    Attributes:
        clip: the largest norm of an update.
        noise_multiplier: the standard deviation of each client's noise divided by the clip norm; 0:
            clipping alone, which protects nobody.
        side_scale: what the vectors beside `delta` are multiplied by before the clip, as in
            `ClientDP`.
        noise: `"seeded"`: drawn from the run's seed, so that runs repeat bit for bit, for
            experiments; `"os"`: from the operating system, for clients that are to be protected.

    Raises:
        StrategyError: what cannot be meant.
    """

    clip: float = 0.5
    noise_multiplier: float = 4.0
    side_scale: float = 1.0
    noise: Literal["seeded", "os"] = "seeded"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_positive("clip", self.clip, "the largest norm of an update", "0.5")
        check_positive("side_scale", self.side_scale, "a factor", "0.1")
        if not (is_number(self.noise_multiplier) and 0 <= self.noise_multiplier <= _MOST):
            raise StrategyError(
                f"noise_multiplier is {self.noise_multiplier!r}",
                why="it is the standard deviation of a client's noise in units of the clip norm, "
                f"and what is above {_MOST:g} would leave nothing to learn from",
                instead=f"a number from 0 to {_MOST:g}, such as 4.0",
            )
        if self.noise not in ("seeded", "os"):
            raise StrategyError(
                f"LocalDP with noise={self.noise!r}",
                why="there is no such way",
                instead="'seeded' or 'os'",
            )

    # ------------------------------------------------------------------------- what it promises
    @property
    def answers_always(self) -> bool:
        """A client that sent nothing would have told that its training failed."""
        return True

    @property
    def sensitivity(self) -> float:
        """How far two updates of one client are apart at most, whatever its data."""
        return 2 * self.clip

    @property
    def event(self) -> GaussianEvent:
        """What a client releases each time that it takes part, as an accountant reads it.

        Raises:
            ConfigError: there is no noise.
        """
        z = self.noise_multiplier * self.clip / self.sensitivity
        return GaussianEvent(z, adjacency="replace")

    # ------------------------------------------------------------------------------- the halves
    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """The clip norm, in the type that sums are turned back to."""
        del layout
        return {"clip": torch.tensor(self.clip, dtype=dtype)}

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Clip, round and add noise.

        Raises:
            StrategyError: a vector that cannot be clipped with the others.
        """
        layout = broadcast.round.layout
        update = dense(update, drawn=False)
        rows = rows_of(update, layout, self.side_scale, "LocalDP", "flat")
        whole = whole_numbers(rows, layout, self.clip / STEPS, "flat")
        ones = torch.ones(len(client.id), dtype=FLOAT, device=broadcast.params.device)
        space = (Whole(STEPS + math.ceil(_TAIL * self.noise_multiplier * STEPS)),)
        return {
            name: Vector(values + self._noise(values, name, client), ones, space)
            for name, values in whole.items()
        }, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """The unit, and the mean over those that were asked of what is averaged."""
        after = {}
        for name, summed in total.items():
            factor = self.clip / STEPS / (1.0 if name == "delta" else self.side_scale)
            factor /= round_.cohort if name in AVERAGED else 1
            after[name] = Summed((summed.values * factor).to(state["clip"].dtype))
        return after, state

    def _noise(self, values: Tensor, name: str, client: ClientContext) -> Tensor:
        """Whole numbers `[K, m]`, of each client its own."""
        sigma = math.ceil(self.noise_multiplier * STEPS)
        drawn = []
        for key in client.key:
            seed = derive(key, "local-dp", name)
            words = seeded(seed) if self.noise == "seeded" else operating_system
            drawn.append(torch.from_numpy(discrete_gaussian(sigma, values.shape[1], words)))
        return torch.stack(drawn).to(values)
