"""Two ways to say the same experiment give the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.runs.small_runs import experiment, same_state, state_of

import hanse
from hanse.config import ExperimentFile, read_experiment
from hanse.data import standardise, watch
from hanse.experiment import prepare
from hanse.local import AdaptiveMu, CosineDecay, StepDecay
from hanse.records import fingerprint
from hanse.runs import carry_on, finish, start

if TYPE_CHECKING:
    from pathlib import Path

    from hanse import Experiment


def test_rounds_and_run_give_equal_states_and_records(tmp_path: Path) -> None:
    *_, last = hanse.rounds(experiment())
    run = hanse.run(experiment(), tmp_path / "run")
    assert same_state(last.state, state_of(run.path))
    for line, done in zip(run.metrics(), hanse.rounds(experiment()), strict=True):
        assert line["round"] == done.number
        assert line["train_loss"] == done.train_loss
        assert line["test"] == dict(done.evaluations["test"].overall)
        assert line["unseen"] == dict(done.evaluations["unseen"].overall)


def test_a_loop_that_is_left_and_one_that_goes_on_from_its_state_are_one_loop() -> None:
    *_, whole = hanse.rounds(experiment())
    for done in hanse.rounds(experiment()):
        if done.number == 2:
            break
    *_, last = hanse.rounds(experiment(), start=done.state)
    assert same_state(last.state, whole.state)


def test_leaving_the_loop_of_a_run_says_that_it_stopped(tmp_path: Path) -> None:
    prepared = prepare(experiment())
    run = start(prepared, tmp_path / "run")
    going = carry_on(prepared, run)
    next(going)
    assert run.about()["status"] == "running"
    going.close()
    assert run.about()["status"] == "stopped"
    for _ in carry_on(prepared, run):
        pass
    finish(prepared, run)
    assert run.about()["status"] == "finished"


PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fedavg": (
        """
        [strategy]
        name = "fedavg"
        lr = { schedule = "cosine", lr = 0.2, rounds = 5, final = 0.01 }
        local_epochs = 2
        batch_size = "all"
        momentum = 0.5
        weight_decay = 0.001
        weighting = "uniform"
        server = { optimizer = "sgd", lr = 0.9, momentum = 0.3 }
        """,
        {
            "strategy": hanse.fedavg(
                lr=CosineDecay(0.2, 5, 0.01),
                local_epochs=2,
                batch_size=None,
                momentum=0.5,
                weight_decay=0.001,
                weighting="uniform",
                server=hanse.ServerSGD(0.9, 0.3),
            )
        },
    ),
    "fedprox": (
        """
        [strategy]
        name = "fedprox"
        mu = 0.5
        batch_size = 7
        server = { optimizer = "yogi", lr = 0.02, beta1 = 0.8, beta2 = 0.95, tau = 0.01 }
        [run]
        seed = 3
        participation = { kind = "uniform", count = 4 }
        """,
        {
            "strategy": hanse.fedprox(
                mu=0.5, batch_size=7, server=hanse.ServerYogi(0.02, 0.8, 0.95, 0.01)
            ),
            "seed": 3,
            "participation": hanse.Uniform(count=4),
        },
    ),
    "fedprox, adaptive": (
        """
        [strategy]
        name = "fedprox"
        mu = { start = 0.5, patience = 1 }
        """,
        {"strategy": hanse.fedprox(mu=AdaptiveMu(0.5, patience=1))},
    ),
    "feddyn": (
        """
        [strategy]
        name = "feddyn"
        alpha = 0.3
        server = "adam"
        """,
        {"strategy": hanse.feddyn(alpha=0.3, server=hanse.ServerAdam())},
    ),
    "mimelite": (
        """
        [strategy]
        name = "mimelite"
        lr = 0.001
        beta2 = 0.99
        weighting = "examples"
        """,
        {"strategy": hanse.mimelite(lr=0.001, beta2=0.99, weighting="examples")},
    ),
    "fedsgd": (
        """
        [strategy]
        name = "fedsgd"
        chunk = 40
        server = { optimizer = "adagrad", lr = 0.1, beta1 = 0.5, tau = 0.01 }
        [run]
        participation = { kind = "poisson", rate = 0.7 }
        """,
        {
            "strategy": hanse.fedsgd(chunk=40, server=hanse.ServerAdagrad(0.1, 0.5, 0.01)),
            "participation": hanse.Poisson(0.7),
        },
    ),
    "scaffold": (
        """
        [strategy]
        name = "scaffold"
        lr = { schedule = "step", lr = 0.1, factor = 0.3, every = 1 }
        option = 1
        momentum = 0.2
        server = { optimizer = "adam" }
        [model]
        local = ["1.*"]
        [run]
        setting = "cross-device"
        participation = "full"
        evaluate_every = 1
        evaluation_clients = 3
        execution = { path = "module", block = 2 }
        checkpoint_every = 2
        """,
        {
            "strategy": hanse.scaffold(
                lr=StepDecay(0.1, 0.3, 1), option=1, momentum=0.2, server=hanse.ServerAdam()
            ),
            "local": ("1.*",),
            "setting": "cross-device",
            "participation": hanse.Full(),
            "evaluate_every": 1,
            "evaluation_clients": 3,
            "execution": hanse.Execution("module", 2),
            "checkpoint_every": 2,
        },
    ),
}
BASE = {
    "name": "in a file",
    "data": {"source": "smartwatch", "standardise": True, "unseen_subjects": [1, 5]},
    "model": {"name": "mlp", "hidden": [5], "loss": "cross_entropy", "metrics": ["accuracy"]},
    "run": {"rounds": 2, "execution": {"path": "module", "block": 1}},
}


def _in_python(**changes: Any) -> Experiment:  # noqa: ANN401 - the experiment's own fields
    base = hanse.Experiment(
        strategy=hanse.fedavg(),
        data=standardise(watch(unseen_subjects=(1, 5))),
        model=lambda: hanse.models.mlp(30, 7, hidden=(5,)),
        rounds=2,
        execution=hanse.Execution("module", 1),
        name="in a file",
    )
    return replace(base, **changes)


def _in_a_file(tmp_path: Path, text: str) -> ExperimentFile:
    import tomllib

    import tomli_w

    content: dict[str, Any] = json.loads(json.dumps(BASE))
    for section, values in tomllib.loads(text).items():
        content[section] = {**content.get(section, {}), **values}
    path = tmp_path / "experiment.toml"
    path.write_text(tomli_w.dumps(content))
    return read_experiment(path)


def _same(one: Experiment, other: Experiment) -> None:
    """Whether two experiments are the same in all that decides their bits, and in these bits."""
    assert fingerprint(prepare(one)) == fingerprint(prepare(other))
    for name in ("strategy", "rounds", "seed", "setting", "participation", "local", "name"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("evaluate_every", "evaluation_clients", "execution", "checkpoint_every", "loss"):
        assert getattr(one, name) == getattr(other, name), name
    for left, right in zip(hanse.rounds(one), hanse.rounds(other), strict=True):
        assert same_state(left.state, right.state)
        assert left.train_loss == right.train_loss
        for split, evaluation in left.evaluations.items():
            assert evaluation.overall == right.evaluations[split].overall


@pytest.mark.parametrize("name", PARTS)
def test_whatever_a_file_says_python_can_say(tmp_path: Path, name: str) -> None:
    text, changes = PARTS[name]
    _same(_in_a_file(tmp_path, text).experiment(), _in_python(**changes))


@pytest.mark.parametrize("name", PARTS)
def test_a_resolved_file_is_the_same_experiment(tmp_path: Path, name: str) -> None:
    text, _ = PARTS[name]
    file = _in_a_file(tmp_path, text)
    elsewhere = tmp_path / "deep" / "down"
    elsewhere.mkdir(parents=True)
    (elsewhere / "config.toml").write_text(file.resolved())
    again = read_experiment(elsewhere / "config.toml")
    _same(file.experiment(), again.experiment())
    assert again.resolved() == file.resolved()  # nothing is left to resolve
