"""docs/run-directory.md describes each file of a run, and nothing that is not there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.docs.pages import BASE, as_toml, hanse, headings, merged, tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = tables("run-directory.md")

# Keys whose values are mappings of their own, which the page describes in words.
WHOLE = {"test", "unseen", "server", "metrics", "fingerprint"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    file = folder / "experiment.toml"
    file.write_text(as_toml(merged(BASE, {"strategy": {"name": "scaffold"}})), encoding="utf-8")
    status, output = hanse(f"run {file} --baselines --out {folder}/run")
    assert status == 0, output
    return folder / "run"


def keys(record: dict[str, Any], before: str = "") -> Iterator[str]:
    for key, value in record.items():
        if isinstance(value, dict) and key not in WHOLE:
            yield from keys(value, f"{before}{key}.")
        else:
            yield f"{before}{key}"


def described(heading: str) -> set[str]:
    return {row[0] for row in PAGE[heading]}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_file_is_described_and_no_other(run: Path) -> None:
    found = {f"{path.name}/" if path.is_dir() else path.name for path in run.iterdir()}
    assert described("The files") == found


def test_run_json_is_as_described(run: Path) -> None:
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert described("run.json") == set(keys(about))
    assert (about["format"], about["status"]) == (1, "finished")


def test_the_lines_of_a_run_are_as_described(run: Path) -> None:
    rounds = lines(run / "metrics.jsonl")
    assert [record["round"] for record in rounds] == [0, 1, 2]
    assert described("metrics.jsonl") == set(keys(rounds[-1]))
    clients = lines(run / "clients.jsonl")
    everything = described("clients.jsonl")
    evaluated = {key for key in everything if not key.startswith("bytes.")}
    for record in clients:
        assert set(keys(record)) == (everything if record["split"] == "train" else evaluated)
    trained = next(record for record in clients if record["split"] == "train")
    assert list(trained["metrics"]) == ["loss", "norm", "cosine"]


def test_the_privacy_of_a_run_is_as_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begun, _ = hanse(
        "privacy ledger create people.ledger --dataset people --epsilon 9 --delta 0.01"
    )
    assert begun == 0
    changes = {
        "strategy": {"name": "dp_fedavg", "noise": "os", "noise_multiplier": 3.0},
        "run": {
            "ledger": "people.ledger",
            "per_client": {"bins": 3},
            "participation": {"kind": "poisson", "rate": 0.5},
        },
    }
    (tmp_path / "private.toml").write_text(as_toml(merged(BASE, changes)), encoding="utf-8")
    status, output = hanse("run private.toml --out private")
    assert status == 0, output
    about = json.loads((tmp_path / "private" / "run.json").read_text(encoding="utf-8"))
    last = lines(tmp_path / "private" / "metrics.jsonl")[-1]
    per_client = {"per_client": None}  # described in words
    found = {*keys(about["privacy"] | per_client), *keys(last["privacy"])}
    assert described("privacy") == found
    assert set(last["histograms"]) == {"test", "unseen"}
    for histogram in last["histograms"].values():
        assert list(histogram) == ["metric", "edges", "counts", "deviation"]


def test_baselines_are_as_described(run: Path) -> None:
    assert "baselines.json" in headings("run-directory.md")
    baselines = json.loads((run / "baselines.json").read_text(encoding="utf-8"))
    assert set(baselines) == {"federated", "local", "pooled"}
    for splits in baselines.values():
        assert set(splits) == {"test", "unseen"}
        assert all(set(keys(one)) == {"clients", "examples", "metrics"} for one in splits.values())


def test_checkpoints_are_as_described(run: Path) -> None:
    folders = sorted((run / "checkpoints").iterdir())
    assert [folder.name for folder in folders] == ["round-000001", "round-000002"]
    about = json.loads((folders[-1] / "state.json").read_text(encoding="utf-8"))
    assert described("checkpoints") == set(about)
    assert described("Resume, export, load") == set(about["fingerprint"])
