"""Stragglers and public examples in experiment files: what the commands and the report say."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING

import pytest
from tests.data.little_mnist import CONTENTS, folder
from tests.docs.pages import as_toml, hanse

from hanse.config import read_experiment

if TYPE_CHECKING:
    from pathlib import Path

WATCH = {
    "data": {"source": "smartwatch", "standardise": True},
    "model": {"name": "softmax_regression"},
    "strategy": {"name": "fedavg", "partial": "drop"},
    "run": {"rounds": 4, "stragglers": {"fraction": 0.5, "least": 0.1}},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "slow.toml"
    path.write_text(as_toml(WATCH), encoding="utf-8")
    return path


def page(run: Path) -> str:
    text = (run / "report.html").read_text(encoding="utf-8")
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_stragglers_are_recorded_one_by_one_and_reported_together(
    file: Path, tmp_path: Path
) -> None:
    status, printed = hanse(f"run {file} --out {tmp_path}/run", rounds=None)
    assert status == 0, printed
    assert "Stragglers(fraction=0.5, least=0.1): partial work is dropped" in printed
    assert "dropped: straggler" not in printed
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines][1:]
    late = [len(r["dropped"]) for r in records]
    assert set(late) <= {3, 4}  # half of seven, rounded up or down at random
    assert [(r["cohort"], r["accepted"]) for r in records] == [(7, 7 - n) for n in late]
    reasons = [d["reason"] for r in records for d in r["dropped"]]
    assert all(re.fullmatch(r"straggler: did \d\d % of its work in time", r) for r in reasons)
    assert len(set(reasons)) > 4
    report = page(tmp_path / "run")
    assert f"{sum(late)} updates were not accepted" in report
    assert re.search(r"subject \d , rounds [\d, and]+: straggler", report)
    about = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert about["stragglers"] == "Stragglers(fraction=0.5, least=0.1)"


def test_what_a_file_says_of_stragglers_survives_being_written_out(
    file: Path, tmp_path: Path
) -> None:
    found = read_experiment(file)
    other = tmp_path / "resolved.toml"
    other.write_text(found.resolved(), encoding="utf-8")
    before, after = found.experiment(), read_experiment(other).experiment()
    assert before.stragglers == after.stragglers
    assert before.strategy == after.strategy
    status, printed = hanse(
        f"run {file} --set strategy.partial=keep --out {tmp_path}/kept", rounds=2
    )
    assert status == 0, printed
    assert "partial work is kept" in printed


def test_a_run_is_resumed_with_its_own_stragglers(file: Path, tmp_path: Path) -> None:
    for out, rounds in (("short", 2), ("long", 4)):
        status, printed = hanse(f"run {file} --out {tmp_path}/{out}", rounds=rounds)
        assert status == 0, printed
    status, printed = hanse(f"resume {tmp_path}/short --rounds 4")
    assert status == 0, printed
    models = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("short", "long")]
    assert models[0] == models[1]


def test_public_examples_are_inspected_recorded_and_reported(tmp_path: Path) -> None:
    source = folder(tmp_path / "little", CONTENTS)
    path = tmp_path / "public.toml"
    data = {"source": "idx", "dataset": str(source), "clients": 3, "partition": "shards"}
    content = {
        "data": {**data, "public": 0.25, "public_portion": 0.5},
        "model": {"name": "softmax_regression"},
        "strategy": {"name": "fedavg"},
    }
    path.write_text(as_toml(content), encoding="utf-8")
    status, printed = hanse(f"data inspect {path}")
    assert status == 0, printed
    assert "3 clients, 45 examples" in printed
    assert "among them 5 public ones at each client, of 10" in printed
    status, printed = hanse(f"run {path} --out {tmp_path}/run", rounds=1)
    assert status == 0, printed
    about = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert about["data"]["public"] == {"examples": 10, "each": 5}
    assert about["data"]["train_sizes"] == [15, 15, 15]
    assert "Each client’s examples include 5 public ones." in page(tmp_path / "run")


def test_fedbn_by_its_name_in_a_file(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from torch import nn\n\n\ndef normed():\n"
        "    return nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.Linear(8, 7))\n"
    )
    path = tmp_path / "fedbn.toml"
    model = {"name": "own.py:normed", "local": "batch-norm"}
    strategy = {"name": "fedavg", "batch_size": "all"}
    content = {"data": WATCH["data"], "model": model, "strategy": strategy}
    path.write_text(as_toml(content), encoding="utf-8")
    status, printed = hanse(f"run {path} --out {tmp_path}/run", rounds=1)
    assert status == 0, printed
    about = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert about["local"] == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert about["local_columns"] == 32
