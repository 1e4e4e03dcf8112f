"""Whose update counts how much in the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from hanse.core.errors import StrategyError
from hanse.core.types import Layer, Summed, vector

if TYPE_CHECKING:
    from collections.abc import Mapping

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

WEIGHT = "weight"
AVERAGED = ("delta", "buffers", "gradient", "effective_steps", "train_loss")
"""The vectors of Hanse's own parts whose mean the server needs."""


@dataclass(frozen=True)
class Weighted(Layer):
    """Turn sums into means: each client sends `w_k * vector` and `w_k`, the server divides.

    A vector that is not named here is summed as it is: SCAFFOLD's control variates must not be
    weighted, or the server's would no longer be the mean of the clients'.

    Attributes:
        by: `"examples"` (w_k = n_k, as in FedAvg) or `"uniform"` (w_k = 1).
        vectors: the names of the vectors that are averaged.
    """

    by: Literal["examples", "uniform"] = "examples"
    vectors: tuple[str, ...] = AVERAGED

    def __post_init__(self) -> None:
        """Refuse an unknown weighting."""
        if self.by not in ("examples", "uniform"):
            raise StrategyError(
                f"weighting by {self.by!r}",
                why="there is no such weight",
                instead="'examples' (every example counts the same) or 'uniform' (every client)",
            )

    def sends(self, layout: ParameterLayout) -> Mapping[str, int]:
        """The weight."""
        return {WEIGHT: 1}

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Scale the named vectors, and send the weight beside them.

        Raises:
            StrategyError: another layer has weighted them already.
        """
        if WEIGHT in update:
            raise StrategyError(
                "two Weighted layers in one strategy",
                why="the second weight would take the place of the first",
                instead='one of them: strategy.replace(layers=(Weighted("uniform"),))',
            )
        examples = client.examples
        weight = examples if self.by == "examples" else torch.ones_like(examples)
        scaled = {k: v.scaled(weight) if k in self.vectors else v for k, v in update.items()}
        return {**scaled, WEIGHT: vector(weight.unsqueeze(1))}, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """Divide by the sum of the weights."""
        weight = total[WEIGHT].values
        means = {
            k: Summed(v.values / weight, v.space) if k in self.vectors else v
            for k, v in total.items()
            if k != WEIGHT
        }
        return means, state
