"""Whose rows are whose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import DataError
from hanse.data.partition import natural
from hanse.data.partitioned import partitioned
from hanse.data.sources.division import TEST, TRAIN, UNSEEN, divide

ROWS = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@given(ROWS, st.integers(0, 3), st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.integers(2, 4))
def test_every_row_is_used_once_by_its_owner(
    numbers: list[int], held: int, fraction: float, least: int
) -> None:
    values, owners = np.unique(numbers, return_inverse=True)
    names = [f"client {value}" for value in values]
    unseen = names[: min(held, len(names) - 1)]
    counts = np.bincount(owners)
    kept = {n for n, c in zip(names, counts, strict=True) if c >= least and n not in unseen}
    options = {"unseen": unseen, "test_fraction": fraction, "min_examples": least}
    if not kept:
        with pytest.raises(DataError, match="min_examples"):
            divide(owners, names, **options)  # type: ignore[arg-type]
        return
    division = divide(owners, names, **options)  # type: ignore[arg-type]
    assert set(division.train.names) == kept
    assert (division.test is not None) == (fraction > 0)
    assert division.unseen is None if not unseen else set(division.unseen.names) == set(unseen)  # type: ignore[union-attr]
    order = division.order
    assert (
        len(set(order.tolist()))
        == len(order)
        == sum(c for n, c in zip(names, counts, strict=True) if n in kept or n in unseen)
    )
    for group in division.groups:
        if group is not None:
            assert [names[k] for k in owners[group.rows]] == list(
                np.repeat(np.array(group.names), group.sizes)
            )
    if division.test is not None:
        assert division.test.names == division.train.names
        assert division.train.sizes.min() >= 1


@given(ROWS, st.sampled_from([0.2, 0.5, 0.75]), st.integers(0, 3))
def test_rows_for_testing_are_those_that_partitioned_chooses(
    numbers: list[int], fraction: float, seed: int
) -> None:
    owners = np.array([*numbers, *numbers])
    values, codes = np.unique(owners, return_inverse=True)
    rows = np.arange(len(owners), dtype=np.float32)[:, None]
    expected = partitioned(rows, rows, natural(owners), test_fraction=fraction, seed=seed)
    found = divide(codes, [str(v) for v in values], test_fraction=fraction, seed=seed)
    assert found.test is not None
    assert expected.test is not None
    for group, clients in ((found.train, expected.train), (found.test, expected.test)):
        assert (
            clients.block(np.arange(len(clients))).fields["x"][:, 0].tolist() == group.rows.tolist()
        )


def test_clients_come_in_their_natural_order() -> None:
    names = ["client 10", "client 2", "3", "12", "b", "client 2b"]
    found = divide(np.arange(6), names).train.names
    assert found == ("3", "12", "b", "client 2", "client 2b", "client 10")


def test_a_column_can_say_what_a_row_is_for() -> None:
    owners = np.array([0, 1, 0, 1, 2, 2])
    split = np.array([TRAIN, TRAIN, TEST, TEST, UNSEEN, UNSEEN], np.int8)
    found = divide(owners, ["a", "b", "c"], split=split)
    assert found.train.rows.tolist() == [0, 1]
    assert found.test is not None
    assert found.test.rows.tolist() == [2, 3]
    assert found.unseen is not None
    assert found.unseen.rows.tolist() == [4, 5]
    held = divide(owners, ["a", "b", "c"], split=split, unseen=["b"])
    assert held.unseen is not None
    assert held.unseen.names == ("b", "c")
    assert held.unseen.rows.tolist() == [1, 3, 4, 5]
