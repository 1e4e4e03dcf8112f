"""`hanse init`: from somebody's own file to a report in three commands."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pytest
from tests.cli.terminal import hanse
from tests.data.own_files import csv, image, leaf, parquet, patients, picture
from tests.docs.pages import blocks

from hanse.config import read_experiment
from hanse.experiment import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = "bring-your-own-data.md"
HANSE = Path(sys.executable).with_name("hanse")


def made(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def test_the_three_commands_of_the_page_lead_to_a_report(tmp_path: Path) -> None:
    code = next(b.content for b in blocks(PAGE) if "patients.parquet" in b.content)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    commands = next(b.content for b in blocks(PAGE) if b.language == "console").splitlines()
    assert commands[0].startswith("$ pip install")
    assert len(commands) == 3
    printed = ""
    for line in commands[1:]:
        words = line.removeprefix("$ hanse ").split()
        done = subprocess.run(
            [HANSE, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        printed = done.stdout
    shown = next(b.content for b in blocks(PAGE) if b.content.startswith("# What is guessed"))
    assert (tmp_path / "patients.toml").read_text() == shown
    report = re.search(r"report: (.+)", printed)
    assert report is not None
    assert Path(report[1]) == tmp_path / "runs" / "patients" / "report.html"
    page = Path(report[1]).read_text()
    assert all(name in page for name in ("Altona", "Bergedorf", "Harburg", "Wandsbek"))


@pytest.mark.parametrize("write", [parquet, csv])
def test_guesses_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    columns = {
        "": np.arange(60),
        "id": np.arange(60) * 3,
        **patients(),
        "sex": ["f", "m"] * 30,
        "name": [f"name {k}" for k in range(60)],
        "lab": [None, *np.arange(59.0)],
        "seen": np.arange(60).astype("datetime64[D]").astype("datetime64[s]"),
    }
    columns["hospital"][7] = "tiny"
    write(tmp_path / "my data.2024.tbl".replace("tbl", write.__name__), columns)
    monkeypatch.chdir(tmp_path)
    file = f"my data.2024.{write.__name__}"
    printed = hanse("init", file, "--client", "hospital", "--target", "outcome")
    assert (printed.code, printed.err) == (0, "")
    text = (tmp_path / "my data.toml").read_text()
    assert text in printed.out
    data = made(text)["data"]
    assert data == {
        "source": "table",
        "path": file,
        "client": "hospital",
        "target": "outcome",
        "ignore": ["", "id", "name", "lab", "seen"],
        "categorical": ["sex"],
        "min_examples": 2,
        "test_fraction": 0.2,
        "standardise": True,
    }
    for reason in (
        "'lab' has no value in 1 rows",
        "'name' has more than 20",
        "'seen' has a date",
        "# unseen = [",
    ):
        assert reason in text
    prepare(read_experiment(tmp_path / "my data.toml").experiment())
    again = hanse("init", file, "--client", "hospital", "--target", "outcome")
    assert again.code == 2
    assert "exists already" in again.err
    assert hanse("data", "inspect", "my data.toml").code == 0


def test_guesses_of_targets(tmp_path: Path) -> None:
    rows = 240
    random = np.random.default_rng(0)
    columns = {
        "site": [f"s{k % 3}" for k in range(rows)],
        "x": random.normal(size=rows),
        "price": random.normal(100, 10, rows),
        "days": random.permutation(rows) * 2,
        "flag": np.arange(rows) % 2.0,
    }
    parquet(tmp_path / "t.parquet", columns)
    for target, task, loss in (
        ("price", None, "squared_error"),
        ("days", "regression", "squared_error"),
        ("flag", "classification", None),
    ):
        out = tmp_path / f"{target}.toml"
        printed = hanse(
            "init", str(tmp_path / "t.parquet"), "--client", "site", "--target", target,
            "--out", str(out),
        )  # fmt: skip
        assert (printed.code, printed.err) == (0, "")
        content = made(out.read_text())
        assert content["data"].get("task") == task
        assert content["model"].get("loss") == loss
        done = hanse("run", str(out), "--out", str(tmp_path / target), "--set", "run.rounds=2")
        assert (done.code, done.err) == (0, "")


def test_a_column_that_divides_is_seen(tmp_path: Path) -> None:
    columns = {"site": ["a", "b"] * 4, "x": range(8), "y": [0.5] * 8}
    columns["part"] = ["train"] * 4 + ["test"] * 4
    csv(tmp_path / "t.csv", columns)
    text = (tmp_path / "t.csv").read_text().replace(",", ";")
    (tmp_path / "t.csv").write_text(text)
    out = tmp_path / "t.toml"
    printed = hanse(
        "init", str(tmp_path / "t.csv"), "--client", "site", "--target", "y", "--out", str(out)
    )
    assert (printed.code, printed.err) == (0, "")
    data = made(out.read_text())["data"]
    assert data["split"] == "part"
    assert data["delimiter"] == ";"
    assert "decimal" not in data
    (tmp_path / "t.csv").write_text(text.replace("0.5", "0,5"))
    out.unlink()
    hanse("init", str(tmp_path / "t.csv"), "--client=site", "--target=y", f"--out={out}")
    content = made(out.read_text())
    assert (content["data"]["decimal"], content["model"]["loss"]) == (",", "squared_error")
    assert "test_fraction" not in data


def test_many_clients_take_turns(tmp_path: Path) -> None:
    columns = {"who": np.arange(900) % 300, "x": np.arange(900.0) % 7, "y": np.arange(900) % 2}
    parquet(tmp_path / "t.parquet", columns)
    out = tmp_path / "t.toml"
    hanse("init", str(tmp_path / "t.parquet"), "--client=who", "--target=y", f"--out={out}")
    run = made(out.read_text())["run"]
    assert run["participation"] == {"kind": "uniform", "count": 20}
    prepare(read_experiment(out).experiment())


def test_folders_of_other_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        name = f"photos/{'ab'[number % 2]}/{'cd'[number // 2 % 2]}/{number}.png"
        image(tmp_path / name, picture(number, 16, 16, 3))
    leaf(tmp_path / "tweets" / "train", {"anna": ([[0.5, 1.0], [1.5, 2.0]], [0, 1])})
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays" / "anna.npz", x=np.zeros((4, 2)), y=np.arange(4.0))
    for folder, source in (("photos", "images"), ("tweets", "leaf"), ("arrays", "npz")):
        printed = hanse("init", folder)
        assert (printed.code, printed.err) == (0, "")
        assert made((tmp_path / f"{folder}.toml").read_text())["data"]["source"] == source
        prepare(read_experiment(tmp_path / f"{folder}.toml").experiment())


def test_a_data_set_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.chdir(tmp_path)
    datasets.Dataset.from_dict(patients()).save_to_disk("saved")
    printed = hanse("init", "saved", "--client", "hospital", "--target", "outcome")
    assert (printed.code, printed.err) == (0, "")
    prepare(read_experiment(tmp_path / "saved.toml").experiment())
    printed = hanse("init", "saved", "--target", "outcome", "--out", "other.toml")
    assert printed.code == 2  # the column of hospitals is left, and holds texts
    assert "'hospital', an input" in printed.err
