"""Kills, full and read-only disks, damaged and forged files: nothing is lost or believed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from benchmarks.privacy.kills import kills
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.privacy.zcdp import zcdp

from hanse import LedgerError
from hanse.privacy.events import Budget, GaussianEvent
from hanse.privacy.ledger import Ledger
from hanse.privacy.ledger import entries as chain

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 4096
EVENT = GaussianEvent(30.0)


def made(path: Path, charges: int = 5) -> Ledger:
    ledger = Ledger.create(path, "people", Budget(4.0, 1e-5), accountant=zcdp)
    for number in range(charges):
        ledger.charge(EVENT, run="runs/a", round=number)
    return ledger


def charge_on(ledger: Ledger) -> None:
    for number in range(5, 200):
        ledger.charge(EVENT, run="runs/a", round=number)


def verified(path: Path) -> Ledger:
    return Ledger.open(path, accountant=zcdp)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return made(tmp_path / "people.ledger")


# ------------------------------------------------------------------------------------ kills
def test_kills_lose_no_charge_that_returned(tmp_path: Path) -> None:
    for one in kills(tmp_path / "people.ledger", times=6, longest=0.06):
        assert one.returned > 0
        assert one.lost == 0
        assert one.written - one.returned in {0, 1}


def test_a_kill_between_writing_and_committing_is_taken_back(ledger: Ledger) -> None:
    """What a process leaves that is killed with changed pages on the disk: a hot journal."""
    before = ledger.to_json()
    script = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_spill = 1')\n"
        "connection.execute('PRAGMA cache_size = 1')\n"  # pages are written before the commit
        "connection.execute('BEGIN IMMEDIATE')\n"
        "for number in range(7, 600):\n"
        "    row = connection.execute('SELECT * FROM entries WHERE number = 2').fetchone()\n"
        "    marks = ', '.join('?' * len(row))\n"
        "    connection.execute(f'INSERT INTO entries VALUES ({marks})', (number, *row[1:]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(ledger.path)], check=False)
    journal = Path(f"{ledger.path}-journal")
    assert journal.exists()
    assert ledger.path.stat().st_size > 10 * PAGE
    assert verified(ledger.path).to_json() == before
    assert not journal.exists()
    assert ledger.charge(EVENT, run="runs/a", round=5).entries == 7


# ------------------------------------------------------------------------------------ disks
@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, if this process may mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("free", [0, 4, 8, 12, 20])
def test_a_full_disk_refuses_a_charge_and_keeps_the_others(disk: Path, free: int) -> None:
    ledger = made(disk / "people.ledger")
    used = sum(-(-p.stat().st_size // PAGE) * 4 for p in disk.iterdir())
    ballast = disk / "ballast"
    ballast.write_bytes(bytes((64 - used - free) * 1024))
    with pytest.raises(LedgerError) as caught:
        charge_on(ledger)
    assert "full" in caught.value.why or "disk I/O" in caught.value.why
    ballast.unlink()
    written = len(verified(disk / "people.ledger").entries())
    assert ledger.charge(EVENT, run="runs/a", round=300).entries == written + 1


def test_a_full_disk_makes_no_half_of_a_ledger(disk: Path) -> None:
    (disk / "ballast").write_bytes(bytes(60 * 1024))
    with pytest.raises(LedgerError, match=r"people\.ledger cannot be written"):
        made(disk / "people.ledger")
    assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_a_read_only_disk_can_be_read_and_not_charged(disk: Path) -> None:
    before = made(disk / "people.ledger").to_json()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    ledger = verified(disk / "people.ledger")
    assert ledger.to_json() == before
    with pytest.raises(LedgerError, match="readonly") as caught:
        ledger.charge(EVENT, run="runs/a", round=9)
    assert "may write to" in caught.value.instead
    with pytest.raises(LedgerError, match="other"):
        made(disk / "other")


# ----------------------------------------------------------------------------- damaged bytes
WRITTEN: list[bytes] = []


def content() -> bytes:
    """The bytes of a ledger of six entries, made once: the schema's page and that of the rows."""
    if not WRITTEN:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "people.ledger"
            made(path)
            WRITTEN.append(path.read_bytes())
    assert len(WRITTEN[0]) == 2 * PAGE
    return WRITTEN[0]


