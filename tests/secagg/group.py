"""Clients and a server in one process, message by message, so that a test can come in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from hanse.secagg import Assumptions, Client, Party, Server, Session, Stage, identities
from hanse.secagg.driver import STAGES, answer
from hanse.secagg.messages import Frame
from hanse.secagg.ring import word_type

if TYPE_CHECKING:
    from hanse.secagg.ring import Words

Change = Callable[[int, bytes], bytes | None]
"""From a client and what it sends to what arrives; `None`: nothing does."""

NO_CORRUPT = Assumptions(corrupt=0)


def vector(session: Session, client: int) -> Words:
    """A client's vector, from its number alone, over the whole ring."""
    words = np.random.default_rng(1000 + client).integers(
        0, 2**session.width, session.length, dtype=np.uint64
    )
    return words.astype(word_type(session.width))


def total(session: Session, clients: list[int]) -> Words:
    """The ring's sum over some clients, by Python's whole numbers."""
    sums = [0] * session.length
    for client in clients:
        sums = [a + int(b) for a, b in zip(sums, vector(session, client), strict=True)]
    return np.array([value % 2**session.width for value in sums], word_type(session.width))


class Group:
    """A session in progress: `received` is what clients have, for the stage that comes next."""

    def __init__(self, session: Session, assumptions: Assumptions = NO_CORRUPT) -> None:
        self.session = session
        self.private, self.registry = identities(session.cohort)
        self.server = Server(session, self.registry)
        self.clients = {
            c: Client(Party(session, c, key, self.registry, assumptions))
            for c, key in self.private.items()
        }
        self.digest = session.digest(self.registry)
        self.received: Mapping[int, bytes] = dict.fromkeys(session.cohort, b"")
        self.sent: dict[Stage, dict[int, bytes]] = {}

    def frame(self, client: int) -> Frame:
        return Frame(self.digest, self.session.cohort.index(client))

    def says(self, client: int, stage: Stage) -> bytes:
        """What a client answers to what it has received."""
        words = vector(self.session, client)
        return answer(self.clients[client], stage, self.received[client], words)

    def stage(self, change: Change | None = None, drops: Mapping[int, Stage] | None = None) -> None:
        """One stage of everybody."""
        stage = self.server.stage
        self.sent[stage] = {}
        for client in self.received:
            if (drops or {}).get(client, Stage.DONE) <= stage:
                continue
            message: bytes | None = self.says(client, stage)
            assert message is not None
            self.sent[stage][client] = message
            message = change(client, message) if change else message
            if message is not None:
                self.server.receive(client, message)
        self.received = self.server.advance()

    def until(self, stage: Stage, drops: Mapping[int, Stage] | None = None) -> Group:
        """All stages before this one."""
        for one in STAGES:
            if one < stage:
                self.stage(drops=drops)
        return self

    def to_end(self, drops: Mapping[int, Stage] | None = None) -> Words:
        """All that is left."""
        while self.server.stage < Stage.DONE:
            self.stage(drops=drops)
        return self.server.result


def five(length: int = 4, threshold: int | None = None) -> Session:
    """Five clients on the complete graph, their numbers not their places."""
    return Session.complete((3, 5, 8, 13, 21), length=length, width=32, threshold=threshold)
