"""Who shares with whom, and how many neighbours are enough."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest

from hanse import ConfigError, ProtocolError
from hanse.secagg import Assumptions, Graph, Session, default_threshold, plan
from hanse.secagg.parameters import insecurity

CURIOUS: Literal["honest-but-curious"] = "honest-but-curious"


# ---------------------------------------------------------------------------------------- graph
@pytest.mark.parametrize(("size", "degree"), [(5, 4), (9, 2), (50, 10), (50, 48), (51, 50)])
def test_a_graph_is_regular_symmetric_and_its_points_differ(size: int, degree: int) -> None:
    graph = Graph(size, degree, b"s" * 32)
    near = [set(graph.neighbours(i).tolist()) for i in range(size)]
    for i in range(size):
        assert len(near[i]) == degree
        assert i not in near[i]
        assert all(i in near[j] for j in near[i])
        points = graph.points(i, np.array([*sorted(near[i]), i]))
        assert sorted(set(points.tolist())) == sorted(points.tolist())
        assert points.min() >= 1
        assert points.max() <= degree + 1


def test_neighbours_are_those_beside_on_the_ring() -> None:
    graph = Graph(20, 6, b"s" * 32)
    ring = graph.ring.tolist()
    for place, client in enumerate(ring):
        beside = {ring[(place + step) % 20] for step in (-3, -2, -1, 1, 2, 3)}
        assert set(graph.neighbours(client).tolist()) == beside


def test_the_order_follows_from_the_seed_and_is_the_same_everywhere() -> None:
    # Pinned: an order that changed with a library would part clients of different releases.
    assert Graph(8, 4, b"seed").ring.tolist() == PINNED
    assert Graph(8, 4, b"sead").ring.tolist() != PINNED


PINNED = [6, 1, 0, 3, 5, 7, 4, 2]


def test_every_order_is_as_likely_as_any_other() -> None:
    first = [int(Graph(6, 2, seed.to_bytes(32, "little")).ring[0]) for seed in range(3000)]
    counts = np.bincount(first, minlength=6)
    assert ((counts - 500) ** 2 / 500).sum() < 40  # chi squared with five degrees of freedom


# ------------------------------------------------------------------------------- the parameters
@pytest.mark.parametrize(
    ("part", "degrees"),
    [
        (0.05, [30, 34, 38]),
        (0.1, [42, 52, 60]),
        (0.2, [74, 112, 136]),
        (0.33, [99, 310, 480]),  # among a hundred, the complete graph
    ],
)
def test_the_fewest_neighbours_for_a_server_that_keeps_to_the_protocol(
    part: float, degrees: list[int]
) -> None:
    found = [plan(n, Assumptions(part, part, CURIOUS)).degree for n in (100, 1000, 10_000)]
    assert found == degrees


def at_least(population: int, marked: int, drawn: int, x: int) -> Fraction:
    """The chance of x or more marked ones among those drawn, in whole numbers."""
    ways = sum(
        math.comb(marked, i) * math.comb(population - marked, drawn - i)
        for i in range(max(x, 0), min(drawn, marked) + 1)
    )
    return Fraction(ways, math.comb(population, drawn))


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("part", [0.05, 0.1])
@pytest.mark.parametrize("server", ["honest-but-curious", "malicious"])
def test_chances_are_exact_and_two_neighbours_fewer_are_too_few(
    n: int, part: float, server: Literal["honest-but-curious", "malicious"]
) -> None:
    assumptions = Assumptions(part, part, server)
    found = plan(n, assumptions)
    k, t, few = found.degree, found.threshold, round(part * n)

    def chances(k: int, t: int) -> tuple[Fraction, Fraction]:
        if server == "malicious":
            corrupt = at_least(n - 1, few, k, 2 * t - k - 1)
            apart = at_least(n, few, k // 2, t - k // 2 - 1)
        else:
            corrupt = at_least(n - 1, few, k, t)
            apart = Fraction(2 * few, n) ** (k // 2)
        return max(corrupt, apart) * 2 * n, at_least(n - 1, few, k, k - t + 1) * n

    def fits(k: int, t: int) -> bool:
        insecure, failing = chances(k, t)
        return insecure <= Fraction(1, 2**40) and failing <= Fraction(1, 2**30)

    assert fits(k, t)
    assert not any(fits(k - 2, other) for other in range(1, k - 1))
    insecure, failing = chances(k, t)
    assert (math.log2(insecure) if insecure else -math.inf) == pytest.approx(found.insecure)
    assert (math.log2(failing) if failing else -math.inf) == pytest.approx(found.failing)
    assert insecurity(n, k, t, found.quorum, assumptions) == found.insecure


def test_a_simulated_ring_has_as_many_bad_places_as_computed() -> None:
    """With few bits, the bounds can be seen: they hold, and are no more than 10 times too large."""
    n, k, corrupt = 60, 10, 12
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(4000):
        marks = (rng.permutation(n) < corrupt).astype(int)
        near = np.stack([np.roll(marks, s) for s in range(-5, 6) if s])[:, marks == 0].sum(axis=0)
        hits += bool((near >= 7).any())
    chance = float(at_least(n - 1, corrupt, k, 7) * n)
    assert 0.1 * chance < hits / 4000 <= chance


def test_what_is_assumed_and_found_is_printed() -> None:
    assert str(plan(1000, Assumptions(0.1, 0.1))) == (
        "1000 clients, 156 neighbours each, threshold 113, quorum 551\n"
        "assumed: at most 100 corrupt, at most 100 gone, a malicious server\n"
        "chance of a graph that gives something away: 2^-41.2\n"
        "chance that the round fails for lack of shares: 2^-31.0"
    )


def test_whoever_can_try_seeds_needs_more_neighbours() -> None:
    fair, ground = Assumptions(0.05, 0.05), Assumptions(0.05, 0.05, grinding=64)
    assert plan(1000, ground).degree > plan(1000, fair).degree + 20
    few = plan(1000, fair)
    assert insecurity(1000, few.degree, few.threshold, few.quorum, ground) > -40


@pytest.mark.parametrize("clients", [0, 1, 2])
def test_fewer_than_three_are_refused(clients: int) -> None:
    with pytest.raises(ConfigError, match="three clients or more"):
        plan(clients, Assumptions())
    with pytest.raises(ConfigError, match="three clients or more"):
        Session.complete(range(clients), length=1, width=32)


def test_assumptions_that_no_graph_meets_are_refused() -> None:
    with pytest.raises(ConfigError, match="threshold must be 84 at least, and only 60 stay"):
        plan(100, Assumptions(corrupt=2 / 3, dropout=0.4))
    with pytest.raises(ConfigError, match="only 500 stay"):
        plan(1000, Assumptions(0.1, 0.5))


def test_the_default_threshold() -> None:
    assert [default_threshold(n) for n in (3, 4, 5, 6, 50, 100)] == [3, 3, 4, 5, 34, 67]


def test_three_clients_tolerate_no_drop_out_and_say_so() -> None:
    three = Session.complete(range(3), length=1, width=32)
    assert three.tolerated == 0
    assert "if one of them drops out, there is no sum" in three.warning
    five = Session.complete(range(5), length=1, width=32)
    assert five.tolerated == 1
    assert not five.warning


# -------------------------------------------------------------------------------- the session
def test_a_session_survives_its_bytes() -> None:
    found = plan(200, Assumptions(0.05, 0.05))
    for session in (
        Session.complete((2**32 - 1, 0, 7), length=10, width=64, context=b"round 3"),
        Session.planned(range(200), found, seed=bytes(range(32)), length=10, width=32),
    ):
        assert Session.from_bytes(session.to_bytes()) == session
        for bad in (b"", session.to_bytes()[:-1], session.to_bytes() + b"\0"):
            with pytest.raises(ProtocolError, match="not the parameters"):
                Session.from_bytes(bad)


def test_everything_in_a_session_changes_its_digest() -> None:
    session = Session.complete((1, 2, 3, 4, 5), length=10, width=64)
    registry = {client: bytes([client]) * 32 for client in range(1, 6)}
    digests = {session.digest(registry), session.digest({**registry, 3: b"x" * 32})}
    raw = session.to_bytes()
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        try:
            other = Session.from_bytes(bytes(changed))
            digests.add(other.digest({**registry, **dict.fromkeys(other.cohort, bytes(32))}))
        except ProtocolError:
            digests.add(bytes([place]))
    assert len(digests) == len(raw) + 2


@pytest.mark.parametrize(("threshold", "fits"), [(3, False), (4, True), (5, True)])
def test_a_client_refuses_a_threshold_that_its_assumptions_do_not_allow(
    threshold: int, fits: bool
) -> None:
    session = Session.complete(range(5), length=1, width=32, threshold=threshold)
    if fits:
        session.check(Assumptions(corrupt=1 / 3))
    else:
        with pytest.raises(ProtocolError, match="may give something away"):
            session.check(Assumptions(corrupt=1 / 3))
        session.check(Assumptions(corrupt=0.0))


def test_a_client_refuses_too_few_neighbours_and_too_small_a_quorum() -> None:
    assumptions = Assumptions(0.05, 0.05)
    found = plan(300, assumptions)
    good = Session.planned(range(300), found, seed=bytes(32), length=1, width=32)
    good.check(assumptions)
    for change in ({"degree": 40, "threshold": 30}, {"quorum": 150}, {"threshold": 40}):
        bad = Session(**{**vars(good), **change})
        with pytest.raises(ProtocolError, match="may give something away"):
            bad.check(assumptions)
