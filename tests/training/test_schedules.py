"""Schedules against torch's own, and what is no rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch.optim import lr_scheduler

from hanse.core.errors import StrategyError
from hanse.local import SGD, CosineDecay, ExponentialDecay, Schedule, StepDecay

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 12


@pytest.mark.parametrize(
    ("schedule", "torchs"),
    [
        (StepDecay(0.3, factor=0.1, every=4), lambda o: lr_scheduler.StepLR(o, 4, gamma=0.1)),
        (ExponentialDecay(0.3, gamma=0.8), lambda o: lr_scheduler.ExponentialLR(o, 0.8)),
        (
            CosineDecay(0.3, rounds=ROUNDS, final=0.05),
            lambda o: lr_scheduler.CosineAnnealingLR(o, ROUNDS - 1, eta_min=0.05),
        ),
    ],
    ids=["step", "exponential", "cosine"],
)
def test_a_schedule_is_torchs_with_epochs_for_rounds(
    schedule: Schedule, torchs: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]
) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = torchs(optimizer)
    for number in range(1, ROUNDS + 1):
        assert schedule.rate(number) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_a_cosine_stays_at_its_end() -> None:
    schedule = CosineDecay(0.3, rounds=5, final=0.1)
    assert [schedule.rate(number) for number in (1, 3, 5, 50)] == pytest.approx(
        [0.3, 0.2, 0.1, 0.1]
    )


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, True, "0.1", None])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    for make in (SGD, StepDecay, ExponentialDecay, lambda lr: CosineDecay(lr, rounds=3)):
        with pytest.raises(StrategyError, match="positive finite"):
            make(rate)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (StepDecay, {"every": 0}),
        (StepDecay, {"factor": 0.0}),
        (ExponentialDecay, {"gamma": -1.0}),
        (CosineDecay, {"rounds": 0}),
        (CosineDecay, {"rounds": 5, "final": -0.1}),
    ],
)
def test_what_is_no_schedule_is_refused(
    kind: Callable[..., Schedule], arguments: dict[str, float]
) -> None:
    with pytest.raises(StrategyError):
        kind(0.1, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}, {"weight_decay": math.nan}],
    ids=str,
)
def test_what_is_no_coefficient_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(StrategyError, match="at least 0"):
        SGD(**arguments)
