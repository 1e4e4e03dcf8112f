"""Runs on disk with worker processes: the same bits, whoever is killed, and nobody left behind."""

from __future__ import annotations

import os
import random
import signal
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.engine.forked import is_gone
from tests.runs.forks import ForkServer, bits, wait_for_rounds, wait_until
from tests.runs.small_runs import experiment, same_state, state_of

import hanse

if TYPE_CHECKING:
    from tests.runs.forks import Running

# One client at a time: six small clients in one block would be a single piece of work.
ONE_BY_ONE = "--set=run.execution={path='module', block=1}"


def workers_of(process: Running) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text("utf-8").split()]


def whole(forks: ForkServer, folder: Path, *options: str) -> dict[str, object]:
    ended = forks.hanse(folder, "run", "experiment.toml", "--out", "whole", ONE_BY_ONE, *options)
    assert ended.status == 0, ended.printed
    return bits(folder / "whole")


def start(forks: ForkServer, folder: Path, out: str, *options: str) -> Running:
    return forks.start(folder, "run", "experiment.toml", "--out", out, ONE_BY_ONE, *options)


def test_runs_with_any_number_of_workers_are_the_same(forks: ForkServer, folder: Path) -> None:
    expected = whole(forks, folder)
    for workers in (2, 3):
        ended = start(forks, folder, f"with-{workers}", "--workers", str(workers)).wait()
        assert ended.status == 0, ended.printed
        assert f"in {workers} processes" in ended.printed
        assert bits(folder / f"with-{workers}") == expected
        config = tomllib.loads((folder / f"with-{workers}" / "config.toml").read_text("utf-8"))
        assert config["run"]["workers"] == workers


def test_a_run_is_resumed_with_another_number_of_workers(forks: ForkServer, folder: Path) -> None:
    expected = whole(forks, folder, "--baselines")
    ended = start(forks, folder, "changed", "--baselines", "--set=run.rounds=3").wait()
    assert ended.status == 0, ended.printed
    for rounds, workers in ((6, 3), (7, 2), (8, 1)):
        options = ("--rounds", str(rounds), "--workers", str(workers))
        ended = forks.hanse(folder, "resume", "changed", *options)
        assert ended.status == 0, ended.printed
    assert bits(folder / "changed") == expected


@pytest.mark.parametrize("workers", ["0", "two"])
def test_a_number_of_workers_that_cannot_be_is_refused(
    workers: str, forks: ForkServer, folder: Path
) -> None:
    for options in (["--workers", workers], [f"--set=run.workers={workers}"]):
        ended = start(forks, folder, "refused", *options).wait()
        assert ended.status == 2
        assert "workers" in ended.printed
        assert not (folder / "refused").exists()


def test_a_run_that_is_killed_leaves_no_worker_behind(forks: ForkServer, folder: Path) -> None:
    process = start(forks, folder, "killed", "--workers=3", "--set=run.rounds=10000")
    wait_for_rounds(folder / "killed", 3)
    workers = workers_of(process)
    assert len(workers) == 3
    assert process.kill(signal.SIGKILL).status == -signal.SIGKILL
    wait_until(lambda: all(map(is_gone, workers)))


def test_a_run_killed_again_and_again_with_workers_ends_as_if_it_had_not_been(
    forks: ForkServer, folder: Path
) -> None:
    draw = random.Random(5)  # noqa: S311 - moments, no secrets
    options = ("--set=run.rounds=30",)
    expected = whole(forks, folder, *options)
    process, workers = start(forks, folder, "killed", "--workers=2", *options), list[int]()
    for count in ("3", "2", "1", "2"):
        wait_for_rounds(folder / "killed", draw.randint(1, 2))
        time.sleep(draw.uniform(0.0, 0.02))
        workers += workers_of(process)
        assert process.kill(signal.SIGKILL).status == -signal.SIGKILL
        process = forks.start(folder, "resume", "killed", "--workers", count)
    ended = process.wait()
    assert ended.status == 0, ended.printed
    assert bits(folder / "killed") == expected
    assert workers
    wait_until(lambda: all(map(is_gone, workers)))


def test_workers_killed_during_a_run_change_nothing(forks: ForkServer, folder: Path) -> None:
    options = ("--set=run.rounds=60",)
    expected = whole(forks, folder, *options)
    process = start(forks, folder, "killed", "--workers=2", *options)
    for _ in range(4):
        wait_for_rounds(folder / "killed", 2)
        for pid in workers_of(process):
            os.kill(pid, signal.SIGKILL)
    ended = process.wait()
    assert ended.status == 0, ended.printed
    assert bits(folder / "killed") == expected


def test_ctrl_c_ends_everything(forks: ForkServer, folder: Path) -> None:
    """A terminal sends it to every process."""
    process = start(forks, folder, "stopped", "--workers=3", "--set=run.rounds=10000")
    wait_for_rounds(folder / "stopped", 3)
    workers = workers_of(process)
    os.killpg(process.pid, signal.SIGINT)
    ended = process.wait()
    assert ended.status == 130, ended.printed
    assert "Traceback" not in ended.printed
    assert "hanse resume" in ended.printed
    assert all(map(is_gone, workers))
    resumed = forks.start(folder, "resume", "stopped", "--workers=2")
    wait_for_rounds(folder / "stopped", 2)
    assert resumed.kill(signal.SIGKILL).status == -signal.SIGKILL


BROKEN = """
import os
import signal

from hanse import fedavg
from hanse.core.types import Layer


class Broken(Layer):
    def __repr__(self) -> str:
        return "Broken()"

    def on_client(self, update, broadcast, memory, client):
        if broadcast.round.number == 3 and 2 in client.id and os.environ.get("WORKERS"):
            os.kill(os.getpid(), signal.SIGKILL)
        return update, memory


def make():
    return fedavg().then(Broken())
"""


def test_clients_that_kill_their_workers_stop_the_run_with_their_names(
    forks: ForkServer, folder: Path
) -> None:
    (folder / "broken.py").write_text(BROKEN)
    options = ("--set=strategy={name='broken.py:make'}", "--set=run.participation='full'")
    expected = whole(forks, folder, *options)
    command = ["run", "experiment.toml", "--out", "broken", ONE_BY_ONE, *options, "--workers=2"]
    ended = forks.hanse(folder, *command, environment={"WORKERS": "1"})
    assert ended.status == 2, ended.printed
    assert "Traceback" not in ended.printed
    assert "3 worker processes were ended by SIGKILL" in ended.printed
    assert "'person 2'" in ended.printed
    assert "workers = 1" in ended.printed
    ended = forks.hanse(folder, "resume", "broken")
    assert ended.status == 0, ended.printed
    assert bits(folder / "broken") == expected


def test_runs_from_python_take_workers_too(tmp_path: Path) -> None:
    hanse.run(experiment(), tmp_path / "one")
    hanse.run(experiment(workers=2, rounds=2), tmp_path / "two")
    hanse.resume(tmp_path / "two", experiment(workers=3))
    assert same_state(state_of(tmp_path / "one"), state_of(tmp_path / "two"))
