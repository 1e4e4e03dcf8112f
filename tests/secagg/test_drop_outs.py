"""Whoever drops out whenever: the sum of those whose vectors came, or no sum and nothing opened."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from tests.secagg.group import Group, five, total, vector

from hanse import ProtocolError
from hanse.secagg import Assumptions, Outcome, Run, Session, Stage, plan
from hanse.secagg.driver import STAGES
from hanse.secagg.messages import Kind, read_openings

WHENS = (*STAGES, Stage.DONE)  # DONE: never


def expected_stage(session: Session, drops: dict[int, Stage]) -> Stage:
    """On the complete graph: the stage in which too few answer, or DONE."""
    for stage in STAGES:
        if sum(drops[client] > stage for client in session.cohort) < session.threshold:
            return stage
    return Stage.DONE


def check(session: Session, drops: dict[int, Stage]) -> None:
    """Run a session on the complete graph, and compare with the rule."""
    group = Group(session)
    fails = expected_stage(session, drops)
    if fails is Stage.DONE:
        active = [client for client in session.cohort if drops[client] > Stage.MASK]
        found = group.to_end(drops)
        assert (found == total(session, active)).all()
        assert group.server.survivors == tuple(active)
        assert not group.server.faults
        return
    with pytest.raises(ProtocolError):
        group.to_end(drops)
    with pytest.raises(ProtocolError, match="too early"):
        _ = group.server.result
    assert max(group.sent) == fails
    openings = group.sent.get(Stage.OPEN, {})
    shares: Counter[int] = Counter()
    for client, message in openings.items():
        shares.update(read_openings(group.frame(client).body(Kind.OPENING, message)).keys())
    assert all(count < session.threshold for count in shares.values())


@pytest.mark.parametrize("threshold", [3, 4])
def test_five_clients_with_every_multiset_of_drop_outs(threshold: int) -> None:
    session = five(threshold=threshold)
    patterns = list(itertools.combinations_with_replacement(WHENS, 5))
    for number, pattern in enumerate(patterns):
        turn = number % 5  # so that not always the same clients drop out first
        clients = session.cohort[turn:] + session.cohort[:turn]
        check(session, dict(zip(clients, pattern, strict=True)))


@pytest.mark.slow
def test_five_clients_with_every_pattern_of_drop_outs() -> None:
    session = five(threshold=3)
    for pattern in itertools.product(WHENS, repeat=5):
        check(session, dict(zip(session.cohort, pattern, strict=True)))


def test_six_clients_on_a_ring() -> None:
    """Six clients, four neighbours each, threshold 3: the rule is about each neighbourhood."""
    session = Session(bytes(16), tuple(range(6)), 4, 32, threshold=3, quorum=3, degree=4)
    assumptions = Assumptions(0, 0, "honest-but-curious", security=1)
    outcomes: Counter[bool] = Counter()
    patterns = list(itertools.product((Stage.MASK, Stage.OPEN, Stage.DONE), repeat=6))
    for pattern in patterns[::7]:
        drops = dict(enumerate(pattern))
        group = Group(session, assumptions)
        active = [client for client in range(6) if drops[client] > Stage.MASK]
        opened = [client for client in range(6) if drops[client] > Stage.OPEN]
        near = {c: set(session.graph.neighbours(c).tolist()) for c in range(6)}
        enough = len(active) >= 3 and all(
            len(near[c] & set(opened)) + (c in opened) >= 3
            for c in range(6)
            if c in active or near[c] & set(active)
        )
        outcomes[enough] += 1
        if enough:
            assert (group.to_end(drops) == total(session, active)).all()
        else:
            with pytest.raises(ProtocolError):
                group.to_end(drops)
    assert min(outcomes.values()) > 10


@pytest.mark.parametrize("stage", [Stage.ADVERTISE, Stage.SHARE])
def test_whoever_keeps_too_few_neighbours_is_left_out_before_it_masks(stage: Stage) -> None:
    session = Session(bytes(16), tuple(range(12)), 4, 32, threshold=3, quorum=3, degree=4)
    ring = session.graph.ring.tolist()
    drops = dict.fromkeys((ring[1], ring[2], ring[11]), stage)  # three of four around ring[0]
    group = Group(session, Assumptions(0, 0, "honest-but-curious", security=1))
    active = [client for client in range(12) if client not in {*drops, ring[0]}]
    assert (group.to_end(drops) == total(session, active)).all()
    assert not group.server.faults


def run(session: Session, assumptions: Assumptions, drops: dict[int, Stage]) -> Outcome:
    run = Run(session, lambda c: vector(session, c), assumptions, keep_transcript=False)
    return run.to_end(drops)


def random_drops(session: Session, part: float, seed: int) -> dict[int, Stage]:
    """A part of the clients, each at a stage of its own."""
    rng = np.random.default_rng(seed)
    gone = rng.choice(session.cohort, int(part * len(session.cohort)), replace=False)
    return {int(client): STAGES[int(rng.integers(5))] for client in gone}


def active_of(session: Session, drops: dict[int, Stage]) -> list[int]:
    return [c for c in session.cohort if drops.get(c, Stage.DONE) > Stage.MASK]


@pytest.mark.parametrize("width", [32, 64])
def test_thirty_clients_with_random_drop_outs(width: int) -> None:
    session = Session.complete(range(100, 130), length=3, width=width)  # type: ignore[arg-type]
    drops = random_drops(session, 0.3, width)
    outcome = run(session, Assumptions(), drops)
    assert outcome.survivors == tuple(active_of(session, drops))
    assert (outcome.total == total(session, active_of(session, drops))).all()


def test_forty_clients_on_a_ring_with_random_drop_outs() -> None:
    assumptions = Assumptions(0.05, 0.1, security=20, correctness=20)
    found = plan(40, assumptions)
    assert found.degree < 39
    session = Session.planned(range(40), found, seed=bytes(range(32)), length=3, width=32)
    drops = random_drops(session, 0.1, 1)
    outcome = run(session, assumptions, drops)
    assert outcome.survivors == tuple(active_of(session, drops))
    assert (outcome.total == total(session, active_of(session, drops))).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_clients_with_random_drop_outs(seed: int) -> None:
    session = Session.complete(range(100), length=5, width=32)
    drops = random_drops(session, 0.33, seed)
    outcome = run(session, Assumptions(), drops)
    assert (outcome.total == total(session, active_of(session, drops))).all()


@pytest.mark.slow
def test_a_thousand_clients_on_a_ring_with_random_drop_outs() -> None:
    assumptions = Assumptions(0.1, 0.1, "honest-but-curious")
    found = plan(1000, assumptions)
    assert found.degree == 52
    session = Session.planned(range(1000), found, seed=bytes(range(32)), length=5, width=32)
    drops = random_drops(session, 0.1, 7)
    outcome = run(session, assumptions, drops)
    assert (outcome.total == total(session, active_of(session, drops))).all()


def test_one_client_short_of_the_threshold_is_refused() -> None:
    session = Session.complete(range(9), length=2, width=32)
    assert session.threshold == 7
    two = dict.fromkeys((0, 4), Stage.MASK)
    assert (Group(session).to_end(two) == total(session, [1, 2, 3, 5, 6, 7, 8])).all()
    with pytest.raises(ProtocolError, match="6 of 9 clients have sent their vectors"):
        Group(session).to_end({**two, 7: Stage.MASK})
