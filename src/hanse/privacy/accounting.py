"""What releases cost together: epsilon for a delta, by the accountant that is asked for.

Every accountant here proves an upper bound on epsilon, or computes one numerically with its errors
added. Approximations by a central limit theorem (Gaussian differential privacy's) are not among
them: they are wrong in both directions, by a factor of more than 1.5 for common settings.

**Discrete noise.** A layer that adds discrete Gaussian noise to whole numbers is accounted for as
a `GaussianEvent` of the same standard deviation and sensitivity, both in steps of the lattice:

- without sampling, its Rényi divergence of every order is at most that of the continuous one
  (Canonne, Kamath & Steinke, *The Discrete Gaussian for Differential Privacy*, NeurIPS 2020,
  theorem 14 and proposition 5), so every bound of `"rdp"` holds;
- with Poisson sampling, the moments of whole orders are the same numbers, since the binomial sum
  of Mironov, Talwar & Zhang (2019, section 3.3) has only shifts by whole steps in it. For orders
  between whole ones, nothing is claimed of the discrete noise;
- by `"pld"` and by Opacus's accountants, the number is that of the continuous Gaussian. No theorem
  says that it bounds the discrete one as well, though on a lattice that is fine beside the noise
  they cannot be told apart. Who needs a proof takes `"rdp"`.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from logging import ERROR, getLogger
from typing import TYPE_CHECKING, Any, Literal, get_args

from hanse.core.errors import ConfigError, did_you_mean
from hanse.privacy.events import GaussianEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Accountant = Literal["rdp", "pld", "opacus-rdp", "opacus-prv"]
"""Whose arithmetic: `"rdp"` and `"pld"` are dp-accounting's, the others Opacus's."""

FINE, COARSE = 1e-4, 1e-3
"""Grids of privacy losses: the one that results are given on, and one to search on, ten times as
fast. Both round upwards, so both give upper bounds."""

_MOST_CELLS = 2e6  # of a grid: it is made coarser, and stays an upper bound, before it is longer
_PACKAGES = {"rdp": "dp_accounting", "pld": "dp_accounting"}
Events = tuple[GaussianEvent, ...]


def epsilon(
    events: Sequence[GaussianEvent],
    delta: float,
    accountant: Accountant = "pld",
    *,
    grid: float = FINE,
) -> float:
    """An upper bound on what all events cost together, in any order and chosen adaptively.

    Results are remembered, and so is what one event costs: asking again with one more round is
    cheap with `"rdp"`, and takes a convolution with `"pld"`.

    Args:
        events: what is released; they may differ in noise and sampling. None cost nothing.
        delta: the probability that the bound does not hold, above 0 and below 1.
        accountant: `"rdp"`: Rényi divergences (Mironov, *Rényi Differential Privacy*, CSF 2017;
            sampled: Mironov, Talwar & Zhang 2019; without replacement: Wang, Balle &
            Kasiviswanathan, AISTATS 2019), turned into epsilon as by Canonne, Kamath & Steinke
            (2020, proposition 12). `"pld"`: privacy losses on a grid (Doroshenko et al.,
            *Connect the Dots*, PoPETs 2022): tight. `"opacus-rdp"` and `"opacus-prv"` (Gopi, Lee &
            Wutschitz, NeurIPS 2021): Opacus's, to compare with; they take a package that Hanse
            does not install.
        grid: the distance between privacy losses of `"pld"`, above 0. It is made coarser where
            noise is so small that the grid would not fit into memory.

    Raises:
        ConfigError: a delta that is no probability; an accountant that is unknown or not
            installed; events that it has no proof for, or of two adjacencies; a delta so small
            that the accountant has no finite bound.
    """
    if not 0 < delta < 1:
        raise ConfigError(
            f"delta={delta!r}",
            why="it is the probability that the bound does not hold",
            instead="a number above 0 and well below 1 / clients, such as 1e-5",
        )
    if not 0 < grid < math.inf:
        raise ConfigError(
            f"a grid of {grid!r}",
            why="privacy losses are rounded to its multiples",
            instead=f"a number above 0, such as {FINE:g}",
        )
    _check_installed(accountant)
    kinds = _merged(events)
    if not kinds:
        return 0.0
    for event in kinds:
        _check(event, accountant)
    found = _epsilon(kinds, float(delta), accountant, float(grid))
    if not math.isfinite(found):
        raise ConfigError(
            f"no finite epsilon at delta={delta:g} by the accountant {accountant!r}",
            why="so small a probability is lost in the rounding of its arithmetic",
            instead="a larger delta, or more noise",
        )
    return found


def installed() -> tuple[Accountant, ...]:
    """The accountants that can be asked here, in the order in which they are listed."""
    names: tuple[Accountant, ...] = get_args(Accountant)
    return tuple(name for name in names if find_spec(_PACKAGES.get(name, "opacus")) is not None)


def renyi(events: Sequence[GaussianEvent]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Orders, and a bound on the Rényi divergence of each, in nats, for all events together.

    For conversions of one's own, such as to zero-concentrated differential privacy. An order where
    the sum for fractional orders does not converge has an infinite bound.

    Raises:
        ConfigError: as `epsilon` with `"rdp"`.
    """
    _check_installed("rdp")
    kinds = _merged(events)
    for event in kinds:
        _check(event, "rdp")
    orders, _ = _rdp_of_one(GaussianEvent(1.0))
    return orders, _rdp(kinds)


