"""`hanse privacy ledger`: what somebody types, from the beginning to a rollback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.cli.terminal import hanse
from tests.privacy.zcdp import epsilon_of, rounds_within, zcdp

from hanse.privacy.events import GaussianEvent
from hanse.privacy.ledger import Ledger
from hanse.privacy.ledger import ledger as module

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; the accountant is the one that the tests know the equation of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(module, "_accountant", zcdp)
    return tmp_path


def printed(*argv: str) -> str:
    found = hanse("privacy", "ledger", *argv)
    assert found.code == 0, found.err
    return found.out


def test_a_ledger_from_its_beginning_to_a_rollback(folder: Path) -> None:
    new = ("--dataset", "people", "--epsilon", "4", "--delta", "1e-5")
    assert (
        printed("create", "a.ledger", *new) == "a.ledger: epsilon 4 at delta 1e-05 for 'people'\n"
    )
    assert "left: epsilon 4.0000" in printed("show", "a.ledger")
    ledger = Ledger.open("a.ledger")
    for number in (0, 1, 1):
        ledger.charge(GaussianEvent(4.0), run="runs/a", round=number)
    old = (folder / "a.ledger").read_bytes()
    printed("raise", "a.ledger", "--epsilon", "5", "--reason", "agreed on 3 May")

    shown = printed("show", "a.ledger")
    assert "runs/a (again)" in shown
    assert "raised: agreed on 3 May" in shown
    assert "noise 4, add-remove" in shown
    spent = epsilon_of(3 / 32, 1e-5)
    assert f"spent: epsilon {spent:.4f}\n" in shown
    assert f"left: epsilon {5 - spent:.4f}\n" in shown
    left = rounds_within(5.0, 1e-5, 4.0) - 3
    assert shown.endswith(f"rounds left like the last one (noise 4, add-remove): {left}\n")

    assert printed("export", "a.ledger", "kept/a.json") == "kept/a.json: 5 entries\n"
    assert printed("export", "a.ledger", "a.csv") == "a.csv: 5 entries\n"
    assert len((folder / "a.csv").read_text().splitlines()) == 6
    head = json.loads((folder / "kept/a.json").read_text())["receipt"]["head"]
    assert head in printed("verify", "a.ledger")
    assert "goes on from the receipt of 5" in printed(
        "verify", "a.ledger", "--receipt", "kept/a.json"
    )
    (folder / "a.ledger").write_bytes(old)
    assert "4 entries" in printed("verify", "a.ledger")
    found = hanse("privacy", "ledger", "verify", "a.ledger", "--receipt", "kept/a.json")
    assert found.code == 2
    assert found.err.startswith("error: a.ledger has 4 entries, the receipt 5\n  why: ")


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (GaussianEvent(1.25, "poisson", 0.0125), "noise 1.25, Poisson 0.0125, add-remove"),
        (
            GaussianEvent(1.25, "without-replacement", 0.1, 200, "replace", 3),
            "noise 1.25, 20 of 200, 3 times, replace",
        ),
    ],
)
def test_an_event_is_shown_as_people_say_it(
    event: GaussianEvent, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_accountant", lambda events, *_: float(len(events)))
    printed("create", "a.ledger", "--dataset", "people", "--epsilon", "4", "--delta", "1e-5")
    Ledger.open("a.ledger").charge(event, run="runs/a", round=0)
    shown = printed("show", "a.ledger")
    assert says in shown
    assert "100000 or more" in shown
