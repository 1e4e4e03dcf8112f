"""The messages as bytes, strictly: one way to write each, and anything else is refused.

Every message begins with 48 bytes: `HSA1`, its kind, three zeros, the client it is from or for (its
place in the cohort), the session's digest, and the length of the rest. Numbers are little-endian.
Lists are of records of one length, each headed by a client's place, in ascending order.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hanse.core.errors import ProtocolError
from hanse.secagg.field import encoded_length
from hanse.secagg.primitives import KEY, SIGNATURE, TAG
from hanse.secagg.ring import word_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from hanse.secagg.ring import Words
    from hanse.secagg.session import Session

_MAGIC = b"HSA1"
_HEADER = struct.Struct("<4sB3xI32sI")
HEADER = _HEADER.size
_PLACE = struct.Struct("<I")

SECRET_WORDS = KEY // 2
SHARE = encoded_length(SECRET_WORDS)  # bytes of a share of one secret
SEALED = encoded_length(2 * SECRET_WORDS) + TAG  # of both secrets, sealed


class Kind(enum.IntEnum):
    """What a message is; odd ones go to the server."""

    KEYS = 1
    ROSTER = 2
    SHARES = 3
    INBOX = 4
    MASKED = 5
    SURVIVORS = 6
    SIGNATURE = 7
    SIGNATURES = 8
    OPENING = 9


class Secret(enum.IntEnum):
    """Which of a client's two secrets a share is of."""

    SELF_MASK = 1  # of one who is in the sum
    MASK_KEY = 2  # of one who is not


@dataclass(frozen=True)
class Frame:
    """What binds messages to a session and to a client.

    Attributes:
        digest: the session's.
        place: the client's place in the cohort.
    """

    digest: bytes
    place: int

    def wrap(self, kind: Kind, body: bytes | bytearray) -> bytes:
        """A whole message."""
        return self.header(kind, len(body)) + body

    def header(self, kind: Kind, length: int) -> bytes:
        """The first 48 bytes of a message whose rest has so many."""
        return _HEADER.pack(_MAGIC, kind, self.place, self.digest, length & 0xFFFFFFFF)

    def body(self, kind: Kind, message: bytes) -> memoryview:
        """The rest of a message that is of this kind, session and client.

        Raises:
            ProtocolError: any other message.
        """
        if len(message) < HEADER:
            raise refused(f"a message of {len(message)} bytes", f"the shortest has {HEADER}")
        view = memoryview(message)
        expected = self.header(kind, len(message) - HEADER)
        if view[:HEADER] == expected:
            return view[HEADER:]
        magic, found, place, digest, length = _HEADER.unpack_from(message)
        if magic != _MAGIC:
            raise refused(
                f"a message that begins with {bytes(magic)!r}", f"{_MAGIC!r} was expected"
            )
        if digest != self.digest:
            raise refused("a message of another session", "each is of one session")
        if place != self.place:
            raise refused(f"a message of place {place}", f"it came from or to place {self.place}")
        if found != kind:
            raise refused(f"a message of kind {_name(found)}", f"it is time for {kind.name}")
        if length != (len(message) - HEADER) & 0xFFFFFFFF:
            raise refused(
                f"{len(message) - HEADER} bytes that should be {length}", "a message is whole"
            )
        raise refused("a message with something where zeros belong", "there is one way to write it")


