"""A server that lies learns one sum or nothing: its best efforts, checked by linear algebra.

What is known of an honest client's masked vector is which of its masks can be computed. A
combination of vectors in which no unknown mask is left is what the server learns. The page proves
that the sum over all honest clients on the list is the only one, if the conditions hold that `plan`
computes k from; here a server tries, with and without them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hanse.secagg import Graph


@dataclass(frozen=True)
class Ring:
    """A session on a ring.

    Attributes:
        graph: whose places are in the order of the ring, for simplicity.
        threshold: of shares.
        corrupt: who works for the server.
    """

    graph: Graph
    threshold: int
    corrupt: frozenset[int]

    @property
    def honest(self) -> list[int]:
        return [c for c in range(self.graph.size) if c not in self.corrupt]

    @property
    def quorum(self) -> int:
        return (self.graph.size + len(self.corrupt)) // 2 + 1

    def near(self, client: int) -> set[int]:
        half, n = self.graph.degree // 2, self.graph.size
        return {(client + step) % n for step in range(-half, half + 1) if step}

    def is_safe(self) -> bool:
        """Whether the two conditions on the corrupt hold."""
        t, k, n = self.threshold, self.graph.degree, self.graph.size
        around = max(len(self.near(c) & self.corrupt) for c in self.honest)
        rows = ({(start + step) % n for step in range(k // 2)} for start in range(n))
        beside = max(len(row & self.corrupt) for row in rows)
        return around < 2 * t - k - 1 and (self.graph.is_complete or beside < t - k // 2 - 1)


def attempt(ring: Ring, rng: np.random.Generator) -> list[set[int]] | None:
    """The server chooses a victim, whom it declares gone, who opens, and what the others are told.

    Returns:
        The sets of honest clients whose sum it learns, by a basis; `None` where nobody would open.
        The last one is that of all honest clients on its list.
    """
    n, t = ring.graph.size, ring.threshold
    victim = int(rng.choice(ring.honest))
    candidates = [c for c in ring.honest if c != victim]
    weights = np.array([4.0 if c in ring.near(victim) else 1.0 for c in candidates])
    count = int(rng.integers(0, n // 3 + 1))
    chosen = rng.choice(candidates, min(count, len(candidates)), False, weights / weights.sum())
    dropped = set(chosen.tolist())
    hidden = {c for c in dropped if rng.random() < 0.2}  # neither here nor there
    dropped -= hidden
    active = set(range(n)) - dropped - hidden
    signers = [c for c in ring.honest if c in active and len(ring.near(c) & active) + 1 >= t]
    if len(signers) + len(ring.corrupt) < ring.quorum:
        return None
    openers = {c for c in signers if c != victim and rng.random() < 0.9}
    if rng.random() < 0.5 and victim in signers:
        openers.add(victim)
    told = {}
    for client in ring.honest:
        near = ring.near(client)
        told[client] = near - hidden
        if client not in openers:
            # As few as it accepts: first those who are corrupt or gone, whose masks are known.
            useful = sorted(near, key=lambda c: (c not in ring.corrupt | dropped, rng.random()))
            told[client] = set(useful[: int(rng.integers(t - 1, len(near) + 1))])
    return learnt(ring, told, openers, active, dropped)


def learnt(
    ring: Ring,
    told: dict[int, set[int]],
    openers: set[int],
    active: set[int],
    dropped: set[int],
) -> list[set[int]]:
    """A basis of what can be computed: sets of clients, or empty ones for weights beside one."""

    def is_known(client: int) -> bool:
        around = ring.near(client) | {client}
        return len(around & (openers | ring.corrupt)) >= ring.threshold

    seeds = {c for c in ring.honest if c in active and is_known(c)}
    keys = {c for c in ring.honest if c in dropped and is_known(c)} | ring.corrupt
    columns = {client: column for column, client in enumerate(ring.honest)}
    unknown: dict[tuple[int, ...], np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    for client in ring.honest:
        names: list[tuple[int, ...]] = [] if client in seeds else [(client,)]
        names += [
            (min(client, peer), max(client, peer))
            for peer in told[client]
            if client not in keys and peer not in keys
        ]
        for name in names:
            row = unknown.setdefault(name, np.zeros(len(columns)))
            row[columns[client]] = -1.0 if client == name[-1] else 1.0
    matrix = np.stack([*unknown.values(), np.zeros(len(columns))])
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    found = []
    for vector in vectors.T[values < 1e-9]:
        scaled = vector / vector[np.abs(vector).argmax()]
        is_sum = bool(
            (np.abs(scaled) < 1e-6).sum() + (np.abs(scaled - 1) < 1e-6).sum() == len(scaled)
        )
        members = {c for c, column in columns.items() if abs(scaled[column]) > 1e-6}
        found.append(members if is_sum else set())
    return [*found, active - ring.corrupt]


def efforts(ring: Ring, tries: int, seed: int) -> tuple[int, int]:
    """How often a server learns the sum, and how often something else."""
    rng = np.random.default_rng(seed)
    right = wrong = 0
    for _ in range(tries):
        found = attempt(ring, rng)
        if found is None or len(found) == 1:
            continue
        *basis, whole = found
        is_right = basis == [whole]
        right, wrong = right + is_right, wrong + (not is_right)
    return right, wrong


RING = Graph(24, 10)
SPREAD = frozenset({0, 6, 12, 18})  # at most one in five, two among ten neighbours
SAFE = {
    "a ring": Ring(RING, 8, SPREAD),
    "a ring that just does": Ring(RING, 7, frozenset()),
    "a complete graph": Ring(Graph(11, 10), 8, frozenset({0, 1, 2})),
}
UNSAFE = {
    "a low threshold": Ring(RING, 4, SPREAD),
    "too many corrupt side by side": Ring(RING, 7, frozenset({0, 1, 2, 3, 6, 7, 8, 9})),
}


@pytest.mark.parametrize("name", SAFE)
def test_with_the_conditions_there_is_one_sum(name: str) -> None:
    ring = SAFE[name]
    assert ring.is_safe()
    right, wrong = efforts(ring, 200, seed=1)
    assert right > 5
    assert not wrong


@pytest.mark.parametrize("name", UNSAFE)
def test_without_them_more_is_learnt(name: str) -> None:
    ring = UNSAFE[name]
    assert not ring.is_safe()
    _, wrong = efforts(ring, 200, seed=1)
    assert wrong
