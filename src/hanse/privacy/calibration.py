"""How much noise, how many rounds, how many clients: accounting, asked the other way round."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hanse.core.errors import ConfigError
from hanse.privacy.accounting import COARSE, FINE, epsilon
from hanse.privacy.events import Budget, GaussianEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hanse.privacy.accounting import Accountant
    from hanse.privacy.events import Adjacency, Sampling

MOST_ROUNDS = 1_000_000
"""As far as rounds are counted."""

_STEP = 1e-4  # noise multipliers are given to so much
_LEAST, _MOST = 0.01, 1e6  # and looked for between these


def noise_multiplier(
    epsilon: float,
    delta: float,
    rounds: int,
    rate: float = 1.0,
    sampling: Sampling = "poisson",
    accountant: Accountant = "pld",
    *,
    population: int = 0,
) -> float:
    """The least noise for a guarantee, as a multiple of the sensitivity.

    With `"pld"` it is looked for on a coarse grid, from the answer of `"rdp"` on, and then on the
    fine one: seconds, where `"rdp"` takes a fraction of one.

    Args:
        epsilon: the most that all rounds together may cost, above 0.
        delta: the probability that the bound does not hold.
        rounds: how many, at least 1.
        rate: the probability that a client is in a round's cohort; 1 without sampling.
        sampling: how cohorts are drawn. `"without-replacement"` is accounted for where a client is
            replaced, so the answer is relative to the sensitivity under that, for clipped sums 2C.
        accountant: whose arithmetic.
        population: how many clients there are, for `"without-replacement"`.

    Returns:
        The multiplier, rounded up to a ten-thousandth: with it, the accountant's epsilon is at most
        the one asked for.

    Raises:
        ConfigError: what cannot be, and an epsilon that no noise between 0.01 and 1e6 gives.
    """
    budget = Budget(epsilon, delta)

    def event(noise: float) -> GaussianEvent:
        adjacency: Adjacency = "replace" if sampling == "without-replacement" else "add-remove"
        drawn: Sampling = "none" if rate == 1 else sampling
        among = population if drawn == "without-replacement" else 0
        return GaussianEvent(noise, drawn, rate, among, adjacency, rounds)

    if accountant != "pld":
        return _least_noise(lambda z: _cost([event(z)], budget.delta, accountant), epsilon)
    _cost([event(1.0)], budget.delta, "pld")  # what it has no proof for is said in its name
    start = _least_noise(lambda z: _cost([event(z)], budget.delta, "rdp"), epsilon)
    for grid in (COARSE, FINE):
        start = _least_noise(
            lambda z, grid=grid: _cost([event(z)], budget.delta, "pld", grid=grid),  # type: ignore[misc]
            epsilon,
            start,
        )
    return start


def rounds_left(budget: Budget, spent_events: Sequence[GaussianEvent], event: GaussianEvent) -> int:
    """How often an event may still happen after what was spent; at most `MOST_ROUNDS`.

    Args:
        budget: what may be spent, and whose arithmetic decides.
        spent_events: what was released already; may be empty.
        event: what is to be released. If its count is above 1, so many at a time.

    Returns:
        How many times; 0 where the budget is spent.

    Raises:
        ConfigError: as `epsilon`.
    """

    def fits(accountant: Accountant, grid: float = FINE) -> Callable[[int], bool]:
        def answer(times: int) -> bool:
            more = [replace(event, count=event.count * times)] if times else []
            spent = _cost([*spent_events, *more], budget.delta, accountant, grid=grid)
            return spent <= budget.epsilon

        return answer

    _cost([*spent_events, event], budget.delta, budget.accountant, grid=COARSE)  # refused by name
    found = _most(fits("rdp"), 0)
    if budget.accountant == "pld":  # never less than by RDP, on the fine grid than on the coarse
        found = _most(fits("pld", COARSE), found)
        found = _most(fits("pld"), found)
    return found


def noise_ratio(noise_multiplier: float, parameters: int, cohort: float) -> float:
    """The norm of the noise in a mean update, divided by the most that one update may have, C.

    The sum of clipped updates gets noise of standard deviation z C in each of d coordinates, and
    is divided by the expected cohort q N: a norm of about sqrt(d) z C / (q N). At 1 the noise is as
    long as the longest mean that is possible; updates of different clients partly cancel, so a
    ratio well below 1 is needed for the mean to be seen in one round. What survives of it over
    many rounds, with a small learning rate, is more.

    Args:
        noise_multiplier: z, relative to C.
        parameters: d, the coordinates that get noise.
        cohort: q N, the expected number of clients in a round.

    Raises:
        ConfigError: where a number is not above 0.
    """
    _check_positive(noise_multiplier=noise_multiplier, parameters=parameters, cohort=cohort)
    return math.sqrt(parameters) * noise_multiplier / cohort


def cohort_needed(noise_multiplier: float, parameters: int, ratio: float = 1.0) -> int:
    """How many clients a round needs so that `noise_ratio` is at most `ratio`.

    Raises:
        ConfigError: where a number is not above 0.
    """
    _check_positive(noise_multiplier=noise_multiplier, parameters=parameters, ratio=ratio)
    return math.ceil(math.sqrt(parameters) * noise_multiplier / ratio)


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ConfigError(
                f"{name}={value!r}",
                why="noise is compared with updates by numbers above 0",
                instead=f"a number above 0, such as {name}=100",
            )


# Under another name, since `epsilon` is what the arguments above are called.
_cost = epsilon


def _least_noise(cost: Callable[[float], float], target: float, start: float = 1.0) -> float:
    """The least multiple of a ten-thousandth whose cost is at most `target`.

    `cost` falls with noise, and its logarithm is almost a line over the logarithm of the noise: so
    secants find the place in few steps, and bisection where they do not.
    """
    low, high = 0, _MOST / _STEP  # in steps: `low` costs too much, `high` little enough
    slope = -2.0  # of the logarithms; refined below
    at = round(start / _STEP)
    before: tuple[float, float] | None = None
    while high - low > 1:
        here = max(cost(at * _STEP), 1e-12)
        if here <= target:
            high = at
        else:
            low = at
        if before is not None and before[0] != at and here != before[1]:
            slope = min(math.log(here / before[1]) / math.log(at / before[0]), -0.2)
        before = (at, here)
        # A step more than the line says, towards the side that is not known yet.
        guess = at * math.exp(math.log(target / here) / slope)
        guess = math.floor(guess) if here <= target else math.ceil(guess)
        at = int(min(max(guess, at // 4, low + 1), at * 4, high - 1))
        if high == _MOST / _STEP and at >= high - 1:
            raise _out_of_reach(target, f"even a noise multiplier of {_MOST:g} costs more")
        if high * _STEP <= _LEAST:
            return _LEAST
    return round(high * _STEP, 4)


def _out_of_reach(target: float, why: str) -> ConfigError:
    return ConfigError(
        f"epsilon={target!r}",
        why=why,
        instead="a larger epsilon or delta, fewer rounds, or a smaller rate",
    )


def _most(fits: Callable[[int], bool], known: int) -> int:
    """The most that fits, by doubling steps from `known`, which fits or is 0, and bisection."""
    low, step = known, max(known // 64, 1)
    high = MOST_ROUNDS + 1
    while low + step < high:
        if not fits(low + step):
            high = low + step
            break
        low, step = low + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return min(low, MOST_ROUNDS)
