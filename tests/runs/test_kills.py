"""A run that is killed, at whatever moment, and resumed ends with the bits of one that was not."""

from __future__ import annotations

import random
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from tests.runs.forks import ForkServer, bits, wait_for_rounds

if TYPE_CHECKING:
    from pathlib import Path


def _uninterrupted(forks: ForkServer, folder: Path, *options: str) -> dict[str, object]:
    ended = forks.hanse(folder, "run", "experiment.toml", "--out", "whole", *options)
    assert ended.status == 0, ended.printed
    return bits(folder / "whole")


def _every(rounds: int, checkpoint_every: int) -> tuple[str, ...]:
    return (f"--set=run.rounds={rounds}", f"--set=run.checkpoint_every={checkpoint_every}")


def _chain_of_random_kills(
    forks: ForkServer, folder: Path, kills: int, *options: str, seed: int
) -> None:
    """Kill the same run again and again, a round or two and some moments after it went on."""
    draw = random.Random(seed)  # noqa: S311 - moments, no secrets
    run = folder / "killed"
    command = ["run", "experiment.toml", "--out", "killed", *options]
    for _ in range(kills):
        process = forks.start(folder, *command)
        wait_for_rounds(run, draw.randint(1, 2))
        time.sleep(draw.uniform(0.0, 0.004))
        ended = process.kill(signal.SIGKILL)
        assert ended.status == -signal.SIGKILL, ended.printed
        command = ["resume", "killed"]
    ended = forks.hanse(folder, *command)
    assert ended.status == 0, ended.printed


@pytest.mark.parametrize(("checkpoint_every", "rounds"), [(1, 30), (3, 34)])
def test_a_run_killed_six_times_ends_as_if_it_had_not_been(
    forks: ForkServer, folder: Path, checkpoint_every: int, rounds: int
) -> None:
    options = _every(rounds, checkpoint_every)
    whole = _uninterrupted(forks, folder, *options)
    _chain_of_random_kills(forks, folder, 6, *options, seed=checkpoint_every)
    assert bits(folder / "killed") == whole


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_every", [1, 3])
def test_a_run_killed_sixty_times_ends_as_if_it_had_not_been(
    forks: ForkServer, folder: Path, checkpoint_every: int
) -> None:
    options = (*_every(300, checkpoint_every), "--baselines")
    whole = _uninterrupted(forks, folder, *options)
    _chain_of_random_kills(forks, folder, 60, *options, seed=checkpoint_every)
    assert bits(folder / "killed") == whole


def _chain_of_aimed_kills(forks: ForkServer, folder: Path, command: list[str], first: int) -> int:
    """Kill each process one change of the disk later than the one before; how many were killed."""
    run, kill_at = folder / "killed", first
    while True:
        ended = forks.hanse(folder, *command, watch=run, kill_at=kill_at)
        if ended.status == 0:
            return kill_at - first
        assert ended.status == -signal.SIGKILL, ended.printed
        kill_at += 1
        command = ["resume", "killed"]


# The changes before run.json is there: a folder, its lock, and two files that are written beside
# their place and moved.
_BEFORE_THE_RUN = 6


@pytest.mark.parametrize(("checkpoint_every", "rounds"), [(1, 5), (3, 10)])
def test_a_kill_before_any_change_of_the_disk_loses_nothing(
    forks: ForkServer, folder: Path, checkpoint_every: int, rounds: int
) -> None:
    options = _every(rounds, checkpoint_every)
    whole = _uninterrupted(forks, folder, *options)
    command = ["run", "experiment.toml", "--out", "killed", *options]
    killed = _chain_of_aimed_kills(forks, folder, command, _BEFORE_THE_RUN + 1)
    assert killed > 9  # more than a round's changes
    assert bits(folder / "killed") == whole


def _changes(forks: ForkServer, folder: Path, *argv: str) -> list[str]:
    """What a command changes in `traced`, in order, without the numbers of processes."""
    trace = folder / "trace.txt"
    ended = forks.hanse(folder, *argv, "--out", "traced", watch=folder / "traced", trace=trace)
    assert ended.status == 0, ended.printed
    return [re.sub(r"\.\d+(\.tmp)?$", "", line) for line in trace.read_text().splitlines()]


def test_a_kill_after_the_last_round_loses_nothing(forks: ForkServer, folder: Path) -> None:
    options = [*_every(1, 1), "--baselines"]
    changes = _changes(forks, folder, "run", "experiment.toml", *options)
    whole = bits(folder / "traced")
    place = changes.index("open .model.safetensors")
    command = ["run", "experiment.toml", "--out", "killed", *options]
    first = forks.hanse(folder, *command, watch=folder / "killed", kill_at=place + 1)
    assert first.status == -signal.SIGKILL, first.printed
    killed = _chain_of_aimed_kills(forks, folder, ["resume", "killed"], 1)
    assert killed >= len(changes) - place
    assert bits(folder / "killed") == whole


@pytest.mark.slow
def test_a_kill_before_each_single_change_loses_nothing(forks: ForkServer, folder: Path) -> None:
    options = [*_every(4, 2), "--baselines"]
    changes = _changes(forks, folder, "run", "experiment.toml", *options)
    whole = bits(folder / "traced")
    for kill_at in range(_BEFORE_THE_RUN + 1, len(changes) + 1):
        command = ["run", "experiment.toml", "--out", f"killed-{kill_at}", *options]
        run = folder / f"killed-{kill_at}"
        ended = forks.hanse(folder, *command, watch=run, kill_at=kill_at)
        assert ended.status == -signal.SIGKILL, ended.printed
        ended = forks.hanse(folder, "resume", run.name)
        assert ended.status == 0, ended.printed
        assert bits(run) == whole, changes[kill_at - 1]


def test_before_run_json_is_there_nothing_is_a_run(forks: ForkServer, folder: Path) -> None:
    command = ["run", "experiment.toml", "--out", "killed"]
    ended = forks.hanse(folder, *command, watch=folder / "killed", kill_at=_BEFORE_THE_RUN)
    assert ended.status == -signal.SIGKILL, ended.printed
    assert "run.json" not in {path.name for path in (folder / "killed").iterdir()}
    ended = forks.hanse(folder, "resume", "killed")
    assert ended.status == 2
    assert "is not a run directory" in ended.printed