@dataclass(frozen=True)
class Keys:
    """What a client advertises.

    Attributes:
        channel: its X25519 key for sealing shares.
        mask: its X25519 key for pairwise masks.
        commitment: to the secret of its self mask.
        signature: over the three, by its identity.
    """

    channel: bytes
    mask: bytes
    commitment: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        """160 bytes."""
        return self.channel + self.mask + self.commitment + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The keys again, of 160 bytes."""
        return cls(data[:KEY], data[KEY : 2 * KEY], data[2 * KEY : 3 * KEY], data[3 * KEY :])

    def signed(self, place: int) -> bytes:
        """What the signature is over."""
        return _PLACE.pack(place) + self.channel + self.mask + self.commitment


KEYS = 3 * KEY + SIGNATURE


# ---------------------------------------------------------------------------------- records
def records(entries: Mapping[int, bytes]) -> bytes:
    """Records by place, ascending."""
    return b"".join([_PLACE.pack(place) + entries[place] for place in sorted(entries)])


def read_records(body: memoryview, length: int) -> dict[int, bytes]:
    """Records of so many bytes each, by place.

    Raises:
        ProtocolError: a rest, or places that do not ascend.
    """
    record = struct.Struct(f"<I{length}s")
    if len(body) % record.size:
        raise refused(f"{len(body)} bytes of records", f"each has {record.size}")
    found: dict[int, bytes] = dict(record.iter_unpack(body))
    places = list(found)
    if len(places) * record.size != len(body) or places != sorted(places):
        raise refused(
            f"{len(body) // record.size} records out of order", "places ascend, each once"
        )
    return found


def fixed(body: memoryview, length: int) -> bytes:
    """A body of exactly so many bytes.

    Raises:
        ProtocolError: another length.
    """
    if len(body) != length:
        raise refused(f"{len(body)} bytes", f"there should be {length}")
    return bytes(body)


# -------------------------------------------------------------------------------- the vector
def masked(frame: Frame, words: Words, unread: Iterable[int]) -> bytes:
    """The message with a masked vector.

    Args:
        frame: of the client.
        words: `[length]`, contiguous.
        unread: the places of those whose shares could not be read.
    """
    tail = b"".join(map(_PLACE.pack, sorted(unread)))
    header = frame.header(Kind.MASKED, words.nbytes + len(tail))
    return b"".join([header, words.data, tail])  # the vector is copied once


def read_masked(session: Session, body: memoryview) -> tuple[Words, tuple[int, ...]]:
    """The masked vector (a view of the message), and the places whose shares could not be read.

    Raises:
        ProtocolError: another length, or places that do not ascend.
    """
    length = session.vector_bytes
    if len(body) < length:
        raise refused(f"a vector of {len(body)} bytes", f"there should be {length}")
    words = np.frombuffer(body, word_type(session.width), session.length)
    return words, tuple(read_records(body[length:], 0))


# ------------------------------------------------------------------------------ the survivors
@dataclass(frozen=True)
class Survivors:
    """Of those who shared secrets: whose vectors are in the sum, and whose are not.

    Attributes:
        active: `[n]`, by place.
        dropped: `[n]`, by place.
    """

    active: NDArray[np.bool_]
    dropped: NDArray[np.bool_]

    def to_bytes(self) -> bytes:
        """Two bits for each client: this is what is signed."""
        return _bits(self.active) + _bits(self.dropped)

    @classmethod
    def from_body(cls, body: memoryview, clients: int) -> Self:
        """The lists again.

        Raises:
            ProtocolError: another length, bits beyond the last client, or a client in both lists.
        """
        size = (clients + 7) // 8
        data = fixed(body, 2 * size)
        bits = [
            np.unpackbits(np.frombuffer(half, np.uint8), bitorder="little")
            for half in (data[:size], data[size:])
        ]
        if any(half[clients:].any() for half in bits):
            raise refused(f"survivors beyond place {clients - 1}", "there are no more clients")
        active, dropped = (half[:clients].astype(bool) for half in bits)
        both = np.flatnonzero(active & dropped)
        if both.size:
            raise refused(
                f"place {both[0]} among those who are in the sum and among those who are not",
                "with both secrets of a client its vector can be computed",
            )
        return cls(active, dropped)


def _bits(values: NDArray[np.bool_]) -> bytes:
    return np.packbits(values, bitorder="little").tobytes()


# ----------------------------------------------------------------------------------- openings
OPENING = 1 + SHARE


def opening(secret: Secret, share: bytes) -> bytes:
    """The record of one share that is given away."""
    return bytes([secret]) + share


def read_openings(body: memoryview) -> dict[int, tuple[Secret, bytes]]:
    """Shares by the place of whose secret they are of.

    Raises:
        ProtocolError: records that do not fit, or shares of no known secret.
    """
    found = {}
    kinds = {int(secret): secret for secret in Secret}
    for place, record in read_records(body, OPENING).items():
        secret = kinds.get(record[0])
        if secret is None:
            raise refused(f"a share of secret {record[0]}", "each client has two, 1 and 2")
        found[place] = (secret, record[1:])
    return found


def refused(found: str, why: str) -> ProtocolError:
    """The error for a message that is not what the protocol allows."""
    return ProtocolError(found, why=why, instead="a message that the protocol allows at this stage")


def _name(kind: Any) -> str:  # noqa: ANN401 - a byte
    return Kind(kind).name if kind in set(Kind) else str(kind)