def accounts_for(event: GaussianEvent, accountant: Accountant) -> bool:
    """Whether an accountant has a proof for an event."""
    try:
        _check(event, accountant)
    except ConfigError:
        return False
    return True


# --------------------------------------------------------------------------- what is refused
def _check_installed(accountant: str) -> None:
    names = get_args(Accountant)
    if accountant not in names:
        raise ConfigError(
            f"the accountant {accountant!r}",
            why="there is none of this name that proves a bound",
            instead=did_you_mean(str(accountant), names),
        )
    package = _PACKAGES.get(accountant, "opacus")
    try:
        there = find_spec(package) is not None
    except ValueError:  # a module that was put in its place and has no spec
        there = False
    if not there:
        extra = "'hanse[privacy]'" if package == "dp_accounting" else "opacus"
        raise ConfigError(
            f"the accountant {accountant!r}",
            why=f"the package {package.replace('_', '-')} is not installed",
            instead=f"pip install {extra}",
        )


def _check(event: GaussianEvent, accountant: Accountant) -> None:
    """Refuse what an accountant has no proof for, or would read in another sense."""
    drawn, neighbours = event.sampling, event.adjacency
    if drawn == "without-replacement" and accountant != "rdp":
        raise ConfigError(
            f"cohorts drawn without replacement, accounted for by {accountant!r}",
            why="its sampling is Poisson's, where each client is drawn or not by itself",
            instead='accountant="rdp" with adjacency="replace", or draw by Poisson sampling',
        )
    if drawn == "without-replacement" and neighbours != "replace":
        raise ConfigError(
            "cohorts drawn without replacement, for neighbours by add-remove",
            why="the bound is proved where a client is replaced: the number of clients is fixed",
            instead='adjacency="replace", with the noise multiplier relative to the sensitivity '
            "under it (for sums clipped to C that is 2C, so half the multiplier)",
        )
    if drawn == "poisson" and event.rate < 1 and neighbours == "replace":
        raise ConfigError(
            'Poisson sampling with adjacency="replace"',
            why="what is gained by sampling is proved here for neighbours by add-remove",
            instead='adjacency="add-remove", with the noise multiplier relative to the sensitivity '
            "under it (for sums clipped to C that is C, so twice the multiplier)",
        )
    if neighbours.startswith("zero-out") and drawn != "none":
        raise ConfigError(
            f"sampling {drawn!r} with noise that clients add together",
            why="the server, against whom it protects, knows who is in a cohort",
            instead='sampling="none"',
        )
    if neighbours.startswith("zero-out") and accountant != "rdp":
        raise ConfigError(
            f"noise that clients add together, accounted for by {accountant!r}",
            why="of sums of discrete Gaussians bounds of Rényi divergences are proved, no others",
            instead='accountant="rdp"; a ledger for such runs is made with `--accountant rdp`',
        )
    if neighbours == "replace" and accountant.startswith("opacus"):
        raise ConfigError(
            f'adjacency="replace", accounted for by {accountant!r}',
            why="Opacus accounts for neighbours by add-remove",
            instead='accountant="rdp" or "pld"',
        )


def _merged(events: Sequence[GaussianEvent]) -> Events:
    """Events of the same kind as one with a count, in an order that does not depend on theirs."""
    if not isinstance(events, Sequence) or not all(isinstance(e, GaussianEvent) for e in events):
        raise ConfigError(
            f"events of the kind {type(events).__name__}",
            why="a sequence of what is released is accounted for",
            instead="a list of GaussianEvent, such as [GaussianEvent(1.1, count=100)]",
        )
    counts: Counter[GaussianEvent] = Counter()
    for event in events:
        counts[replace(event, count=1)] += event.count
    if len(kinds := sorted({event.adjacency for event in counts})) > 1:
        raise ConfigError(
            " beside ".join(f"events for neighbours by {kind}" for kind in kinds),
            why="a guarantee is for one kind of neighbours",
            instead="state all noise multipliers for one adjacency, or account for each apart",
        )
    merged = [replace(event, count=count) for event, count in counts.items()]
    plain = [event for event in merged if event.sampling == "none"]
    if len(plain) > 1:
        # Gaussians without sampling cost together what one of them does; a run may have thousands.
        precision = math.fsum(event.count / event.noise_multiplier**2 for event in plain)
        one = replace(plain[0], noise_multiplier=precision**-0.5, count=1)
        merged = [*(event for event in merged if event.sampling != "none"), one]
    return tuple(sorted(merged, key=repr))


