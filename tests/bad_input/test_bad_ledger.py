"""What cannot be meant by a privacy ledger; see `test_bad_input`."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.bad_input.test_bad_input import FOLDER, Bad
from tests.privacy.zcdp import zcdp

from hanse import BudgetError, ConfigError, LedgerError
from hanse.cli import ledger as commands
from hanse.privacy.events import Budget, GaussianEvent
from hanse.privacy.ledger import Ledger, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable

IN = Path("..") / FOLDER
PEOPLE = IN / "people.ledger"
EVENT = GaussianEvent(20.0)


def read(name: str) -> Callable[[], object]:
    return lambda: Ledger.open(IN / name)


def created(path: Path, dataset: str = "people", epsilon: float = 4.0) -> Callable[[], object]:
    return lambda: commands.create(path, dataset, epsilon, 1e-5, "rdp")


def charged(
    event: GaussianEvent = EVENT, run: str = "a", number: int = 0, raised: float | None = None
) -> Callable[[], object]:
    """A charge of a copy, so that rows do not spend each other's budget."""

    def do() -> None:
        path = Path(shutil.copy(PEOPLE, IN / "copy.ledger"))
        ledger = Ledger.open(path, accountant=zcdp)
        if raised is not None:
            ledger.raise_budget(raised, "agreed on")
        ledger.charge(event, run=run, round=number)

    return do


def raised(epsilon: float, reason: str = "agreed on") -> Callable[[], object]:
    def do() -> None:
        path = Path(shutil.copy(PEOPLE, IN / "copy.ledger"))
        commands.raise_budget(path, epsilon, reason)

    return do


def verified(receipt: str, ledger: str = "people.ledger") -> Callable[[], object]:
    return lambda: commands.verify(IN / ledger, IN / receipt)


