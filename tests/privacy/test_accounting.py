"""Accountants against published numbers, against each other, and against textbook sums."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse import ConfigError
from hanse.privacy import GaussianEvent, accounts_for, epsilon, installed, renyi
from hanse.privacy import accounting as module

MNIST = 256 / 60_000


def sampled(noise: float, rate: float, count: int = 1) -> GaussianEvent:
    return GaussianEvent(noise, "none" if rate == 1 else "poisson", rate, count=count)


# q, sigma, T, delta: RDP, Opacus's RDP where it is another, PLD, PRV. Made with dp-accounting 0.6
# and Opacus 1.6 themselves, by their accountants and their events.
VECTORS = [
    (0.01, 1.1, 1000, 1e-5, 1.711770, None, 1.515370, 1.525473),
    (0.01, 4.0, 10_000, 1e-5, 1.035490, None, 0.946999, 0.956936),
    (MNIST, 1.1, 14_062, 1e-5, 2.596556, None, 2.381686, 2.391744),
    (0.01, 1.0, 100, 1e-5, 1.214145, None, 0.718037, 0.728134),
    (0.1, 1.0, 50, 1e-3, 4.020641, 4.017341, 3.313912, 3.324346),
    (1.0, 1.0, 1, 1e-5, 4.728507, None, 4.377178, 4.387414),
]


@pytest.mark.parametrize(("q", "z", "rounds", "delta", "rdp", "other", "pld", "prv"), VECTORS)
def test_reference_values(
    q: float, z: float, rounds: int, delta: float, rdp: float, other: float | None, pld: float,
    prv: float,
) -> None:  # fmt: skip
    events = [sampled(z, q, rounds)]
    digits = partial(pytest.approx, abs=6e-7)
    assert epsilon(events, delta, "rdp") == digits(rdp)
    assert epsilon(events, delta, "pld") == digits(pld)
    if "opacus-rdp" in installed():
        assert epsilon(events, delta, "opacus-rdp") == digits(other or rdp)
        assert epsilon(events, delta, "opacus-prv") == digits(prv)


def test_the_coarse_grid_bounds_the_fine_one_from_above() -> None:
    for q, z, rounds, delta, *_ in VECTORS[:4]:
        events = [sampled(z, q, rounds)]
        fine, coarse = (epsilon(events, delta, "pld", grid=grid) for grid in (1e-4, 1e-3))
        assert fine <= coarse <= fine + 0.015


# ------------------------------------------------------------------- publications and textbooks
def classic(events: list[GaussianEvent], delta: float) -> float:
    """Epsilon as early papers have it: of whole orders, as the moments of Abadi et al. are, by the
    conversion of Mironov (2017, proposition 3).
    """
    return min(
        value + math.log(1 / delta) / (order - 1)
        for order, value in zip(*renyi(events), strict=True)
        if order == int(order)
    )


def test_abadi_et_al_2016() -> None:
    """Deep Learning with Differential Privacy, section 3: 1.26 after 100 epochs."""
    assert classic([sampled(4, 0.01, 10_000)], 1e-5) == pytest.approx(1.2586, abs=2e-3)


def test_mcmahan_et_al_2018() -> None:
    """Learning Differentially Private Recurrent Language Models, table 1: 4.634."""
    events = [sampled(1, 5000 / 763_430, 5000)]
    assert classic(events, 1e-9) == pytest.approx(4.634, abs=1e-3)
    assert epsilon(events, 1e-9, "rdp") == pytest.approx(4.183, abs=1e-3)
    assert epsilon(events, 1e-9, "pld") == pytest.approx(3.899, abs=1e-3)


def test_zero_concentrated_privacy() -> None:
    """rho = 0.81 at delta = 1e-10, as released for the 2020 census: 8.9."""
    assert epsilon([GaussianEvent((1 / 1.62) ** 0.5)], 1e-10, "rdp") == pytest.approx(
        8.92, abs=0.01
    )


def moment(q: float, z: float, order: int) -> float:
    """The divergence of a whole order: Mironov, Talwar & Zhang (2019), section 3.3."""
    terms = (
        math.comb(order, k) * (1 - q) ** (order - k) * q**k * math.exp((k * k - k) / (2 * z * z))
        for k in range(order + 1)
    )
    return math.log(sum(terms)) / (order - 1)


@pytest.mark.parametrize(("q", "z"), [(0.01, 1.1), (0.1, 2.0), (0.5, 4.0)])
def test_divergences_of_whole_orders_are_the_binomial_sums(q: float, z: float) -> None:
    orders, values = renyi([sampled(z, q, 7)])
    known = dict(zip(orders, values, strict=True))
    for order in (2, 3, 5, 10):
        assert known[order] == pytest.approx(7 * moment(q, z, order), rel=1e-9)


def density(x: int, sigma: float, shift: int = 0) -> float:
    return math.exp(-((x - shift) ** 2) / (2 * sigma * sigma))


@pytest.mark.parametrize("sigma", [0.8, 2.0, 5.0])
@pytest.mark.parametrize("shift", [1, 3])
def test_discrete_noise_has_the_moments_of_whole_orders(sigma: float, shift: int) -> None:
    """What the module says of discrete Gaussians, by sums over whole numbers."""
    q, order, span = 0.2, 4, range(-200, 201)
    total = sum(density(x, sigma) for x in span)
    mixed = (
        density(x, sigma) * (1 - q + q * density(x, sigma, shift) / density(x, sigma)) ** order
        for x in span
        if density(x, sigma) > 0
    )
    found = math.log(sum(mixed) / total) / (order - 1)
    assert found == pytest.approx(moment(q, sigma / shift, order), rel=1e-9)


def gaussian_delta(noise: float, at: float) -> float:
    """Balle & Wang (2018), theorem 8: exact for one Gaussian."""

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return phi(0.5 / noise - at * noise) - math.exp(at) * phi(-0.5 / noise - at * noise)


@given(st.floats(0.3, 5.0), st.sampled_from([1e-3, 1e-5, 1e-8]))
@settings(max_examples=6, deadline=None)
def test_pld_of_one_gaussian_is_exact_and_rdp_bounds_it(noise: float, delta: float) -> None:
    events = [GaussianEvent(noise)]
    tight = epsilon(events, delta, "pld")
    assert gaussian_delta(noise, tight) <= delta * (1 + 1e-9)  # an upper bound,
    assert gaussian_delta(noise, tight - 2e-4) > delta or tight < 2e-4  # and not above it
    assert epsilon(events, delta, "rdp") >= tight


# ------------------------------------------------------------------------------- composition
def test_nothing_costs_nothing() -> None:
    assert epsilon([], 1e-5, "rdp") == epsilon([], 1e-5, "pld") == 0.0


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_order_and_grouping_do_not_matter(accountant: module.Accountant) -> None:
    events = [sampled(1.5, 0.05, 20), GaussianEvent(8.0), sampled(2.0, 0.1, 5)]
    found = {epsilon(list(order), 1e-5, accountant) for order in permutations(events)}
    found.add(epsilon([*(replace(events[0], count=10),) * 2, *events[1:]], 1e-5, accountant))
    assert len(found) == 1


def test_different_events_compose_as_in_the_library_itself() -> None:
    import dp_accounting as dp
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    events = [sampled(1.5, 0.05, 20), GaussianEvent(8.0, count=3), sampled(2.0, 0.1, 5)]
    theirs = (
        dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(1.5)), 20),
        dp.SelfComposedDpEvent(dp.GaussianDpEvent(8.0), 3),
        dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(2.0)), 5),
    )
    rdp, pld = RdpAccountant(), PLDAccountant()
    for event in theirs:
        rdp.compose(event)
        pld.compose(event)
    assert epsilon(events, 1e-5, "rdp") == pytest.approx(rdp.get_epsilon(1e-5), rel=1e-9)
    assert epsilon(events, 1e-5, "pld") == pytest.approx(pld.get_epsilon(1e-5), abs=2e-4)


@given(st.lists(st.floats(0.5, 20.0), min_size=2, max_size=4))
@settings(max_examples=4, deadline=None)
def test_gaussians_without_sampling_are_one_gaussian(noises: list[float]) -> None:
    one = sum(z**-2 for z in noises) ** -0.5
    for accountant in ("rdp", "pld"):
        many = epsilon([GaussianEvent(z) for z in noises], 1e-5, accountant)
        assert many == pytest.approx(epsilon([GaussianEvent(one)], 1e-5, accountant), rel=1e-9)


@given(st.floats(0.6, 4.0), st.floats(0.001, 0.2), st.integers(1, 500))
@settings(max_examples=6, deadline=None)
def test_more_rounds_cost_more_and_pld_no_more_than_rdp(z: float, q: float, n: int) -> None:
    for accountant in ("rdp", "pld"):
        less = epsilon([sampled(z, q, n)], 1e-5, accountant, grid=1e-3)
        assert less <= epsilon([sampled(z, q, 2 * n)], 1e-5, accountant, grid=1e-3)
    events = [sampled(z, q, n)]
    assert epsilon(events, 1e-5, "pld", grid=1e-3) <= epsilon(events, 1e-5, "rdp") + 1e-3


def test_one_event_is_computed_once_for_all_rounds() -> None:
    module._rdp_of_one.cache_clear()  # noqa: SLF001 - what is remembered is what is tested
    for rounds in range(1, 1001):
        epsilon([sampled(1.23, 0.03, rounds)], 1e-5, "rdp")
    assert module._rdp_of_one.cache_info().misses == 2  # noqa: SLF001 - it, and one for the orders


def test_tiny_noise_fits_into_memory() -> None:
    events = [sampled(0.02, 1e-3, 1000)]
    found = epsilon(events, 1e-5, "pld", grid=1e-4)
    assert 0 < found <= 1.1 * epsilon(events, 1e-5, "rdp")


# ------------------------------------------------------------------------------- conventions
def test_without_replacement() -> None:
    """100 of 10 000 clients, noise relative to the sensitivity of a replacement."""
    event = GaussianEvent(1.1, "without-replacement", 0.01, 10_000, "replace", 1000)
    assert epsilon([event], 1e-5, "rdp") == pytest.approx(3.19, abs=1e-3)
    assert accounts_for(event, "rdp")
    assert not accounts_for(event, "pld")


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_noise_is_read_relative_to_the_sensitivity_of_the_adjacency(
    accountant: module.Accountant,
) -> None:
    """Not to one record, as dp-accounting's PLD does under REPLACE_ONE: 10.0 in place of 4.377."""
    added, replaced = GaussianEvent(1.0), GaussianEvent(1.0, adjacency="replace")
    assert epsilon([replaced], 1e-5, accountant) == epsilon([added], 1e-5, accountant)


def test_what_dp_accounting_reads_differently_is_what_we_say() -> None:
    import dp_accounting as dp
    from dp_accounting.pld import PLDAccountant

    theirs = [
        PLDAccountant(dp.NeighboringRelation.REPLACE_ONE)
        .compose(dp.GaussianDpEvent(noise))
        .get_epsilon(1e-5)
        for noise in (1.0, 2.0)
    ]
    assert theirs == pytest.approx([10.0, 4.377], abs=0.05)


def test_no_accountant_approximates() -> None:
    assert set(installed()) <= {"rdp", "pld", "opacus-rdp", "opacus-prv"}
    for name in ("gdp", "clt"):
        with pytest.raises(ConfigError, match="opacus-prv, opacus-rdp, pld, rdp"):
            epsilon([GaussianEvent(1.0)], 1e-5, name)  # type: ignore[arg-type]


def test_the_library_is_imported_by_those_who_ask_it() -> None:
    code = "import sys, hanse.privacy, hanse.cli.app; sys.exit('dp_accounting' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