# ----------------------------------------------------------------------------- the arithmetic
@lru_cache(maxsize=4096)
def _epsilon(events: Events, delta: float, accountant: Accountant, grid: float) -> float:
    found = float(_BY_NAME[accountant](events, delta, grid))
    return max(found, 0.0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings about orders that are left out: the bound over the others holds."""
    logger = getLogger("absl")
    level = logger.level
    logger.setLevel(ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@lru_cache(maxsize=256)
def _rdp_of_one(event: GaussianEvent) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Orders, and the divergences of one event. The library composes by adding them."""
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    # Under REPLACE_ONE its RDP reads noise relative to the sensitivity of a replacement, as an
    # event states it.
    relation = dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    release: Any = dp.GaussianDpEvent(event.noise_multiplier)
    if event.adjacency == "replace":
        relation = dp.NeighboringRelation.REPLACE_ONE
    if event.sampling == "without-replacement":
        cohort = round(event.rate * event.population)
        release = dp.SampledWithoutReplacementDpEvent(event.population, cohort, release)
    elif event.rate < 1:
        release = dp.PoissonSampledDpEvent(event.rate, release)
    accountant = RdpAccountant(neighboring_relation=relation)
    with _quiet():
        accountant.compose(release)
    # Private to the library, but the only way not to compute the same again for every round.
    orders, values = accountant._orders, accountant._rdp  # noqa: SLF001 - see above
    return tuple(map(float, orders)), tuple(map(float, values))


def _rdp(events: Events) -> tuple[float, ...]:
    """The divergences of all events, by order."""
    counted = [(event.count, _rdp_of_one(replace(event, count=1))) for event in events]
    orders, _ = _rdp_of_one(GaussianEvent(1.0))
    return tuple(
        sum(count * values[place] for count, (_, values) in counted) for place in range(len(orders))
    )


def _by_rdp(events: Events, delta: float, _grid: float = FINE) -> float:
    import numpy as np
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    orders, _ = _rdp_of_one(GaussianEvent(1.0))
    with _quiet():
        found, _ = compute_epsilon(np.array(orders), np.array(_rdp(events)), delta)
    return float(found)


@lru_cache(maxsize=32)
def _pld_of_one(event: GaussianEvent, grid: float) -> Any:  # noqa: ANN401 - of an untyped library
    """The privacy loss distribution of one event."""
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    # Without sampling, a replacement is a shift by the sensitivity that the multiplier is relative
    # to, as an addition is. (The library's REPLACE_ONE means noise relative to one record.)
    return from_gaussian_mechanism(
        standard_deviation=event.noise_multiplier,
        value_discretization_interval=grid,
        sampling_prob=event.rate,
    )


def _by_pld(events: Events, delta: float, grid: float) -> float:
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    # The longest loss of one release, and about that of all of them, in cells of the grid.
    least = min(event.noise_multiplier for event in events)
    longest = max(0.5 / least**2 + 10 / least, _by_rdp(events, delta))
    grid = max(grid, longest / _MOST_CELLS)
    # Gaussians without sampling compose to one Gaussian, whose distribution needs no convolution.
    plain = [event for event in events if event.rate == 1]
    parts = [
        _pld_of_one(replace(event, count=1), grid).self_compose(event.count)
        for event in events
        if event.rate < 1
    ]
    if plain:
        precision = sum(event.count / event.noise_multiplier**2 for event in plain)
        parts.append(
            from_gaussian_mechanism(
                standard_deviation=precision**-0.5, value_discretization_interval=grid
            )
        )
    total = parts[0]
    for part in parts[1:]:
        total = total.compose(part)
    return float(total.get_epsilon_for_delta(delta))


def _by_opacus(name: str) -> Callable[[Events, float, float], float]:
    def compute(events: Events, delta: float, _grid: float) -> float:
        with _quiet():
            from opacus.accountants import create_accountant

            accountant = create_accountant(name)
            accountant.history = [(e.noise_multiplier, e.rate, e.count) for e in events]
            try:
                return float(accountant.get_epsilon(delta))
            except (ArithmeticError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"these events, accounted for by Opacus's {name} at delta={delta:g}",
                    why=f"its arithmetic fails: {error}",
                    instead='accountant="rdp" or "pld"',
                ) from error

    return compute


_BY_NAME: Mapping[str, Callable[[Events, float, float], float]] = {
    "rdp": _by_rdp,
    "pld": _by_pld,
    "opacus-rdp": _by_opacus("rdp"),
    "opacus-prv": _by_opacus("prv"),
}
