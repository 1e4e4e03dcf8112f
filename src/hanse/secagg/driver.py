"""The real protocol among clients of one process, with drop-outs where one wants them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hanse.secagg.client import Client, Party, Stage
from hanse.secagg.parameters import Assumptions
from hanse.secagg.primitives import new_identity
from hanse.secagg.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from hanse.secagg.ring import Words
    from hanse.secagg.session import Registry, Session

STAGES = (Stage.ADVERTISE, Stage.SHARE, Stage.MASK, Stage.CONFIRM, Stage.OPEN)


class Sent(NamedTuple):
    """One message.

    Attributes:
        stage: the stage in which a client sent it, or for which the server did.
        client: from whom or for whom.
        upward: whether it went to the server.
        message: its bytes.
    """

    stage: Stage
    client: int
    upward: bool
    message: bytes


@dataclass(frozen=True)
class Outcome:
    """What came of a session.

    Attributes:
        total: the sum, `[length]` words.
        survivors: whose vectors are in it.
        faults: what clients did that the protocol does not allow.
        transcript: all messages, in their order; empty where it was not wanted.
        client_seconds: processor time of each client, by stage.
        server_seconds: processor time of the server, by stage.
        bytes_up: of each client.
        bytes_down: of each client.
    """

    total: Words
    survivors: tuple[int, ...]
    faults: Mapping[int, str]
    transcript: tuple[Sent, ...]
    client_seconds: Mapping[int, Mapping[Stage, float]]
    server_seconds: Mapping[Stage, float]
    bytes_up: Mapping[int, int]
    bytes_down: Mapping[int, int]


def identities(clients: Iterable[int]) -> tuple[dict[int, Ed25519PrivateKey], Registry]:
    """New identities, and the registry of their public keys."""
    private = {client: new_identity() for client in clients}
    return private, {c: key.public_key().public_bytes_raw() for c, key in private.items()}


@dataclass
class Run:
    """A session among clients of this process, message by message.

    Attributes:
        session: the session.
        vector: what a client sums, by its number; asked once, when it masks.
        assumptions: of the clients.
        keep_transcript: whether all messages are kept.
    """

    session: Session
    vector: Callable[[int], Words]
    assumptions: Assumptions = Assumptions()
    keep_transcript: bool = True
    transcript: list[Sent] = field(default_factory=list)
    client_seconds: dict[int, dict[Stage, float]] = field(default_factory=dict)
    server_seconds: dict[Stage, float] = field(default_factory=dict)
    bytes_up: dict[int, int] = field(default_factory=dict)
    bytes_down: dict[int, int] = field(default_factory=dict)

    def to_end(self, drops: Mapping[int, Stage] | None = None) -> Outcome:
        """Run the session.

        Args:
            drops: at which stage a client is gone: it sends nothing from then on.

        Raises:
            ProtocolError: too few clients were left.
        """
        drops = drops or {}
        private, registry = identities(self.session.cohort)
        server = Server(self.session, registry)
        clients = {
            c: Client(Party(self.session, c, key, registry, self.assumptions))
            for c, key in private.items()
        }
        received: Mapping[int, bytes] = dict.fromkeys(self.session.cohort, b"")
        for stage in STAGES:
            for number, incoming in received.items():
                self._count(stage, number, incoming, upward=False)
                if drops.get(number, Stage.DONE) <= stage:
                    continue
                message = self._answer(clients[number], number, stage, incoming)
                self._count(stage, number, message, upward=True)
                start = time.process_time()
                server.receive(number, message)
                self._took(self.server_seconds, stage, start)
            start = time.process_time()
            received = server.advance()
            self._took(self.server_seconds, stage, start)
        return Outcome(
            server.result,
            server.survivors,
            server.faults,
            tuple(self.transcript),
            self.client_seconds,
            self.server_seconds,
            self.bytes_up,
            self.bytes_down,
        )

    def _answer(self, client: Client, number: int, stage: Stage, incoming: bytes) -> bytes:
        vector = self.vector(number) if stage is Stage.MASK else None
        start = time.process_time()
        message = answer(client, stage, incoming, vector)
        self._took(self.client_seconds.setdefault(number, {}), stage, start)
        return message

    def _count(self, stage: Stage, client: int, message: bytes, *, upward: bool) -> None:
        counts = self.bytes_up if upward else self.bytes_down
        counts[client] = counts.get(client, 0) + len(message)
        if self.keep_transcript and message:
            self.transcript.append(Sent(stage, client, upward, message))

    @staticmethod
    def _took(seconds: dict[Stage, float], stage: Stage, start: float) -> None:
        seconds[stage] = seconds.get(stage, 0.0) + time.process_time() - start


def answer(client: Client, stage: Stage, incoming: bytes, vector: Words | None) -> bytes:
    """What a client says in a stage."""
    if stage is Stage.ADVERTISE:
        return client.advertise()
    if stage is Stage.MASK:
        assert vector is not None  # noqa: S101 - whoever calls has asked for it
        return client.mask(incoming, vector)
    answers = {Stage.SHARE: client.share, Stage.CONFIRM: client.confirm, Stage.OPEN: client.open}
    return answers[stage](incoming)
