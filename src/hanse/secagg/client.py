"""A client of one secure sum, as a state machine: bytes in, bytes out, no transport.

Five messages, each method once, in this order: `advertise`, `share`, `mask`, `confirm`, `open`.
Whatever is not what the protocol allows ends the session for this client: its secrets are erased,
and nothing more is said. A client thus reveals for each neighbour one share of one of its secrets
at most, whatever the server sends.

Source: Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning",
CCS 2017, figure 4, with the parts for active adversaries; Bell et al., CCS 2020, for the graph.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ConfigError, ProtocolError
from hanse.secagg import masking, messages
from hanse.secagg.field import from_bytes, to_bytes
from hanse.secagg.messages import SECRET_WORDS, Frame, Keys, Kind, Secret, Survivors, refused
from hanse.secagg.parameters import Assumptions
from hanse.secagg.primitives import (
    KEY,
    SIGNATURE,
    KeyPair,
    derive,
    is_signed,
    seal,
    sign,
    unseal,
)
from hanse.secagg.ring import word_type
from hanse.secagg.shamir import share

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from numpy.typing import NDArray

    from hanse.secagg.ring import Words
    from hanse.secagg.session import Registry, Session


class Stage(enum.IntEnum):
    """What comes next; the server's stages are called the same."""

    ADVERTISE = 0
    SHARE = 1
    MASK = 2
    CONFIRM = 3
    OPEN = 4
    DONE = 5
    FAILED = 6


@dataclass(frozen=True)
class Party:
    """Who a client is in a session, and what it holds others to.

    Attributes:
        session: the session.
        client: its number.
        identity: its private Ed25519 key, of which the registry has the public one.
        registry: everybody's public keys.
        assumptions: of others; a session that is not secure under them is refused.
    """

    session: Session
    client: int
    identity: Ed25519PrivateKey
    registry: Registry
    assumptions: Assumptions = Assumptions()

    def __post_init__(self) -> None:
        """Check that this client may take part, and that the session is secure enough."""
        if self.client not in self.session.cohort:
            raise ConfigError(
                f"client {self.client} in a session without it",
                why="its place among the others says with whom it shares",
                instead="a session whose cohort has its number",
            )
        if self.registry.get(self.client) != self.identity.public_key().public_bytes_raw():
            raise ConfigError(
                f"client {self.client} with an identity that the registry does not know",
                why="others would refuse its signatures",
                instead="the private key of its public key in the registry",
            )
        self.session.check(self.assumptions)

    @cached_property
    def digest(self) -> bytes:
        """The session's digest."""
        return self.session.digest(self.registry)

    @cached_property
    def place(self) -> int:
        """Its place in the cohort."""
        return self.session.cohort.index(self.client)

    @cached_property
    def neighbours(self) -> NDArray[np.int64]:
        """Places of its neighbours."""
        return self.session.graph.neighbours(self.place)

    def is_by(self, place: int, signature: bytes, survivors: bytes) -> bool:
        """Whether somebody signed these survivors."""
        key = self.registry[self.session.cohort[place]]
        return is_signed(key, signature, "survivors", self.digest, survivors)


