"""A proximal term's mu that follows the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.core.errors import StrategyError
from hanse.local.schedules import check_coefficient, check_rate, is_count

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.types import State


@dataclass(frozen=True)
class AdaptiveMu:
    """Larger by `step` after each rise of the loss, smaller by `step` after `patience` falls.

    The loss is the cohort's mean training loss, compared with the round before; `patience` counts
    falls in a row, and starts anew after a rise and after each time that mu became smaller. mu does
    not fall below zero. A cohort that is a small part of the population makes the loss jump, and
    mu with it.

    Source: Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, section
    5.3.2, where steps are 0.1, the patience 5, and mu starts at 0 or 1.
    """

    start: float = 0.1
    step: float = 0.1
    patience: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_coefficient(self.start, "AdaptiveMu(start=…)")
        check_rate(self.step, "AdaptiveMu(step=…)")
        if not is_count(self.patience):
            raise StrategyError(
                f"AdaptiveMu(patience={self.patience!r})",
                why="it is how many falls of the loss in a row make mu smaller",
                instead="a whole number of at least 1, such as patience=5",
            )

    def init(self) -> State:
        """The first mu; no loss yet, which NaN stands for: nothing is above or below it."""
        return {
            "mu": torch.tensor(self.start, dtype=torch.float64),
            "loss": torch.tensor(torch.nan, dtype=torch.float64),
            "falls": torch.tensor(0),
        }

    def after(self, loss: Tensor, state: State) -> State:
        """The state after a round with this loss (0-d)."""
        loss = loss.to(state["loss"])
        falls = torch.where(loss < state["loss"], state["falls"] + 1, 0)
        patient = falls >= self.patience
        change = (loss > state["loss"]).to(loss) - patient.to(loss)
        mu = (state["mu"] + self.step * change).clamp(min=0.0)
        return {"mu": mu, "loss": loss, "falls": torch.where(patient, 0, falls)}
