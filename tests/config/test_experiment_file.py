"""An experiment file says what Python says: values, tables, your own functions, relative paths."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tomli_w

import hanse
from hanse import ConfigError
from hanse.config import ExperimentFile, read_experiment, with_overrides
from hanse.experiment import prepare
from hanse.local import CosineDecay

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL: dict[str, Any] = {
    "data": {"source": "smartwatch"},
    "model": {"name": "softmax_regression"},
    "strategy": {"name": "fedavg"},
}

OWN = """
import torch
from torch import nn

import hanse
from hanse.data import federation_from_arrays


def people(count: int, *, scale: float = 1.0) -> hanse.data.Federation:
    x = scale * torch.arange(count * 6, dtype=torch.float32).reshape(count, 3, 2)
    y = torch.tensor([0, 1, 0])
    return federation_from_arrays({f"p{k}": (x[k], y) for k in range(count)}, classes=["no", "yes"])


def network(inputs: int, classes: int, width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.Linear(width, classes))


def careful(rate: float = 0.05) -> hanse.Strategy:
    return hanse.fedprox(lr=rate, mu=1.0)


def halved(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return hanse.models.cross_entropy(outputs, targets) / 2


def certainty(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.softmax(1).max(1).values


not_callable = 3
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., ExperimentFile]:
    """Writes an experiment file with some sections changed, and reads it."""

    def written(**sections: dict[str, Any] | str) -> ExperimentFile:
        content = {**json.loads(json.dumps(SMALL)), **sections}
        (tmp_path / "experiment.toml").write_text(tomli_w.dumps(content))
        (tmp_path / "own.py").write_text(OWN)
        return read_experiment(tmp_path / "experiment.toml")

    return written


# -------------------------------------------------------------------------------- --set
SETTINGS: dict[str, tuple[str, object]] = {
    "strategy.lr=0.05": ("strategy.lr", 0.05),
    "strategy.lr = 0.05": ("strategy.lr", 0.05),
    "strategy.lr=1": ("strategy.lr", 1),
    "strategy.lr=1e-3": ("strategy.lr", 1e-3),
    "strategy.weighting=uniform": ("strategy.weighting", "uniform"),
    'strategy.weighting="uniform"': ("strategy.weighting", "uniform"),
    "strategy.server=adam": ("strategy.server", "adam"),
    'strategy.server={optimizer = "adam", lr = 0.1}': (
        "strategy.server",
        {"optimizer": "adam", "lr": 0.1},
    ),
    "strategy.server.optimizer=adam": ("strategy.server", {"optimizer": "adam"}),
    "data.standardise=true": ("data.standardise", True),
    "data.unseen_subjects=[1, 2]": ("data.unseen_subjects", [1, 2]),
    "data.source=my.py:make": ("data.source", "my.py:make"),
    "name=first try": ("name", "first try"),
    "name=": ("name", ""),
    "run.participation.kind=uniform": ("run.participation", {"kind": "uniform"}),
    "data.path=/a=b": ("data.path", "/a=b"),
}


@pytest.mark.parametrize("override", SETTINGS)
def test_a_value_is_set_as_toml_or_as_a_bare_word(override: str) -> None:
    path, value = SETTINGS[override]
    file = ExperimentFile(json.loads(json.dumps(SMALL)), Path())
    found: Any = with_overrides(file, [override]).content
    for key in path.split("."):
        found = found[key]
    assert found == value
    assert type(found) is type(value)
    assert file.content == SMALL  # what was read is as it was


def test_later_settings_win_and_tables_grow() -> None:
    overrides = ["strategy.lr=1.0", "strategy.lr=2.0", "run.rounds=3", "run.seed=1"]
    content = with_overrides(ExperimentFile(SMALL, Path()), overrides).content
    assert content["strategy"]["lr"] == 2.0
    assert content["run"] == {"rounds": 3, "seed": 1}


@pytest.mark.parametrize("override", ["strategy.lr", "=3", ".lr=3", "strategy.=3", "a..b=3", ""])
def test_a_setting_that_names_no_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(ExperimentFile(SMALL, Path()), [override])
    assert caught.value.found == f"--set {override}"
    assert "--set strategy.lr=0.05" in caught.value.instead


def test_a_setting_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="name is 'fedavg', not a table"):
        with_overrides(ExperimentFile(SMALL, Path()), ["strategy.name.lr=3"])


def test_settings_reach_the_experiment(write: Callable[..., ExperimentFile]) -> None:
    overrides = [
        "strategy.lr={schedule='cosine', lr=0.3, rounds=7}",
        "strategy.server=yogi",
        "strategy.batch_size=all",
        "run.participation={kind='uniform', fraction=0.5}",
        "run.setting=cross-device",
        "name=changed",
    ]
    made = with_overrides(write(), overrides).experiment()
    assert made.strategy == hanse.fedavg(
        lr=CosineDecay(0.3, 7), batch_size=None, server=hanse.ServerYogi()
    )
    assert made.participation == hanse.Uniform(fraction=0.5)
    assert (made.setting, made.name) == ("cross-device", "changed")


# ----------------------------------------------------------------------- what is not said
def test_what_a_file_does_not_say_is_what_python_does_not_say(
    write: Callable[..., ExperimentFile],
) -> None:
    found = write().experiment()
    plain = hanse.Experiment(hanse.fedavg(), hanse.data.watch(), lambda: None)  # type: ignore[arg-type, return-value]
    for name in plain.__dataclass_fields__:
        if name not in {"data", "model"}:
            assert getattr(found, name) == getattr(plain, name), name


