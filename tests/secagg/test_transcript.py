"""What can be read from all the messages of a session: no vector, no secret, nothing twice."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.secagg.group import NO_CORRUPT, Group, five, total

from hanse import ProtocolError
from hanse.secagg import FixedPoint, Run, Session, Stage, masking
from hanse.secagg.messages import (
    HEADER,
    KEYS,
    SEALED,
    Keys,
    Secret,
    read_openings,
    read_records,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.secagg.driver import Sent
    from hanse.secagg.ring import Words

CLIENTS = tuple(range(7))
DROPS = {2: Stage.MASK, 5: Stage.OPEN}


def played(vector: Words, drops: Mapping[int, Stage] = DROPS) -> tuple[Session, list[Sent], Words]:
    session = Session.complete(CLIENTS, length=len(vector), width=32)
    outcome = Run(session, lambda _: vector).to_end(drops)
    return session, list(outcome.transcript), outcome.total


def bodies(transcript: list[Sent], stage: Stage, *, upward: bool) -> dict[int, memoryview]:
    return {
        sent.client: memoryview(sent.message)[HEADER:]
        for sent in transcript
        if sent.stage is stage and sent.upward is upward
    }


def test_of_each_client_shares_of_one_secret_are_opened_and_only_of_one() -> None:
    _, transcript, _ = played(np.arange(4, dtype=np.uint32))
    kinds: dict[int, set[Secret]] = defaultdict(set)
    pairs = []
    for holder, body in bodies(transcript, Stage.OPEN, upward=True).items():
        for owner, (secret, _share) in read_openings(body).items():
            kinds[owner].add(secret)
            pairs.append((holder, owner))
    assert len(set(pairs)) == len(pairs) == 5 * 7
    assert kinds == {c: {Secret.MASK_KEY if c == 2 else Secret.SELF_MASK} for c in CLIENTS}


def test_a_plain_vector_is_nowhere() -> None:
    vector = np.frombuffer(b"a vector that is easily found, " * 4, np.uint32)
    _, transcript, summed = played(vector)
    assert (summed == vector * 6).all()
    whole = b"".join(sent.message for sent in transcript)
    plain = vector.tobytes()
    assert all(plain[i : i + 8] not in whole for i in range(len(plain) - 8))


def test_no_key_and_no_ciphertext_comes_twice_in_two_sessions() -> None:
    seen: list[bytes] = []
    for _ in range(2):
        _, transcript, _ = played(np.zeros(4, np.uint32))
        for body in bodies(transcript, Stage.ADVERTISE, upward=True).values():
            keys = Keys.from_bytes(bytes(body))
            assert len(body) == KEYS
            seen += [keys.channel, keys.mask, keys.commitment, keys.signature]
        for body in bodies(transcript, Stage.SHARE, upward=True).values():
            seen += read_records(body, SEALED).values()
    assert len(set(seen)) == len(seen) == 2 * (7 * 4 + 7 * 6)


def masked(vector: Words) -> list[Words]:
    _, transcript, _ = played(vector, {})
    found = bodies(transcript, Stage.MASK, upward=True).values()
    return [np.frombuffer(body, np.uint32) for body in found]


def test_masked_vectors_are_uniform() -> None:
    """Of zeros, the worst vector: bytes, bits, and sums of neighbours look like noise."""
    noise = np.concatenate(masked(np.zeros(40_000, np.uint32)))
    counts = np.bincount(noise.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    chi = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi - 255) < 6 * np.sqrt(2 * 255)
    ones = np.unpackbits(noise.view(np.uint8)).reshape(len(noise), 32).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 6 * 0.5 / np.sqrt(len(noise))
    following = (noise[1:] - noise[:-1]) >> 24
    counts = np.bincount(following, minlength=256)
    expected = counts.sum() / 256
    assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 6 * np.sqrt(2 * 255)


def test_two_sessions_of_the_same_vectors_share_nothing() -> None:
    vector = np.arange(5000, dtype=np.uint32)
    first, second = masked(vector), masked(vector)
    for i, one in enumerate(first):
        others = [*second, *first[:i]]
        # 5000 words agree with 5000 random ones in one place with a chance of about 1e-6.
        assert all((one == other).sum() <= 1 for other in others)


@pytest.mark.parametrize("place", range(32))
def test_every_byte_of_a_seed_decides_the_mask(place: int) -> None:
    """A seed that is folded to fewer bits can be searched for."""
    seed, other = bytes(32), bytearray(32)
    other[place] = 1
    words = np.zeros(100_000, np.uint32)
    masking.apply(words, [masking.Mask(seed, adds=True)])
    assert np.count_nonzero(words) > 99_990
    one = words[:70_000].copy()  # beyond the first block
    masking.apply(words, [masking.Mask(seed, adds=False)])
    assert not words.any()
    masking.apply(words, [masking.Mask(bytes(other), adds=True)])
    assert (words[:70_000] == one).sum() <= 1


def test_all_but_two_clients_together_cannot_tell_the_two_apart() -> None:
    """Without the masks that they know, what is left of one of the two is still noise."""
    session = Session.complete(CLIENTS, length=20_000, width=32, threshold=4)
    group = Group(session, NO_CORRUPT).until(Stage.MASK)
    victim = group.clients[0]
    known = [mask for peer, mask in victim._masks.items() if peer > 1]  # noqa: SLF001 - corrupt peers
    message = bytearray(victim.mask(group.received[0], np.zeros(20_000, np.uint32)))
    words = np.frombuffer(message, np.uint32, 20_000, HEADER)
    masking.apply(words, [mask._replace(adds=not mask.adds) for mask in known])
    counts = np.bincount(words >> 24, minlength=256)
    assert abs(((counts - 78.125) ** 2 / 78.125).sum() - 255) < 6 * np.sqrt(2 * 255)


def test_secrets_are_gone_after_the_session() -> None:
    group = Group(five())
    keys = [
        (client._mask.private, client._channel.private, client._self_mask)  # noqa: SLF001
        for client in group.clients.values()
    ]
    before = [bytes(key) for three in keys for key in three]
    assert len({*before, bytes(32)}) == 16
    group.until(Stage.MASK)
    assert {bytes(key) for *two, _ in keys for key in two} == {bytes(32)}  # no longer needed
    group.to_end()
    assert {bytes(key) for three in keys for key in three} == {bytes(32)}
    for client in group.clients.values():
        left = [client._shares, client._channels, client._masks]  # noqa: SLF001
        assert left == [{}, {}, {}]
        assert client._mask._key is None  # noqa: SLF001
        assert client.has_opened
        assert client.stage is Stage.DONE


def test_numbers_go_in_and_their_sum_comes_out() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(0, 3, (7, 50)).astype(np.float32)
    ring = FixedPoint(clip=16.0, step=2**-16, clients=7)
    session = Session.complete(CLIENTS, length=50, width=ring.width, context=ring.context)
    outcome = Run(session, lambda c: ring.encode(rows[c])).to_end(DROPS)
    expected = rows[[0, 1, 3, 4, 5, 6]].astype(np.float64).sum(axis=0)
    assert np.abs(ring.decode(outcome.total) - expected).max() <= 6 * 2**-17 + 1e-9


def test_bytes_and_seconds_are_those_of_the_transcript() -> None:
    session = five(length=1000)
    outcome = Run(session, lambda _: np.zeros(1000, np.uint32)).to_end({21: Stage.CONFIRM})
    for upward, counted in ((True, outcome.bytes_up), (False, outcome.bytes_down)):
        for client in session.cohort:
            sizes = [
                len(s.message)
                for s in outcome.transcript
                if s.client == client and s.upward is upward
            ]
            assert counted[client] == sum(sizes)
    assert outcome.survivors == session.cohort
    assert set(outcome.client_seconds[21]) == {Stage.ADVERTISE, Stage.SHARE, Stage.MASK}
    assert set(outcome.server_seconds) == set(Stage) - {Stage.DONE, Stage.FAILED}


def test_a_failed_client_has_erased_everything() -> None:
    group = Group(five()).until(Stage.CONFIRM)
    client = group.clients[8]
    secret = client._self_mask  # noqa: SLF001
    with pytest.raises(ProtocolError):
        client.confirm(b"nonsense")
    assert bytes(secret) == bytes(32)
    assert client.stage is Stage.FAILED
    assert not client.has_opened
    with pytest.raises(ProtocolError, match="session is failed"):
        client.confirm(group.received[8])


def test_the_ring_sum_wraps() -> None:
    session = five()
    group = Group(session)
    assert (group.to_end() == total(session, list(session.cohort))).all()
