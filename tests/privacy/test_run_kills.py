"""Charged runs that are killed at random moments: no charge is lost, nothing is overspent."""

from __future__ import annotations

import random
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from benchmarks.privacy import run_kills
from benchmarks.privacy.run_kills import Case, Found, begin, command, look, run_case
from tests.runs.forks import ForkServer, Running, shared, wait_for_rounds

from hanse.privacy.events import Budget
from hanse.privacy.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@pytest.fixture(scope="module")
def forks() -> ForkServer:
    return shared()


@dataclass(frozen=True)
class Forked:
    """A process as the script wants it."""

    running: Running

    def kill(self) -> int:
        return self.running.kill(signal.SIGKILL).status

    def wait(self) -> tuple[int, str]:
        ended = self.running.wait()
        return ended.status, ended.printed


def starting(forks: ForkServer) -> Callable[[Path, Sequence[str]], Forked]:
    return lambda folder, argv: Forked(forks.start(folder, *argv))


def killed(
    forks: ForkServer, folder: Path, kills: int, rounds: int, every: int, kinds: tuple[bool, ...]
) -> Found:
    found, draw = Found(), random.Random(every)  # noqa: S311 - moments, not secrets
    for histograms in kinds:
        case = begin(folder / str(histograms), rounds, every, histograms=histograms)
        run_case(case, kills, starting(forks), draw, 0.4, found)
    return found


def test_runs_that_are_killed_lose_no_charge_and_end_with_their_budget(
    forks: ForkServer, tmp_path: Path
) -> None:
    found = killed(forks, tmp_path, kills=3, rounds=20, every=3, kinds=(True,))
    assert found.faults == []
    assert (found.kills, found.ended) == (3, 1)
    assert found.charges >= 50  # of 60 that the budget is for; some are wasted by kills
    assert found.most_unused <= 3  # a round and its two histograms


@pytest.mark.slow
def test_runs_that_are_killed_often_lose_no_charge(forks: ForkServer, tmp_path: Path) -> None:
    for every in (1, 3):
        found = killed(
            forks, tmp_path / str(every), kills=20, rounds=250, every=every, kinds=(False, True)
        )
        assert found.faults == []
        assert (found.kills, found.ended) == (40, 2)


@pytest.fixture
def seen(forks: ForkServer, tmp_path: Path) -> Case:
    """A run that was killed after some rounds."""
    case = begin(tmp_path / "case", 30, 1, histograms=True)
    process = forks.start(case.folder, *command(case))
    wait_for_rounds(case.run, 5)
    process.kill(signal.SIGKILL)
    return case


def test_the_search_finds_a_charge_that_is_missing(seen: Case) -> None:
    """The negative control: the same disk with a ledger that lacks the last charges."""
    look(seen, good := Found())
    assert good.faults == []
    entries = Ledger.open(seen.ledger).entries()[1:4]
    seen.ledger.unlink()
    fresh = Ledger.create(seen.ledger, "watch", Budget(9.0, run_kills.DELTA, "rdp"))
    for entry in entries:
        fresh.charge(entry.event, run=str(entry.run), round=int(entry.round or 0))
    look(seen, bad := Found())
    assert any("lost its charge" in fault for fault in bad.faults)
    assert any("models of round" in fault for fault in bad.faults)
    assert any("histograms of" in fault for fault in bad.faults)


def test_the_search_finds_a_budget_that_is_overspent(seen: Case, tmp_path: Path) -> None:
    poor = begin(tmp_path / "poor", 1, 1)
    shutil.copytree(seen.run, poor.run)
    ledger = Ledger.open(poor.ledger, accountant=lambda *_: 0.0)  # one that charges nothing
    for entry in Ledger.open(seen.ledger).entries()[1:]:
        ledger.charge(entry.event, run=str(entry.run), round=int(entry.round or 0))
    look(poor, found := Found())
    assert any("spent" in fault for fault in found.faults)
