"""The end of a secure sum: from opened shares to secrets, and from secrets to the masks in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ProtocolError
from hanse.secagg import masking
from hanse.secagg.client import pairwise
from hanse.secagg.primitives import KeyPair, derive
from hanse.secagg.shamir import combine, repair, weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from hanse.secagg.messages import Keys, Survivors
    from hanse.secagg.ring import Words
    from hanse.secagg.session import Session


@dataclass
class Opened:
    """Shares that were opened: whose they are, and who held them.

    Attributes:
        shares: by owner, then by holder.
    """

    shares: dict[int, dict[int, NDArray[np.int64]]] = field(default_factory=dict)

    def add(self, holder: int, shares: Mapping[int, NDArray[np.int64]]) -> None:
        """What one client has opened, by owner."""
        for owner, share in shares.items():
            self.shares.setdefault(owner, {})[holder] = share


@dataclass
class _Secrets:
    """Puts secrets together, and keeps what many of them need."""

    session: Session
    opened: Opened
    wrong: dict[int, list[int]] = field(default_factory=dict)  # by holder: whose shares do not fit
    _weights: dict[bytes, NDArray[np.int64]] = field(default_factory=dict)

    def of(self, owner: int, is_right: Callable[[bytearray], bool]) -> bytearray:
        """The secret of a client, checked against what it advertised."""
        held = self.opened.shares.get(owner, {})
        holders = np.array(sorted(held), np.int64)
        points = self.session.graph.points(owner, holders)
        shares = np.stack([held[holder] for holder in holders.tolist()])
        secret = self._combined(points, shares)
        if secret is not None and is_right(secret):
            return secret
        bad = repair(points, shares, self.session.threshold)
        if bad is not None and bad.any():
            secret = self._combined(points[~bad], shares[~bad])
            if secret is not None and is_right(secret):
                for holder in holders[bad].tolist():
                    self.wrong.setdefault(holder, []).append(owner)
                return secret
        raise ProtocolError(
            f"shares of client {self.session.cohort[owner]} that do not give its secret",
            why=f"it, or some of the {len(held)} that opened them, lied; "
            f"{(len(held) - self.session.threshold) // 2} wrong ones could have been corrected",
            instead="another session without it",
        )

    def _combined(self, points: NDArray[np.int64], shares: NDArray[np.int64]) -> bytearray | None:
        t = self.session.threshold
        name = points[:t].tobytes()
        if name not in self._weights:
            self._weights[name] = weights(points[:t])
        return combine(self._weights[name], shares[:t])


def unmask(
    total: Words,
    *,
    session: Session,
    digest: bytes,
    keys: Mapping[int, Keys],
    survivors: Survivors,
    opened: Opened,
) -> dict[int, list[int]]:
    """Take all masks out of a sum of masked vectors, in place.

    Args:
        total: `[length]`, the sum over the active clients.
        session: the session.
        digest: its digest.
        keys: what clients advertised, by place.
        survivors: who is in the sum, and who shared secrets and is not.
        opened: the shares.

    Returns:
        Who opened shares that do not fit the others', and whose they are, by places. The secrets
        could be put together all the same.

    Raises:
        ProtocolError: a secret cannot be put together.
    """
    secrets = _Secrets(session, opened)
    masks = []
    for place in np.flatnonzero(survivors.active).tolist():
        secret = secrets.of(place, _is_committed_to(keys[place].commitment, digest, place))
        masks.append(masking.Mask(derive(secret, "self mask", digest, place), adds=False))
    for place in np.flatnonzero(survivors.dropped).tolist():
        near = session.graph.neighbours(place)
        peers = near[survivors.active[near]].tolist()
        if not peers:
            continue
        pair = KeyPair(secrets.of(place, _has_public(keys[place].mask)))
        # What the client would have added or subtracted is what its peers' sums lack.
        masks += [pairwise(pair, keys[peer].mask, digest, place, peer) for peer in peers]
        pair.erase()
    masking.apply(total, masks)
    return secrets.wrong


def _is_committed_to(commitment: bytes, digest: bytes, place: int) -> Callable[[bytearray], bool]:
    return lambda secret: derive(secret, "commitment", digest, place) == commitment


def _has_public(public: bytes) -> Callable[[bytearray], bool]:
    return lambda secret: KeyPair(bytearray(secret)).public == public
