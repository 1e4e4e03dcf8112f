"""Noise that is correlated over rounds: what it is, what it costs, and how little it is."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import StrategyError
from hanse.privacy import BinaryTree, GaussianEvent, Toeplitz, epsilon, sensitivity
from hanse.privacy.correlated import increments

if TYPE_CHECKING:
    from hanse.privacy import Correlation

UNIT = 1 << 14
PROCESSES: list[Correlation] = [
    Toeplitz(9),
    Toeplitz(9, bands=4),
    Toeplitz(9, bands=1),
    BinaryTree(9),
    BinaryTree(8),
    BinaryTree(1),
    Toeplitz(1),
]


def dense(process: Correlation) -> np.ndarray:
    """C by its definition: exact binomials rounded down, or the nodes of the tree, row by row."""
    matrix = np.zeros((process.rounds, process.rounds))
    for t in range(1, process.rounds + 1):
        if isinstance(process, BinaryTree):
            width = next(w for w in (2**level for level in range(60)) if t % (2 * w))
            matrix[t - 1, t - width : t] = 1
            continue
        assert isinstance(process, Toeplitz)
        for k in range(min(t, process.bands or process.rounds)):
            matrix[t - 1, t - 1 - k] = math.comb(2 * k, k) * UNIT // 4**k / UNIT
    return matrix


def walked(process: Correlation, drawn: np.ndarray) -> np.ndarray:
    """The noise of each round, `[T, m]`."""
    history, found = process.start(drawn.shape[1]), []
    for number, row in enumerate(torch.from_numpy(drawn), start=1):
        noise, history = process.step(history, row, number)
        found.append(noise.numpy())
    return np.stack(found)


def patterns(rounds: int, separation: int) -> list[tuple[int, ...]]:
    """All sets of rounds that are so far apart."""
    return [
        chosen
        for size in range(1, rounds + 1)
        for chosen in itertools.combinations(range(rounds), size)
        if all(b - a >= separation for a, b in itertools.pairwise(chosen))
    ]


# ------------------------------------------------------------------------------------ what it is
@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_noise_is_the_inverse_matrix_times_what_is_drawn(process: Correlation) -> None:
    drawn = np.random.default_rng(0).integers(-(2**30), 2**30, (process.rounds, 50))
    found, expected = walked(process, drawn), np.linalg.solve(dense(process), drawn)
    off = found - expected
    # A rounding by half a step in each round, which C^-1 (coefficients that add up to two) passes
    # on; the tree rounds nothing but the oracle does.
    assert np.abs(off).max() < (1.01 if process.fine else 1e-5)
    assert abs(off.mean()) < 0.05  # to the nearest, not up or down


@pytest.mark.parametrize("rounds", [1, 7, 8, 13])
def test_a_prefix_of_the_tree_has_the_noise_of_the_nodes_that_it_is_made_of(rounds: int) -> None:
    drawn = np.random.default_rng(1).integers(-(2**40), 2**40, (rounds, 3))
    sums = walked(BinaryTree(rounds), drawn).cumsum(axis=0)
    for t in range(1, rounds + 1):
        ends, rest = [], t  # of the aligned powers of two that t is made of
        while rest:
            ends.append(rest)
            rest &= rest - 1
        assert np.array_equal(sums[t - 1], sum(drawn[end - 1] for end in ends))


def test_the_square_of_the_toeplitz_matrix_sums_prefixes() -> None:
    square = np.linalg.matrix_power(dense(Toeplitz(60)), 2)
    assert np.abs(square - np.tri(60)).max() < 60 / UNIT


@pytest.mark.parametrize(
    ("process", "kept"),
    [(Toeplitz(9), 8), (Toeplitz(9, 4), 3), (Toeplitz(9, 1), 0), (BinaryTree(9), 4)],
)
def test_no_more_is_kept_than_is_said(process: Correlation, kept: int) -> None:
    history = process.start(2)
    for number in range(1, 10):
        before = history.clone()
        _, after = process.step(history, torch.ones(2, dtype=torch.int64), number)
        assert torch.equal(history, before)
        history = after
    assert history.shape == (kept, 2)


# ------------------------------------------------------------------------------------ what it costs
@pytest.mark.parametrize("separation", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_the_sensitivity_is_that_of_the_worst_pattern(
    process: Correlation, separation: int
) -> None:
    matrix = dense(process)
    found = sensitivity(process, separation)
    turns = [range(g, process.rounds, separation) for g in range(min(separation, process.rounds))]
    worst = max(np.linalg.norm(matrix[:, list(turn)].sum(axis=1)) for turn in turns)
    assert found == pytest.approx(worst, rel=1e-12)
    anything = max(
        np.linalg.norm(matrix[:, list(chosen)].sum(axis=1))
        for chosen in patterns(process.rounds, separation)
    )
    if isinstance(process, Toeplitz):  # theorem 2 of Kalinin & Lampert: no other is worse
        assert found == pytest.approx(anything, rel=1e-12)
    # Clients in turns meet fewer patterns of the tree than clients that are merely apart.
    assert found <= anything * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_client_moves_a_run_further_whatever_it_sends(data: st.DataObject) -> None:
    process = data.draw(st.sampled_from(PROCESSES))
    separation = data.draw(st.integers(1, 9))
    first = data.draw(st.integers(0, min(separation, process.rounds) - 1))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sent = np.zeros((process.rounds, 3))
    rows = slice(first, None, separation)
    sent[rows] = random.normal(size=sent[rows].shape) * [1, 0.2, 0.2] + [2, 0, 0]
    sent[rows] /= np.linalg.norm(sent[rows], axis=1, keepdims=True)
    moved = np.linalg.norm(dense(process) @ sent)
    assert moved <= sensitivity(process, separation) * (1 + 1e-12)


@pytest.mark.parametrize("separation", [1, 3, 4])
@pytest.mark.parametrize("first", [0, 2, 5])
@pytest.mark.parametrize("process", [Toeplitz(9), Toeplitz(9, 2), BinaryTree(9)], ids=str)
def test_each_prefix_and_each_walk_is_paid_for(
    process: Correlation, first: int, separation: int
) -> None:
    matrix = dense(process)
    paid = increments(process, separation, first).cumsum()
    for until in range(first + 1, process.rounds + 1):
        worst = max(
            np.square(matrix[first:until, g::separation].sum(axis=1)).sum()
            for g in range(separation)
        )
        assert paid[until - first - 1] == pytest.approx(worst, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9))
def test_rounding_moves_a_coordinate_by_one_step_at_most(seed: int, bands: int, now: int) -> None:
    """Given what was released, how far the whole number under the noise moves with a neighbour."""
    process, random = Toeplitz(9, bands), np.random.default_rng(seed)
    released = random.integers(-(2**36), 2**36, (now, 4))
    one, other = (random.integers(-(2**28), 2**28, (now, 4)) for _ in range(2))
    other[: now // 2] = one[: now // 2]
    found = []
    for x in (one, other):
        earlier = torch.from_numpy(
            (released - x)[: now - 1][-(bands - 1) :] if bands > 1 else x[:0]
        )
        noise, _ = process.step(earlier, torch.zeros(4, dtype=torch.int64), now)
        found.append(x[now - 1] + noise.numpy())
    expected = dense(process)[now - 1, :now] @ (one - other)
    assert np.abs(found[0] - found[1] - expected).max() <= (process.slack(4) > 0)


# ---------------------------------------------------------------------- how little there is of it
@pytest.mark.parametrize(
    ("process", "separation", "error"),
    [
        (Toeplitz(1024, bands=1), 1024, 22.6),
        (BinaryTree(1024), 1024, 7.4),
        (Toeplitz(1024), 1024, 3.1),
        # Of ten turns a client, as docs/strategies/dp-ftrl.md has it.
        (Toeplitz(1000, bands=1), 100, 70.7),
        (BinaryTree(1000), 100, 22.7),
        (Toeplitz(1000), 100, 15.7),
        (Toeplitz(1000, bands=100), 100, 12.1),
    ],
)
def test_prefix_sums_have_the_known_noise(
    process: Correlation, separation: int, error: float
) -> None:
    """The root mean square over all rounds, for a noise multiplier of 1."""
    scale, rounds = 1 << 20, process.rounds
    # What is drawn in one round; of a Toeplitz matrix, all columns are the first one, moved down.
    columns = rounds if isinstance(process, BinaryTree) else 1
    noise = walked(process, scale * np.eye(rounds, columns, dtype=np.int64)) / scale
    squares = np.square(noise.cumsum(axis=0)).sum(axis=1)
    total = squares.sum() if columns > 1 else squares.cumsum().sum()
    found = sensitivity(process, separation) * math.sqrt(total / rounds)
    assert found == pytest.approx(error, abs=0.05)


def test_the_tree_costs_what_dp_accounting_says() -> None:
    event = GaussianEvent(7 / sensitivity(BinaryTree(2048), 2048))
    assert epsilon([event], 1e-6, "rdp") == pytest.approx(2.392, abs=5e-4)


@pytest.mark.parametrize("steps", [5, 64, 300])
def test_the_tree_costs_no_more_than_in_dp_accounting(steps: int) -> None:
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(dp.SingleEpochTreeAggregationDpEvent(5.0, steps))
    event = GaussianEvent(5.0 / sensitivity(BinaryTree(steps), steps))
    theirs = accountant.get_epsilon(1e-5)
    assert 0.85 * theirs < epsilon([event], 1e-5, "rdp") <= theirs * (1 + 1e-9)


@pytest.mark.parametrize("make", [Toeplitz, BinaryTree])
@pytest.mark.parametrize("rounds", [0, -1, True, 2.0, 1 << 15])
def test_a_number_of_rounds_that_is_none_is_refused(
    make: type[Toeplitz | BinaryTree], rounds: int
) -> None:
    with pytest.raises(StrategyError, match="rounds"):
        make(rounds)


@pytest.mark.parametrize("bands", [0, 10, True])
def test_a_number_of_bands_that_is_none_is_refused(bands: int) -> None:
    with pytest.raises(StrategyError, match="bands"):
        Toeplitz(9, bands)


def test_events_without_sampling_cost_what_one_of_them_does() -> None:
    many = [GaussianEvent(z) for z in (2.0, 3.0, 4.0)]
    one = [GaussianEvent((1 / 4 + 1 / 9 + 1 / 16) ** -0.5)]
    for accountant in ("rdp", "pld"):
        assert epsilon(many, 1e-5, accountant) == pytest.approx(epsilon(one, 1e-5, accountant))
