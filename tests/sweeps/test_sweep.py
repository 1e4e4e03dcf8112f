"""Sweeps: cells with the same seeds, kept when they are done, and what their table says."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from typing import TYPE_CHECKING

import pytest
from tests.cli.terminal import hanse as command
from tests.runs.forks import bits
from tests.runs.small_runs import experiment
from tests.sweeps.conftest import write_files

import hanse
from hanse import ConfigError, Experiment, RunError
from hanse.comparison import compare

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.sweeps import SweepTable

RATES = [0.05, 0.2, 0.5]


GOAL = "test.loss=1.1"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> SweepTable:
    """A sweep that tests copy or only read."""
    folder = tmp_path_factory.mktemp("sweep")
    write_files(folder)
    over = {"strategy.lr": RATES}
    return hanse.sweep(folder / "small.toml", over, folder / "swept", seeds=3, target=GOAL)


def _lines(run: Path) -> list[dict[str, dict[str, float]]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_each_number_is_that_of_its_runs(swept: SweepTable) -> None:
    assert [row.settings for row in swept.rows] == [{"strategy.lr": str(rate)} for rate in RATES]
    for row in swept.rows:
        runs = [_lines(swept.path / row.name / f"seed-{seed}") for seed in range(3)]
        found = row.outcomes["test", "loss"]
        finals = [lines[-1]["test"]["loss"] for lines in runs]
        tops = [min(line["test"]["loss"] for line in lines) for lines in runs]
        assert found.final is not None
        assert found.best is not None
        assert found.final.mean == pytest.approx(statistics.mean(finals))
        assert found.final.std == pytest.approx(statistics.stdev(finals))
        assert found.best.mean == pytest.approx(statistics.mean(tops))
        at = [
            next((k for k, line in enumerate(lines) if line["test"]["loss"] <= 1.1), None)
            for lines in runs
        ]
        assert row.reaching == sum(k is not None for k in at)
    assert {row.status for row in swept.rows} == {"finished"}


def test_the_best_cell_is_the_best_and_is_paired_with_the_next(swept: SweepTable) -> None:
    finals = {row.name: row.final("test", "accuracy") or 0.0 for row in swept.rows}
    assert swept.by == ("test", "accuracy")
    assert swept.best is not None
    assert swept.next is not None
    assert finals[swept.best.name] == max(finals.values())
    two = compare(swept.path / swept.next.name, swept.path / swept.best.name)
    assert two.contrast(1, "test", "accuracy") == swept.contrast
    assert swept.contrast is not None
    assert swept.contrast.seeds == (0, 1, 2)


def test_a_cell_is_the_run_that_hanse_run_makes(folder: Path, swept: SweepTable) -> None:
    done = command("run", "small.toml", "--out", "alone", "--set", "strategy.lr=0.2",
                   "--set", "run.seed=1")  # fmt: skip
    assert done.code == 0, done.err
    assert bits(folder / "alone") == bits(swept.path / "strategy.lr=0.2/seed-1")


def test_the_table_is_written_thrice(swept: SweepTable) -> None:
    assert (swept.path / "table.md").read_text("utf-8") == swept.markdown()
    rows = list(csv.DictReader((swept.path / "table.csv").read_text("utf-8").splitlines()))
    found = json.loads((swept.path / "table.json").read_text("utf-8"))
    assert [float(row["strategy.lr"]) for row in rows] == RATES
    assert swept.best is not None
    assert found["best"] == swept.best.name
    for row, cell, line in zip(swept.rows, found["cells"], rows, strict=True):
        final = row.outcomes["test", "accuracy"].final
        assert final is not None
        assert cell["metrics"]["test.accuracy"]["final"]["mean"] == final.mean
        assert float(line["test.accuracy.std"]) == final.std


def test_what_is_done_is_kept_and_what_is_new_is_run(folder: Path, swept: SweepTable) -> None:
    shutil.copytree(swept.path.parent, folder, dirs_exist_ok=True)
    before = {p: p.stat().st_mtime_ns for p in (folder / "swept").rglob("seed-*/*")}
    over = {"strategy.lr": [0.5, 0.05, 0.8]}
    about = folder / "swept/sweep.json"  # whose paths are those of the copied folder
    about.write_text(about.read_text().replace(str(swept.path.parent), str(folder)))
    again = hanse.sweep("small.toml", over, "swept", seeds=4, target=GOAL)
    assert [row.seeds for row in again.rows] == [4, 4, 4]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (folder / "swept/strategy.lr=0.2").is_dir()


def test_a_cell_that_diverges_is_a_row_that_says_so(folder: Path) -> None:
    done = command("sweep", "small.toml", "--over", "strategy.lr=0.1,1e30", "--out", "swept")
    assert done.code == 0, done.err
    found = json.loads((folder / "swept/table.json").read_text())
    assert [cell["status"] for cell in found["cells"]] == ["finished", "diverged"]
    assert found["best"] == "strategy.lr=0.1"
    assert "diverged" in done.out
    again = command("sweep", "small.toml", "--over", "strategy.lr=0.1,1e30", "--out", "swept")
    assert again.code == 0
    assert "strategy.lr=1e+30 · seed 0: diverged" in again.out


def test_the_command_says_what_it_does(folder: Path) -> None:
    line = ("sweep", "small.toml", "--over", "strategy.lr=0.1,0.3", "--over",
            "strategy.name=fedavg,fedprox", "--over", "strategy.mu=0.1,1", "--seeds", "2",
            "--by", "test.loss", "--target", "accuracy=0.2", "--workers", "1")  # fmt: skip
    done = command(*line)
    assert done.code == 0, done.err
    assert "6 cells, 2 seeds each" in done.out
    assert "12 of 12: strategy.lr=0.3,strategy.name=fedprox,strategy.mu=1 · seed 1" in done.out
    assert "Best by loss on training clients: " in done.out
    assert (folder / "runs/small-sweep/table.md").is_file()
    again = command(*line)
    assert again.code == 0, again.err
    assert again.out.count(": done") == 12


# -------------------------------------------------------------------------------- from Python
def _make(lr: float, sizes: str = "small") -> Experiment:
    return experiment(strategy=hanse.fedavg(lr=lr, batch_size=3), rounds=1, name=sizes)


def test_a_function_can_be_swept_over(folder: Path) -> None:
    found = hanse.sweep(_make, {"lr": [0.1, 0.2], "sizes": ["a/b", "c"]}, "swept", seeds=2)
    assert [row.settings for row in found.rows] == [
        {"lr": "0.1", "sizes": "a/b"}, {"lr": "0.1", "sizes": "c"},
        {"lr": "0.2", "sizes": "a/b"}, {"lr": "0.2", "sizes": "c"},
    ]  # fmt: skip
    assert all(row.status == "finished" for row in found.rows)
    about = json.loads((folder / "swept" / found.rows[0].name / "seed-1/run.json").read_text())
    assert about["name"] == "a/b"
    assert about["seed"] == 1


def test_parts_can_be_swept_over_but_not_what_has_no_text_of_its_own(folder: Path) -> None:
    def make(strategy: hanse.Strategy) -> Experiment:
        return experiment(strategy=strategy, rounds=1)

    parts = [hanse.fedavg(), hanse.fedsgd(lr=0.1)]
    assert len(hanse.sweep(make, {"strategy": parts}, "swept").rows) == 2
    with pytest.raises(ConfigError, match="differs each time"):
        hanse.sweep(lambda f: experiment(), {"f": [object(), object()]}, "other")


def test_a_function_that_means_something_else_now_is_refused(folder: Path) -> None:
    rate = 0.1

    def make(seed: int) -> Experiment:
        return experiment(strategy=hanse.fedavg(lr=rate), rounds=1)

    hanse.sweep(make, {"seed": [1]}, "swept")
    rate = 0.2
    with pytest.raises(RunError, match=r"has strategy = .*lr=0\.1"):
        hanse.sweep(make, {"seed": [1]}, "swept")
