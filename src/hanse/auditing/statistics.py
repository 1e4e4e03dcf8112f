"""What right guesses, and how far scores lie apart, say about epsilon.

Nothing here knows of training: coins and scores go in, a bound and an estimate come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

LEAST = 20  # canaries: fewer can show nothing
_MOST = 50.0  # epsilon is looked for up to here
_EXACT = 1e-6  # and to within this
_Z95 = 1.959964  # of the normal distribution, two-sided


@dataclass(frozen=True)
class Guesses:
    """What was guessed of so many coins, and what that proves.

    Attributes:
        of: how many coins there were.
        made: how many were guessed; the others were left open.
        right: how many guesses were right.
        bound: the lower bound on epsilon.
    """

    of: int
    made: int
    right: int
    bound: float


@dataclass(frozen=True)
class Estimate:
    """A guess at epsilon from how far the scores of canaries lie apart; no bound.

    Attributes:
        epsilon: the estimate.
        low: the lower end of its 95 % interval, as far as the scores are Gaussian.
        high: the upper end.
        separation: how far apart the means of those in and those out are, in pooled deviations.
    """

    epsilon: float
    low: float
    high: float
    separation: float


# --------------------------------------------------------------------------- the one-run audit
def p_value(of: int, made: int, right: int, epsilon: float, delta: float) -> float:
    """How likely so many right guesses are, at most, if the mechanism is (epsilon, delta)-DP.

    `beta + of * delta * max_i (2 / i) P[right > W >= right - i]`, with `beta = P[W >= right]` and W
    binomial over the guesses, each right with probability `1 / (1 + exp(-epsilon))`.

    Source: Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", NeurIPS 2023,
    theorem 5.2 with equal chances of in and out.

    Args:
        of: how many fair coins there were.
        made: how many were guessed, a number that was settled before.
        right: how many guesses were right.
        epsilon: of the hypothesis, 0 or more.
        delta: of the hypothesis, from 0 to below 1.

    Raises:
        ConfigError: numbers that cannot be.
    """
    if not (0 <= right <= made <= of and epsilon >= 0 and 0 <= delta < 1):
        raise ConfigError(
            f"{right} right guesses of {made}, of {of} coins, at epsilon={epsilon!r} and "
            f"delta={delta!r}",
            why="no audit ends like that",
            instead="0 <= right <= made <= of, epsilon of 0 or more, delta from 0 to below 1",
        )
    chances = _binomial(made, epsilon)
    beta = float(chances[right:].sum())
    below = np.cumsum(chances[:right][::-1])  # of right - 1, then of right - 1 or right - 2, …
    alpha = float((below / np.arange(1, right + 1)).max()) if right else 0.0
    return min(beta + 2 * of * delta * alpha, 1.0)


def lower_bound(of: int, made: int, right: int, delta: float, level: float) -> float:
    """The epsilon below which so many right guesses would be less likely than `level`.

    With probability `1 - level` or more, the mechanism has no smaller epsilon at this delta.
    """

    def refuted(epsilon: float) -> bool:
        return p_value(of, made, right, epsilon, delta) < level

    return _largest(refuted, _MOST)


def ways(of: int) -> tuple[tuple[int, int], ...]:
    """How many coins are guessed to be in and to be out: settled before anything is seen.

    - nearly all; three deviations of the number of those in are left open, so that all can be right
    - an eighth each way, for what is half hidden
    - a twentieth each way, for what is nearly hidden
    - a tenth to be in: where few are seen in any round, nothing tells who is out
    """
    nearly = (of - math.ceil(3 * math.sqrt(of))) // 2
    return ((nearly, nearly), (of // 8, of // 8), (of // 20, of // 20), (of // 10, 0))


def best_guesses(
    included: NDArray[np.bool_], scores: NDArray[np.float64], delta: float, confidence: float
) -> Guesses:
    """The best bound by all `ways` of guessing, which holds with the confidence asked for.

    Each way has its part of the chance to err (Bonferroni), so the best of them may be taken.

    Args:
        included: `[m]`, which canaries were in.
        scores: `[m]`, higher for who looks as if it had been in.
        delta: of the claim.
        confidence: that the bound holds, such as 0.95.
    """
    of, order = len(included), np.argsort(-scores, kind="stable")
    found = []
    for into, out in ways(of):
        right = int(included[order[:into]].sum() + (~included[order[of - out :]]).sum())
        level = (1 - confidence) / len(ways(of))
        bound = lower_bound(of, into + out, right, delta, level)
        found.append(Guesses(of, into + out, right, bound))
    return max(found, key=lambda guesses: guesses.bound)


def most_found(of: int, delta: float, confidence: float) -> float:
    """The largest bound that so many canaries can give, if every guess is right."""
    level = (1 - confidence) / len(ways(of))
    return max(lower_bound(of, i + o, i + o, delta, level) for i, o in ways(of))


def _binomial(trials: int, epsilon: float) -> NDArray[np.float64]:
    """The chances of 0 to `trials` successes at `1 / (1 + exp(-epsilon))` each."""
    successes = torch.arange(trials + 1, dtype=torch.float64)
    factorials = torch.lgamma(successes + 1)
    win, lose = -math.log1p(math.exp(-epsilon)), -epsilon - math.log1p(math.exp(-epsilon))
    logs = factorials[-1] - factorials - factorials.flip(0)
    logs = logs + successes * win + (trials - successes) * lose
    chances: NDArray[np.float64] = logs.exp().numpy()
    return chances


# ----------------------------------------------------------------------- the one-shot estimate
def one_shot(
    included: NDArray[np.bool_], scores: NDArray[np.float64], delta: float
) -> Estimate | None:
    """The epsilon of the Gaussian mechanism whose outputs lie as far apart as the scores do.

    Source: Andrew et al., "One-shot empirical privacy estimation for federated learning", ICLR
    2024 (arXiv 2302.03098), algorithm 2, where scores are cosines. Here those in are compared with
    canaries that were out, not with the cosines of random vectors, and one pooled variance is
    taken; dividing by it, the length of what was released cancels out.

    Args:
        included: `[m]`, which canaries were in; some of each.
        scores: `[m]`, the inner product of each canary's direction with what was released.
        delta: of the claim.

    Returns:
        The estimate; `None` where the scores do not differ at all within those in and those out.
    """
    yes, no = scores[included], scores[~included]
    pooled = ((len(yes) - 1) * yes.var(ddof=1) + (len(no) - 1) * no.var(ddof=1)) / (len(scores) - 2)
    if not pooled > 0:
        return None
    apart = float((yes.mean() - no.mean()) / math.sqrt(pooled))
    error = math.sqrt(1 / len(yes) + 1 / len(no) + apart**2 / (2 * len(scores)))
    low, high = apart - _Z95 * error, apart + _Z95 * error
    here, least, most = (gaussian_epsilon(max(x, 0.0), delta) for x in (apart, low, high))
    return Estimate(here, least, most, apart)


def gaussian_epsilon(separation: float, delta: float) -> float:
    """The least epsilon that N(0, 1) and N(separation, 1) have at `delta`; infinite above 1e6.

    Source: Balle and Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018,
    theorem 8: `delta = Phi(mu/2 - eps/mu) - exp(eps) Phi(-mu/2 - eps/mu)`.
    """
    mu = separation
    if mu == 0:
        return 0.0
    if mu > 1e6:
        return math.inf

    def leaks_more(epsilon: float) -> bool:
        one = _normal(mu / 2 - epsilon / mu)
        other = _log_normal(-mu / 2 - epsilon / mu)
        return one - math.exp(min(epsilon + other, 0.0)) > delta

    return _largest(leaks_more, mu**2 / 2 + 40 * mu)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _log_normal(x: float) -> float:
    """The logarithm of the normal distribution at x <= 0, also where it vanishes."""
    return float(torch.special.log_ndtr(torch.tensor(x, dtype=torch.float64)))


def _largest(holds: Callable[[float], bool], limit: float) -> float:
    """The largest number from 0 to `limit` for which something holds that ends to hold once."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, limit
    while high - low > _EXACT * max(low, 1.0):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
