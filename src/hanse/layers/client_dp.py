"""Differential privacy of clients: the whole update is clipped, and the sum is noised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from hanse.compression.whole import Whole
from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.core.types import Layer, Summed, Vector
from hanse.layers.clip import (
    FLOAT,
    STEPS,
    check_positive,
    dense,
    in_full,
    is_number,
    rows_of,
    whole_numbers,
)
from hanse.layers.weighting import AVERAGED
from hanse.privacy.clipping import within
from hanse.privacy.correlated import sensitivity
from hanse.privacy.events import GaussianEvent
from hanse.privacy.noise import discrete_gaussian, operating_system, seeded
from hanse.selection import Full, Poisson, Separated, Uniform

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    from hanse.privacy.correlated import Correlation
    from hanse.privacy.events import Adjacency
    from hanse.privacy.noise import Words
    from hanse.selection import Participation

CLIP = "clip"
WITHIN = "within_clip"
HISTORY = "history"
_MOST = 1024.0  # of a noise multiplier: more is a mistake


@dataclass(frozen=True)
class AdaptiveClip:
    """A clip norm that follows a quantile of the updates' norms.

    After each round `clip = clip * exp(-rate * (share - quantile))`, where `share` is the part of
    the cohort whose update was not longer than the clip norm, with noise.

    Source: Andrew et al., "Differentially private learning with adaptive clipping", NeurIPS 2021,
    algorithm 1, with their rate of 0.2, median, first norm of 0.1, and noise of a twentieth of the
    cohort.

    Attributes:
        start: the first clip norm.
        quantile: the part of the updates that is to be below it, their gamma.
        rate: how fast it moves, their eta.
        count_noise: the standard deviation of the noise on the number of clients below it, their
            sigma_b; `None`: a twentieth of the expected cohort.
    """

    start: float = 0.1
    quantile: float = 0.5
    rate: float = 0.2
    count_noise: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, and a count without noise."""
        check_positive("AdaptiveClip(start=…)", self.start, "a norm", "0.1")
        check_positive("AdaptiveClip(rate=…)", self.rate, "how fast the norm moves", "0.2")
        if not (is_number(self.quantile) and 0 < self.quantile < 1):
            raise StrategyError(
                f"AdaptiveClip(quantile=…) is {self.quantile!r}",
                why="it is the part of the updates that is to be below the clip norm",
                instead="a number between 0 and 1, such as 0.5",
            )
        if self.count_noise is not None:
            name = "AdaptiveClip(count_noise=…)"
            check_positive(name, self.count_noise, "the noise on a count that is released", "2.0")


