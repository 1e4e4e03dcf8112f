"""Keys: whoever knows the parts draws the same numbers, and other parts give other numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.rng import derive, generator, hash_grid, mix

keys = st.integers(0, 2**64 - 1)
parts = st.lists(
    st.one_of(st.integers(0, 2**63 - 1), st.sampled_from(["round", "clients", "pass"])), max_size=4
)
COUNT = 1 << 14

# Fixed keys: these tests fail once and for all, or never. A million draws of chi-square with 15
# degrees of freedom stay below 60 but for one.
CHI_SQUARE_15 = 60.0


def chi_square(values: np.ndarray[tuple[int], np.dtype[np.uint64]], cells: int = 16) -> float:
    observed = np.bincount(values.astype(np.int64), minlength=cells)
    expected = len(values) / cells
    return float(((observed - expected) ** 2 / expected).sum())


@given(keys, parts)
def test_the_same_parts_give_the_same_key(key: int, parts: list[int | str]) -> None:
    assert derive(key, *parts) == derive(key, *parts)


@given(keys, parts, parts)
def test_deriving_in_two_steps_is_deriving_at_once(
    key: int, first: list[int | str], then: list[int | str]
) -> None:
    assert derive(derive(key, *first), *then) == derive(key, *first, *then)


@given(keys, st.permutations(range(12)))
def test_a_clients_key_does_not_depend_on_its_place_or_its_block(
    key: int, order: list[int]
) -> None:
    ids = np.array(order)
    together = derive(key, "round", 3, ids)
    assert [int(k) for k in together] == [int(derive(key, "round", 3, k)) for k in order]
    blocks = [derive(key, "round", 3, ids[rows]) for rows in (slice(0, 5), slice(5, 12))]
    assert np.array_equal(np.concatenate(blocks), together)


def test_other_seeds_rounds_clients_and_purposes_give_other_keys() -> None:
    ids = np.arange(50)
    found = [
        derive(seed, "round", number, purpose, ids)
        for seed in range(5)
        for number in range(20)
        for purpose in ("cohort", "clients", "pass", "module", "shuffle", "")
    ]
    assert len(np.unique(np.concatenate(found))) == 5 * 20 * 6 * 50


@given(keys, st.integers(0, 2**32), st.integers(0, 2**32))
def test_the_order_of_parts_matters(key: int, one: int, other: int) -> None:
    assert (derive(key, one, other) == derive(key, other, one)) == (one == other)
    assert derive(key) != derive(key, one)


@given(keys)
def test_mix_can_be_undone(bits: int) -> None:
    def unshift(value: int, by: int) -> int:
        found = value
        for _ in range(64 // by):
            found = value ^ (found >> by)
        return found

    mask = 2**64 - 1
    value = unshift(int(mix(np.array([bits], np.uint64))[0]), 31)
    value = unshift(value * pow(0x94D049BB133111EB, -1, 2**64) & mask, 27)
    value = unshift(value * pow(0xBF58476D1CE4E5B9, -1, 2**64) & mask, 30)
    assert value == bits


def test_mix_is_splitmix64s() -> None:
    # Its first outputs from the seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64").
    golden = 0x9E3779B97F4A7C15
    state = np.array([(1234567 + golden * n) % 2**64 for n in (1, 2, 3)], np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert mix(state).tolist() == expected


@pytest.mark.parametrize("shift", [0, 30, 60])
def test_derived_keys_are_uniform(shift: int) -> None:
    ids = np.arange(COUNT, dtype=np.uint64)
    for found in (derive(0, ids), derive(0, "round", ids, "cohort"), derive(ids, "clients")):
        assert chi_square((found >> np.uint64(shift)) & np.uint64(15)) < CHI_SQUARE_15


@pytest.mark.parametrize("shift", [0, 30, 60])
def test_hashed_grids_are_uniform_along_keys_and_along_counters(shift: int) -> None:
    counters = np.arange(COUNT, dtype=np.uint64)
    for found in (
        hash_grid(derive(0, 1), counters),
        hash_grid(derive(0, np.arange(COUNT)), np.zeros(1, np.uint64)),
    ):
        assert chi_square((found >> np.uint64(shift)) & np.uint64(15)) < CHI_SQUARE_15


def test_a_bit_of_a_part_changes_half_of_the_key() -> None:
    ids = np.arange(1000)
    for bit in range(0, 63, 7):
        changed = derive(0, ids) ^ derive(0, ids ^ (1 << bit))
        ones = np.unpackbits(changed.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 0.01  # 64000 bits: five deviations


def test_a_generator_starts_anew_from_its_key() -> None:
    key = derive(5, "cohort")
    first = generator(key).random(5)
    assert np.array_equal(generator(key).random(5), first)
    assert not np.array_equal(generator(derive(6, "cohort")).random(5), first)
