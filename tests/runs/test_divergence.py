"""A run that diverges says so, keeps its last good model, and says what to change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tests.cli.terminal import hanse as command
from tests.runs.forks import bits
from tests.runs.small_runs import contents, experiment, state_of
from torch import nn

import hanse
from hanse import DivergenceError
from hanse.storage import RunDirectory
from hanse.storage.checkpoint import flatten_state

if TYPE_CHECKING:
    from pathlib import Path

    from hanse import Experiment


def _steep(rate: float, x: float = 1.0, **changes: Any) -> Experiment:  # noqa: ANN401 - fields
    """Least squares whose error a step multiplies by `1 - 2 * rate * x^2`."""
    people = {f"person {k}": (np.full((3, 1), x), np.ones((3, 1))) for k in range(3)}
    tested = {name: (np.ones((2, 1)), np.ones((2, 1))) for name in people}
    fields = {
        "strategy": hanse.fedavg(lr=rate, batch_size=None),
        "data": hanse.data.federation_from_arrays(people, test=tested),
        "model": lambda: nn.Linear(1, 1, bias=False),
        "loss": hanse.models.squared_error,
        "participation": None,
        "rounds": 20,
    }
    return experiment(**{**fields, **changes})


CASES = {
    "a loss that explodes": (3.0, 1.0, "times the first, "),
    "a model that is not finite": (1e38, 1.0, "the new model is not finite"),
    "updates that are not finite": (0.1, 1e30, "none of the 3 clients' updates was finite"),
}


@pytest.mark.parametrize("checkpoint_every", [1, 7])
@pytest.mark.parametrize("case", CASES)
def test_a_diverging_run_stops_with_its_last_good_model_and_advice(
    tmp_path: Path, case: str, checkpoint_every: int
) -> None:
    rate, x, words = CASES[case]
    with pytest.raises(DivergenceError) as caught:
        hanse.run(_steep(rate, x, checkpoint_every=checkpoint_every), tmp_path / "run")
    assert words in caught.value.found
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["status"] == "diverged"
    assert about["advice"] == f"{caught.value.found}: {caught.value.instead}"
    assert f"a smaller rate (lr={rate}" in about["advice"]
    recorded = RunDirectory.open(tmp_path / "run").metrics()
    state = state_of(tmp_path / "run")
    # The last good one is from before the loss exploded, not merely from before the stop.
    first = next((r["train_loss"] for r in recorded if r["train_loss"] is not None), 0.0)
    good = [r["round"] for r in recorded if (r["train_loss"] or 0.0) <= 10 * first]
    assert state.round == good[-1]
    assert all(bool(value.isfinite().all()) for value in flatten_state(state).values())
    assert "Diverged" in (tmp_path / "run" / "report.html").read_text()
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_run_that_diverged_diverges_again_to_the_same_bits(tmp_path: Path) -> None:
    for path in (tmp_path / "once", tmp_path / "twice"):
        with pytest.raises(DivergenceError):
            hanse.run(_steep(1e38), path)
    before = contents(tmp_path / "once")
    with pytest.raises(DivergenceError):
        hanse.resume(tmp_path / "twice", _steep(1e38))
    after = contents(tmp_path / "twice")
    assert before.keys() == after.keys()
    assert all(before[name] == after[name] for name in before if "round-" in name)


def test_a_resumed_run_diverges_where_it_would_have(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError) as whole:
        hanse.run(_steep(3.0), tmp_path / "whole")
    hanse.run(_steep(3.0, rounds=2), tmp_path / "resumed")
    with pytest.raises(DivergenceError) as resumed:
        hanse.resume(tmp_path / "resumed", _steep(3.0))
    assert resumed.value.found == whole.value.found


def test_the_command_line_ends_with_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.toml").write_text(
        '[data]\nsource = "smartwatch"\n[model]\nname = "softmax_regression"\n'
        '[strategy]\nname = "fedavg"\nlr = 1e38\n'
    )
    printed = command("run", "e.toml", "--out", "run")
    assert printed.code == 3
    assert printed.err.startswith("error: round 1 diverged: none of the 7 clients' updates")
    assert "instead: a smaller rate (lr=1e+38 now; try a third of it)" in printed.err
    assert (tmp_path / "run" / "report.html").exists()
    assert command("export", "run", "good.safetensors").code == 0
    good = hanse.load("good.safetensors", hanse.models.softmax_regression(30, 7))
    assert all(torch.equal(p, torch.zeros_like(p)) for p in good.parameters())
    assert command("report", "run").code == 0
    assert command("resume", "run").code == 3


def test_a_client_that_diverges_alone_is_dropped_and_named(tmp_path: Path) -> None:
    inputs = {f"person {k}": np.full((3, 1), 1e30 if k == 1 else 1.0) for k in range(3)}
    ones = {name: (x, np.ones((3, 1))) for name, x in inputs.items()}
    made = _steep(0.1, rounds=2, data=hanse.data.federation_from_arrays(ones))
    run = hanse.run(made, tmp_path / "run")
    dropped = [line["dropped"] for line in run.metrics()]
    assert dropped[0] == []
    for found in dropped[1:]:
        assert [(d["client"], d["name"]) for d in found] == [(1, "person 1")]
        assert "finite" in found[0]["reason"]
    assert "person 1" in (run.path / "report.html").read_text()
    assert bits(run.path)["run"]["status"] == "finished"  # type: ignore[index]


def test_a_run_that_ended_while_its_loss_exploded_goes_back_to_the_calm(tmp_path: Path) -> None:
    hanse.run(_steep(3.0, rounds=3), tmp_path / "run")
    assert int(state_of(tmp_path / "run").exploded) > 0
    with pytest.raises(DivergenceError):
        hanse.resume(tmp_path / "run", _steep(3.0, rounds=20))
    assert int(state_of(tmp_path / "run").exploded) == 0
