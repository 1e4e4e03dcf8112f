"""A sweep that is killed, at whatever change of the disk, goes on by the same command."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from tests.runs.forks import bits, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runs.forks import ForkServer

OVER = ["sweep", "small.toml", "--over", "strategy.lr=0.1,0.3", "--seeds", "2"]


def _runs(sweep: Path) -> dict[str, dict[str, object]]:
    return {str(run.relative_to(sweep)): bits(run) for run in sorted(sweep.glob("*/seed-*"))}


def _same(whole: Path, killed: Path) -> None:
    assert _runs(whole) == _runs(killed)
    for name in ("table.md", "table.csv", "table.json", "sweep.json"):
        assert (whole / name).read_text() == (killed / name).read_text()
    files = {str(p.relative_to(whole)) for p in whole.rglob("*")}
    assert {str(p.relative_to(killed)) for p in killed.rglob("*")} == files


def test_a_sweep_killed_before_many_a_change_ends_as_if_it_had_not_been(
    forks: ForkServer, folder: Path
) -> None:
    ended = forks.hanse(folder, *OVER, "--out", "whole")
    assert ended.status == 0, ended.printed
    kill_at, killed = 1, 0
    while True:
        ended = forks.hanse(
            folder, *OVER, "--out", "killed", watch=folder / "killed", kill_at=kill_at
        )
        if ended.status == 0:
            break
        assert ended.status == -signal.SIGKILL, ended.printed
        killed += 1
        kill_at += 1
    assert killed > 9
    _same(folder / "whole", folder / "killed")


def test_ctrl_c_says_how_to_go_on_and_finished_runs_are_kept(
    forks: ForkServer, folder: Path
) -> None:
    command = ["sweep", "small.toml", "--over", "strategy.lr=0.1", "--seeds", "2"]
    command += ["--out", "stopped", "--set", "run.rounds=40"]
    first = folder / "stopped/strategy.lr=0.1/seed-0"
    process = forks.start(folder, *command)
    second = first.with_name("seed-1") / "metrics.jsonl"
    wait_until(lambda: second.is_file() and second.read_bytes().count(b"\n") > 2)
    ended = process.kill(signal.SIGINT)
    assert ended.status == 130, ended.printed
    assert "stopped; the same command goes on" in " ".join(ended.printed.split())
    assert json.loads((first / "run.json").read_text())["status"] == "finished"
    before = (first / "metrics.jsonl").stat().st_mtime_ns
    ended = forks.hanse(folder, *command)
    assert ended.status == 0, ended.printed
    assert "2 of 2: strategy.lr=0.1 · seed 1: goes on" in ended.printed
    assert (first / "metrics.jsonl").stat().st_mtime_ns == before
    found = json.loads((folder / "stopped/table.json").read_text())
    assert [cell["status"] for cell in found["cells"]] == ["finished"]
