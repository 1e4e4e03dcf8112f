"""Stragglers that cannot be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.bad_input import test_bad_input as table
from tests.bad_input.test_bad_input import NAN, Bad, filed, fine, fine_file, made

from hanse import ConfigError, Stragglers, StrategyError, Uniform, fedavg, fedprox, fedsgd

if TYPE_CHECKING:
    from pathlib import Path

empty = table.empty
HALF = Stragglers(0.5)

ROWS: dict[str, Bad] = {
    "a fraction above 1": Bad(
        ConfigError, "1.5", "from 0 to 1", lambda: Stragglers(1.5), lambda: Stragglers(1.0)
    ),
    "a fraction of NaN": Bad(ConfigError, "nan", "0.9", lambda: Stragglers(NAN)),
    "per cent": Bad(ConfigError, "90", "0.9", filed("run.stragglers={fraction=90}")),
    "true": Bad(ConfigError, "True", "0.9", lambda: Stragglers(True)),
    "everything at least": Bad(
        ConfigError,
        "least=1.0",
        "below 1",
        lambda: Stragglers(0.5, least=1.0),
        lambda: Stragglers(0.5, least=0.2),
    ),
    "a number": Bad(
        ConfigError,
        "stragglers is of type float: 0.9",
        "hanse.Stragglers(fraction=0.9)",
        made(stragglers=0.9, strategy=fedprox()),
        fine(stragglers=Stragglers(fraction=0.9), strategy=fedprox()),
    ),
    "a number in a file": Bad(
        ConfigError,
        "run.stragglers = 0.5",
        "fraction = ",
        filed("run.stragglers=0.5"),
        fine_file("run.stragglers={fraction=0.1}"),
    ),
    "no fraction in a file": Bad(
        ConfigError,
        "without 'fraction'",
        "fraction = …",
        filed("run.stragglers={least=0.5}"),
    ),
    "a slip in a file": Bad(
        ConfigError, "fractoin", "'fraction'", filed("run.stragglers={fraction=0.5, fractoin=1}")
    ),
    "nobody is left": Bad(
        ConfigError,
        "drops stragglers",
        "fedprox",
        made(strategy=fedavg(), stragglers=Stragglers(1.0), participation=Uniform(count=3)),
        fine(strategy=fedprox(), stragglers=Stragglers(1.0), participation=Uniform(count=3)),
    ),
    "a part of one gradient": Bad(
        StrategyError,
        "fedsgd keeps the partial work",
        'partial="drop"',
        made(strategy=fedsgd().replace(partial="keep"), stragglers=HALF),
        fine(strategy=fedsgd(), stragglers=HALF),
    ),
    "neither kept nor dropped": Bad(
        StrategyError,
        "'hold'",
        '"keep"',
        made(strategy=fedavg().replace(partial="hold")),
        fine(strategy=fedavg().replace(partial="keep")),
    ),
    "neither kept nor dropped in a file": Bad(
        ConfigError,
        "strategy.partial = 'hold'",
        '"keep"',
        filed("strategy.partial=hold"),
        fine_file("strategy.partial=keep"),
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