def where_rows_begin() -> int:
    """The SQLite file format, 1.6: a page's header has, at 5, the start of its cells' contents."""
    return PAGE + int.from_bytes(content()[PAGE + 5 : PAGE + 7], "big")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(share=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
@example(share=0.0, mask=1)
@example(share=1 - 1e-9, mask=128)
def test_a_byte_of_a_row_that_is_not_what_it_was_is_found(
    tmp_path: Path, share: float, mask: int
) -> None:
    start = where_rows_begin()
    place = start + int(share * (2 * PAGE - start))
    path = tmp_path / "damaged.ledger"
    damaged = bytearray(content())
    damaged[place] ^= mask
    path.write_bytes(damaged)
    with pytest.raises(LedgerError):
        verified(path)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0, 2 * PAGE - 1), mask=st.integers(1, 255))
@example(place=18, mask=3)  # the write-ahead log is switched on
@example(place=56 + 3, mask=3)  # text is UTF-16
def test_a_byte_anywhere_is_found_or_changes_nothing(tmp_path: Path, place: int, mask: int) -> None:
    path = tmp_path / "damaged.ledger"
    path.write_bytes(content())
    before = verified(path).to_json()
    damaged = bytearray(content())
    damaged[place] ^= mask
    path.write_bytes(damaged)
    try:
        found = verified(path).to_json()
    except LedgerError:
        return
    assert found == before


@pytest.mark.parametrize("size", [0, 1, 99, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.ledger"
    path.write_bytes(content()[:size])
    with pytest.raises(LedgerError):
        verified(path)


# -------------------------------------------------------------------------------- forgeries
def forged(ledger: Ledger, *statements: str, restore: bool = True) -> Path:
    """A copy changed by somebody who knows SQLite: triggers dropped, and put back."""
    path = ledger.path.with_name("forged.ledger")
    shutil.copy(ledger.path, path)
    connection = sqlite3.connect(path)
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    kept = triggers.fetchall()
    for name, _ in kept:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in kept if restore else ():
        connection.execute(sql)
    connection.commit()
    connection.close()
    return path


LAST = "DELETE FROM entries WHERE number = 6"


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM entries WHERE number = 1", "entry 1 is missing"),
        ("DELETE FROM entries WHERE number = 4", "entry 4 is missing"),
        ("DELETE FROM entries", "there is no entry"),
        ("UPDATE entries SET noise_multiplier = 300.0 WHERE number = 3", "entry 3 is not what"),
        ("UPDATE entries SET budget_epsilon = 40.0 WHERE number = 1", "entry 1 is not what"),
        ("UPDATE entries SET dataset = 'cats' WHERE number = 1", "entry 1 is not what"),
        ("UPDATE entries SET number = 9 WHERE number = 6", "entry 6 is missing"),
        ("UPDATE entries SET count = NULL WHERE number = 6", "its count is None"),
        ("UPDATE entries SET reason = 'x' WHERE number = 6", "its reason is 'x'"),
        ("UPDATE entries SET host = x'ff' WHERE number = 6", "its host is b"),
        ("UPDATE entries SET host = CAST(x'ff' AS TEXT) WHERE number = 6", "decode"),
        ("CREATE INDEX mine ON entries (run)", "its table or its triggers"),
    ],
)
def test_what_was_changed_by_hand_is_found(ledger: Ledger, statement: str, says: str) -> None:
    path = forged(ledger, statement)
    with pytest.raises(LedgerError) as caught:
        verified(path)
    assert says in str(caught.value)


def test_triggers_that_are_gone_are_found(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="triggers"):
        verified(forged(ledger, restore=False))
    verified(forged(ledger))  # nothing else was wrong


def test_a_last_entry_that_was_deleted_is_found_by_a_receipt_only(ledger: Ledger) -> None:
    cut = verified(forged(ledger, LAST))
    assert len(cut.entries()) == 5
    with pytest.raises(LedgerError, match="has 5 entries, the receipt 6"):
        cut.verify(ledger.receipt())


def test_an_entry_of_a_kind_that_cannot_be_there_is_refused(ledger: Ledger) -> None:
    known = ledger.entries()
    again = chain.Entry.of({**known[0].row(), "number": 7}).chained(known[-1].hash)
    with pytest.raises(LedgerError, match="entry 7 is of kind 'create'"):
        chain.follow(None, [*known, again])
    with pytest.raises(LedgerError, match="entry 1 is of kind 'charge'"):
        chain.follow(None, [chain.Entry.of({**known[1].row(), "number": 1}).chained("")])
    silent = chain.Entry.of({**known[1].row(), "number": 7, "noise_multiplier": -1.0})
    with pytest.raises(LedgerError, match=r"noise multiplier of -1\.0"):
        chain.follow(None, [*known, silent.chained(known[-1].hash)])
