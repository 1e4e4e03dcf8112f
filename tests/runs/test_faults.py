"""Disks that are full or read-only, files that were damaged, two processes at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.runs.forks import bits, recorded, wait_for_rounds
from tests.runs.small_runs import contents, experiment, federation, perceptron, same_state, state_of
from torch import nn

import hanse
from hanse import ConfigError, DataError, ModelError, RunError, StrategyError
from hanse.report import write as write_report
from hanse.storage import RunDirectory
from hanse.storage.checkpoint import checkpoints, read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.runs.forks import ForkServer


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four rounds; tests leave it as it is."""
    return hanse.run(experiment(), tmp_path_factory.mktemp("finished") / "run").path


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same experiment after two rounds."""
    return hanse.run(experiment(rounds=2), tmp_path_factory.mktemp("stopped") / "run").path


@pytest.fixture
def half(tmp_path: Path, stopped: Path) -> Path:
    """A copy of the run after two rounds."""
    return Path(shutil.copytree(stopped, tmp_path / "half"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a disk of so many KiB, if this process may mount one."""
    mounted: list[Path] = []

    def make(size: int) -> Path:
        path = tmp_path / f"disk {len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(path)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not permitted here")
        mounted.append(path)
        return path

    yield make
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


# ------------------------------------------------------------------------------ no space
@pytest.mark.parametrize("free", [4, 8, 16, 20, 28, 36, 44, 60])
def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_space(
    disk: Callable[[int], Path], finished: Path, free: int
) -> None:
    place = disk(512)
    ballast = place / "ballast"
    ballast.write_bytes(bytes((512 - free) * 1024))
    run = place / "run"
    with pytest.raises(RunError) as caught:
        hanse.run(experiment(), run)
    assert str(run) in caught.value.found
    assert "No space left on device" in caught.value.why
    assert "free some space" in caught.value.instead
    _nothing_is_half_written(run)
    ballast.unlink()
    if (run / "run.json").exists():
        hanse.resume(run, experiment())
    else:
        hanse.run(experiment(), run)
    assert bits(run) == bits(finished)


def _nothing_is_half_written(run: Path) -> None:
    hidden = [p.name for p in run.rglob(".*") if p.name != ".lock"]
    assert not hidden
    for path in checkpoints(run / "checkpoints"):
        assert {p.name for p in path.iterdir()} == {"state.json", "state.safetensors"}
        read_checkpoint(path, None)
    for name in ("metrics.jsonl", "clients.jsonl"):
        if (run / name).exists():
            text = (run / name).read_text("utf-8")
            assert not text or text.endswith("\n")
            for line in text.splitlines():
                json.loads(line)


def test_a_file_that_may_not_grow_stops_a_run_that_goes_on_when_it_may(
    forks: ForkServer, folder: Path
) -> None:
    whole = forks.hanse(folder, "run", "experiment.toml", "--out", "whole")
    assert whole.status == 0, whole.printed
    limit = (folder / "whole" / "clients.jsonl").stat().st_size // 2
    stopped = forks.hanse(folder, "run", "experiment.toml", "--out", "run", file_size=limit)
    assert stopped.status == 2, stopped.printed
    assert "error: run/clients.jsonl cannot be written" in stopped.printed
    assert "File too large" in stopped.printed
    assert "Traceback" not in stopped.printed
    _nothing_is_half_written(folder / "run")
    resumed = forks.hanse(folder, "resume", "run")
    assert resumed.status == 0, resumed.printed
    assert bits(folder / "run") == bits(folder / "whole")


# ------------------------------------------------------------------------------ read-only
def test_a_read_only_disk_is_named_and_left_alone(disk: Callable[[int], Path]) -> None:
    place = disk(512)
    run = hanse.run(experiment(rounds=2), place / "run").path
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    before = contents(place)
    with pytest.raises(RunError, match="Read-only file system") as caught:
        hanse.run(experiment(), place / "other")
    assert str(place / "other") in caught.value.found
    with pytest.raises(RunError, match="Read-only file system") as caught:
        hanse.resume(run, experiment(rounds=3))
    assert str(run) in caught.value.found
    assert contents(place) == before


