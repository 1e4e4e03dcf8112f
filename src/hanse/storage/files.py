"""Writing so that a reader sees the old file or the new one, never half of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
from typing import TYPE_CHECKING, Any

from hanse.core.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

_FULL = "free some space, then `hanse resume` goes on from the last checkpoint"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: "a directory on a disk that can be written to",
    errno.EACCES: "a directory that you may write to",
    errno.ENOENT: "a path in a directory that exists",
}
HALF_WRITTEN = re.compile(r"\..+\.\d+(\.tmp)?")  # a name with the number of the process


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what could not be written, and what to do.

    Raises:
        RunError: the operating system refused something inside.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written",
            why=f"the operating system says: {error.strerror or error}",
            instead=_REMEDIES.get(error.errno or 0, "a path that a file can be written to"),
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file beside `path`, make it durable, and rename it into place.

    Raises:
        RunError: it cannot be written; what was there is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take_lock(folder: Path, instead: str) -> int:
    """Take a folder for this process, until the handle is closed or the process ends.

    Args:
        folder: an existing one; the lock is its file `.lock`.
        instead: what to do where another process has it.

    Raises:
        RunError: another process has it, or it cannot be written to.
    """
    with writing(folder):
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise RunError(
            f"{folder} is in use by another process",
            why="two processes would overwrite each other's files",
            instead=instead,
        ) from error
    fsync_directory(folder)
    return handle


def half_written(folder: Path) -> list[Path]:
    """The files that a killed process left beside their places."""
    return [
        left for left in folder.glob(".*") if HALF_WRITTEN.fullmatch(left.name) and left.is_file()
    ]


def to_json(value: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """One line of JSON; numbers that JSON does not have become null."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)
    # The name of a file that is not UTF-8 has code points that only an escape can write.
    return text.encode(errors="backslashreplace").decode()


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append records as lines of JSON, and make them durable.

    Raises:
        RunError: they cannot be written; what was there is as it was.
    """
    data = "".join(f"{to_json(record)}\n" for record in records).encode()
    if not data:
        return
    with writing(path), path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            while data:
                data = data[file.write(data) :]  # a disk that fills up takes a part first
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def keep_lines(path: Path, keep: Callable[[Mapping[str, Any]], bool]) -> None:
    """Rewrite a file of JSON lines without the records that `keep` refuses.

    A last line that a kill cut short is dropped.

    Raises:
        RunError: another line is not the record of a round.
    """
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    complete = lines[:-1]  # what follows the last line feed was cut short, or is empty
    kept = []
    for number, line in enumerate(complete, start=1):
        try:
            record = json.loads(line)
            wanted = keep(record)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path}, line {number} is not the record of a round: {line[:80]!r}",
                why="the record of the run was changed by something other than Hanse",
                instead="restore the file from a backup, or start the run anew",
            ) from error
        if wanted:
            kept.append(line)
    if len(kept) + 1 != len(lines) or lines[-1]:
        write_atomically(path, b"".join(line + b"\n" for line in kept))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        RunError: the file is missing or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            f"{path} does not exist",
            why="it is part of every run directory",
            instead="the directory of a run, as `hanse run` printed it",
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} is not JSON: {error}",
            why="it was damaged, or changed by something other than Hanse",
            instead="restore it from a backup, or start the run anew",
        ) from error
    if not isinstance(found, dict):
        raise RunError(
            f"{path} holds a {type(found).__name__}, not an object",
            why="it was changed by something other than Hanse",
            instead="restore it from a backup, or start the run anew",
        )
    return found


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
