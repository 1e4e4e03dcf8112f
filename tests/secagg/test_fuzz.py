"""Whatever bytes arrive: a protocol error, or a message that is noted; no crash, no hang."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.secagg.group import Group, five, total

from hanse import ProtocolError
from hanse.secagg import Session, Stage
from hanse.secagg.messages import HEADER, Kind

KINDS = {
    Stage.SHARE: Kind.ROSTER,
    Stage.MASK: Kind.INBOX,
    Stage.CONFIRM: Kind.SURVIVORS,
    Stage.OPEN: Kind.SIGNATURES,
}
UPWARD = {
    Stage.ADVERTISE: Kind.KEYS,
    Stage.SHARE: Kind.SHARES,
    Stage.MASK: Kind.MASKED,
    Stage.CONFIRM: Kind.SIGNATURE,
    Stage.OPEN: Kind.OPENING,
}


@pytest.mark.parametrize("stage", list(KINDS))
def test_random_bytes_to_a_client(stage: Stage) -> None:
    rng = np.random.default_rng(stage)
    for number in range(30):
        group = Group(five(threshold=3))
        while group.server.stage < stage:
            group.stage()
        noise = rng.bytes(int(rng.integers(0, 400)))
        message = group.frame(8).wrap(KINDS[stage], noise) if number % 2 else noise
        group.received = {8: message}
        # A list of survivors of two bytes may be a list by chance.
        with contextlib.suppress(ProtocolError):
            answer = group.says(8, stage)
            assert stage is Stage.CONFIRM
            assert len(answer) == HEADER + 64
        assert not group.clients[8].has_opened


@pytest.mark.parametrize("stage", list(KINDS))
def test_bytes_changed_here_and_there_to_a_client(stage: Stage) -> None:
    rng = np.random.default_rng(stage)
    for _ in range(30):
        group = Group(five(threshold=3))
        while group.server.stage < stage:
            group.stage()
        message = bytearray(group.received[8])
        for place in rng.integers(0, len(message), int(rng.integers(1, 4))):
            message[place] ^= int(rng.integers(1, 256))
        group.received = {8: bytes(message)}
        with contextlib.suppress(ProtocolError):
            group.says(8, stage)
            assert stage in (Stage.MASK, Stage.CONFIRM)


@pytest.mark.parametrize("stage", list(UPWARD))
def test_random_bytes_to_the_server(stage: Stage) -> None:
    session = five()
    group = Group(session)
    while group.server.stage < stage:
        group.stage()
    rng = np.random.default_rng(stage)
    good = group.says(8, stage)
    for number in range(300):
        if number % 3 == 0:
            message = rng.bytes(int(rng.integers(0, 600)))
        elif number % 3 == 1:
            body = rng.bytes(int(rng.integers(0, 600)))
            message = group.frame(8).wrap(UPWARD[stage], body)
        else:
            changed = bytearray(good)
            changed[int(rng.integers(0, HEADER))] ^= int(rng.integers(1, 256))
            message = bytes(changed)
        accepted = group.server.receive(8, message)
        # Whatever is as long as a vector may be one, of a client that lies about its numbers.
        assert not accepted, message
    assert group.server.receive(8, good)
    group.received = {c: m for c, m in group.received.items() if c != 8}
    group.stage()
    assert (group.to_end() == total(session, list(session.cohort))).all() or stage is Stage.OPEN


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_as_a_session(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="not the parameters"):
        Session.from_bytes(data)


def test_changed_bytes_as_a_session_are_refused_or_another_one() -> None:
    session = five()
    raw = session.to_bytes()
    rng = np.random.default_rng(0)
    for _ in range(500):
        changed = bytearray(raw)
        for place in rng.integers(0, len(raw), 2):
            changed[place] ^= int(rng.integers(1, 256))
        with contextlib.suppress(ProtocolError):
            assert Session.from_bytes(bytes(changed)).to_bytes() == bytes(changed)
