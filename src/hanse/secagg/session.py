"""What everybody knows of one secure sum before it starts."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from hanse.core.errors import ConfigError, ProtocolError
from hanse.secagg.graph import Graph
from hanse.secagg.parameters import check_size, default_threshold, insecurity
from hanse.secagg.ring import Width, word_type

if TYPE_CHECKING:
    from hanse.secagg.parameters import Assumptions, Parameters

Registry = Mapping[int, bytes]
"""Clients' public Ed25519 keys, 32 bytes each, by the clients' numbers.

Everybody has it from somewhere that the server cannot write to: what is promised against the server
rests on it.
"""

_LABEL = b"hanse secagg 1 session"
# id, seed, clients, length, width, degree, threshold, quorum, least, bytes of the context
_FIXED = struct.Struct("<16s32sIQBIIIIH")
_MOST_CLIENTS = 1 << 16  # points of the field
_LONGEST = 1 << 32  # words


@dataclass(frozen=True)
class Session:
    """One secure sum. Every message is bound to all of this, by a hash.

    Attributes:
        id: 16 random bytes, never used before.
        cohort: the clients' numbers, ascending, below 2^32.
        length: words of a vector.
        width: bits of a word.
        threshold: how many shares give a secret back.
        quorum: how many clients must have seen the same survivors before anything is opened.
        degree: neighbours of each client in the graph; `len(cohort) - 1` is the complete one.
        seed: 32 bytes that the graph follows from; zeros for the complete one. Nobody who may be
            corrupt should have been able to choose it (`Assumptions.grinding`).
        least: the fewest vectors that are summed.
        context: further public parameters that all must agree on (`FixedPoint.context`, the model's
            version), 65535 bytes at most.

    Raises:
        ConfigError: what cannot be meant, or cannot be secure whatever is assumed.
    """

    id: bytes
    cohort: tuple[int, ...]
    length: int
    width: Width
    threshold: int
    quorum: int
    degree: int
    seed: bytes = bytes(32)
    least: int = 3
    context: bytes = b""

    def __post_init__(self) -> None:
        """Check what no assumption would make right."""
        n = len(self.cohort)
        check_size(n)
        ascending = all(a < b for a, b in zip(self.cohort, self.cohort[1:], strict=False))
        ranges = {
            f"an id of {len(self.id)} bytes": len(self.id) == 16,
            f"a seed of {len(self.seed)} bytes": len(self.seed) == 32,
            f"a context of {len(self.context)} bytes": len(self.context) < 1 << 16,
            f"{n} clients": n < _MOST_CLIENTS,
            "a cohort that is not ascending": ascending,
            f"clients from {self.cohort[0]} to {self.cohort[-1]}": (
                self.cohort[0] >= 0 and self.cohort[-1] < 1 << 32
            ),
            f"{self.length} words": 1 <= self.length <= _LONGEST,
            f"words of {self.width} bits": self.width in (32, 64),
            f"degree {self.degree}": self.degree == n - 1
            or (self.degree % 2 == 0 and 2 <= self.degree < n - 1),
            f"threshold {self.threshold} with degree {self.degree}": (
                2 <= self.threshold <= self.degree + 1
            ),
            f"a quorum of {self.quorum}": 2 <= self.quorum <= n,
            f"sums of {self.least} vectors": 3 <= self.least <= n,
        }
        for found, is_right in ranges.items():
            if not is_right:
                raise ConfigError(
                    f"a secure sum with {found}",
                    why="16 bytes name it and 32 seed its graph; clients are different numbers in "
                    "ascending order; a degree is even or complete; a threshold is 2 or more, and "
                    "no more than a client and its neighbours; no fewer than 3 vectors are summed",
                    instead="Session.complete(cohort, …) or Session.planned(cohort, plan(…), …)",
                )

    @classmethod
    def complete(
        cls,
        cohort: Sequence[int],
        *,
        length: int,
        width: Width,
        threshold: int | None = None,
        context: bytes = b"",
    ) -> Self:
        """A new session on the complete graph: for 3 to about 100 clients.

        Args:
            cohort: the clients' numbers, in any order.
            length: words of a vector.
            width: bits of a word.
            threshold: of shares, of signatures and of vectors; `None` is `floor(2n / 3) + 1`.
            context: further public parameters.
        """
        n = len(cohort)
        check_size(n)
        t = default_threshold(n) if threshold is None else threshold
        return cls(
            id=os.urandom(16),
            cohort=tuple(sorted(cohort)),
            length=length,
            width=width,
            threshold=t,
            quorum=t,
            degree=n - 1,
            least=max(t, 3),
            context=context,
        )

    @classmethod
    def planned(
        cls,
        cohort: Sequence[int],
        parameters: Parameters,
        *,
        seed: bytes,
        length: int,
        width: Width,
        context: bytes = b"",
    ) -> Self:
        """A new session with computed parameters (`plan`).

        Args:
            cohort: the clients' numbers, in any order, as many as the parameters are for.
            parameters: degree and threshold.
            seed: 32 bytes that the graph follows from.
            length: words of a vector.
            width: bits of a word.
            context: further public parameters.
        """
        n = len(cohort)
        if n != parameters.clients:
            raise ConfigError(
                f"{n} clients with parameters for {parameters.clients}",
                why="how many neighbours are enough depends on the number of clients",
                instead=f"plan({n}, …)",
            )
        t, closed = parameters.threshold, parameters.degree + 1
        return cls(
            id=os.urandom(16),
            cohort=tuple(sorted(cohort)),
            length=length,
            width=width,
            threshold=t,
            quorum=parameters.quorum,
            degree=parameters.degree,
            seed=bytes(32) if closed == n else seed,
            least=max(3, -(-n * t // closed)),
            context=context,
        )

    @cached_property
    def graph(self) -> Graph:
        """Who shares masks and secrets with whom; clients by their places in the cohort."""
        return Graph(len(self.cohort), self.degree, self.seed)

    @property
    def tolerated(self) -> int:
        """How many may drop out: exactly for the complete graph, about so many otherwise."""
        n = len(self.cohort)
        return min(n - self.least, n - self.quorum, self.degree + 1 - self.threshold)

    @property
    def warning(self) -> str:
        """What somebody who starts this should know; empty where there is nothing."""
        if self.tolerated:
            return ""
        return (
            f"{len(self.cohort)} clients with threshold {self.threshold}: if one of them drops "
            "out, there is no sum. Five clients or more tolerate one"
        )

    @property
    def vector_bytes(self) -> int:
        """Bytes of a masked vector."""
        return self.length * word_type(self.width).itemsize

    def check(self, assumptions: Assumptions) -> None:
        """Refuse parameters that are not secure under what a client assumes.

        Raises:
            ProtocolError: the server proposes too low a threshold, or too few neighbours.
        """
        n = len(self.cohort)
        chance = insecurity(n, self.degree, self.threshold, self.quorum, assumptions)
        if chance > -assumptions.security:
            raise ProtocolError(
                f"{n} clients, degree {self.degree}, threshold {self.threshold}, "
                f"quorum {self.quorum}",
                why=f"with {assumptions.corrupt_of(n)} corrupt clients and a {assumptions.server} "
                f"server, that may give something away: 2^{chance:.1f} is the bound on its chance, "
                f"2^-{assumptions.security} what is allowed",
                instead="a session with the parameters of `plan`, or other assumptions",
            )

    def digest(self, registry: Registry) -> bytes:
        """32 bytes that stand for this session among clients with these keys.

        Raises:
            ProtocolError: a client has no key in the registry, or not one of 32 bytes.
        """
        for client in self.cohort:
            if len(registry.get(client, b"")) != 32:
                raise ProtocolError(
                    f"client {client} has no Ed25519 key in the registry",
                    why="it cannot be told from somebody whom the server made up",
                    instead="a cohort of registered clients, with keys of 32 bytes each",
                )
        hashed = hashlib.sha256(_LABEL + self.to_bytes())
        for client in self.cohort:
            hashed.update(registry[client])
        return hashed.digest()

    def to_bytes(self) -> bytes:
        """The parameters, as the server sends them."""
        fixed = _FIXED.pack(
            self.id,
            self.seed,
            len(self.cohort),
            self.length,
            self.width,
            self.degree,
            self.threshold,
            self.quorum,
            self.least,
            len(self.context),
        )
        return fixed + struct.pack(f"<{len(self.cohort)}I", *self.cohort) + self.context

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The parameters again.

        Raises:
            ProtocolError: not what `to_bytes` makes of any session.
        """
        try:
            fields = _FIXED.unpack_from(data)
            id_, seed, n, length, width, degree, threshold, quorum, least, extra = fields
            cohort = struct.unpack(f"<{n}I", data[_FIXED.size : len(data) - extra])
            context = bytes(data[_FIXED.size + 4 * n :])
            return cls(id_, cohort, length, width, threshold, quorum, degree, seed, least, context)
        except (struct.error, ConfigError) as error:
            raise ProtocolError(
                f"{len(data)} bytes that are not the parameters of a secure sum",
                why=error.found if isinstance(error, ConfigError) else "lengths do not fit",
                instead="what Session.to_bytes makes",
            ) from error