TABLE = {
    "a ledger that is not there": Bad(
        LedgerError, "no ledger at ../in/none.ledger", "ledger create", read("none.ledger"),
        read("people.ledger"),
    ),
    "a folder": Bad(LedgerError, "no ledger at ../in/taken", "path of a ledger", read("taken")),
    "a text": Bad(LedgerError, "thesis.tex is damaged, or no ledger", "backup",
        read("taken/thesis.tex")),
    "an empty file": Bad(LedgerError, "empty is not a privacy ledger", "path of a ledger",
        read("empty")),
    "another application's database": Bad(
        LedgerError, "photos.db is not a privacy ledger", "with a new path", read("photos.db"),
        created(IN / "fresh.ledger"),
    ),
    "a format of the future": Bad(
        LedgerError, "a ledger of format 2", "a newer one", read("newer.ledger")
    ),
    "the ledger of another data set": Bad(
        LedgerError, "the ledger of 'people', not of 'cats'", "the ledger of 'cats'",
        lambda: Ledger.open(PEOPLE, dataset="cats"),
        lambda: Ledger.open(IN / "cats.ledger", dataset="cats"),
    ),
    "created over a ledger": Bad(
        LedgerError, "people.ledger exists already", "another path", created(PEOPLE),
        created(IN / "second.ledger"),
    ),
    "created over a thesis": Bad(
        LedgerError, "thesis.tex exists already", "another path", created(IN / "taken/thesis.tex")
    ),
    "created in a folder that is not there": Bad(
        LedgerError, "people.ledger cannot be opened", "directory",
        created(Path("none/people.ledger")),
    ),
    "created without a name": Bad(
        ConfigError, "a dataset of ' '", "printable", created(Path("new.ledger"), " "),
        created(IN / "third.ledger", "persons"),
    ),
    "created without a budget": Bad(
        ConfigError, "epsilon=0", "8.0", created(Path("new.ledger"), "people", 0.0),
        created(IN / "fourth.ledger", "people", 8.0),
    ),
    "more than is left": Bad(
        BudgetError, "round 0 of a would bring 'people' to epsilon 97.99; its budget is 4",
        "--epsilon 97.99 --reason", charged(GaussianEvent(0.1)),
        charged(GaussianEvent(0.1), raised=97.99),
    ),
    "a run without a name": Bad(ConfigError, "a run of ''", "one line", charged(run="")),
    "a run of two lines": Bad(
        ConfigError, "a run of 'a\\nb'", "one line", charged(run="a\nb"), charged(run="a b")
    ),
    "a round before the first": Bad(
        ConfigError, "a round of -1", "range", charged(number=-1), charged(number=0)
    ),
    "half a round": Bad(
        ConfigError, "a round of 0.5", "range", charged(number=0.5)  # type: ignore[arg-type]
    ),
    "more often than can be written": Bad(
        ConfigError, f"a count of {2**63}", "range", charged(GaussianEvent(1e30, count=2**63)),
        charged(GaussianEvent(1e30, count=2**63 - 1)),
    ),
    "raised to less": Bad(
        ConfigError, "epsilon=4 to 3.0", "above 4", raised(3.0), raised(4.5)
    ),
    "raised to everything": Bad(
        ConfigError, "epsilon=4 to inf", "above 4", raised(float("inf"))
    ),
    "raised to nothing that is a number": Bad(
        ConfigError, "epsilon=4 to nan", "above 4", raised(float("nan"))
    ),
    "raised without a reason": Bad(ConfigError, "a reason of ''", "one line", raised(5.0, "")),
    "a receipt that is not there": Bad(
        ConfigError, "the receipt ../in/none.json", "ledger export", verified("none.json"),
        verified("receipt.json"),
    ),
    "a receipt that is no JSON": Bad(
        ConfigError, "a receipt that is none", "ledger export", verified("taken/thesis.tex")
    ),
    "a receipt without a head": Bad(
        ConfigError, "a receipt that is none", "ledger export", verified("half.json")
    ),
    "a receipt of a list": Bad(
        ConfigError, "a receipt that is none", "ledger export", lambda: Receipt.from_json("[1]")
    ),
    "a receipt of another data set": Bad(
        LedgerError, "a receipt of 'people' for the ledger of 'cats'", "a receipt of 'cats'",
        verified("receipt.json", "cats.ledger"), verified("receipt.json"),
    ),
    "exported to a format that is none": Bad(
        ConfigError, "out.xlsx", ".json", lambda: commands.export(PEOPLE, Path("out.xlsx")),
        lambda: commands.export(PEOPLE, IN / "out.json"),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is empty; what is read lies in another beside it."""
    inputs = tmp_path / FOLDER
    (inputs / "taken").mkdir(parents=True)
    (inputs / "taken/thesis.tex").write_text("precious " * 100)
    (inputs / "empty").write_bytes(b"")
    (inputs / "half.json").write_text(json.dumps({"dataset": "people", "entries": 1}))
    for name in ("people", "cats"):
        budget = Budget(4.0, 1e-5, "rdp")
        ledger = Ledger.create(inputs / f"{name}.ledger", name, budget, accountant=zcdp)
        ledger.charge(EVENT, run="before", round=0)
    people = Ledger.open(inputs / "people.ledger")
    (inputs / "receipt.json").write_text(people.to_json())
    shutil.copy(inputs / "people.ledger", inputs / "newer.ledger")
    for name, statement in (
        ("newer.ledger", "PRAGMA user_version = 2"),
        ("photos.db", "CREATE TABLE photos (name TEXT)"),
    ):
        connection = sqlite3.connect(inputs / name)
        connection.execute(statement)
        connection.close()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("name", TABLE)
def test_what_cannot_be_meant_is_refused_with_a_remedy(empty: Path, name: str) -> None:
    bad = TABLE[name]
    before = (empty.parent / FOLDER / "people.ledger").read_bytes()
    with pytest.raises(bad.kind) as caught:
        bad.does()
    error = caught.value
    assert bad.says in error.found
    assert len(error.why) > 10
    assert bad.instead in error.instead
    assert not list(empty.iterdir())
    assert (empty.parent / FOLDER / "people.ledger").read_bytes() == before
    assert [p.name for p in (empty.parent / FOLDER / "taken").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", [name for name, bad in TABLE.items() if bad.works])
def test_the_remedy_works(name: str) -> None:
    remedy = TABLE[name].works
    assert remedy is not None
    remedy()
