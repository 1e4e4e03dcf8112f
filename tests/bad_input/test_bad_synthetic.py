"""What cannot be meant by `hanse.data.synthetic`, as rows of the same kind as everywhere."""

from __future__ import annotations

import pytest
from tests.bad_input.test_bad_input import Bad

from hanse import DataError, HanseError
from hanse.data import synthetic

TABLE = {
    "a negative deviation": Bad(
        DataError, "alpha=-1", "alpha=1", lambda: synthetic(-1, 1), lambda: synthetic(1, 1, 2)
    ),
    "a deviation without end": Bad(
        DataError,
        "beta=inf",
        "beta=1",
        lambda: synthetic(1, float("inf")),
        lambda: synthetic(1, 1, 2),
    ),
    "a deviation that is none": Bad(
        DataError, "alpha=nan", "alpha=1", lambda: synthetic(float("nan"), 1)
    ),
    "no clients": Bad(
        DataError, "clients=0", "clients=30", lambda: synthetic(1, 1, 0), lambda: synthetic(1, 1)
    ),
    "all examples for testing": Bad(
        DataError,
        "test_fraction=1",
        "test_fraction=0.2",
        lambda: synthetic(1, 1, 2, test_fraction=1),
        lambda: synthetic(1, 1, 2, test_fraction=0.2),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_cannot_be_meant_is_refused_with_a_remedy_that_works(name: str) -> None:
    bad = TABLE[name]
    with pytest.raises(HanseError) as caught:
        bad.does()
    assert type(caught.value) is bad.kind
    assert bad.says in caught.value.found
    assert bad.instead in caught.value.instead
    if bad.works is not None:
        bad.works()
