"""Wishes that the decision table has no word for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.bad_input import test_bad_input as table
from tests.bad_input.test_bad_input import Bad

from hanse import ConfigError, strategies_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

empty = table.empty


def wish(**words: Any) -> Callable[[], object]:  # noqa: ANN401 - of strategies_for
    return lambda: strategies_for(**words)


ROWS: dict[str, Bad] = {
    "a slip of the pen": Bad(
        ConfigError,
        "privacy = 'hihg'",
        "did you mean 'high'",
        wish(privacy="hihg"),
        wish(privacy="high"),
    ),
    "no privacy": Bad(ConfigError, "privacy = ''", "low", wish(privacy=""), wish(privacy="low")),
    "both scales": Bad(ConfigError, "scale = 'either'", "cross-silo", wish(scale="either"), wish()),
    "a tolerance between": Bad(
        ConfigError, "non_iid = 'mid'", "medium", wish(non_iid="mid"), wish(non_iid="medium")
    ),
    "a number": Bad(ConfigError, "non_iid = 0.5", "low", wish(non_iid=0.5), wish(non_iid="low")),
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