# --------------------------------------------------------------------- damaged checkpoints
def _truncate(path: Path) -> None:
    with (path / "state.safetensors").open("r+b") as file:
        file.truncate((path / "state.safetensors").stat().st_size // 2)


def _flip(position: int) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        file = path / "state.safetensors"
        found = bytearray(file.read_bytes())
        found[position] ^= 1
        file.write_bytes(found)

    return flip


def _rewrite(**changes: object) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        file = path / "state.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return rewrite


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": _truncate,
    "empty": lambda path: (path / "state.safetensors").write_bytes(b""),
    "a bit of the header flipped": _flip(9),
    "the last bit flipped": _flip(-1),
    "no tensors": lambda path: (path / "state.safetensors").unlink(),
    "no facts": lambda path: (path / "state.json").unlink(),
    "facts cut short": lambda path: (path / "state.json").write_text('{"format": 1, "rou'),
    "facts of another kind": lambda path: (path / "state.json").write_text("[]"),
    "another round": _rewrite(round=3),
    "no checksum": _rewrite(sha256=None),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_as_good(
    half: Path, finished: Path, damage: Callable[[Path], object]
) -> None:
    last = checkpoints(half / "checkpoints")[-1]
    damage(last)
    before = contents(half)
    with pytest.raises(RunError, match="is damaged") as caught:
        hanse.resume(half, experiment())
    assert str(last) in caught.value.found
    assert f"remove {last}" in caught.value.instead
    assert contents(half) == before
    shutil.rmtree(last)
    hanse.resume(half, experiment())
    assert bits(half) == bits(finished)


def test_without_any_checkpoint_a_run_begins_again(half: Path, finished: Path) -> None:
    shutil.rmtree(half / "checkpoints")
    hanse.resume(half, experiment())
    assert bits(half) == bits(finished)


def test_a_checkpoint_of_another_format_is_refused(half: Path) -> None:
    _rewrite(format=2)(checkpoints(half / "checkpoints")[-1])
    with pytest.raises(RunError, match="has format 2"):
        hanse.resume(half, experiment())


# -------------------------------------------------------------------------- damaged records
@pytest.mark.parametrize("name", ["metrics.jsonl", "clients.jsonl"])
def test_a_last_line_that_was_cut_short_is_dropped(half: Path, finished: Path, name: str) -> None:
    path = half / name
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines()[-1][:-20])
    write_report(half)
    hanse.resume(half, experiment())
    assert bits(half) == bits(finished)


@pytest.mark.parametrize("name", ["metrics.jsonl", "clients.jsonl"])
@pytest.mark.parametrize("garbage", [b"nonsense", b"[]", b"{}", b'{"round": null}', b"\xff\xfe"])
def test_a_line_that_is_no_record_is_refused_by_file_and_number(
    half: Path, name: str, garbage: bytes
) -> None:
    path = half / name
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in (lines[0], garbage, *lines[1:])))
    before = contents(half)
    with pytest.raises(RunError) as caught:
        hanse.resume(half, experiment())
    assert f"{path}, line 2" in caught.value.found
    assert contents(half) == before


def test_run_json_that_is_none_is_refused(half: Path) -> None:
    (half / "run.json").write_text("{")
    with pytest.raises(RunError, match="is not JSON"):
        hanse.resume(half, experiment())


# ------------------------------------------------------------------------ two at once
def test_two_processes_cannot_have_the_same_run(forks: ForkServer, folder: Path) -> None:
    command = ["run", "experiment.toml", "--out", "run", "--set=run.rounds=100000"]
    first = forks.start(folder, *command)
    wait_for_rounds(folder / "run", 2)
    (folder / "other").mkdir()
    second = forks.hanse(folder / "other", "resume", "../run")
    reported = forks.hanse(folder / "other", "report", "../run", "--out", "report.html")
    begun = recorded(folder / "run")
    wait_for_rounds(folder / "run", 1)  # the first one did not notice
    assert first.kill(signal.SIGKILL).status == -signal.SIGKILL
    assert second.status == 2
    assert "error: ../run is in use by another process" in second.printed
    assert reported.status == 0, reported.printed
    assert begun >= 2
    again = forks.hanse(folder, "resume", "run", f"--rounds={recorded(folder / 'run') + 2}")
    assert again.status == 0, again.printed  # the lock died with its process


def test_runs_that_begin_at_once_do_not_take_the_same_place(
    forks: ForkServer, folder: Path
) -> None:
    command = ["run", "experiment.toml", "--set=run.rounds=2"]
    begun = [forks.start(folder, *command, log=folder / f"log-{k}") for k in range(4)]
    for process in begun:
        ended = process.wait()
        assert ended.status == 0, ended.printed
    names = {path.name for path in (folder / "runs").iterdir()}
    assert names == {"small", "small-2", "small-3", "small-4"}
    assert len({json.dumps(bits(folder / "runs" / name)["metrics"]) for name in names}) == 1

    begun = [forks.start(folder, *command, "--out=one", log=folder / f"log-{k}") for k in range(4)]
    together = [process.wait() for process in begun]
    assert sorted(one.status for one in together) == [0, 2, 2, 2]
    assert sum("one exists already" in one.printed for one in together) == 3
    assert bits(folder / "one")["files"] == bits(folder / "runs" / "small")["files"]


