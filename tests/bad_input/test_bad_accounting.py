"""What cannot be meant by a privacy budget or a plan; see `test_bad_input`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.bad_input.test_bad_input import Bad

from hanse import ConfigError, RunError
from hanse.cli.accounting import calibrate, plan
from hanse.privacy import (
    Budget,
    GaussianEvent,
    cohort_needed,
    epsilon,
    noise_multiplier,
    noise_ratio,
    rounds_left,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NAN = float("nan")
EVENT = GaussianEvent(1.0)
DRAWN = GaussianEvent(1.0, "without-replacement", 0.01, 1000, "replace")


def event(*values: object, **options: object) -> Callable[[], object]:
    return partial(GaussianEvent, *values, **options)  # type: ignore[arg-type]


def cost(*events: object, delta: float = 1e-5, by: str = "rdp") -> Callable[[], object]:
    return lambda: epsilon(list(events), delta, by)  # type: ignore[arg-type]


def planned(out: str | None = None, **changes: object) -> Callable[[], object]:
    given: dict[str, object] = {
        "noise": 1.0, "delta": 1e-5, "rounds": 3, "rate": 1.0, "sampling": "poisson",
        "budget": None, "clients": None, "parameters": None, "clip": 1.0,
        "out": None if out is None else Path(out),
    }  # fmt: skip
    return lambda: plan(**{**given, **changes})  # type: ignore[arg-type]


BAD = {
    "no noise": Bad(ConfigError, "0.0", "above 0", event(0.0), event(1.0)),
    "noise that is no number": Bad(ConfigError, "nan", "above 0", event(NAN)),
    "a rate above 1": Bad(ConfigError, "rate 2", "at most 1", event(1.0, "poisson", 2)),
    "a rate without sampling": Bad(
        ConfigError, "'none' at rate 0.5", "at most 1", event(1.0, "none", 0.5),
        event(1.0, "poisson", 0.5),
    ),
    "an unknown sampling": Bad(
        ConfigError, "'poison'", "did you mean 'poisson'", event(1.0, "poison", 0.5)
    ),
    "an unknown adjacency": Bad(
        ConfigError,
        "'swap'",
        "one of: add-remove, add-remove-example, replace",
        event(1.0, adjacency="swap"),
        event(1.0, adjacency="replace"),
    ),
    "half an event": Bad(ConfigError, "1.5 times", "whole number", event(1.0, count=1.5)),
    "no population": Bad(
        ConfigError, "0.01 times 0 clients", "population=10_000",
        event(1.0, "without-replacement", 0.01),
        event(1.0, "without-replacement", 100 / 10_000, 10_000),
    ),
    "a cohort of half a client": Bad(
        ConfigError, "times 50 clients", "rate=cohort / population",
        event(1.0, "without-replacement", 0.01, 50),
    ),
    "a budget of nothing": Bad(ConfigError, "epsilon=0", "8.0", lambda: Budget(0, 1e-5)),
    "a delta of 0": Bad(ConfigError, "delta=0", "1e-5", cost(EVENT, delta=0), cost(EVENT)),
    "a delta that is no number": Bad(ConfigError, "delta=nan", "1e-5", cost(EVENT, delta=NAN)),
    "a delta that is lost in rounding": Bad(
        ConfigError, "delta=1e-30", "a larger delta", cost(EVENT, delta=1e-30, by="pld"),
        cost(EVENT, delta=1e-12, by="pld"),
    ),
    "an approximation": Bad(
        ConfigError, "'gdp'", "opacus-prv, opacus-rdp, pld, rdp", cost(EVENT, by="gdp")
    ),
    "a number in place of an event": Bad(ConfigError, "list", "GaussianEvent(1.1", cost(1.1)),
    "an event alone": Bad(
        ConfigError, "GaussianEvent", "a list of", lambda: epsilon(EVENT, 1e-5),  # type: ignore[arg-type]
        cost(EVENT),
    ),
    "a grid of 0": Bad(
        ConfigError, "grid of 0", "0.0001", lambda: epsilon([EVENT], 1e-5, grid=0)
    ),
    "two adjacencies": Bad(
        ConfigError, "add-remove beside", "one adjacency",
        cost(EVENT, GaussianEvent(1.0, adjacency="replace")),
    ),
    "without replacement by PLD": Bad(
        ConfigError, "without replacement, accounted for by 'pld'", 'accountant="rdp"',
        cost(DRAWN, by="pld"), cost(DRAWN),
    ),
    "without replacement for add-remove": Bad(
        ConfigError, "neighbours by add-remove", 'adjacency="replace"',
        cost(GaussianEvent(1.0, "without-replacement", 0.01, 1000)), cost(DRAWN),
    ),
    "Poisson sampling for replace, by RDP": Bad(
        ConfigError, 'Poisson sampling with adjacency="replace"', "twice the multiplier",
        cost(GaussianEvent(1.0, "poisson", 0.1, adjacency="replace")),
        cost(GaussianEvent(2.0, "poisson", 0.1)),
    ),
    "Poisson sampling for replace, by PLD": Bad(
        ConfigError, 'Poisson sampling with adjacency="replace"', "twice the multiplier",
        cost(GaussianEvent(1.0, "poisson", 0.1, adjacency="replace"), by="pld"),
    ),
    "an epsilon that no noise gives": Bad(
        ConfigError, "epsilon=1e-09", "a larger epsilon",
        lambda: noise_multiplier(1e-9, 1e-12, 10**6, accountant="rdp"),
        lambda: noise_multiplier(1.0, 1e-5, 10, accountant="rdp"),
    ),
    "no rounds": Bad(
        ConfigError, "0 times", "at least 1", lambda: noise_multiplier(1.0, 1e-5, 0)
    ),
    "rounds left without a proof": Bad(
        ConfigError, "without replacement", 'accountant="rdp"',
        lambda: rounds_left(Budget(1.0, 1e-5, "pld"), [], DRAWN),
        lambda: rounds_left(Budget(1.0, 1e-5, "rdp"), [], DRAWN),
    ),
    "no parameters": Bad(
        ConfigError, "parameters=0", "parameters=100", lambda: noise_ratio(1.0, 0, 10),
        lambda: noise_ratio(1.0, 100, 10),
    ),
    "no ratio": Bad(ConfigError, "ratio=-1", "above 0", lambda: cohort_needed(1.0, 10, -1)),
    "a plan in a text file": Bad(
        RunError, "'plan.txt'", "plan.html", planned("plan.txt"), planned("../in/plan.svg")
    ),
    "a plan with parameters alone": Bad(
        ConfigError, "--parameters without", "--clients N", planned(parameters=10),
        planned(parameters=10, clients=100),
    ),
    "a plan without a clip": Bad(ConfigError, "--clip 0", "--clip 1.0", planned(clip=0)),
    "a plan without clients": Bad(
        ConfigError, "without-replacement", "--clients N",
        planned(sampling="without-replacement", rate=0.1),
        planned(sampling="without-replacement", rate=0.1, clients=100),
    ),
    "a calibration for nothing": Bad(
        ConfigError, "epsilon=-1", "above 0",
        lambda: calibrate(-1, 1e-5, 10, 1.0, "poisson", None),
    ),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path


@pytest.mark.parametrize("case", BAD)
def test_it_is_refused_with_a_remedy_that_works(case: str, place: Path) -> None:
    bad = BAD[case]
    with pytest.raises(bad.kind) as caught:
        bad.does()
    assert type(caught.value) is bad.kind
    assert bad.says in caught.value.found
    assert bad.instead in caught.value.instead
    assert not list((place / "out").iterdir())
    if bad.works is not None:
        bad.works()


@pytest.mark.parametrize(
    ("package", "accountant", "remedy"),
    [("dp_accounting", "rdp", "'hanse[privacy]'"), ("opacus", "opacus-prv", "install opacus")],
)
def test_a_package_that_is_not_there(
    package: str, accountant: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as caught:
        epsilon([EVENT], 1e-5, accountant)  # type: ignore[arg-type]
    assert remedy in caught.value.instead
