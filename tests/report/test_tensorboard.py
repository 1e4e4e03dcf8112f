"""Event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.runs.small_runs import experiment

import hanse
from hanse import RunError
from hanse.experiment import prepare
from hanse.report import to_tensorboard
from hanse.runs import carry_on, start

if TYPE_CHECKING:
    from pathlib import Path

SHORT = dataclasses.replace(experiment(), rounds=3)
LONG = dataclasses.replace(experiment(), rounds=6)


def _read(directory: Path) -> Any:  # noqa: ANN401 - tensorboard has no types
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory), size_guidance={"scalars": 0, "histograms": 0})
    found.Reload()
    return found


def _scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    found = _read(directory)
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def _expected(run: Path) -> dict[str, list[tuple[int, Any]]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, list[tuple[int, Any]]] = {}
    for line in lines:
        values = {
            "train/loss": line["train_loss"],
            "clients/cohort": line["cohort"],
            "bytes/up": line["bytes"] and line["bytes"]["up"],
            **{f"{s}/{m}": v for s in ("test", "unseen") for m, v in (line[s] or {}).items()},
        }
        for tag, value in values.items():
            if value is not None:
                found.setdefault(tag, []).append((line["round"], pytest.approx(value, rel=1e-6)))
    return found


def _check(run: Path, directory: Path) -> None:
    found, expected = _scalars(directory), _expected(run)
    assert {tag: found[tag] for tag in expected} == expected


def test_a_run_is_followed_while_it_goes_on(tmp_path: Path) -> None:
    log, steps = tmp_path / "log", []
    prepared = prepare(SHORT)
    target = start(prepared, tmp_path / "run")
    for done in carry_on(prepared, target, log):
        steps.append([step for step, _ in _scalars(log)["test/loss"]])
        assert steps[-1][-1] == done.number
    assert steps[-1] == [0, 1, 2, 3]
    _check(tmp_path / "run", log)


def test_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    hanse.run(SHORT, tmp_path / "run", tensorboard=tmp_path / "log")
    hanse.resume(tmp_path / "run", LONG, tensorboard=tmp_path / "log")
    assert [step for step, _ in _scalars(tmp_path / "log")["test/accuracy"]] == list(range(7))
    _check(tmp_path / "run", tmp_path / "log")


def test_what_was_recorded_without_it_is_written_when_it_goes_on(tmp_path: Path) -> None:
    hanse.run(SHORT, tmp_path / "run")
    hanse.resume(tmp_path / "run", LONG, tensorboard=tmp_path / "log")
    _check(tmp_path / "run", tmp_path / "log")
    hanse.resume(tmp_path / "run", LONG, tensorboard=tmp_path / "late")
    _check(tmp_path / "run", tmp_path / "late")


def test_rounds_that_are_run_again_take_the_place_of_the_old_ones(tmp_path: Path) -> None:
    every = dataclasses.replace(LONG, checkpoint_every=4)
    prepared = prepare(every)
    target = start(prepared, tmp_path / "run")
    going = carry_on(prepared, target, tmp_path / "log")
    for done in going:
        if done.number == 3:
            break
    going.close()  # killed after round 3, with no checkpoint
    hanse.resume(tmp_path / "run", every, tensorboard=tmp_path / "log")
    assert [step for step, _ in _scalars(tmp_path / "log")["train/loss"]] == list(range(1, 7))
    _check(tmp_path / "run", tmp_path / "log")


def test_a_finished_run_and_a_group_are_exported(tmp_path: Path) -> None:
    for seed in (0, 1):
        one = dataclasses.replace(SHORT, seed=seed)
        hanse.run(one, tmp_path / "runs" / f"seed-{seed}")
    for _ in range(2):  # the second time takes the place of the first
        assert to_tensorboard(tmp_path / "runs", tmp_path / "log") == tmp_path / "log"
        for seed in (0, 1):
            _check(tmp_path / f"runs/seed-{seed}", tmp_path / f"log/seed-{seed}")


def test_histograms_are_over_clients(tmp_path: Path) -> None:
    hanse.run(SHORT, tmp_path / "run")
    to_tensorboard(tmp_path / "run", tmp_path / "log")
    found = _read(tmp_path / "log").Histograms("clients/test accuracy")
    lines = [json.loads(line) for line in (tmp_path / "run/clients.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["split"] == "test"][-1]
    values = last["metrics"]["accuracy"]
    assert found[-1].histogram_value.num == len(values)
    assert found[-1].histogram_value.sum == pytest.approx(sum(values))
    step, worst = _scalars(tmp_path / "log")["test/accuracy, worst client"][-1]
    assert step == 3
    assert worst == pytest.approx(min(values))


def test_the_events_of_another_run_stay(tmp_path: Path) -> None:
    hanse.run(SHORT, tmp_path / "run", tensorboard=tmp_path / "log")
    before = _scalars(tmp_path / "log")
    with pytest.raises(RunError, match="another run"):
        hanse.run(LONG, tmp_path / "other", tensorboard=tmp_path / "log")
    assert not (tmp_path / "other").exists()
    assert _scalars(tmp_path / "log") == before