class Client:
    """One client's side. What it holds changes with each message, so it is no frozen dataclass.

    Attributes:
        stage: what comes next.
        has_opened: whether it has revealed shares. If so, the same vector must not be summed again
            with others: the difference of two sums may be a single client's.
    """

    def __init__(self, party: Party) -> None:
        """Draw fresh keys from the operating system."""
        self.stage = Stage.ADVERTISE
        self.has_opened = False
        self._party = party
        self._frame = Frame(party.digest, party.place)
        self._channel, self._mask = KeyPair(), KeyPair()
        self._self_mask = bytearray(os.urandom(KEY))
        self._roster: dict[int, Keys] = {}
        self._channels: dict[int, bytes] = {}  # keys for what neighbours seal for this client
        self._masks: dict[int, masking.Mask] = {}  # shared with neighbours
        self._shares: dict[int, NDArray[np.int64]] = {}  # of whose secrets, [2 * SECRET_WORDS]
        self._peers: NDArray[np.bool_] = np.zeros(len(party.session.cohort), np.bool_)
        self._survivors: Survivors | None = None

    # ------------------------------------------------------------------------------- messages
    def advertise(self) -> bytes:
        """The signed public keys of this session."""
        return self._step(Stage.ADVERTISE, self._advertise)

    def share(self, roster: bytes) -> bytes:
        """From the neighbours' keys to a sealed share of both secrets for each of them.

        Raises:
            ProtocolError: anything but signed keys of neighbours, `threshold - 1` of them or more.
        """
        return self._step(Stage.SHARE, lambda: self._share(roster))

    def mask(self, inbox: bytes, vector: Words) -> bytes:
        """From the neighbours' shares to the masked vector.

        Args:
            inbox: what the server passes on.
            vector: `[length]` words of the session's width, what is to be summed.

        Raises:
            ProtocolError: shares of others than neighbours on the roster, or too few of them.
            ConfigError: a vector of another length or type.
        """
        return self._step(Stage.MASK, lambda: self._masked(inbox, vector))

    def confirm(self, survivors: bytes) -> bytes:
        """From the list of survivors to a signature over it.

        Raises:
            ProtocolError: lists that do not fit what this client has seen, or too short ones.
        """
        return self._step(Stage.CONFIRM, lambda: self._confirm(survivors))

    def open(self, signatures: bytes) -> bytes:
        """From others' signatures over the same list to one share for each neighbour.

        Raises:
            ProtocolError: a signature that is not right, or too few of them.
        """
        return self._step(Stage.OPEN, lambda: self._open(signatures))

    def erase(self) -> None:
        """Forget all secrets: overwritten where Python allows it, let go of elsewhere."""
        if self.stage is not Stage.DONE:
            self.stage = Stage.FAILED
        self._channel.erase()
        self._mask.erase()
        self._self_mask[:] = bytes(KEY)
        for shares in self._shares.values():
            shares[:] = 0
        self._shares, self._channels, self._masks = {}, {}, {}

    # ------------------------------------------------------------------------------ the stages
    def _step(self, stage: Stage, work: Callable[[], bytes]) -> bytes:
        """Do what a stage does, once; or fail for good."""
        if self.stage is not stage:
            was = self.stage
            self.erase()
            raise refused(
                f"client {self._party.client} asked to {stage.name.lower()}",
                "it is not its turn" if was < Stage.DONE else f"its session is {was.name.lower()}",
            )
        try:
            message = work()
        except BaseException:
            self.erase()
            raise
        self.stage = Stage(stage + 1)
        if self.stage is Stage.DONE:
            self.erase()
        return message

    def _advertise(self) -> bytes:
        p = self._party
        commitment = derive(self._self_mask, "commitment", p.digest, p.place)
        keys = Keys(self._channel.public, self._mask.public, commitment, b"")
        signature = sign(p.identity, "keys", p.digest, keys.signed(p.place))
        return self._frame.wrap(Kind.KEYS, keys.to_bytes() + signature)

    def _share(self, roster: bytes) -> bytes:
        p = self._party
        records = messages.read_records(self._frame.body(Kind.ROSTER, roster), messages.KEYS)
        self._roster = {place: Keys.from_bytes(record) for place, record in records.items()}
        self._check_roster()
        holders = np.array([*self._roster, p.place], np.int64)
        shares = share(
            self._self_mask + self._mask.private,
            p.session.threshold,
            p.session.graph.points(p.place, holders),
        )
        self._shares[p.place] = shares[-1]
        sealed = {}
        for row, (place, keys) in zip(shares, self._roster.items(), strict=False):
            secret = self._channel.agree(keys.channel)
            key = derive(secret, "channel", p.digest, p.place, place)
            sealed[place] = seal(key, to_bytes(row), p.digest)
            self._channels[place] = derive(secret, "channel", p.digest, place, p.place)
            self._masks[place] = pairwise(self._mask, keys.mask, p.digest, p.place, place)
        self._channel.erase()  # all that was to be agreed on has been
        self._mask.erase()
        return self._frame.wrap(Kind.SHARES, messages.records(sealed))

    def _check_roster(self) -> None:
        p = self._party
        strangers = set(self._roster) - set(p.neighbours.tolist())
        if strangers:
            raise refused(
                f"keys of place {min(strangers)}, who is no neighbour",
                "who shares with whom follows from the session's seed",
            )
        self._check_enough(len(self._roster) + 1, "neighbours with keys")
        seen = {self._channel.public, self._mask.public}
        for place, keys in self._roster.items():
            public = p.registry[p.session.cohort[place]]
            if not is_signed(public, keys.signature, "keys", p.digest, keys.signed(place)):
                raise refused(f"keys of place {place} that it has not signed", "somebody made them")
            if {keys.channel, keys.mask} & seen or keys.channel == keys.mask:
                raise refused(f"a key of place {place} that another one has", "each is used once")
            seen |= {keys.channel, keys.mask}

    def _masked(self, inbox: bytes, vector: Words) -> bytes:
        p = self._party
        if vector.dtype != word_type(p.session.width) or vector.shape != (p.session.length,):
            raise ConfigError(
                f"an array {list(vector.shape)} of {vector.dtype} to be summed",
                why=f"this session sums {p.session.length} words of {p.session.width} bits",
                instead="what FixedPoint.encode makes, with the session's width",
            )
        records = messages.read_records(self._frame.body(Kind.INBOX, inbox), messages.SEALED)
        strangers = set(records) - set(self._roster)
        if strangers:
            raise refused(f"shares of place {min(strangers)}", "its keys have not been seen")
        self._peers[list(records)] = True
        for place, sealed in records.items():
            plain = unseal(self._channels[place], sealed, p.digest)
            found = None if plain is None else from_bytes(plain, 2 * SECRET_WORDS)
            if found is not None:
                self._shares[place] = found
        self._check_enough(len(self._shares), "neighbours with shares that can be read")
        unread = set(records) - set(self._shares)
        words = np.array(vector)  # contiguous, and not the caller's
        own = masking.Mask(derive(self._self_mask, "self mask", p.digest, p.place), adds=True)
        masking.apply(words, [own, *(self._masks[place] for place in records)])
        self._channels, self._masks = {}, {}
        return messages.masked(self._frame, words, unread)

    def _confirm(self, survivors: bytes) -> bytes:
        p = self._party
        body = self._frame.body(Kind.SURVIVORS, survivors)
        lists = Survivors.from_body(body, len(p.session.cohort))
        if not lists.active[p.place]:
            raise refused("survivors without this client", "it has sent its vector")
        known = np.zeros_like(self._peers)
        known[p.neighbours] = True
        if ((lists.active | lists.dropped) & known != self._peers).any():
            raise refused(
                "survivors among neighbours who are not those whose shares this client has",
                "each of them is in the sum or has dropped out",
            )
        if lists.active.sum() < p.session.least:
            raise refused(
                f"{lists.active.sum()} survivors", f"no fewer than {p.session.least} are summed"
            )
        self._check_enough(int((lists.active & self._peers).sum()) + 1, "neighbours that survive")
        self._survivors = lists
        signature = sign(p.identity, "survivors", p.digest, lists.to_bytes())
        return self._frame.wrap(Kind.SIGNATURE, signature)

    def _open(self, signatures: bytes) -> bytes:
        p, lists = self._party, self._survivors
        if lists is None:  # pragma: no cover - `confirm` came before
            raise refused("an opening without survivors", "they are confirmed first")
        body = self._frame.body(Kind.SIGNATURES, signatures)
        signed = lists.to_bytes()
        found = messages.read_records(body, SIGNATURE)
        for place, signature in found.items():
            if place >= len(lists.active) or not lists.active[place] or place == p.place:
                raise refused(f"a signature of place {place}", "it is none of the other survivors")
            if not p.is_by(place, signature, signed):
                raise refused(
                    f"a signature of place {place} that is not over these survivors",
                    "it has seen others, or none",
                )
        if len(found) + 1 < p.session.quorum:
            raise refused(
                f"{len(found)} signatures over these survivors",
                f"{p.session.quorum - 1} others must have seen the same",
            )
        opened = {}
        for place, shares in self._shares.items():
            which = Secret.SELF_MASK if lists.active[place] else Secret.MASK_KEY
            half = shares[:SECRET_WORDS] if lists.active[place] else shares[SECRET_WORDS:]
            opened[place] = messages.opening(which, to_bytes(half))
        self.has_opened = True
        return self._frame.wrap(Kind.OPENING, messages.records(opened))

    def _check_enough(self, count: int, of_what: str) -> None:
        """Refuse fewer than the threshold, this client among them."""
        if count < self._party.session.threshold:
            raise ProtocolError(
                f"{count} of {of_what}, this client among them",
                why=f"the threshold is {self._party.session.threshold}: with fewer there is no sum",
                instead="another session, in which more clients stay",
            )


def pairwise(own: KeyPair, public: bytes, digest: bytes, place: int, peer: int) -> masking.Mask:
    """The mask that two clients share: the one with the lower place adds it, the other subtracts.

    Args:
        own: the mask key of `place`.
        public: the mask key of `peer`.
        digest: the session's.
        place: whose view this is.
        peer: the other one.
    """
    seed = derive(own.agree(public), "mask", digest, min(place, peer), max(place, peer))
    return masking.Mask(seed, adds=place < peer)
