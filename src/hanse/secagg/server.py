"""The server of one secure sum, as a state machine: bytes in, bytes out, no transport.

For each stage: `receive` what clients send, for as long as one wants to wait; then `advance`, which
says what to send to whom. Whoever has sent nothing acceptable by then has dropped out. After five
stages there is a `result`.

Vectors are added when they arrive, so there is one in memory, whatever the number of clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ProtocolError
from hanse.secagg import messages
from hanse.secagg.client import Stage
from hanse.secagg.field import rows_from_bytes
from hanse.secagg.messages import SECRET_WORDS, Frame, Keys, Kind, Secret, Survivors, refused
from hanse.secagg.primitives import SIGNATURE, is_signed, is_usable
from hanse.secagg.ring import word_type
from hanse.secagg.unmasking import Opened, unmask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from hanse.secagg.ring import Words
    from hanse.secagg.session import Registry, Session

_EXPECTED = {
    Stage.ADVERTISE: Kind.KEYS,
    Stage.SHARE: Kind.SHARES,
    Stage.MASK: Kind.MASKED,
    Stage.CONFIRM: Kind.SIGNATURE,
    Stage.OPEN: Kind.OPENING,
}


class Server:
    """The server's side.

    Attributes:
        session: the session.
        stage: whose messages it waits for; `DONE` when there is a result.
        faults: what clients did that the protocol does not allow, by their numbers. Somebody else's
            message under a client's number looks the same, so the transport must know its clients.
    """

    def __init__(self, session: Session, registry: Registry) -> None:
        """Wait for keys."""
        self.session = session
        self.stage = Stage.ADVERTISE
        self.faults: dict[int, str] = {}
        self._digest = session.digest(registry)
        self._identities = [registry[client] for client in session.cohort]
        self._places = {client: place for place, client in enumerate(session.cohort)}
        self._near = np.stack(
            [session.graph.neighbours(p) for p in self._places.values()]
        )  # [n, k]
        n = len(session.cohort)
        self._here = np.ones(n, np.bool_)  # of whom messages are accepted
        self._came = np.zeros(n, np.bool_)  # whose message has been accepted in this stage
        self._keys: dict[int, Keys] = {}
        self._public: set[bytes] = set()  # all keys of them
        self._sealed: dict[int, dict[int, bytes]] = {}
        self._shared = np.zeros(n, np.bool_)  # who has shared secrets
        self._unread: dict[int, tuple[int, ...]] = {}  # whose shares somebody could not read
        self._total = np.zeros(session.length, word_type(session.width))
        self._survivors = Survivors(np.zeros(n, np.bool_), np.zeros(n, np.bool_))
        self._signatures: dict[int, bytes] = {}
        self._opened = Opened()

    @property
    def waiting(self) -> tuple[int, ...]:
        """The clients that could still send a message in this stage."""
        return self._clients(np.flatnonzero(self._here & ~self._came))

    @property
    def survivors(self) -> tuple[int, ...]:
        """The clients whose vectors are in the sum."""
        return self._clients(np.flatnonzero(self._survivors.active))

    @property
    def unread(self) -> dict[int, tuple[int, ...]]:
        """Of whom some clients say that they could not read its shares; either may be at fault."""
        found: dict[int, list[int]] = {}
        for holder, owners in self._unread.items():
            for owner in owners:
                found.setdefault(self.session.cohort[owner], []).append(self.session.cohort[holder])
        return {owner: tuple(holders) for owner, holders in found.items()}

    @property
    def result(self) -> Words:
        """The sum of the survivors' vectors, `[length]` words.

        Raises:
            ProtocolError: there is none yet.
        """
        if self.stage is not Stage.DONE:
            raise refused("a result that is asked for too early", f"it is time to {self._verb}")
        return self._total

    def receive(self, client: int, message: bytes) -> bool:
        """Take a message of a client, or note why not.

        Args:
            client: whose it is, as the transport knows it.
            message: any bytes.

        Returns:
            Whether it was accepted. Otherwise the client's earlier message, if any, stands.
        """
        try:
            self._take(client, message)
        except ProtocolError as error:
            self.faults.setdefault(client, f"{error.found}: {error.why}")
            return False
        return True

    def advance(self) -> dict[int, bytes]:
        """End the stage.

        Returns:
            What to send to whom, by client. After the last stage, nothing.

        Raises:
            ProtocolError: too few clients are left. The session is over, and nothing has been
                opened unless the last stage was waited for.
        """
        ends = {
            Stage.ADVERTISE: self._end_advertise,
            Stage.SHARE: self._end_share,
            Stage.MASK: self._end_mask,
            Stage.CONFIRM: self._end_confirm,
            Stage.OPEN: self._end_open,
        }
        if self.stage not in ends:
            raise refused("a stage after the last one", f"the session is {self._verb}")
        stage, self.stage = self.stage, Stage.FAILED
        self._here, self._came = self._came, np.zeros_like(self._came)
        sent = ends[stage]()
        self.stage = Stage(stage + 1)
        return {self.session.cohort[place]: message for place, message in sent.items()}

    # --------------------------------------------------------------------------------- messages
    def _take(self, client: int, message: bytes) -> None:
        place = self._places.get(client)
        if place is None:
            raise refused(f"a message of client {client}", "it is not in the cohort")
        if self.stage not in _EXPECTED:
            raise refused(f"a message of client {client}", f"the session is {self._verb}")
        if not self._here[place]:
            raise refused(f"a message of client {client}", "it has dropped out")
        if self._came[place]:
            raise refused(f"a second message of client {client} to {self._verb}", "one is enough")
        body = Frame(self._digest, place).body(_EXPECTED[self.stage], message)
        takes = {
            Stage.ADVERTISE: self._take_keys,
            Stage.SHARE: self._take_shares,
            Stage.MASK: self._take_masked,
            Stage.CONFIRM: self._take_signature,
            Stage.OPEN: self._take_opening,
        }
        takes[self.stage](place, body)
        self._came[place] = True

    def _take_keys(self, place: int, body: memoryview) -> None:
        keys = Keys.from_bytes(messages.fixed(body, messages.KEYS))
        public = self._identities[place]
        if not is_signed(public, keys.signature, "keys", self._digest, keys.signed(place)):
            raise refused("keys without the client's signature", "others would refuse them")
        if not (is_usable(keys.channel) and is_usable(keys.mask)):
            raise refused("a public key of small order", "what is shared with it is no secret")
        both = {keys.channel, keys.mask}
        if len(both) < 2 or both & self._public:
            raise refused("a public key that is there already", "each is drawn for one purpose")
        self._public |= both
        self._keys[place] = keys

    def _take_shares(self, place: int, body: memoryview) -> None:
        sealed = messages.read_records(body, messages.SEALED)
        if sealed.keys() != set(self._peers_of(place)):
            raise refused("shares that are not for the neighbours on the roster", "each gets one")
        self._sealed[place] = sealed

    def _take_masked(self, place: int, body: memoryview) -> None:
        words, unread = messages.read_masked(self.session, body)
        if not set(unread) <= set(self._peers_of(place)):
            raise refused("complaints of shares that were not sent", "they name their owners")
        np.add(self._total, words, out=self._total)
        if unread:
            self._unread[place] = unread

    def _take_signature(self, place: int, body: memoryview) -> None:
        signature = messages.fixed(body, SIGNATURE)
        data = self._survivors.to_bytes()
        if not is_signed(self._identities[place], signature, "survivors", self._digest, data):
            raise refused("a signature that is not over the survivors", "others would refuse it")
        self._signatures[place] = signature

    def _take_opening(self, place: int, body: memoryview) -> None:
        opened = messages.read_openings(body)
        readable = {place, *self._peers_of(place)} - set(self._unread.get(place, ()))
        if opened.keys() != readable:
            raise refused("shares that are not of the neighbours' secrets", "each has sent one")
        active = self._survivors.active[list(opened)].tolist()
        wanted = [Secret.SELF_MASK if is_active else Secret.MASK_KEY for is_active in active]
        if [secret for secret, _ in opened.values()] != wanted:
            raise refused("a share of the wrong secret", "the survivors say which is opened")
        shares = rows_from_bytes(b"".join(data for _, data in opened.values()), SECRET_WORDS)
        if shares is None:
            raise refused("a share that is no element of the field", "it was not dealt so")
        self._opened.add(place, dict(zip(opened, shares, strict=True)))

    # ------------------------------------------------------------------------------- the stages
    def _end_advertise(self) -> dict[int, bytes]:
        self._prune("have advertised keys")
        self._shared = self._here.copy()
        return {
            place: self._records(place, Kind.ROSTER, {j: self._keys[j].to_bytes() for j in peers})
            for place, peers in self._present()
        }

    def _end_share(self) -> dict[int, bytes]:
        self._prune("have shared their secrets")
        self._shared = self._here.copy()
        sent = {
            place: self._records(place, Kind.INBOX, {j: self._sealed[j][place] for j in peers})
            for place, peers in self._present()
        }
        self._sealed = {}
        return sent

    def _end_mask(self) -> dict[int, bytes]:
        active = self._here
        self._check_count(int(active.sum()), self.session.least, "have sent their vectors")
        self._survivors = Survivors(active.copy(), self._shared & ~active)
        self._check_holders(active, "keep enough neighbours, so the sum could not be opened")
        body = self._survivors.to_bytes()
        return {place: self._frame(place).wrap(Kind.SURVIVORS, body) for place in self._list()}

    def _end_confirm(self) -> dict[int, bytes]:
        quorum = self.session.quorum
        self._check_count(int(self._here.sum()), quorum, "have confirmed the survivors")
        self._check_holders(self._here, "have enough neighbours left that would open")
        signed = sorted(self._signatures)[:quorum]  # one may be the client's own
        return {
            place: self._records(
                place, Kind.SIGNATURES, {j: self._signatures[j] for j in signed if j != place}
            )
            for place in self._list()
        }

    def _end_open(self) -> dict[int, bytes]:
        self._check_holders(self._here, "have enough neighbours that opened")
        wrong = unmask(
            self._total,
            session=self.session,
            digest=self._digest,
            keys=self._keys,
            survivors=self._survivors,
            opened=self._opened,
        )
        for holder, owners in wrong.items():
            owner = self.session.cohort[owners[0]]
            fault = f"a share of client {owner}'s secret that does not fit; one of the two lies"
            self.faults.setdefault(self.session.cohort[holder], fault)
        self._opened = Opened()
        return {}

    # ------------------------------------------------------------------------------------ helpers
    def _prune(self, have_done: str) -> None:
        """Leave out those with too few neighbours, until nobody has; refuse if too few are left."""
        while True:
            near = self._here[self._near].sum(axis=1) + 1
            alone = self._here & (near < self.session.threshold)
            if not alone.any():
                break
            self._here = self._here & ~alone
        least = max(self.session.least, self.session.quorum)
        self._check_count(int(self._here.sum()), least, f"{have_done} and have enough neighbours")

    def _check_count(self, count: int, least: int, have_done: str) -> None:
        if count < least:
            raise ProtocolError(
                f"{count} of {len(self.session.cohort)} clients {have_done}",
                why=f"{least} are needed, and nothing has been opened",
                instead="another session with fresh keys, or with more clients",
            )

    def _check_holders(self, holders: NDArray[np.bool_], verb: str) -> None:
        """Refuse where somebody's secret could not be put together from what these hold."""
        count = holders[self._near].sum(axis=1) + holders
        for holder, owners in self._unread.items():
            count[list(owners)] -= holders[holder]
        needed = self._survivors.active | (
            self._survivors.dropped & self._survivors.active[self._near].any(axis=1)
        )
        short = np.flatnonzero(needed & (count < self.session.threshold))
        if short.size:
            raise ProtocolError(
                f"the shares of client {self.session.cohort[short[0]]} that can be had are "
                f"{count[short[0]]}",
                why=f"{self.session.threshold} are needed: not all {verb}",
                instead="another session with fresh keys, without those who are gone",
            )

    def _present(self) -> Iterable[tuple[int, list[int]]]:
        return ((place, self._peers_of(place)) for place in self._list())

    def _list(self) -> list[int]:
        found: list[int] = np.flatnonzero(self._here).tolist()
        return found

    def _peers_of(self, place: int) -> list[int]:
        """The neighbours that have come as far as sharing secrets (or advertising keys)."""
        near = self._near[place]
        found: list[int] = near[self._shared[near]].tolist()
        return found

    def _frame(self, place: int) -> Frame:
        return Frame(self._digest, place)

    def _records(self, place: int, kind: Kind, entries: dict[int, bytes]) -> bytes:
        return self._frame(place).wrap(kind, messages.records(entries))

    def _clients(self, places: NDArray[np.int64]) -> tuple[int, ...]:
        return tuple(self.session.cohort[place] for place in places)

    @property
    def _verb(self) -> str:
        return self.stage.name.lower()
