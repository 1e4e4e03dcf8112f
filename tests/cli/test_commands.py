"""The commands, as somebody at a keyboard meets them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from tests.cli.terminal import hanse
from tests.runs.forks import bits, digest

from hanse import RunError
from hanse.cli import running
from hanse.cli.app import app
from hanse.config.experiment_file import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

HANSE = Path(sys.executable).with_name("hanse")


# ---------------------------------------------------------------------------------- help
def _paths(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from _paths(command, (*path, name))


PATHS = list(_paths(app))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        printed = CliRunner().invoke(app, [*path, flag], prog_name="hanse")
        assert printed.exit_code == 0
        assert printed.output.startswith(f"Usage: {' '.join(('hanse', *path))} ")
        assert max(map(len, printed.output.splitlines())) <= 80


def test_help_is_answered_without_torch() -> None:
    program = f"""
import sys
from hanse.cli.app import main
for path in {[*map(list, PATHS)]!r}:
    sys.argv = ["hanse", *path, "--help"]
    main()
sys.argv = ["hanse", "--version"]
main()
heavy = {{"torch", "numpy", "jinja2", "rich"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_installed_command_runs_from_anywhere(folder: Path) -> None:
    done = subprocess.run(
        [HANSE, "run", "watches.toml", "--set", "run.rounds=1"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (folder / "runs" / "watches" / "report.html").is_file()


# ----------------------------------------------------------------------------------- run
def test_a_run_prints_what_it_does_and_what_came_of_it(folder: Path) -> None:
    printed = hanse("run", "watches.toml", "--baselines")
    assert printed.code == 0, printed.err
    assert printed.err == ""
    for words in (
        "watches: 7 clients train, 217 parameters",
        "data: David M. Burns",
        "strategy: Strategy(local=LocalSGD(",
        "cross-silo sets participation = Full()",
        "gradients: module, blocks of 1 (chosen by the user)",
        "round 0/2",
        "round 2/2",
        "test: 7 clients, 854 examples",
        "unseen: 3 clients, 749 examples",
        "each client alone",
        f"run: {folder / 'runs' / 'watches'}",
        f"report: {folder / 'runs' / 'watches' / 'report.html'}",
    ):
        assert words in printed.out, words
    about = json.loads((folder / "runs/watches/run.json").read_text())
    assert about["status"] == "finished"
    assert "seed 0" in printed.out


def test_runs_without_a_place_of_their_own_are_numbered(folder: Path) -> None:
    (folder / "runs" / "watches-2").mkdir(parents=True)  # an empty one is somebody's too
    for _ in range(2):
        assert hanse("run", "watches.toml", "--set", "run.rounds=1").code == 0
    assert sorted(p.name for p in (folder / "runs").iterdir()) == [
        "watches",
        "watches-2",
        "watches-3",
    ]
    assert not list((folder / "runs" / "watches-2").iterdir())


def test_a_run_that_cannot_begin_leaves_no_folder_of_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RunError("it", why="cannot", instead="begin")

    monkeypatch.setattr(running, "start", refuse)
    for seeds in ([], ["--seeds", "2"]):
        assert hanse("run", "watches.toml", *seeds).code == 2
        assert [p.name for p in folder.iterdir()] == ["watches.toml"]


def test_a_run_of_a_file_and_of_its_resolved_file_are_one(folder: Path, trained: Path) -> None:
    config = trained / "config.toml"
    assert hanse("run", str(config), "--out", "again", "--baselines").code == 0
    again = bits(folder / "again")
    assert again == bits(trained)
    assert (folder / "again" / "config.toml").read_text() == config.read_text()


def test_seeds_are_a_group_of_runs_like_any_others(folder: Path) -> None:
    printed = hanse("run", "watches.toml", "--set=run.seed=4", "--seeds", "2", "--out", "group")
    assert printed.code == 0, printed.err
    assert sorted(p.name for p in (folder / "group").iterdir()) == [
        "report.html",
        "seed-4",
        "seed-5",
    ]
    assert "mean ± deviation of 2 seeds" in printed.out
    assert "seed 4 · round 2/2" in printed.out
    assert hanse("run", "watches.toml", "--set=run.seed=5", "--out", "alone").code == 0
    assert bits(folder / "group" / "seed-5") == bits(folder / "alone")
    assert digest(folder / "group/seed-4/model.safetensors") != digest(
        folder / "alone/model.safetensors"
    )
    for command in (["report", "group"], ["resume", "group"]):
        printed = hanse(*command)
        assert printed.code == 0, printed.err
        assert "mean ± deviation of 2 seeds" in printed.out
    refused = hanse("run", "watches.toml", "--seeds", "2", "--out", "group")
    assert refused.code == 2
    assert refused.err.startswith("error: group exists already")


def test_a_group_goes_on_where_each_of_its_runs_stopped(folder: Path) -> None:
    assert hanse("run", "watches.toml", "--seeds", "2", "--out", "whole").code == 0
    shutil.copytree(folder / "whole", folder / "part")
    run = folder / "part" / "seed-1"
    shutil.rmtree(run / "checkpoints" / "round-000002")
    (run / "model.safetensors").unlink()
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "status": "running"}))
    (folder / "part" / "seed-old").mkdir()  # somebody's own folder
    printed = hanse("resume", "part")
    assert printed.code == 0, printed.err
    assert "part/seed-0 is finished: 2 rounds." in printed.out
    for seed in ("seed-0", "seed-1"):
        assert bits(folder / "part" / seed) == bits(folder / "whole" / seed)
    printed = hanse("resume", "part", "--rounds", "3")
    assert printed.code == 0, printed.err
    for seed in ("seed-0", "seed-1"):
        assert json.loads((folder / "part" / seed / "run.json").read_text())["rounds"] == 3


# -------------------------------------------------------------------------------- resume
def test_more_rounds_are_remembered(folder: Path, trained: Path) -> None:
    shutil.copytree(trained, "run")
    printed = hanse("resume", "run")
    assert printed.code == 0
    assert "run is finished: 2 rounds. --rounds N goes on." in printed.out
    assert bits(folder / "run") == bits(trained)
    assert hanse("resume", "run", "--rounds", "3").code == 0
    assert "rounds = 3" in (folder / "run" / "config.toml").read_text()
    before = bits(folder / "run")
    refused = hanse("resume", "run", "--rounds", "2")
    assert refused.code == 2
    assert refused.err.startswith("error: run has done 3 rounds, and is to stop after 2")
    assert bits(folder / "run") == before
    assert "rounds = 3" in (folder / "run" / "config.toml").read_text()


def test_an_interrupted_run_stops_at_130_and_says_how_to_go_on(
    folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_line", stop)
    printed = hanse("run", "watches.toml", "--out", "run", "--baselines")
    assert printed.code == 130
    assert "stopped; `hanse resume run` goes on" in printed.out
    assert printed.err.strip() == "stopped"
    assert json.loads((folder / "run" / "run.json").read_text())["status"] == "stopped"
    assert hanse("report", "run").code == 0
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert hanse("resume", "run").code == 0
    assert bits(folder / "run") == bits(trained)


# --------------------------------------------------------------------------- the others
def test_a_report_is_written_where_it_is_wanted(folder: Path, trained: Path) -> None:
    printed = hanse("report", str(trained), "--out", "deep/mine.html")
    assert printed.code == 0, printed.err
    assert "report: deep/mine.html" in printed.out
    assert "federated" in printed.out
    page = (folder / "deep" / "mine.html").read_text()
    assert "<html" in page
    assert "watches" in page


def test_an_export_is_the_model_of_the_run(folder: Path, trained: Path) -> None:
    printed = hanse("export", str(trained), "model.safetensors")
    assert printed.code == 0, printed.err
    assert printed.out == "model: model.safetensors\n"
    assert digest(folder / "model.safetensors") == digest(trained / "model.safetensors")


def test_inspect_shows_each_client(folder: Path) -> None:
    printed = hanse("data", "inspect", "watches.toml")
    assert printed.code == 0, printed.err
    for words in (
        "watch: inputs [30]",
        "7 clients, 766 examples; a client has 69 to 132",
        "test: 7 clients, 854 examples",
        "unseen: 3 clients, 749 examples",
        "subject 7",
        "0 pendulum",
    ):
        assert words in printed.out, words
    fewer = hanse("data", "inspect", "watches.toml", "--set", "data.unseen_subjects=[1,2,3,4,5,6]")
    assert "4 clients," in fewer.out
    assert list(folder.iterdir()) == [folder / "watches.toml"]


NASTY = """
import torch
from hanse.data import Federation, federation_from_arrays


def people() -> Federation:
    x, y = torch.ones(3, 2), torch.tensor([0, 1, 0])
    names = ["[bold]ann[/bold]", "[/]", "[red", "株式会社 🏥", "a" * 200]
    arrays = {name: (x, y) for name in names}
    return federation_from_arrays(
        arrays, test=arrays, classes=["[/no]", "yes"], name="[/x] of [bold]them"
    )
"""


def test_names_with_brackets_are_names(folder: Path) -> None:
    (folder / "own.py").write_text(NASTY)
    own = ["--set=data={source='own.py:people'}", "--set=name=[/b] [i]x"]
    printed = hanse("data", "inspect", "watches.toml", *own)
    assert printed.code == 0, printed.err
    for words in ("[/x] of [bold]them", "[bold]ann[/bold]", "[red", "[/no]"):
        assert words in printed.out, words
    printed = hanse("run", "watches.toml", *own, "--set=name=[i]x", "--out", "[b]run")
    assert printed.code == 0, printed.err
    assert "[i]x: 5 clients train" in printed.out
    assert "run: [b]run\n" in printed.out
    assert (folder / "[b]run" / "report.html").is_file()


def test_strategies_lists_all_with_their_parameters() -> None:
    printed = hanse("strategies")
    assert printed.code == 0
    assert set(STRATEGIES) <= {line.partition(":")[0] for line in printed.out.splitlines()}
    assert "local_epochs=1" in printed.out
    assert "mu=0.01" in printed.out


def test_doctor_trains_and_says_what_is_there() -> None:
    printed = hanse("doctor")
    assert printed.code == 0, printed.out
    assert "✓ torch" in printed.out
    assert "✓ two rounds on the bundled data, written and read back" in printed.out
    assert "✗" not in printed.out


def test_doctor_ends_with_one_where_a_run_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hanse.runs.run", fail)
    printed = hanse("doctor")
    assert printed.code == 1
    assert "✗ two rounds on the bundled data" in printed.out
    assert "No space left on device" in printed.out


def test_a_seed_that_diverges_keeps_no_other_from_training_or_from_the_report(
    folder: Path,
) -> None:
    ended = hanse("run", "watches.toml", "--set=strategy.lr=1e30", "--seeds", "2", "--out", "group")
    assert ended.code == 3
    assert "seed-0: round 1 diverged" in ended.out
    assert "seed-1: round 1 diverged" in ended.out
    assert (folder / "group" / "report.html").is_file()
