"""Learning rates that change by round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hanse.core.errors import StrategyError

_LARGEST = 3.4e38  # in single precision


@runtime_checkable
class Schedule(Protocol):
    """A rate for each round; rounds count from 1."""

    def rate(self, round_number: int) -> float:
        """The rate of a round."""


@dataclass(frozen=True)
class StepDecay:
    """`lr * factor ** floor((round - 1) / every)`."""

    lr: float
    factor: float = 0.5
    every: int = 10

    def __post_init__(self) -> None:
        """Refuse what is no decay."""
        check_rate(self.lr, "StepDecay(lr=…)")
        check_rate(self.factor, "StepDecay(factor=…)")
        if not is_count(self.every):
            raise StrategyError(
                f"StepDecay(every={self.every!r})",
                why="the rate would fall infinitely often in a round",
                instead="every=10: a fall after every tenth round",
            )

    def rate(self, round_number: int) -> float:
        """The rate of a round."""
        return float(self.lr * self.factor ** ((round_number - 1) // self.every))


@dataclass(frozen=True)
class ExponentialDecay:
    """`lr * gamma ** (round - 1)`."""

    lr: float
    gamma: float = 0.99

    def __post_init__(self) -> None:
        """Refuse what is no rate."""
        check_rate(self.lr, "ExponentialDecay(lr=…)")
        check_rate(self.gamma, "ExponentialDecay(gamma=…)")

    def rate(self, round_number: int) -> float:
        """The rate of a round."""
        return float(self.lr * self.gamma ** (round_number - 1))


@dataclass(frozen=True)
class CosineDecay:
    """Half a cosine from `lr` in round 1 to `final` in round `rounds` and after.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts.
    """

    lr: float
    rounds: int
    final: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no rate."""
        check_rate(self.lr, "CosineDecay(lr=…)")
        check_coefficient(self.final, "CosineDecay(final=…)")
        if not is_count(self.rounds):
            raise StrategyError(
                f"CosineDecay(rounds={self.rounds!r})",
                why="the cosine needs at least one round to fall in",
                instead="rounds = the number of rounds of your run",
            )

    def rate(self, round_number: int) -> float:
        """The rate of a round."""
        progress = min((round_number - 1) / max(self.rounds - 1, 1), 1.0)
        return self.final + (self.lr - self.final) * (1 + math.cos(math.pi * progress)) / 2


def rate_of(lr: float | Schedule, round_number: int) -> float:
    """The rate of a round, of a number or a schedule."""
    # Asked of every block: to look for a protocol's methods takes longer than to look at a type.
    return float(lr) if isinstance(lr, int | float) else lr.rate(round_number)


def check_rate(value: object, where: str) -> None:
    """Refuse a rate that is not a positive finite number.

    Raises:
        StrategyError: `value` is zero, negative, infinite, NaN, or neither number nor schedule.
    """
    if isinstance(value, Schedule) and not isinstance(value, type):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LARGEST:
        raise StrategyError(
            f"{where} is {value!r}",
            why="a rate must be a positive finite number in single precision: at zero nothing "
            "is learned",
            instead="a number such as 0.1, or a schedule such as CosineDecay(lr=0.1, rounds=100)",
        )


def is_count(value: object) -> bool:
    """Whether a value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def check_coefficient(value: float, where: str, *, below: float = math.inf) -> None:
    """Refuse a coefficient outside `[0, below)`.

    Raises:
        StrategyError: `value` is negative, too large, NaN, or no number at all.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < below:
        limit = "" if math.isinf(below) else f" and below {below:g}"
        raise StrategyError(
            f"{where} is {value!r}",
            why=f"it must be a number of at least 0{limit}",
            instead=f"for example {0.9 if below <= 1 else 0.01}, or 0 to leave it out",
        )
