"""Noise that is correlated over rounds, so that it cancels in sums over many of them.

A model is the sum of all rounds' updates. Independent noise on each round adds up in it; noise that
is taken back in part later does not, at the same privacy. What is released in round t is the
round's sum plus `w_t`, where `w = C^-1 z`: z is independent Gaussian noise and C a lower triangular
matrix. That is a function of `C x + z`, so it costs what one Gaussian release of `C x` costs: the
noise multiplier divided by how far one client moves `C x`, over all rounds that it takes part in.

**Everything is whole numbers.** What a client sends is whole numbers, z is discrete Gaussian.

- `BinaryTree`: the rows of C are sums over the nodes of a binary tree, so `C x + z` is whole, and
  what is released is computed from it without rounding.
- `Toeplitz`: C has fractions. Written as a recursion, round t releases
  `x_t + z_t - round(sum_{k>=1} c_k w_{t-k})`. Given what was released before, this is a whole
  number that depends on x, plus discrete Gaussian noise; a neighbour moves that number by what it
  moves row t of `C x` by, and by one more at most for the rounding. So the releases are an adaptive
  sequence of discrete Gaussian mechanisms whose squared sensitivities add up to at most
  `(sensitivity + slack)^2`, and Rényi divergences of such a sequence add up (Feldman & Zrnic,
  "Individual privacy accounting via a Rényi filter", NeurIPS 2021). The grid is made finer by 2^8,
  and the noise larger by the slack, so that the rounding is paid for.

Sources: Kairouz, McMahan, Song, Thakkar, Thakurta and Xu, "Practical and private (deep) learning
without sampling or shuffling", ICML 2021 (the tree); Fichtenberger, Henzinger and Upadhyay,
"Constant matters: fine-grained error bound on differentially private continual observation", ICML
2023 (the square root); Choquette-Choo, McMahan, Rush and Thakurta, "Multi-epoch matrix
factorization mechanisms for private machine learning", ICML 2023 (several participations, and that
such releases may be adaptive); Kalinin and Lampert, "Banded square root matrix factorization for
differentially private model training", NeurIPS 2024 (bands, and the sensitivity of both).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from hanse.core.errors import StrategyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

MOST_ROUNDS = 1 << 14
"""More would not fit into 64 bits."""

_FINE = 8  # bits below a unit, where something is rounded
_BITS = 14  # of a coefficient behind the point


class Correlation(Protocol):
    """How the noise of a round depends on that of earlier rounds."""

    @property
    def rounds(self) -> int:
        """For how many rounds it is made; all of them are paid for together."""

    @property
    def fine(self) -> int:
        """By how many bits the grid of the noise is finer than that of the updates."""

    def slack(self, size: int) -> float:
        """What rounding adds to the sensitivity of `size` coordinates, in steps of the fine grid.

        Divided by the sensitivity, which is at least one update, it is what noise grows by.
        """

    def start(self, size: int) -> Tensor:
        """The history before round 1: int64, a row of `size` for each vector that is kept."""

    def step(self, history: Tensor, drawn: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """The noise `[size]` of a round, and the history after it.

        Args:
            history: as the round before left it.
            drawn: `[size]` int64, independent noise.
            number: of the round, from 1.
        """

    def rows(self, separation: int) -> Iterator[NDArray[np.float64]]:
        """For each round how far one client moves its row of `C x`, in clip norms.

        Args:
            separation: a client takes part once in so many rounds.

        Yields:
            `[G]`: by the round, from 0, in which the client takes part first.
        """


@dataclass(frozen=True)
class Toeplitz:
    """The square root of the matrix of prefix sums: the least noise that is known in closed form.

    `C` has `c_k = binomial(2k, k) / 4^k` on its k-th subdiagonal (rounded down to 14 binary digits,
    with which everything is computed and accounted for).

    Attributes:
        rounds: for how many rounds it is made.
        bands: how many diagonals C has; `None`: all. The server keeps `bands - 1` vectors of the
            model's size, of 8 bytes a number, in memory and in each checkpoint. With several
            turns a client, as many bands as its separation have the least noise; 1: independent.

    Raises:
        StrategyError: no number of rounds or bands.
    """

    rounds: int
    bands: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no number of rounds."""
        _check_rounds("Toeplitz", self.rounds)
        if self.bands is not None:
            _check_whole("Toeplitz(bands=…)", self.bands, self.rounds, "diagonals of its matrix")

    @property
    def fine(self) -> int:
        """The earlier noise is multiplied by fractions and rounded."""
        return _FINE

    def slack(self, size: int) -> float:
        """One step in each coordinate of each round."""
        return 0.0 if self.bands == 1 else math.sqrt(self.rounds * size)

    def coefficients(self) -> NDArray[np.int64]:
        """The first column of C up to the last band, in units of 2^-14; it never rises."""
        k = np.arange(1, self.bands or self.rounds)
        exact = np.cumprod(np.concatenate([np.ones(1), (2 * k - 1) / (2 * k)]))
        whole: NDArray[np.int64] = np.floor(exact * (1 << _BITS)).astype(np.int64)
        return whole

    def start(self, size: int) -> Tensor:
        """No noise yet."""
        return torch.zeros((0, size), dtype=torch.int64)

    def step(self, history: Tensor, drawn: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """`w_t = z_t - round(sum_{k>=1} c_k w_{t-k})`; the history is the last w, oldest first."""
        del number  # no row is left out, so the history says it
        earlier = torch.full_like(drawn, 1 << (_BITS - 1))  # half a step: rounds to the nearest
        for back, factor in enumerate(self.coefficients()[1 : len(history) + 1], start=1):
            earlier.add_(history[-back], alpha=int(factor))
        noise = drawn - (earlier >> _BITS)
        kept = (self.bands or self.rounds) - 1
        whole = torch.cat([history, noise.unsqueeze(0)])
        return noise, whole[len(whole) - min(kept, len(whole)) :].clone()

    def rows(self, separation: int) -> Iterator[NDArray[np.float64]]:
        """A client that comes first in round g has moved row t by `sum_i c_(t - g - i b)`."""
        first, column = self.coefficients(), np.zeros(self.rounds, np.int64)
        column[: len(first)] = first
        for place in range(separation, self.rounds, separation):
            column[place : place + len(first)] += first[: self.rounds - place]
        groups = min(separation, self.rounds)
        padded = np.concatenate([np.zeros(groups), column / (1 << _BITS)])
        for number in range(1, self.rounds + 1):
            yield padded[number : number + groups][::-1]


@dataclass(frozen=True)
class BinaryTree:
    """Binary tree aggregation: noise on sums over 1, 2, 4, … rounds, of which prefixes are made.

    In round t, which is `2^l` times an odd number, the sum over the last `2^l` rounds gets its
    noise, and the noise of the smaller sums within it is taken back. The server keeps one vector
    for each level, `log2(rounds) + 1`. More noise than `Toeplitz`, and less to keep.

    Attributes:
        rounds: for how many rounds it is made.

    Raises:
        StrategyError: no number of rounds.
    """

    rounds: int

    def __post_init__(self) -> None:
        """Refuse what is no number of rounds."""
        _check_rounds("BinaryTree", self.rounds)

    @property
    def fine(self) -> int:
        """Nothing is rounded."""
        return 0

    def slack(self, size: int) -> float:
        """Nothing is rounded."""
        del size
        return 0.0

    def start(self, size: int) -> Tensor:
        """No noise at any level."""
        return torch.zeros((self.rounds.bit_length(), size), dtype=torch.int64)

    def step(self, history: Tensor, drawn: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """New noise at the level that is complete, less that of the levels below."""
        level = _level(number)
        after = history.clone()
        after[level] = drawn  # the levels below are written again before they are read
        return drawn - history[:level].sum(dim=0), after

    def rows(self, separation: int) -> Iterator[NDArray[np.float64]]:
        """How many times a client takes part in the rounds whose sum is noised."""
        first = np.arange(min(separation, self.rounds))
        for number in range(1, self.rounds + 1):
            begin = number - (1 << _level(number))
            before = np.maximum(-((first - begin) // separation), 0)  # turns before `begin`
            until = np.maximum(-((first - number) // separation), 0)
            yield (until - before).astype(np.float64)


def increments(correlation: Correlation, separation: int, first: int = 0) -> NDArray[np.float64]:
    """What each round adds to the squared sensitivity of all that is released, in clip norms.

    The sums of the first n of them are the largest squared norm, over all clients, of what a client
    has moved in n rounds; all patterns of participation are gone through.

    Args:
        correlation: of the noise.
        separation: a client takes part once in so many rounds, at most.
        first: rounds up to this one are left out: what is released by going on from there.

    Returns:
        `[rounds - first]`, none below zero.
    """
    moved, largest, found = np.zeros(min(separation, correlation.rounds)), 0.0, []
    for number, row in enumerate(correlation.rows(separation), start=1):
        if number > first:
            moved += row**2
            found.append(float(moved.max()) - largest)
            largest = float(moved.max())
    return np.array(found)


def sensitivity(correlation: Correlation, separation: int) -> float:
    """How far one client moves `C x` in all rounds together, in clip norms.

    For columns that never rise it is the norm of the sum of the first one and every
    `separation`-th after it (theorem 2 of Kalinin & Lampert).

    Args:
        correlation: of the noise.
        separation: a client takes part once in so many rounds, at most.
    """
    return math.sqrt(float(increments(correlation, separation).sum()))


def _level(number: int) -> int:
    return (number & -number).bit_length() - 1


def _check_rounds(name: str, rounds: object) -> None:
    _check_whole(f"{name}(rounds=…)", rounds, MOST_ROUNDS, "rounds that its noise is made for")


def _check_whole(name: str, value: object, most: int, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise StrategyError(
            f"{name} is {value!r}",
            why=f"it is a number of {what}, all of which are accounted for together",
            instead=f"a whole number from 1 to {most}",
        )
