"""What goes wrong is a message with a reason and a remedy, and an exit code; never a traceback."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.cli.terminal import hanse
from tests.runs.small_runs import contents

if TYPE_CHECKING:
    from pathlib import Path

REFUSED: dict[str, tuple[list[str], str]] = {
    "no such file": (["run", "nix.toml"], "error: nix.toml cannot be read"),
    "a folder as a file": (["run", "."], "error: . cannot be read: Is a directory"),
    "below a file": (["run", "watches.toml/x.toml"], "error: watches.toml/x.toml cannot be read"),
    "a name that is too long": (["run", "n" * 300], "cannot be read: File name too long"),
    "no TOML": (["run", "prose.txt"], "error: prose.txt is not TOML"),
    "bytes": (["run", "bytes.bin"], "error: bytes.bin is not TOML"),
    "no such strategy": (
        ["run", "watches.toml", "--set", "strategy.name=fedavgg"],
        "did you mean 'fedavg'?",
    ),
    "no such key": (["run", "watches.toml", "--set", "run.round=3"], "did you mean 'rounds'?"),
    "no such section": (["run", "watches.toml", "--set", "runs.rounds=3"], "did you mean 'run'?"),
    "no value": (["run", "watches.toml", "--set", "run.rounds"], "error: --set run.rounds\n"),
    "no such run": (["resume", "nix"], "error: nix is not a run directory"),
    "no run": (["resume", "."], "error: . is not a run directory"),
    "no run to report": (["report", "."], "has neither a run.json nor folders seed-0"),
    "no such run to report": (["report", "nix"], "error: there is no folder nix"),
    "no run to export": (["export", ".", "m.safetensors"], "error: . is not a run directory"),
    "a file as a run": (["resume", "watches.toml"], "error: watches.toml is not a run directory"),
    "a place that is taken": (["run", "watches.toml", "--out", "taken"], "error: taken exists"),
    "a file as a place": (["run", "watches.toml", "--out", "watches.toml"], "exists already"),
    "a place for seeds that is taken": (
        ["run", "watches.toml", "--seeds", "2", "--out", "taken"],
        "error: taken exists already",
    ),
    "a file as a place for seeds": (
        ["run", "watches.toml", "--seeds", "2", "--out", "watches.toml"],
        "error: watches.toml exists already",
    ),
    "a place below a file": (
        ["run", "watches.toml", "--out", "watches.toml/run"],
        "error: watches.toml/run cannot be written",
    ),
    "no such data set": (["data", "fetch", "mnits"], "did you mean 'mnist'?"),
    "data of nothing": (["data", "inspect", "nix.toml"], "error: nix.toml cannot be read"),
}


@pytest.fixture
def place(folder: Path) -> Path:
    (folder / "prose.txt").write_text("Dear Sir or Madam,\n")
    (folder / "bytes.bin").write_bytes(b"\xff\xfe\x00")
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.tex").write_text("precious")
    return folder


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_a_message_and_leaves_everything_as_it_was(place: Path, name: str) -> None:
    command, words = REFUSED[name]
    before = contents(place)
    printed = hanse(*command)
    assert printed.code == 2, printed.err
    assert words in printed.err
    lines = printed.err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[-2].startswith("  why: ")
    assert lines[-1].startswith("  instead: ")
    assert len(lines[-2]) > len("  why: ")
    assert len(lines[-1]) > len("  instead: ")
    assert contents(place) == before


WRONG_USE = {
    "no command": [],
    "no such command": ["trian"],
    "no file": ["run"],
    "two files": ["run", "a", "b"],
    "no such option": ["run", "watches.toml", "--baseline-s"],
    "no seeds": ["run", "watches.toml", "--seeds", "0"],
    "no rounds": ["resume", "run", "--rounds", "0"],
    "a word for rounds": ["resume", "run", "--rounds", "many"],
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_a_wrong_use_shows_the_right_one(folder: Path, name: str) -> None:
    printed = hanse(*WRONG_USE[name])
    assert printed.code == 2
    assert "Usage: hanse" in printed.err
    assert [p.name for p in folder.iterdir()] == ["watches.toml"]


@pytest.mark.parametrize(
    "command",
    [
        ["export", "RUN", "nowhere/m.safetensors"],
        ["export", "RUN", "."],
        ["report", "RUN", "--out", "."],
    ],
    ids=" ".join,
)
def test_a_place_that_cannot_be_written_to_is_named(
    folder: Path, trained: Path, command: list[str]
) -> None:
    printed = hanse(*(str(trained) if word == "RUN" else word for word in command))
    assert printed.code == 2
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err
    assert [p.name for p in folder.iterdir()] == ["watches.toml"]


def test_a_run_that_was_damaged_is_a_message(folder: Path, trained: Path) -> None:
    shutil.copytree(trained, "run")
    (folder / "run" / "checkpoints" / "round-000002" / "state.safetensors").write_bytes(b"")
    printed = hanse("export", "run", "model.safetensors")
    assert printed.code == 2
    assert "checkpoints/round-000002 is damaged" in printed.err
    (folder / "run" / "run.json").write_text("{}")
    for command in (["report", "run"], ["resume", "run", "--rounds", "3"]):
        printed = hanse(*command)
        assert printed.code == 2, command
        assert "run/run.json" in printed.err


def test_a_bug_is_still_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("hanse.cli.listing.list_strategies", fail)
    with pytest.raises(ZeroDivisionError):
        hanse("strategies")
