"""A ledger adds up, refuses what is too much, forgets nothing, and is charged by one at a time."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import sqlite3
from typing import TYPE_CHECKING, Any, Literal

import pytest
from benchmarks.privacy.kills import EVENT, charging, receipts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.privacy.zcdp import epsilon_of, rounds_within, zcdp

from hanse import BudgetError, ConfigError, LedgerError
from hanse.privacy.accounting import epsilon
from hanse.privacy.events import Budget, GaussianEvent
from hanse.privacy.ledger import Ledger, Receipt
from hanse.privacy.ledger.search import most_that_fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

DELTA = 1e-5
NOISE = 4.0


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    budget = Budget(4.0, DELTA, "rdp")
    return Ledger.create(tmp_path / "people.ledger", "people", budget, accountant=zcdp)


def reopened(ledger: Ledger) -> Ledger:
    return Ledger.open(ledger.path, accountant=zcdp)


# ----------------------------------------------------------------------------- adding up
def test_a_new_ledger_has_spent_nothing(ledger: Ledger) -> None:
    assert (ledger.dataset, ledger.spent(), ledger.remaining()) == ("people", 0.0, 4.0)
    assert ledger.budget == Budget(4.0, DELTA, "rdp")
    assert [entry.kind for entry in ledger.entries()] == ["create"]


def test_exactly_as_many_rounds_are_charged_as_the_equation_allows(ledger: Ledger) -> None:
    most = rounds_within(4.0, DELTA, NOISE)
    event = GaussianEvent(NOISE)
    assert ledger.rounds_left(event) == most > 3
    for number in range(most):
        receipt = ledger.charge(event, run="a", round=number)
        assert receipt.epsilon == epsilon_of((number + 1) / (2 * NOISE**2), DELTA)
        assert receipt.entries == number + 2
    assert ledger.rounds_left(event) == 0
    before = ledger.entries()
    with pytest.raises(BudgetError) as caught:
        ledger.charge(event, run="a", round=most)
    assert f"round {most} of a" in caught.value.found
    assert ledger.entries() == before
    weak = GaussianEvent(400.0)
    assert ledger.rounds_left(weak) > 0
    ledger.charge(weak, run="a", round=most)  # what costs less may still fit


def test_rounds_left_stops_counting_where_it_is_told(ledger: Ledger) -> None:
    weak = GaussianEvent(1e6)
    exact = rounds_within(4.0, DELTA, 1e6)
    assert exact > 1_000_000
    assert ledger.rounds_left(weak) == 1_000_000
    assert ledger.rounds_left(weak, 37) == 37
    assert ledger.rounds_left(weak, 2 * exact) == exact


@settings(deadline=None)
@given(
    costs=st.lists(st.floats(0, 10) | st.just(math.inf), min_size=1, max_size=40).map(sorted),
    limit=st.floats(0.1, 10),
)
def test_the_search_finds_what_counting_finds(costs: list[float], limit: float) -> None:
    counted = max([n for n, cost in enumerate(costs) if cost <= limit], default=0)
    assert most_that_fit(costs.__getitem__, limit, len(costs) - 1) == counted


@pytest.mark.parametrize("spent", [0, 1, 700])
@pytest.mark.parametrize("noise", [4.0, 40.0, 400.0])
def test_an_accountant_is_asked_seldom(spent: int, noise: float) -> None:
    asked: list[int] = []

    def cost(times: int) -> float:
        asked.append(times)
        return epsilon_of(spent / 1e4 + times / (2 * noise**2), DELTA)

    found = most_that_fit(cost, 4.0, 1_000_000)
    assert cost(found) <= 4.0 < cost(found + 1)
    assert len(asked) <= 12


events = st.builds(
    GaussianEvent,
    noise_multiplier=st.sampled_from([20.0, 31.7, 1 / 0.03, 1e3]),
    adjacency=st.sampled_from(["add-remove", "replace"]),
    count=st.integers(1, 3),
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(charges=st.lists(st.tuples(events, st.booleans()), max_size=6))
def test_what_is_read_again_is_what_was_charged(
    charges: list[tuple[GaussianEvent, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "people.ledger"
    one = Ledger.create(path, "people", Budget(9.0, DELTA), accountant=zcdp)
    other = Ledger.open(path, accountant=zcdp)
    for number, (event, first) in enumerate(charges):
        (one if first else other).charge(event, run="a", round=number)
    again = Ledger.open(path, accountant=zcdp)
    assert [e.event for e in again.entries() if e.kind == "charge"] == [e for e, _ in charges]
    rho = math.fsum(e.count / (2 * e.noise_multiplier**2) for e, _ in charges)
    for each in (one, other, again):
        assert each.spent() == pytest.approx(epsilon_of(rho, DELTA), rel=1e-12)
    assert one.verify() == other.verify() == again.verify()


def test_equal_events_reach_the_accountant_as_one_with_a_count(ledger: Ledger) -> None:
    seen: list[Sequence[GaussianEvent]] = []

    def watching(events: Sequence[GaussianEvent], delta: float, accountant: str) -> float:
        seen.append(events)
        assert (delta, accountant) == (DELTA, "rdp")
        return zcdp(events, delta)

    watched = Ledger.open(ledger.path, accountant=watching)
    for number in range(6):
        noise = (20.0, 30.0)[number % 2]
        watched.charge(GaussianEvent(noise, count=1 + number // 4), run="a", round=number)
    assert seen[-1] == [GaussianEvent(20.0, count=4), GaussianEvent(30.0, count=4)]


def test_a_round_that_is_done_again_is_charged_again_and_marked(ledger: Ledger) -> None:
    event = GaussianEvent(NOISE)
    for run, number in (("a", 0), ("a", 1), ("a", 1), ("b", 1), ("a", 1)):
        reopened(ledger).charge(event, run=run, round=number)
    charges = ledger.entries()[1:]
    assert [entry.repetition for entry in charges] == [0, 0, 1, 0, 2]
    assert ledger.spent() == epsilon_of(5 / (2 * NOISE**2), DELTA)


def test_a_budget_is_raised_on_the_record_and_the_remedy_of_a_refusal_suffices(
    ledger: Ledger,
) -> None:
    event = GaussianEvent(NOISE, count=rounds_within(4.0, DELTA, NOISE) + 1)
    with pytest.raises(BudgetError) as caught:
        ledger.charge(event, run="a", round=0)
    enough = float(caught.value.instead.split("--epsilon ")[1].split()[0])
    assert epsilon_of(event.count / (2 * NOISE**2), DELTA) <= enough < 4.2
    ledger.raise_budget(enough, "the ethics committee agreed on 3 May")
    ledger.charge(event, run="a", round=0)
    raised = reopened(ledger).entries()[1]
    assert (raised.kind, raised.budget_epsilon) == ("raise", enough)
    assert raised.reason == "the ethics committee agreed on 3 May"
    assert reopened(ledger).budget.epsilon == enough


@pytest.mark.parametrize("cost", [math.nan, math.inf])
def test_what_cannot_be_computed_is_refused(ledger: Ledger, cost: float) -> None:
    broken = Ledger.open(ledger.path, accountant=lambda *_: cost)
    with pytest.raises(BudgetError, match=str(cost)):
        broken.charge(GaussianEvent(NOISE), run="a", round=0)
    assert len(ledger.entries()) == 1


def test_an_accountant_that_fails_leaves_the_ledger_as_it_was_and_free(ledger: Ledger) -> None:
    def broken(*_: object) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Ledger.open(ledger.path, accountant=broken).charge(GaussianEvent(4.0), run="a", round=0)
    assert len(ledger.entries()) == 1
    ledger.charge(GaussianEvent(NOISE), run="a", round=0)


# ----------------------------------------------------------------------- on disk, as evidence
def test_the_chain_can_be_recomputed_from_an_export_by_what_the_page_says(ledger: Ledger) -> None:
    ledger.charge(GaussianEvent(1 / 0.03), run="früh", round=0)
    ledger.raise_budget(4.5, "why")
    found: dict[str, Any] = json.loads(ledger.to_json())
    head = ""
    for entry in found["entries"]:
        values = [head, *(value for name, value in entry.items() if name != "hash")]
        text = json.dumps(values, separators=(",", ":"))
        head = hashlib.sha256(text.encode()).hexdigest()
        assert entry["hash"] == head
    assert found["receipt"]["head"] == head
    assert found["receipt"]["entries"] == 3
    assert ledger.to_json() == reopened(ledger).to_json()
    rows = list(csv.DictReader(ledger.to_csv().splitlines()))
    for row, entry in zip(rows, found["entries"], strict=True):
        assert row == {k: "" if v is None else str(v) for k, v in entry.items()}


def test_commits_are_synced_before_they_return(ledger: Ledger) -> None:
    with ledger._transaction("DEFERRED") as connection:  # noqa: SLF001 - its connection is the matter
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert [path.name for path in ledger.path.parent.iterdir()] == ["people.ledger"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET epsilon = 0",
        "DELETE FROM entries WHERE number = 2",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE number = 2",
        "INSERT INTO entries (number) VALUES (9)",
        "INSERT INTO entries (number) VALUES (NULL)",
    ],
)
def test_sqlite_itself_refuses_to_change_entries(ledger: Ledger, statement: str) -> None:
    ledger.charge(GaussianEvent(NOISE), run="a", round=0)
    before = ledger.to_json()
    connection = sqlite3.connect(ledger.path)
    with pytest.raises(sqlite3.IntegrityError, match="entries are"):
        connection.execute(statement)
    connection.close()
    assert ledger.to_json() == before


def test_a_receipt_finds_an_older_copy_and_another_history(ledger: Ledger) -> None:
    event = GaussianEvent(NOISE)
    ledger.charge(event, run="a", round=0)
    old = ledger.path.read_bytes()
    receipt = ledger.charge(event, run="a", round=1)
    assert Receipt.from_json(receipt.to_json()) == receipt
    assert Receipt.from_json(ledger.to_json()) == receipt
    ledger.charge(event, run="a", round=2)
    assert ledger.verify(receipt).entries == 4  # it may have gone on
    ledger.path.write_bytes(old)
    rolled_back = reopened(ledger)  # whole, as far as it goes
    with pytest.raises(LedgerError, match="has 2 entries, the receipt 3"):
        rolled_back.verify(receipt)
    for number in (1, 2):
        rolled_back.charge(event, run="another", round=number)
    with pytest.raises(LedgerError, match="another entry 3"):
        rolled_back.verify(receipt)


@pytest.mark.parametrize(
    "then",
    [
        lambda ledger: ledger.charge(GaussianEvent(NOISE), run="a", round=1),
        lambda ledger: ledger.raise_budget(5.0, "why"),
        Ledger.spent,
    ],
)
def test_a_ledger_in_use_that_is_replaced_by_an_older_copy_is_not_charged(
    ledger: Ledger, then: Callable[[Ledger], object]
) -> None:
    old = ledger.path.read_bytes()
    ledger.charge(GaussianEvent(NOISE), run="a", round=0)
    ledger.path.write_bytes(old)
    with pytest.raises(LedgerError, match="has lost entry 2"):
        then(ledger)
    assert ledger.path.read_bytes() == old


# --------------------------------------------------------------------------- several processes
def test_processes_together_charge_exactly_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "people.ledger"
    cost = zcdp([GaussianEvent(EVENT.noise_multiplier, count=60)], DELTA)
    budget = Budget(cost * (1 + 1e-9), DELTA)
    Ledger.create(path, "people", budget, accountant=zcdp)
    processes = [charging(path, f"run {number}") for number in range(3)]
    returned = [receipts(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    found = Ledger.open(path, accountant=zcdp).entries()[1:]
    assert len(found) == 60
    expected = sorted((entry.number, entry.hash) for entry in found)
    assert sorted((r.entries, r.head) for each in returned for r in each) == expected
    assert {entry.pid for entry in found} <= {process.pid for process in processes}


def test_a_ledger_that_another_holds_is_waited_for_and_then_named(ledger: Ledger) -> None:
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    impatient = Ledger.open(ledger.path, accountant=zcdp, wait=0.05)
    with pytest.raises(LedgerError, match="locked") as caught:
        impatient.charge(GaussianEvent(NOISE), run="a", round=0)
    assert "wait until" in caught.value.instead
    other.close()
    assert impatient.charge(GaussianEvent(NOISE), run="a", round=0).entries == 2


def test_a_name_that_nobody_can_read_is_refused(ledger: Ledger) -> None:
    for name in ("", " ", "two\nlines", "\x1b[2J", "\udcff"):
        with pytest.raises(ConfigError):
            ledger.charge(GaussianEvent(NOISE), run=name, round=0)
    assert len(ledger.entries()) == 1


# ---------------------------------------------------------------------- the accountant of Hanse
@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_rounds_are_charged_as_hanses_accountant_says(
    tmp_path: Path, accountant: Literal["rdp", "pld"]
) -> None:
    budget = Budget(1.5, DELTA, accountant)
    ledger = Ledger.create(tmp_path / "people.ledger", "people", budget)
    event = GaussianEvent(10.0)
    for number in range(3):
        ledger.charge(event, run="a", round=number)
    receipt = ledger.receipt()
    assert receipt.epsilon == epsilon([GaussianEvent(10.0, count=3)], DELTA, accountant)
    assert receipt.epsilon <= zcdp([GaussianEvent(10.0, count=3)], DELTA)  # the looser bound
    left = ledger.rounds_left(event)
    ledger.charge(GaussianEvent(10.0, count=left), run="a", round=3)
    with pytest.raises(BudgetError):
        ledger.charge(event, run="a", round=4)
