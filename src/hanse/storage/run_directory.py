"""The directory of a run: configuration, metrics, checkpoints, model and report."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanse.core.errors import RunError
from hanse.storage.checkpoint import (
    checkpoints,
    latest_checkpoint,
    read_checkpoint,
    remove_old,
    write_checkpoint,
)
from hanse.storage.files import (
    HALF_WRITTEN,
    append_lines,
    half_written,
    keep_lines,
    read_json,
    take_lock,
    to_json,
    write_atomically,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from hanse.round import FederationState

_NEEDED = {"hanse", "name", "rounds", "status", "baselines", "engine"}  # of run.json, to go on


@dataclass(frozen=True)
class RunDirectory:
    """A run on disk; docs/run-directory.md describes each file.

    Attributes:
        path: the directory.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, about: Mapping[str, Any], config: str | None) -> RunDirectory:
        """Make a new run directory.

        Args:
            path: must not exist, or be empty.
            about: the content of `run.json`.
            config: the resolved configuration, as text.

        Raises:
            RunError: something is there already, or it cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise _taken(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            try:  # of two processes that found it empty, one makes this file
                (path / ".lock").touch(exist_ok=False)
            except FileExistsError as error:
                raise _taken(path) from error
        run = cls(path)
        try:
            if config is not None:
                write_atomically(path / "config.toml", config)
            run.write_about(about)  # last: with run.json the directory is a run
        except RunError:
            for name in ("config.toml", ".lock"):  # so that it can be tried again
                (path / name).unlink(missing_ok=True)
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run directory.

        Raises:
            RunError: it is none.
        """
        run = cls(path)
        if not (path / "run.json").is_file():
            raise RunError(
                f"{path} is not a run directory: it has no run.json",
                why="a run is recognised by it",
                instead="the directory of a run, as `hanse run` printed it",
            )
        return run

    def about(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
            RunError: it is missing or damaged.
        """
        found = read_json(self.path / "run.json")
        missing = sorted(_NEEDED - set(found))
        if missing:
            raise RunError(
                f"{self.path / 'run.json'} has no {missing[0]!r}",
                why="it was damaged, or changed by something other than Hanse",
                instead="restore it from a backup, or start the run anew",
            )
        return found

    def write_about(self, about: Mapping[str, Any]) -> None:
        """Replace `run.json`."""
        write_atomically(self.path / "run.json", to_json(about) + "\n")

    def update(self, **changes: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
        """Change some entries of `run.json`."""
        self.write_about({**self.about(), **changes})

    def append(self, metrics: Mapping[str, Any], clients: Iterable[Mapping[str, Any]]) -> None:
        """Record a round."""
        append_lines(self.path / "clients.jsonl", clients)
        append_lines(self.path / "metrics.jsonl", [metrics])

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`."""
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        return [json.loads(line) for line in lines if line]

    def mend(self) -> None:
        """Drop a last line that a kill cut short, before anything is read.

        Raises:
            RunError: another line is not the record of a round.
        """
        for name in ("metrics.jsonl", "clients.jsonl"):
            keep_lines(self.path / name, lambda record: int(record["round"]) >= 0)

    def forget_after(self, round_number: int) -> None:
        """Drop what was recorded of later rounds: they are about to be run again."""
        for name in ("metrics.jsonl", "clients.jsonl"):
            keep_lines(self.path / name, lambda record: int(record["round"]) <= round_number)

    def save(self, state: FederationState, fingerprint: Mapping[str, Any]) -> None:
        """Write a checkpoint."""
        write_checkpoint(self.path / "checkpoints", state, fingerprint)

    def back_to_calm(self) -> None:
        """Remove the newest checkpoints whose loss had exploded; the one before them is left."""
        for path in reversed(checkpoints(self.path / "checkpoints")):
            if not int(read_checkpoint(path, None).exploded):
                return
            shutil.rmtree(path)

    def remove(self, *names: str) -> None:
        """Remove files of the run, if they are there."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def latest(self, fingerprint: Mapping[str, Any] | None) -> FederationState | None:
        """The state to go on from, or `None` if no checkpoint was ever finished."""
        path = latest_checkpoint(self.path / "checkpoints")
        return None if path is None else read_checkpoint(path, fingerprint)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write another file of the run."""
        write_atomically(self.path / name, content)
        return self.path / name

    def lock(self) -> int:
        """Take the run for this process, until the handle is closed or the process ends.

        Raises:
            RunError: another process has it, or it cannot be written to.
        """
        handle = take_lock(self.path, "wait for it to end (or stop it), then `hanse resume`")
        self._sweep()
        return handle

    def _sweep(self) -> None:
        """Remove what a killed process left half-written, or too long; nobody else is here."""
        for left in half_written(self.path):
            left.unlink()
        for left in (self.path / "checkpoints").glob(".*"):
            if HALF_WRITTEN.fullmatch(left.name):
                shutil.rmtree(left)
        remove_old(self.path / "checkpoints")


def _taken(path: Path) -> RunError:
    return RunError(
        f"{path} exists already",
        why="a run never overwrites another",
        instead=f"another directory (--out), or `hanse resume {path}` to go on with it",
    )
