"""Public examples that cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.bad_input import test_bad_input as table
from tests.bad_input.test_bad_input import NAN, Bad
from tests.data.little_mnist import CONTENTS, folder
from tests.runs.small_runs import federation

from hanse import DataError
from hanse.data import idx_federation, share

if TYPE_CHECKING:
    from collections.abc import Callable

empty = table.empty
X, Y = table.X, table.Y


def shared(public: object = None, **options: Any) -> Callable[[], object]:  # noqa: ANN401 - of share
    given: Any = {"x": X, "y": Y} if public is None else public
    return lambda: share(federation(), given, **options)


def little(**options: Any) -> Callable[[], object]:  # noqa: ANN401 - of idx_federation
    def make() -> object:
        source = Path("..") / "little"
        if not source.exists():
            folder(source, CONTENTS)
        return idx_federation(source, 3, **options)

    return make


ROWS: dict[str, Bad] = {
    "a portion of nothing": Bad(
        DataError, "portion=0", "portion=0.5", shared(portion=0), shared(portion=0.5)
    ),
    "a portion above 1": Bad(DataError, "portion=5", "at most 1", shared(portion=5)),
    "a portion of NaN": Bad(DataError, "portion=nan", "at most 1", shared(portion=NAN)),
    "a text": Bad(DataError, "'abc'", '{"x": …, "y": …}', shared("abc")),
    "no examples": Bad(DataError, "'public'", "", shared({"x": X[:0], "y": Y[:0]})),
    "other inputs": Bad(
        DataError,
        "'public'",
        "the same fields",
        shared({"x": np.zeros((4, 9)), "y": Y[:4]}),
        shared({"x": np.zeros((4, 3)), "y": Y[:4]}),
    ),
    "a label that nobody knows": Bad(
        DataError,
        "client 'public' has the label",
        "number the labels",
        shared({"x": X, "y": Y + 7}),
    ),
    "inputs that are not finite": Bad(DataError, "'public'", "", shared({"x": X * NAN, "y": Y})),
    "no labels": Bad(DataError, "['y']", "'y'", shared({"x": X})),
    "twice": Bad(
        DataError,
        "already",
        "one call",
        lambda: share(share(federation(), {"x": X, "y": Y}), {"x": X, "y": Y}),
        shared({"x": np.concatenate([X, X]), "y": np.concatenate([Y, Y])}),
    ),
    "all images": Bad(
        DataError, "public=1.0", "public=0.05", little(public=1.0), little(public=0.25)
    ),
    "a percentage": Bad(DataError, "public=5", "public=0.05", little(public=5)),
    "more than there are": Bad(
        DataError, "4 examples of each label", "a smaller part", little(public=0.99)
    ),
    "a portion of no images": Bad(
        DataError,
        "public_portion=0.5",
        "public=0.05",
        little(public_portion=0.5),
        little(public=0.25, public_portion=0.5),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_it_is_refused_with_a_remedy(
    empty: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(table.TABLE, name, ROWS[name])
    table.test_what_cannot_be_meant_is_refused_with_a_remedy(empty, name)


@pytest.mark.parametrize("name", [name for name, bad in ROWS.items() if bad.works])
def test_the_remedy_works(name: str) -> None:
    remedy = ROWS[name].works
    assert remedy is not None
    remedy()
