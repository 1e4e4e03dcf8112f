"""What a server, a client or somebody between may try, and what comes of it: one test each."""

from __future__ import annotations

import numpy as np
import pytest
from tests.secagg.group import NO_CORRUPT, Group, five, total

from hanse import ConfigError, ProtocolError
from hanse.secagg import Assumptions, Client, Party, Session, Stage, identities
from hanse.secagg.messages import (
    HEADER,
    KEYS,
    OPENING,
    SEALED,
    Frame,
    Keys,
    Kind,
    Survivors,
    opening,
    read_openings,
    read_records,
    records,
)
from hanse.secagg.primitives import SIGNATURE, KeyPair, derive, seal, sign

# Points of order 1, 2, 4 and 8 (RFC 7748, section 7; Bernstein's list), some not reduced.
SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def bits(session: Session, *clients: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.isin(session.cohort, clients)


def survivors(group: Group, to: int, active: list[int], dropped: list[int]) -> bytes:
    """What a server could say."""
    lists = Survivors(bits(group.session, *active), bits(group.session, *dropped))
    return group.frame(to).wrap(Kind.SURVIVORS, lists.to_bytes())


def everyone_but(group: Group, *clients: int) -> list[int]:
    return [c for c in group.session.cohort if c not in clients]


# ------------------------------------------------------------------------- a server that lies
def test_a_server_that_asks_for_both_secrets_of_a_client() -> None:
    group = Group(five()).until(Stage.CONFIRM)
    client = group.clients[8]
    with pytest.raises(ProtocolError, match="among those who are in the sum and among those"):
        client.confirm(survivors(group, 8, list(group.session.cohort), [13]))
    assert not client.has_opened


def test_a_server_that_asks_again_with_other_survivors() -> None:
    group = Group(five(threshold=3)).until(Stage.CONFIRM)
    client = group.clients[8]
    client.confirm(survivors(group, 8, everyone_but(group), []))
    with pytest.raises(ProtocolError, match="not its turn"):
        client.confirm(survivors(group, 8, everyone_but(group, 13), [13]))
    assert client.stage is Stage.FAILED


def test_a_server_that_has_the_opening_asks_for_another_one() -> None:
    group = Group(five()).until(Stage.OPEN)
    client = group.clients[8]
    client.open(group.received[8])
    with pytest.raises(ProtocolError, match="session is done"):
        client.open(group.received[8])


def test_a_server_that_shows_two_groups_different_survivors() -> None:
    """To three it says that 13 is gone, to 13 and 21 that it is not: nobody opens anything."""
    session = five(threshold=3)
    group = Group(session).until(Stage.CONFIRM)
    says = {
        c: survivors(group, c, everyone_but(group, *([13] if c in (3, 5, 8) else [])), gone)
        for c in session.cohort
        for gone in [[13] if c in (3, 5, 8) else []]
    }
    signed = {c: bytes(group.clients[c].confirm(says[c]))[HEADER:] for c in session.cohort}
    for client in session.cohort:
        others = {
            session.cohort.index(c): signature for c, signature in signed.items() if c != client
        }
        if client in (3, 5, 8):  # 13 has dropped out here, so it can have signed nothing
            others.pop(session.cohort.index(13))
        message = group.frame(client).wrap(Kind.SIGNATURES, records(others))
        with pytest.raises(ProtocolError, match="not over these survivors"):
            group.clients[client].open(message)
        assert not group.clients[client].has_opened


def test_the_two_views_do_not_both_find_a_quorum() -> None:
    """Of five, none corrupt, threshold 3: three saw one list, and the other two are too few."""
    session = five(threshold=3)
    group = Group(session).until(Stage.CONFIRM)
    seen_by = {
        c: ([13], everyone_but(group, 13)) if c in (3, 5, 8) else ([], everyone_but(group))
        for c in session.cohort
    }
    signed = {
        c: group.clients[c].confirm(survivors(group, c, active, gone))[HEADER:]
        for c, (gone, active) in seen_by.items()
    }
    opened = []
    for client in session.cohort:
        same = {
            session.cohort.index(c): signature
            for c, signature in signed.items()
            if c != client and (c in (3, 5, 8)) == (client in (3, 5, 8))
        }
        try:
            group.clients[client].open(group.frame(client).wrap(Kind.SIGNATURES, records(same)))
            opened.append(client)
        except ProtocolError:
            assert client in (13, 21)
    assert opened == [3, 5, 8]


@pytest.mark.parametrize(
    ("active", "dropped", "says"),
    [
        ([3, 5, 13, 21], [8], "without this client"),
        ([3, 5, 8, 13], [], "not those whose shares"),  # 21 is nowhere
        ([3, 8, 13], [5, 21], "3 survivors"),
    ],
)
def test_a_server_that_lies_about_survivors(
    active: list[int], dropped: list[int], says: str
) -> None:
    group = Group(five()).until(Stage.CONFIRM)
    with pytest.raises(ProtocolError, match=says):
        group.clients[8].confirm(survivors(group, 8, active, dropped))


def test_a_server_that_says_too_many_neighbours_are_gone() -> None:
    """On a ring, where many others are left all the same."""
    session = Session(bytes(16), tuple(range(12)), 4, 32, threshold=4, quorum=3, degree=4)
    assumptions = Assumptions(0, 0, "honest-but-curious", security=1)
    near = session.graph.neighbours(0).tolist()
    for gone in (near[:1], near[:2]):
        group = Group(session, assumptions).until(Stage.CONFIRM)
        message = survivors(group, 0, everyone_but(group, *gone), gone)
        if len(gone) == 1:
            group.clients[0].confirm(message)
        else:
            with pytest.raises(ProtocolError, match="3 of neighbours that survive"):
                group.clients[0].confirm(message)


def test_survivors_who_never_shared_are_refused() -> None:
    group = Group(five())
    group.stage()
    group.stage(drops={21: Stage.SHARE})
    group.stage()
    with pytest.raises(ProtocolError, match="not those whose shares"):
        group.clients[8].confirm(survivors(group, 8, everyone_but(group), []))


def test_a_server_that_makes_up_clients() -> None:
    """Keys that the server signed itself, in the name of somebody in the registry."""
    group = Group(five()).until(Stage.SHARE)
    made_up, _ = identities([1])
    entries = read_records(memoryview(group.received[8])[HEADER:], KEYS)
    keys = Keys(KeyPair().public, KeyPair().public, bytes(32), b"")
    entries[4] = keys.to_bytes() + sign(made_up[1], "keys", group.digest, keys.signed(4))
    with pytest.raises(ProtocolError, match="place 4 that it has not signed"):
        group.clients[8].share(group.frame(8).wrap(Kind.ROSTER, records(entries)))


def test_a_server_that_gives_one_client_anothers_keys() -> None:
    group = Group(five()).until(Stage.SHARE)
    entries = read_records(memoryview(group.received[8])[HEADER:], KEYS)
    entries[4] = entries[3]
    with pytest.raises(ProtocolError, match="place 4 that it has not signed"):
        group.clients[8].share(group.frame(8).wrap(Kind.ROSTER, records(entries)))


def test_a_server_that_gives_two_clients_one_key() -> None:
    """Signed by both, who are corrupt: what one is told, the other reads."""
    group = Group(five()).until(Stage.SHARE)
    entries = read_records(memoryview(group.received[8])[HEADER:], KEYS)
    keys = Keys(KeyPair().public, KeyPair().public, bytes(32), b"")
    for place, client in ((3, 13), (4, 21)):
        signature = sign(group.private[client], "keys", group.digest, keys.signed(place))
        entries[place] = keys.to_bytes() + signature
    with pytest.raises(ProtocolError, match="place 4 that another one has"):
        group.clients[8].share(group.frame(8).wrap(Kind.ROSTER, records(entries)))


def test_a_server_that_hides_too_many_neighbours() -> None:
    group = Group(five()).until(Stage.SHARE)
    entries = read_records(memoryview(group.received[8])[HEADER:], KEYS)
    few = {place: entries[place] for place in (0, 1)}
    with pytest.raises(ProtocolError, match="3 of neighbours with keys"):
        group.clients[8].share(group.frame(8).wrap(Kind.ROSTER, records(few)))


def test_a_server_that_passes_on_too_few_shares() -> None:
    group = Group(five()).until(Stage.MASK)
    entries = read_records(memoryview(group.received[8])[HEADER:], SEALED)
    few = {place: entries[place] for place in (0, 1)}
    message = group.frame(8).wrap(Kind.INBOX, records(few))
    with pytest.raises(ProtocolError, match="3 of neighbours with shares"):
        group.clients[8].mask(message, np.zeros(4, np.uint32))


def test_a_server_that_brings_too_few_signatures() -> None:
    group = Group(five()).until(Stage.OPEN)
    entries = read_records(memoryview(group.received[8])[HEADER:], SIGNATURE)
    few = dict(list(entries.items())[:2])
    with pytest.raises(ProtocolError, match="3 others must have seen the same"):
        group.clients[8].open(group.frame(8).wrap(Kind.SIGNATURES, records(few)))


@pytest.mark.parametrize("client", [8, 21])
def test_signatures_of_oneself_and_of_the_dropped_do_not_count(client: int) -> None:
    group = Group(five()).until(Stage.OPEN, {21: Stage.MASK})
    entries = read_records(memoryview(group.received[8])[HEADER:], SIGNATURE)
    lists = Survivors(bits(group.session, 3, 5, 8, 13), bits(group.session, 21))
    signature = sign(group.private[client], "survivors", group.digest, lists.to_bytes())
    entries[group.session.cohort.index(client)] = signature
    with pytest.raises(ProtocolError, match="none of the other survivors"):
        group.clients[8].open(group.frame(8).wrap(Kind.SIGNATURES, records(entries)))


def test_keys_of_somebody_who_is_no_neighbour() -> None:
    session = Session(bytes(16), tuple(range(8)), 1, 32, threshold=3, quorum=3, degree=4)
    group = Group(session, Assumptions(0, 0, "honest-but-curious", security=1)).until(Stage.SHARE)
    entries = read_records(memoryview(group.received[0])[HEADER:], KEYS)
    stranger = next(p for p in range(1, 8) if p not in entries)
    entries[stranger] = bytes(KEYS)
    with pytest.raises(ProtocolError, match="who is no neighbour"):
        group.clients[0].share(group.frame(0).wrap(Kind.ROSTER, records(entries)))


def test_a_server_that_proposes_a_low_threshold() -> None:
    session = Session.complete(range(9), length=1, width=32, threshold=5)
    private, registry = identities(session.cohort)
    with pytest.raises(ProtocolError, match="may give something away"):
        Party(session, 0, private[0], registry, Assumptions())


# -------------------------------------------------------- messages changed, kept, or cut on the way
@pytest.mark.parametrize("stage", [Stage.SHARE, Stage.MASK, Stage.CONFIRM, Stage.OPEN])
def test_every_changed_byte_to_a_client_is_refused_or_harmless(stage: Stage) -> None:
    """Of a sample of all bytes; sealed shares may be changed, which is noticed and named."""
    session = five(threshold=3)
    size = len(Group(session).until(stage).received[8])
    for place in sorted({*range(0, size, 37), size - 1}):
        group = Group(session).until(stage)
        changed = bytearray(group.received[8])
        changed[place] ^= 4
        group.received = {**group.received, 8: bytes(changed)}
        try:
            message = group.says(8, stage)
        except ProtocolError:
            assert not group.clients[8].has_opened
            continue
        assert stage is Stage.MASK, place
        assert len(message) == HEADER + session.vector_bytes + 4  # one complaint


def test_truncated_messages_are_refused_by_client_and_server() -> None:
    for stage in (Stage.SHARE, Stage.MASK, Stage.CONFIRM, Stage.OPEN):
        for cut in (1, 5, 50):
            group = Group(five()).until(stage)
            whole = group.received[8]
            for bad in (whole[:-cut], whole[cut:], whole + bytes(cut)):
                twin = Group(five()).until(stage)
                twin.received = {8: bad}
                with pytest.raises(ProtocolError):
                    twin.says(8, stage)
            message = group.says(8, stage)
            for bad in (message[:-cut], message[cut:], message + bytes(cut)):
                assert not group.server.receive(8, bad)
            assert group.server.receive(8, message)


def test_a_message_of_an_earlier_session_is_refused() -> None:
    old, new = Group(five()), Group(five())
    new.private, new.registry = old.private, old.registry
    for stage in (Stage.ADVERTISE, Stage.SHARE):
        old.stage()
        assert not new.server.receive(8, old.sent[stage][8])
        assert "another session" in new.server.faults.pop(8)
        new.stage()
    with pytest.raises(ProtocolError, match="another session"):
        new.clients[8].mask(old.received[8], np.zeros(4, np.uint32))


def test_a_message_out_of_its_turn_is_refused() -> None:
    group = Group(five())
    keys = group.says(8, Stage.ADVERTISE)
    assert group.server.receive(8, keys)
    assert not group.server.receive(8, keys)  # replayed
    assert "second message" in group.server.faults[8]
    group.stage(lambda client, message: message if client != 8 else None, {8: Stage.ADVERTISE})
    assert not group.server.receive(8, keys)
    roster = group.received[5]
    with pytest.raises(ProtocolError, match="not its turn"):
        group.clients[5].mask(roster, np.zeros(4, np.uint32))
    with pytest.raises(ProtocolError, match="kind ROSTER"):
        Group.frame(group, 5).body(Kind.INBOX, roster)


def test_whoever_has_dropped_out_does_not_come_back() -> None:
    session = five()
    group = Group(session).until(Stage.MASK, {8: Stage.SHARE})
    late = group.frame(8).wrap(Kind.MASKED, b"\1" * session.vector_bytes)
    assert not group.server.receive(8, late)
    assert "dropped out" in group.server.faults[8]
    assert (group.to_end() == total(session, everyone_but(group, 8))).all()


def test_shares_of_somebody_whose_keys_were_not_there() -> None:
    group = Group(five())
    group.stage(drops={21: Stage.ADVERTISE})
    group.stage()
    entries = read_records(memoryview(group.received[8])[HEADER:], SEALED)
    entries[4] = entries[3]
    message = group.frame(8).wrap(Kind.INBOX, records(entries))
    with pytest.raises(ProtocolError, match="shares of place 4"):
        group.clients[8].mask(message, np.zeros(4, np.uint32))


def test_a_message_for_another_client_is_refused() -> None:
    group = Group(five()).until(Stage.CONFIRM)
    with pytest.raises(ProtocolError, match="came from or to place 2"):
        group.clients[8].confirm(group.received[5])


def test_a_message_under_another_name_is_refused() -> None:
    group = Group(five())
    assert not group.server.receive(5, group.says(8, Stage.ADVERTISE))
    assert not group.server.receive(4, b"")
    assert "not in the cohort" in group.server.faults[4]


def test_forged_keys_and_signatures_are_refused_by_the_server() -> None:
    group = Group(five())
    forged = bytearray(group.says(8, Stage.ADVERTISE))
    forged[-1] ^= 1
    assert not group.server.receive(8, bytes(forged))
    assert group.server.faults[8].startswith("keys without the client's signature")
    other = Group(five()).until(Stage.CONFIRM)
    signature = bytearray(other.says(8, Stage.CONFIRM))
    signature[HEADER] ^= 1
    assert not other.server.receive(8, bytes(signature))
    assert "not over the survivors" in other.server.faults[8]


# ------------------------------------------------------------------------------- bad clients
@pytest.mark.parametrize("point", SMALL_ORDER)
@pytest.mark.parametrize("which", ["channel", "mask"])
def test_a_point_of_small_order(point: bytes, which: str) -> None:
    group = Group(five())
    good = KeyPair().public
    keys = Keys(*((point, good) if which == "channel" else (good, point)), bytes(32), b"")
    signature = sign(group.private[8], "keys", group.digest, keys.signed(2))
    message = group.frame(8).wrap(Kind.KEYS, keys.to_bytes() + signature)
    assert not group.server.receive(8, message)
    assert "small order" in group.server.faults[8]
    # A server that passes it on all the same
    group.stage(lambda client, own: None if client == 8 else own)
    entries = read_records(memoryview(group.received[3])[HEADER:], KEYS)
    entries[2] = keys.to_bytes() + signature
    with pytest.raises(ProtocolError, match="small order"):
        group.clients[3].share(group.frame(3).wrap(Kind.ROSTER, records(entries)))


def test_a_client_with_the_keys_of_another() -> None:
    group = Group(five())
    stolen = Keys.from_bytes(group.says(3, Stage.ADVERTISE)[HEADER:])
    keys = Keys(stolen.channel, KeyPair().public, bytes(32), b"")
    signature = sign(group.private[8], "keys", group.digest, keys.signed(2))
    twin = group.frame(8).wrap(Kind.KEYS, keys.to_bytes() + signature)
    assert group.server.receive(3, group.frame(3).wrap(Kind.KEYS, stolen.to_bytes()))
    assert not group.server.receive(8, twin)
    assert "there already" in group.server.faults[8]


@pytest.mark.parametrize("stage", [s for s in Stage if s < Stage.DONE])
def test_a_client_that_sends_garbage_is_named_and_the_session_goes_on(stage: Stage) -> None:
    session = five()
    group = Group(session).until(stage)
    group.stage(lambda client, message: b"\xff" * len(message) if client == 8 else message)
    assert list(group.server.faults) == [8]
    drops = {8: stage}
    active = [c for c in session.cohort if c != 8 or stage > Stage.MASK]
    assert (group.to_end(drops) == total(session, active)).all()


def test_a_corrupted_share_is_corrected_and_named() -> None:
    session = Session.complete(range(9), length=3, width=32, threshold=5)
    group = Group(session).until(Stage.OPEN, {1: Stage.MASK})

    def corrupt(client: int, message: bytes) -> bytes:
        if client != 4:
            return message
        opened = read_openings(memoryview(message)[HEADER:])
        changed = {
            owner: opening(secret, bytes([share[0] ^ 1]) + share[1:])
            for owner, (secret, share) in opened.items()
        }
        return group.frame(4).wrap(Kind.OPENING, records(changed))

    group.stage(corrupt)
    assert (group.server.result == total(session, [0, *range(2, 9)])).all()
    assert list(group.server.faults) == [4]
    assert "does not fit" in group.server.faults[4]


def test_a_corrupted_share_without_spare_ones_is_noticed() -> None:
    group = Group(five()).until(Stage.OPEN)

    def corrupt(client: int, message: bytes) -> bytes:
        changed = bytearray(message)
        if client == 3:
            changed[HEADER + 5] ^= 1  # the first share's first byte
        return bytes(changed)

    with pytest.raises(ProtocolError, match="shares of client 3 that do not give its secret"):
        group.stage(corrupt, {21: Stage.OPEN})
    with pytest.raises(ProtocolError):
        _ = group.server.result


def test_shares_that_cannot_be_read_are_reported_before_anything_is_opened() -> None:
    """Client 8 seals nonsense for three of four: its secret could not be had, so it ends there."""
    group = Group(five()).until(Stage.SHARE)

    def spoil(client: int, message: bytes) -> bytes:
        changed = bytearray(message)
        if client == 8:
            for number in range(3):
                changed[HEADER + number * (4 + SEALED) + 10] ^= 1
        return bytes(changed)

    group.stage(spoil)
    with pytest.raises(ProtocolError, match="shares of client 8 that can be had are 2"):
        group.stage()
    assert group.server.unread == {8: (3, 5, 13)}
    assert not any(client.has_opened for client in group.clients.values())


def test_one_share_that_cannot_be_read_does_no_harm() -> None:
    session = five()
    group = Group(session).until(Stage.SHARE)

    def spoil(client: int, message: bytes) -> bytes:
        changed = bytearray(message)
        if client == 8:
            changed[HEADER + 10] ^= 1
        return bytes(changed)

    group.stage(spoil)
    assert (group.to_end() == total(session, list(session.cohort))).all()
    assert group.server.unread == {8: (3,)}


def test_sealed_shares_that_are_no_elements_are_unread() -> None:
    group = Group(five()).until(Stage.MASK)
    sender, reader = group.clients[3], group.clients[8]
    entries = read_records(memoryview(group.received[8])[HEADER:], SEALED)
    key = reader._channels[0]  # noqa: SLF001 - what client 3 has, too
    entries[0] = seal(key, b"\xff" * (SEALED - 16), group.digest)
    message = reader.mask(group.frame(8).wrap(Kind.INBOX, records(entries)), np.zeros(4, np.uint32))
    assert message[-4:] == bytes(4)
    assert sender.stage is Stage.MASK


def test_a_client_that_opens_the_wrong_secret_is_named() -> None:
    group = Group(five()).until(Stage.OPEN)

    def lie(client: int, message: bytes) -> bytes:
        changed = bytearray(message)
        if client == 8:
            changed[HEADER + 4] = 2
        return bytes(changed)

    group.stage(lie)
    assert list(group.server.faults) == [8]
    assert "a share of the wrong secret" in group.server.faults[8]


@pytest.mark.parametrize(
    ("stage", "kind", "size"),
    [(Stage.SHARE, Kind.SHARES, SEALED), (Stage.OPEN, Kind.OPENING, OPENING)],
)
def test_a_client_that_leaves_somebody_out_is_named(stage: Stage, kind: Kind, size: int) -> None:
    group = Group(five()).until(stage)
    entries = read_records(memoryview(group.says(8, stage))[HEADER:], size)
    del entries[0]
    assert not group.server.receive(8, group.frame(8).wrap(kind, records(entries)))
    assert "neighbours" in group.server.faults[8]


def test_keys_are_bound_to_purpose_session_and_clients() -> None:
    secret = bytes(range(32))
    found = [
        derive(secret, "mask", b"d" * 32, 0, 1),
        derive(secret, "mask", b"d" * 32, 1, 0),
        derive(secret, "mask", b"e" * 32, 0, 1),
        derive(secret, "channel", b"d" * 32, 0, 1),
        derive(secret, "self mask", b"d" * 32, 0),
        derive(secret, "commitment", b"d" * 32, 0),
    ]
    assert len(set(found)) == 6


def test_a_signature_for_one_purpose_is_none_for_another() -> None:
    group = Group(five()).until(Stage.CONFIRM)
    lists = bytes(group.received[8])[HEADER:]
    signature = sign(group.private[8], "keys", group.digest, lists)
    assert not group.server.receive(8, group.frame(8).wrap(Kind.SIGNATURE, signature))


# ------------------------------------------------------------------------- what cannot be meant
def test_a_client_that_is_not_in_the_cohort_or_not_in_the_registry() -> None:
    session = five()
    private, registry = identities([*session.cohort, 4])
    with pytest.raises(ConfigError, match="client 4 in a session without it"):
        Party(session, 4, private[4], registry, NO_CORRUPT)
    with pytest.raises(ConfigError, match="an identity that the registry does not know"):
        Party(session, 3, private[4], registry, NO_CORRUPT)
    less = {client: key for client, key in registry.items() if client != 21}
    with pytest.raises(ProtocolError, match="client 21 has no Ed25519 key"):
        Client(Party(session, 3, private[3], less, NO_CORRUPT))


@pytest.mark.parametrize("words", [np.zeros(3, np.uint32), np.zeros(4, np.uint64)])
def test_a_vector_of_another_length_or_width(
    words: np.ndarray[tuple[int], np.dtype[np.uint32]],
) -> None:
    group = Group(five()).until(Stage.MASK)
    with pytest.raises(ConfigError, match="sums 4 words of 32 bits"):
        group.clients[8].mask(group.received[8], words)


def test_records_out_of_order_or_twice_are_refused() -> None:
    one, two = b"\1\0\0\0one", b"\2\0\0\0two"
    assert read_records(memoryview(one + two), 3) == {1: b"one", 2: b"two"}
    for bad in (two + one, one + one, one + two[:-1]):
        with pytest.raises(ProtocolError, match="records"):
            read_records(memoryview(bad), 3)


def test_a_frame_with_something_in_its_padding_is_refused() -> None:
    frame = Frame(bytes(32), 3)
    message = bytearray(frame.wrap(Kind.KEYS, b"x"))
    message[6] = 1
    with pytest.raises(ProtocolError, match="where zeros belong"):
        frame.body(Kind.KEYS, bytes(message))