@dataclass(frozen=True)
class ClientDP(Layer):
    """The guarantee that a client's part in the training can hardly be told from the model.

    A client clips all that it sends, as one vector, to the norm `clip`, and rounds it to a grid of
    `clip / 2^20`. The server adds discrete Gaussian noise to the sum, in whole numbers and in every
    coordinate: then it divides by the *expected* size of a cohort, which is public. Every client
    counts the same, and there is no `Weighted` beside it. Where nobody takes part, noise is what is
    released. It is the last layer: what came behind would undo the bound.

    Vectors beside `delta` are multiplied by `side_scale` before the clip, and divided by it at the
    server; `delta`, and what else the server needs the mean of, becomes a mean, and SCAFFOLD's
    controls remain a sum.

    Source: McMahan et al., "Learning differentially private recurrent language models", ICLR 2018,
    algorithm 1 with the estimator of a fixed denominator, flat or per-layer clipping, and uniform
    weights. The noise is that of `hanse.privacy.noise`.

    Attributes:
        clip: the largest norm of an update, or `AdaptiveClip`.
        noise_multiplier: the noise's standard deviation divided by the clip norm; 0: clipping
            alone, which protects nobody.
        clipping: `"flat"`: one norm for all; `"per-layer"`: each of the L tensors that are sent is
            clipped to `clip / sqrt(L)`.
        side_scale: what the vectors beside `delta` are multiplied by: about the learning rate
            times the local steps for SCAFFOLD, whose controls else take most of the norm.
        noise: `"seeded"`: drawn from the run's seed, so that runs repeat bit for bit, for
            experiments; `"os"`: from the operating system, for a model that is to protect somebody.
        correlation: how the noise of a round depends on that of earlier ones, `Toeplitz(…)` or
            `BinaryTree(…)`, for clients that take turns (`Separated`). It is made of independent
            noise of `noise_multiplier`, and `event` is all rounds' together. The server's state
            holds earlier noise, and is as secret as the updates. `None`: independent noise.

    Raises:
        StrategyError: what cannot be meant.
    """

    clip: float | AdaptiveClip = 0.5
    noise_multiplier: float = 1.1
    clipping: Literal["flat", "per-layer"] = "flat"
    side_scale: float = 1.0
    noise: Literal["seeded", "os"] = "seeded"
    correlation: Correlation | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not isinstance(self.clip, AdaptiveClip):
            check_positive("clip", self.clip, "the largest norm of an update", "0.5")
        check_positive("side_scale", self.side_scale, "a factor", "0.1")
        # With a finer grid and sums over rounds, less has room in 64 bits.
        most = _MOST if self.correlation is None else _MOST / 4
        if not (is_number(self.noise_multiplier) and 0 <= self.noise_multiplier <= most):
            raise StrategyError(
                f"noise_multiplier is {self.noise_multiplier!r}",
                why="it is the noise's standard deviation in units of the clip norm, and what is "
                f"above {most:g} would leave nothing to learn from",
                instead=f"a number from 0 to {most:g}, such as 1.0",
            )
        for name, known in (("clipping", ("flat", "per-layer")), ("noise", ("seeded", "os"))):
            if getattr(self, name) not in known:
                raise StrategyError(
                    f"ClientDP with {name}={getattr(self, name)!r}",
                    why="there is no such way",
                    instead=f"{known[0]!r} or {known[1]!r}",
                )
        if isinstance(self.clip, AdaptiveClip) and self.clipping != "flat":
            raise StrategyError(
                "an adaptive clip norm with clipping='per-layer'",
                why="it follows the norm of whole updates",
                instead="clipping='flat', or a number as the clip norm",
            )
        if isinstance(self.clip, AdaptiveClip) and self.correlation is not None:
            raise StrategyError(
                "an adaptive clip norm with noise that is correlated over rounds",
                why="noise that is taken back in later rounds has the scale of its own round, and "
                "what one client moves over all rounds is known for one clip norm",
                instead="a number as the clip norm, or no correlation",
            )

    # ------------------------------------------------------------------------- what it promises
    @property
    def unconditional(self) -> bool:
        """A cohort without anybody is no secret only if it releases noise like any other."""
        return True

    def sensitivity(self, adjacency: Adjacency, clip: float | None = None) -> float:
        """How far a neighbouring federation moves the sum: the norm of the largest difference.

        Args:
            adjacency: a client more or less moves it by its update, another client in its place by
                two.
            clip: the clip norm of the round, where it is adaptive; `None`: the first one.
        """
        if clip is None:
            clip = self.clip.start if isinstance(self.clip, AdaptiveClip) else self.clip
        return clip if adjacency == "add-remove" else 2 * clip

    def event(self, participation: Participation, population: int) -> GaussianEvent:
        """What a round releases, as an accountant reads it: with the sampling that takes place.

        With a `correlation` it is what all of its rounds release together, without sampling.
        The noisy count of an adaptive clip norm is part of it. What is gained by sampling holds for
        who sees the models and not the cohorts: not against the server.

        Args:
            participation: who takes part.
            population: how many clients there are, a public number.

        Raises:
            StrategyError: nobody knows what this participation protects.
            ConfigError: there is no noise.
        """
        z = float(self.noise_multiplier)
        if self.correlation is not None:
            return self._of_all_rounds(self.correlation, z, participation)
        if type(participation) is Full:
            return GaussianEvent(z)
        if type(participation) is Poisson:
            return GaussianEvent(z, "poisson", float(participation.rate))
        if type(participation) is Uniform:
            # Cohorts of a fixed size are compared with one client replaced, which moves a sum twice
            # as far, so the noise counts half.
            z /= self.sensitivity("replace", 1.0)
            rate = participation.expected(population) / population
            if rate == 1:
                return GaussianEvent(z, adjacency="replace")
            return GaussianEvent(z, "without-replacement", rate, population, "replace")
        raise StrategyError(
            f"ClientDP with participation {participation!r:.80}",
            why="what sampling protects is known for clients that are drawn independently, or "
            "uniformly in a fixed number, and for everybody in every round; cohorts chosen by what "
            "clients report or by who is first protect less",
            instead="Poisson(rate=…), Uniform(count=…) or Full()",
        )

    @staticmethod
    def _of_all_rounds(
        correlation: Correlation, z: float, participation: Participation
    ) -> GaussianEvent:
        if type(participation) is not Separated:
            raise StrategyError(
                f"ClientDP with {correlation!r:.60} and participation {participation!r:.60}",
                why="noise is taken back in later rounds, so what protects a client depends on how "
                "often it takes part and how far apart, and nothing here keeps to any such rule",
                instead="Separated(separation=…), which does; or no correlation",
            )
        return GaussianEvent(z / sensitivity(correlation, participation.separation))

    def multipliers(self, expected: float) -> tuple[float, float]:
        """The noise multipliers of the update and of the count below an adaptive clip norm.

        They add up to `noise_multiplier` as Gaussian releases do: `z^-2 = z_update^-2 + z_count^-2`
        (theorem 1 of Andrew et al.; a client moves the centred count by one half, so `z_count` is
        twice its noise).

        Args:
            expected: the expected size of a cohort.

        Raises:
            StrategyError: the count has too little noise.
        """
        z = float(self.noise_multiplier)
        if not isinstance(self.clip, AdaptiveClip) or not z:
            return z, 0.0
        of_count = self.clip.count_noise
        count = 2 * (expected / 20 if of_count is None else of_count)
        if count <= 1.01 * z:
            raise StrategyError(
                f"an adaptive clip norm with noise of {count / 2:g} on its count, in cohorts of "
                f"{expected:g}",
                why=f"that count alone would cost as much as a whole round with "
                f"noise_multiplier={z:g}, and more",
                instead=f"AdaptiveClip(count_noise={max(z, 0.01):g}) or more, or larger cohorts",
            )
        return (z**-2 - count**-2) ** -0.5, count

    # ------------------------------------------------------------------------------- the halves
    def sends(self, layout: ParameterLayout) -> Mapping[str, int]:
        """Whether the update was below an adaptive clip norm."""
        return {WITHIN: 1} if isinstance(self.clip, AdaptiveClip) else {}

    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """The clip norm, and the noise of earlier rounds as far as it is needed."""
        first = self.clip.start if isinstance(self.clip, AdaptiveClip) else self.clip
        state = {CLIP: torch.tensor(first, dtype=dtype)}
        if self.correlation is not None:
            state[HISTORY] = self.correlation.start(layout.shared)
        return state

    def on_broadcast(self, broadcast: Broadcast, state: State) -> Broadcast:
        """Publish the clip norm."""
        return broadcast.adding(**{CLIP: state[CLIP]})

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Clip and round.

        Raises:
            StrategyError: a vector that cannot be clipped with the others.
        """
        clip, layout = float(broadcast.extra[CLIP]), broadcast.round.layout
        update = dense(update, drawn=self._drawn)
        rows = rows_of(update, layout, self.side_scale, "ClientDP", self.clipping)
        whole = whole_numbers(rows, layout, clip / STEPS, self.clipping)
        ones = torch.ones(len(client.id), dtype=FLOAT, device=broadcast.params.device)
        after = {
            name: Vector(row, ones, (*update[name].space, Whole(STEPS)))
            for name, row in whole.items()
        }
        if isinstance(self.clip, AdaptiveClip):
            # One half above or below zero: whoever is not there counts as neither.
            below = torch.where(within(list(rows.values()), clip), float(STEPS), -float(STEPS))
            after[WITHIN] = Vector(below.to(FLOAT).unsqueeze(1), ones, (Whole(STEPS),))
        return after, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """Noise, in whole units; then the unit, and the mean of what is averaged."""
        if self.correlation is not None:
            return self._correlated(self.correlation, total, state, round_)
        of_update, of_count = self.multipliers(round_.expected)
        unit, after = float(state[CLIP]) / STEPS, {}
        for name, summed in total.items():
            if name == WITHIN:
                continue
            values = self._noised(summed.values, of_update * STEPS, name, round_)
            factor = unit / (1.0 if name == "delta" else self.side_scale)
            factor /= round_.expected if name in AVERAGED else 1.0
            # Coordinates that were drawn are lifted, and multiplied by d/k, behind the noise.
            space = tuple(one for one in summed.space if not isinstance(one, Whole))
            after[name] = Summed((values * factor).to(state[CLIP].dtype), space)
        if not isinstance(self.clip, AdaptiveClip):
            return after, state
        count = self._noised(total[WITHIN].values, of_count * STEPS, WITHIN, round_)
        share = float(count) / (2 * STEPS * round_.expected) + 0.5
        factor = math.exp(-self.clip.rate * (share - self.clip.quantile))
        return after, {CLIP: state[CLIP] * factor}

    def of_nobody(self, total: Aggregate, round_: RoundContext) -> Aggregate:
        """In the spaces that clients would have sent them in: noise must tell nothing."""
        return {
            name: Summed(*in_full(summed.values, summed.space, drawn=self._drawn))
            for name, summed in total.items()
        }

    @property
    def _drawn(self) -> bool:
        """Whether coordinates that are drawn may stay alone: not where noise is of all rounds."""
        return self.correlation is None

    def reported(self, state: State) -> Mapping[str, Tensor]:
        """An adaptive clip norm, as the next round will use it."""
        return {CLIP: state[CLIP]} if isinstance(self.clip, AdaptiveClip) else {}

    def _correlated(
        self, correlation: Correlation, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """The same with noise that depends on earlier rounds', on a finer grid where need be."""
        if total.keys() != {"delta"} or round_.number > correlation.rounds:
            raise StrategyError(
                f"round {round_.number}, of {sorted(total)}, with {correlation!r:.80}",
                why="its noise is made for so many rounds, and for the update alone",
                instead="a correlation of as many rounds as there are, and fedavg or fedprox",
            )
        values, fine = total["delta"].values, correlation.fine
        sigma = self.noise_multiplier * ((STEPS << fine) + correlation.slack(len(values)))
        drawn = self._noised(torch.zeros_like(values), sigma, "delta", round_).to(torch.int64)
        noise, history = correlation.step(state[HISTORY], drawn, round_.number)
        noisy = ((values.to(torch.int64) << fine) + noise).to(FLOAT)
        factor = float(state[CLIP]) / (STEPS << fine) / round_.expected
        delta = Summed((noisy * factor).to(state[CLIP].dtype))
        return {"delta": delta}, {**state, HISTORY: history}

    def _noised(self, values: Tensor, sigma: float, name: str, round_: RoundContext) -> Tensor:
        """A sum of whole numbers `[m]` with independent noise on each, in float64."""
        words: Words = operating_system
        if self.noise == "seeded":
            words = seeded(derive(round_.key, "client-dp", name))
        drawn = torch.from_numpy(discrete_gaussian(math.ceil(sigma), len(values), words))
        return (values.to(torch.int64) + drawn.to(values.device)).to(FLOAT)
