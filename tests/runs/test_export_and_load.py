"""The trained model comes back as it was trained, and nothing else is taken for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli.terminal import hanse as command
from tests.runs.small_runs import experiment, perceptron, same_tensors, state_of
from torch import nn

import hanse
from hanse import ModelError, RunError
from hanse.experiment import prepare
from hanse.runs import carry_on, export

if TYPE_CHECKING:
    from torch import Tensor


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hanse.run(experiment(), tmp_path_factory.mktemp("trained") / "run").path


def _state(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def test_a_loaded_model_is_the_last_rounds_model_and_the_module_given_is_not_edited(
    trained: Path,
) -> None:
    *_, last = hanse.rounds(experiment())
    torch.manual_seed(7)
    mine = perceptron().train()
    before = {name: value.clone() for name, value in _state(mine).items()}
    loaded = hanse.load(trained, mine)
    assert same_tensors(_state(loaded), _state(last.model()))
    assert not same_tensors(_state(loaded), before)
    assert same_tensors(_state(mine), before)
    assert mine.training
    assert not loaded.training
    from_function = hanse.load(str(trained), perceptron)
    assert same_tensors(_state(from_function), _state(loaded))


def test_an_exported_file_is_a_plain_state_dictionary(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    assert export(trained, out, experiment().model) == out
    plain = perceptron()
    plain.load_state_dict(load_file(out))
    assert same_tensors(_state(plain), _state(hanse.load(trained, perceptron)))
    assert same_tensors(_state(plain), _state(hanse.load(out, perceptron)))


def test_an_export_of_an_unfinished_run_is_its_last_checkpoint(
    trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints" / "round-000004")
    (run / "model.safetensors").unlink()
    export(run, tmp_path / "third.safetensors", experiment().model)
    third = [done.model() for done in hanse.rounds(experiment(rounds=3))][-1]
    assert same_tensors(
        _state(hanse.load(tmp_path / "third.safetensors", perceptron)), _state(third)
    )
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunError, match="has no checkpoint yet"):
        export(run, tmp_path / "none.safetensors", experiment().model)
    assert not (tmp_path / "none.safetensors").exists()


OTHERS = {
    "another width": nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)),
    "fewer layers": nn.Sequential(nn.Linear(3, 4)),
    "more layers": nn.Sequential(perceptron(), nn.Linear(3, 3)),
    "other names": nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(4, 3)}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_model_is_refused_by_the_first_tensor_that_differs(
    trained: Path, name: str
) -> None:
    with pytest.raises(ModelError, match="does not fit") as caught:
        hanse.load(trained, OTHERS[name])
    assert str(trained / "model.safetensors") in caught.value.found
    names = {*OTHERS[name].state_dict(), *perceptron().state_dict()}
    assert any(repr(key) in caught.value.found for key in names)


@pytest.mark.parametrize("content", [None, b"", b"no tensors", bytes(64)])
def test_what_holds_no_tensors_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match="is no model") as caught:
        hanse.load(path, perceptron)
    assert str(path) in caught.value.found


def test_what_is_no_module_is_refused(trained: Path) -> None:
    with pytest.raises(ModelError, match="int"):
        hanse.load(trained, lambda: 5)  # type: ignore[arg-type, return-value]


class Counting(nn.Module):
    """BatchNorm's counter of batches, and integers of its own, beside what is trained."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)
        self.register_buffer("steps", torch.tensor([3, 1, 4]))
        self.norm.num_batches_tracked = torch.tensor(41)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.norm(self.linear(x)).relu())
        return found


def test_integer_buffers_and_frozen_parameters_are_kept(tmp_path: Path) -> None:
    made = experiment(model=Counting, strategy=hanse.fedavg(batch_size=None), participation=None)
    run = hanse.run(made, tmp_path / "run").path
    loaded = _state(hanse.load(run, Counting))
    assert int(loaded["norm.num_batches_tracked"]) == 41
    assert loaded["steps"].tolist() == [3, 1, 4]
    assert loaded["frozen"].tolist() == [1, 1]
    state = state_of(run)
    statistics = torch.cat([loaded["norm.running_mean"], loaded["norm.running_var"]])
    assert torch.equal(statistics, state.buffers)
    assert not torch.equal(statistics, torch.cat([torch.zeros(4), torch.ones(4)]))


def test_a_run_of_a_file_is_loaded_without_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.toml").write_text(
        '[data]\nsource = "smartwatch"\nstandardise = true\n'
        '[model]\nname = "mlp"\nhidden = [3]\n[strategy]\nname = "fedavg"\n[run]\nrounds = 1\n'
    )
    assert command("run", "e.toml", "--out", "run").code == 0
    assert command("export", "run", "out.safetensors").code == 0
    loaded = hanse.load("run")
    assert not loaded.training
    assert same_tensors(_state(loaded), load_file("out.safetensors"))
    assert same_tensors(_state(loaded), load_file("run/model.safetensors"))
    with pytest.raises(RunError, match=r"out\.safetensors without its model") as caught:
        hanse.load("out.safetensors")
    assert "hanse.load(path, model)" in caught.value.instead
    assert same_tensors(_state(hanse.load("out.safetensors", loaded)), _state(loaded))


def test_a_run_from_python_says_that_it_needs_its_model(trained: Path) -> None:
    with pytest.raises(RunError, match=r"has no config\.toml"):
        hanse.load(trained)


def test_a_file_of_another_program_is_read_if_it_fits(tmp_path: Path) -> None:
    module = perceptron()
    save_file(_state(module), tmp_path / "mine.safetensors")
    loaded = hanse.load(tmp_path / "mine.safetensors", perceptron)
    assert same_tensors(_state(loaded), _state(module))


def test_an_export_keeps_columns_in_their_places_where_some_stay_with_the_clients(
    tmp_path: Path,
) -> None:
    local = experiment(local=("0.*",))  # the first layer comes last in the vector
    *_, last = hanse.rounds(local)
    run = hanse.run(local, tmp_path / "run").path
    export(run, tmp_path / "out.safetensors", perceptron)
    assert same_tensors(load_file(tmp_path / "out.safetensors"), _state(last.model()))


def test_an_extended_run_does_not_pass_the_old_model_off_as_its_own(tmp_path: Path) -> None:
    run = hanse.run(experiment(), tmp_path / "run")
    longer = prepare(experiment(rounds=experiment().rounds + 2))
    going = carry_on(longer, run)
    next(going)
    going.close()
    with pytest.raises(RunError, match="is no model"):
        hanse.load(run.path, perceptron)


def test_a_run_goes_on_only_with_the_weights_that_are_not_trained(tmp_path: Path) -> None:
    def frozen(value: float) -> nn.Module:
        module = perceptron()
        first = next(module.parameters()).requires_grad_(False)
        first.data.fill_(value)
        return module

    started = experiment(model=lambda: frozen(0.1), rounds=1)
    hanse.run(started, tmp_path / "run")
    with pytest.raises(RunError, match="fixed weights"):
        hanse.resume(tmp_path / "run", experiment(model=lambda: frozen(0.2), rounds=2))
