"""A run that is killed, at whatever moment, and resumed ends with the bits of one that was not."""

from __future__ import annotations

import random
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
    """Kill the same run again and again, a few rounds and some milliseconds after it went on."""
    draw = random.Random(seed)  # noqa: S311 - moments, no secrets
    run = folder / "killed"
    command = ["run", "experiment.toml", "--out", "killed", *options]
    for _ in range(kills):
        process = forks.start(folder, *command)
        wait_for_rounds(run, draw.randint(1, 3))
        time.sleep(draw.uniform(0.0, 0.02))
        ended = process.kill(signal.SIGKILL)
        assert ended.status == -signal.SIGKILL, ended.printed
        command = ["resume", "killed"]
    ended = forks.hanse(folder, *command)
    assert ended.status == 0, ended.printed


@pytest.mark.parametrize(("checkpoint_every", "rounds"), [(1, 28), (3, 40)])
def test_a_run_killed_six_times_ends_as_if_it_had_not_been(
    forks: ForkServer, folder: Path, checkpoint_every: int, rounds: int
) -> None:
    options = _every(rounds, checkpoint_every)
    whole = _uninterrupted(forks, folder, *options)
    _chain_of_random_kills(forks, folder, 6, *options, seed=checkpoint_every)
    assert bits(folder / "killed") == whole


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_every", [1, 2, 7])
def test_a_run_killed_sixty_times_ends_as_if_it_had_not_been(
    forks: ForkServer, folder: Path, checkpoint_every: int
) -> None:
    options = (*_every(500, checkpoint_every), "--baselines")
    whole = _uninterrupted(forks, folder, *options)
    _chain_of_random_kills(forks, folder, 60, *options, seed=checkpoint_every)
    assert bits(folder / "killed") == whole


def _chain_of_aimed_kills(forks: ForkServer, folder: Path, first: int, *options: str) -> int:
    """Kill each process one change of the disk later than the one before; how many were killed."""
    run, kill_at = folder / "killed", first
    command = ["run", "experiment.toml", "--out", "killed", *options]
    while True:
        ended = forks.hanse(folder, *command, watch=run, kill_at=kill_at)
        if ended.status == 0:
            return kill_at - first
        assert ended.status == -signal.SIGKILL, ended.printed
        kill_at += 1
        if (run / "run.json").exists():
            command = ["resume", "killed"]


@pytest.mark.parametrize(("checkpoint_every", "rounds"), [(1, 6), (3, 13)])
def test_a_kill_before_any_change_of_the_disk_loses_nothing(
    forks: ForkServer, folder: Path, checkpoint_every: int, rounds: int
) -> None:
    options = _every(rounds, checkpoint_every)
    whole = _uninterrupted(forks, folder, *options)
    # From the first change after run.json on: before it there is no run to go on with.
    killed = _chain_of_aimed_kills(forks, folder, 6, *options)
    assert killed > 10
    assert bits(folder / "killed") == whole