def test_inputs_and_classes_are_those_of_the_data_unless_said(
    write: Callable[..., ExperimentFile],
) -> None:
    assert prepare(write().experiment()).task.layout.shapes == ((7, 30), (7,))
    raw = write(data={"source": "smartwatch", "features": "raw"})
    assert prepare(raw.experiment()).task.layout.shapes == ((7, 300), (7,))
    wide = write(model={"name": "softmax_regression", "classes": 9})
    assert prepare(wide.experiment()).task.layout.shapes == ((9, 30), (9,))


# ------------------------------------------------------------------------ your own parts
def test_own_functions_lie_beside_the_file_wherever_it_is_read_from(
    write: Callable[..., ExperimentFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        data={"source": "own.py:people", "count": 4, "scale": 2},
        model={
            "name": "own.py:network",
            "width": 5,
            "loss": "own.py:halved",
            "metrics": ["accuracy", "own.py:certainty"],
        },
        strategy={"name": "own.py:careful"},
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    made = file.experiment()
    assert made.strategy == hanse.fedprox(lr=0.05, mu=1.0)
    assert len(made.data.train) == 4
    assert float(made.data.train.block(np.array([1])).fields["x"][3, 0]) == 12.0
    prepared = prepare(made)
    assert prepared.task.layout.shapes == ((5, 2), (5,), (2, 5), (2,))
    assert list(prepared.task.metrics) == ["accuracy", "certainty"]
    assert prepared.task.loss.__name__ == "halved"
    again = tomllib.loads(file.resolved())
    assert again["data"] == {"source": f"{tmp_path / 'own.py'}:people", "count": 4, "scale": 2}
    assert again["strategy"] == {"name": f"{tmp_path / 'own.py'}:careful", "rate": 0.05}


def test_a_function_of_an_installed_module_is_named_by_its_module(
    write: Callable[..., ExperimentFile],
) -> None:
    file = write(strategy={"name": "hanse.strategies:fedprox", "mu": 0.5})
    assert file.experiment().strategy == hanse.fedprox(mu=0.5)
    assert 'name = "hanse.strategies:fedprox"' in file.resolved()


def test_a_file_called_as_a_module_of_python_does_not_replace_it(
    write: Callable[..., ExperimentFile], tmp_path: Path
) -> None:
    file = write(strategy={"name": "json.py:careful"})
    (tmp_path / "json.py").write_text(OWN)
    assert file.experiment().strategy == hanse.fedprox(lr=0.05, mu=1.0)
    assert sys.modules["json"] is json


def test_a_folder_of_files_is_relative_to_the_experiment_file(
    write: Callable[..., ExperimentFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clinics").mkdir()
    for name in ("anna", "ben"):
        np.savez(tmp_path / "clinics" / name, x=np.ones((3, 2)), y=np.array([0, 1, 0]))
    file = write(data={"source": "npz", "path": "clinics", "classes": ["no", "yes"]})
    monkeypatch.chdir("/")
    assert file.experiment().data.train.name(1) == "ben"
    resolved = tomllib.loads(file.resolved())
    assert resolved["data"]["path"] == str(tmp_path / "clinics")
    (tmp_path / "moved.toml").write_text(file.resolved())
    assert read_experiment(tmp_path / "moved.toml").experiment().data.train.name(1) == "ben"


# ---------------------------------------------------------------------------- resolving
def test_a_resolved_file_says_every_default(write: Callable[..., ExperimentFile]) -> None:
    resolved = tomllib.loads(write().resolved())
    assert resolved["strategy"] == {
        "name": "fedavg",
        "lr": 0.1,
        "local_epochs": 1,
        "batch_size": 10,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "weighting": "examples",
        "server": {"optimizer": "sgd", "lr": 1.0, "momentum": 0.0},
    }
    assert resolved["run"]["rounds"] == 100
    assert resolved["run"]["checkpoint_every"] == 1
    assert resolved["data"]["unseen_subjects"] == [8, 9, 10]


EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_resolves_to_itself(path: Path, tmp_path: Path) -> None:
    file = read_experiment(path)
    (tmp_path / "resolved.toml").write_text(file.resolved())
    assert read_experiment(tmp_path / "resolved.toml").resolved() == file.resolved()


# ------------------------------------------------------------------------------ values
VALUES: dict[str, tuple[str, object]] = {
    "a whole number where a number is wanted": ("lr = 1", 1.0),
    "a schedule": ('lr = {schedule = "cosine", lr = 0.1, rounds = 5}', CosineDecay(0.1, 5)),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_become_what_the_parameter_takes(
    write: Callable[..., ExperimentFile], name: str
) -> None:
    text, value = VALUES[name]
    made = write(strategy={"name": "fedavg", **tomllib.loads(text)}).experiment()
    rate = made.strategy.local.optimizer.lr  # type: ignore[attr-defined]
    assert rate == value
    assert type(rate) is type(value)


def test_a_file_is_found_through_a_link_and_with_spaces(
    write: Callable[..., ExperimentFile], tmp_path: Path
) -> None:
    write(data={"source": "own.py:people", "count": 2})
    place = tmp_path / "a folder, ü"
    place.mkdir()
    (place / "link").symlink_to(tmp_path)
    made = read_experiment(place / "link" / "experiment.toml").experiment()
    assert len(made.data.train) == 2