def test_a_lock_is_held_against_the_same_process_too(half: Path) -> None:
    run = RunDirectory.open(half)
    handle = run.lock()
    with pytest.raises(RunError, match="in use by another process"):
        hanse.resume(half, experiment())
    os.close(handle)
    hanse.resume(half, experiment())


def test_what_a_killed_process_left_is_swept_and_nothing_else(half: Path, finished: Path) -> None:
    left = [".run.json.4711", ".report.html.4711.tmp", "checkpoints/.round-000009.4711/state.json"]
    mine = [".git/config", ".notes", ".lock", ".cache.d/4711"]
    for name in (*left, *mine):
        (half / name).parent.mkdir(exist_ok=True)
        (half / name).write_text("…")
    hanse.resume(half, experiment())
    assert not [name for name in left if (half / name).exists()]
    assert not (half / "checkpoints/.round-000009.4711").exists()
    assert all((half / name).exists() for name in mine)
    assert same_state(state_of(half), state_of(finished))


# ----------------------------------------------------------------------------- resuming
def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, finished: Path) -> None:
    again = Path(shutil.copytree(finished, tmp_path / "again"))
    hanse.resume(again, experiment())
    assert bits(again) == bits(finished)


def test_more_rounds_are_as_good_as_a_longer_run(half: Path, finished: Path) -> None:
    hanse.resume(half, experiment(rounds=3))
    hanse.resume(half, experiment(rounds=4))
    assert bits(half) == bits(finished)


def test_a_round_that_is_done_cannot_be_taken_back(finished: Path) -> None:
    before = contents(finished)
    with pytest.raises(RunError, match="has done 4 rounds, and is to stop after 3"):
        hanse.resume(finished, experiment(rounds=3))
    assert contents(finished) == before


OTHER: dict[str, dict[str, object]] = {
    "strategy": {"strategy": hanse.scaffold(batch_size=4, server=hanse.ServerAdam())},
    "seed": {"seed": 1},
    "training data": {"data": federation((4, 9, 2, 7, 6, 5))},
    "setting": {"setting": "cross-device"},
    "participation": {"participation": hanse.Uniform(count=3)},
    "execution": {"execution": hanse.Execution("module", 2)},
    "loss": {"loss": lambda outputs, targets: hanse.models.cross_entropy(outputs, targets)},  # noqa: PLW0108
    "model": {
        "model": lambda: hanse.models.mlp(3, 3, hidden=(4,)),
    },
    "parameters": {"local": ("2.bias",)},
    "dtype": {"model": lambda: perceptron().double()},
}


@pytest.mark.parametrize("name", OTHER)
def test_a_run_goes_on_only_as_what_it_was_started_as(half: Path, name: str) -> None:
    before = contents(half)
    with pytest.raises(RunError, match=f"was started with {name} = ") as caught:
        hanse.resume(half, experiment(**OTHER[name]))
    assert str(half) in caught.value.found
    assert contents(half) == before


def test_a_run_from_python_cannot_be_resumed_by_its_folder_alone(half: Path) -> None:
    with pytest.raises(RunError, match="has no config") as caught:
        hanse.resume(half)
    assert f"hanse.resume({str(half)!r}, experiment)" in caught.value.instead


# --------------------------------------------------------------------------- starting
@pytest.mark.parametrize("kind", ["file in it", "a file", "a run"])
def test_a_run_never_overwrites_anything(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "a file":
        place.write_text("precious")
    elif kind == "a run":
        hanse.run(experiment(rounds=1), place)
    else:
        place.mkdir()
        (place / ".hidden").write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(RunError, match="exists already") as caught:
        hanse.run(experiment(), place)
    assert str(place) in caught.value.found
    assert contents(tmp_path) == before


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert hanse.run(experiment(rounds=1), str(tmp_path / "run")).about()["status"] == "finished"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"model": lambda: nn.Linear(2, 3)}, ModelError),
        ({"participation": hanse.Uniform(count=7)}, ConfigError),
        ({"strategy": hanse.fedsgd(), "local": ("2.*",)}, StrategyError),
        ({"data": hanse.data.Federation(hanse.data.LazyClients(3, lambda k: {}))}, DataError),
    ],
    ids=["model", "participation", "strategy", "data"],
)
def test_what_cannot_be_prepared_leaves_nothing_behind(
    tmp_path: Path, changes: dict[str, object], kind: type[hanse.HanseError]
) -> None:
    with pytest.raises(kind):
        hanse.run(experiment(**changes), tmp_path / "deep" / "run")
    assert not contents(tmp_path)
