"""The SQLite file of a ledger: made whole, opened with suspicion, written durably."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from typing import TYPE_CHECKING

from hanse.core.errors import LedgerError
from hanse.privacy.ledger.entries import COLUMNS, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION = int.from_bytes(b"Hans", "big")
VERSION = 1

_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT"}
_TABLE = ",\n    ".join(f"{name} {_TYPES[kind]}" for name, kind in COLUMNS.items())
# Without rowid, so that all there is to an entry is its columns, which are hashed. The trigger on
# inserts is there for INSERT OR REPLACE, which deletes without asking the trigger on deletes.
_SCHEMA = (
    f"CREATE TABLE entries (\n    {_TABLE},\n    PRIMARY KEY (number)\n) WITHOUT ROWID",
    """CREATE TRIGGER never_changed BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END""",
    """CREATE TRIGGER never_deleted BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END""",
    """CREATE TRIGGER appended BEFORE INSERT ON entries
WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM entries)
BEGIN SELECT RAISE(ABORT, 'entries are only appended'); END""",
)
_SPACE = "free some space and try again; nothing was charged"
_REMEDIES = {
    "SQLITE_FULL": _SPACE,
    "SQLITE_IOERR": "look after the disk, then `hanse privacy ledger verify`",
    "SQLITE_READONLY": "a file, in a directory, that this user may write to",
    "SQLITE_CANTOPEN": "a file, in a directory, that this user may read and write",
    "SQLITE_BUSY": "wait until the other process is done, or end it if it hangs",
    "SQLITE_LOCKED": "wait until the other process is done, or end it if it hangs",
}
_BACKUP = "restore it from a backup that is as new as your last receipt"


@contextlib.contextmanager
def opened(path: Path, wait: float) -> Iterator[sqlite3.Connection]:
    """A connection to a ledger, and to nothing else.

    It is made for one transaction and closed behind it. So a fork inherits none, and a file that
    was replaced is seen.

    Args:
        path: an existing ledger.
        wait: how many seconds to wait for another process that writes.

    Raises:
        LedgerError: there is none, it is something else, or SQLite refused something inside.
    """
    if not path.is_file():
        raise LedgerError(
            f"there is no ledger at {path}",
            why="it is " + ("a folder" if path.is_dir() else "no file"),
            instead="the path of a ledger, or `hanse privacy ledger create` to begin one",
        )
    with _explained(path):
        connection = _connect(path, "rw", wait)
        try:
            _expect_ledger(connection, path)
            yield connection
        finally:
            connection.close()  # takes back what was not committed


def create(path: Path, first: Entry) -> None:
    """Make a ledger with its first entry, whole or not at all.

    Raises:
        LedgerError: there is something at `path` already, or it cannot be written.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    with _explained(path):
        try:
            connection = _connect(temporary, "rwc", 0.0)
            try:
                connection.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
                append(connection, first)
                connection.execute("COMMIT")
            finally:
                connection.close()
            os.link(temporary, path)  # unlike a rename, never over something
        finally:
            temporary.unlink(missing_ok=True)
        _fsync(path.parent)


def append(connection: sqlite3.Connection, entry: Entry) -> None:
    """Write an entry behind the others, in the transaction that is open."""
    places = ", ".join("?" * len(COLUMNS))
    values = tuple(entry.row().values())
    connection.execute(f"INSERT INTO entries VALUES ({places})", values)  # noqa: S608 - marks only


def entries(connection: sqlite3.Connection, path: Path, first: int = 1) -> Iterator[Entry]:
    """The entries from number `first` on, as they were written; nothing about them is checked.

    Raises:
        LedgerError: a row is no entry.
    """
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    query = f"SELECT {names} FROM entries WHERE number >= ? ORDER BY number"  # noqa: S608 - ours
    for row in connection.execute(query, (first,)):
        values = dict(zip(COLUMNS, row, strict=True))
        try:
            yield Entry.of(values)
        except ValueError as error:
            raise _damaged(path, f"entry {values['number']!r} is none: {error}") from error


def examine(connection: sqlite3.Connection, path: Path) -> None:
    """Have SQLite look at every page of the file.

    Raises:
        LedgerError: it found something.
    """
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        raise _damaged(path, "; ".join(found).replace("\n", " "))


def _connect(path: Path, mode: str, wait: float) -> sqlite3.Connection:
    """A connection whose commits last.

    One journal that is deleted, and not a write-ahead log: at rest the ledger is a single file that
    can be copied, hashed and read from a disk that cannot be written to. With a log, a copy of the
    file alone would lack the last charges. `EXTRA` and not `FULL`, because the latter does not make
    the deletion of the journal durable: after a loss of power a transaction could be taken back
    whose commit had returned.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", timeout=wait, isolation_level=None, uri=True
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        connection.close()
        raise
    return connection


def _expect_ledger(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is not a ledger as it is made here, triggers included."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise LedgerError(
            f"{path} is not a privacy ledger",
            why="it is a database of another program, by its application_id",
            instead="the path of a ledger, or `hanse privacy ledger create` with a new path",
        )
    if version != VERSION:
        raise LedgerError(
            f"{path} is a ledger of format {version}",
            why=f"this version of Hanse reads and writes format {VERSION} only",
            instead="the version of Hanse that wrote it, or a newer one",
        )
    if _schema_of(connection) != _expected_schema():
        raise _damaged(path, "its table or its triggers are not those that Hanse makes")
    (journal,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    if journal != "delete":
        raise _damaged(path, f"its journal is of mode {journal!r}")


def _schema_of(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    return connection.execute(query).fetchall()


@functools.cache
def _expected_schema() -> list[tuple[str, ...]]:
    connection = sqlite3.connect(":memory:")
    try:
        for statement in _SCHEMA:
            connection.execute(statement)
        return _schema_of(connection)
    finally:
        connection.close()


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the operating system say into errors with a remedy."""
    try:
        yield
    except FileExistsError as error:
        raise LedgerError(
            f"{path} exists already",
            why="a ledger that was begun anew would forget what has been spent",
            instead="the ledger that is there, or another path",
        ) from error
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be written",
            why=f"the operating system says: {error.strerror or error}",
            instead="a path in a directory that exists and can be written to",
        ) from error
    except UnicodeDecodeError as error:  # SQLite quotes the damaged text in its message
        raise _damaged(path, "its description is not UTF-8") from error
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        remedy = next((text for key, text in _REMEDIES.items() if name.startswith(key)), None)
        if remedy is None:
            raise _damaged(path, f"SQLite says: {error}") from error
        doing = "opened" if name.startswith("SQLITE_CANTOPEN") else "written"
        raise LedgerError(
            f"{path} cannot be {doing}", why=f"SQLite says: {error}", instead=remedy
        ) from error


def _damaged(path: Path, why: str) -> LedgerError:
    return LedgerError(f"{path} is damaged, or no ledger", why=why, instead=_BACKUP)


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
