"""How the path and the block are chosen, remembered, overridden and kept."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import torch
from tests.engine.small import CLASSES, FEATURES, clients, federation, mlp, seeded
from torch import Tensor, nn

import hanse
from hanse.data.batching import Epochs, FullGradient, Pass, Steps
from hanse.experiment import Experiment, prepare
from hanse.models import Execution, Task
from hanse.runs import as_begun
from hanse.selection import Uniform
from hanse.strategies import fedavg
from hanse.training import rounds
from hanse.tuning import on_processor, remembered

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where choices are remembered: nowhere yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "_known", {})
    return tmp_path / "cache" / "hanse" / "execution.json"


def chosen(module: nn.Module | None = None, work: Pass = Epochs(), count: float = 8) -> Execution:
    data = clients(sizes=(40,)).fields
    task = Task.of(mlp() if module is None else module)
    return on_processor.choose_execution(work, task, data["x"], data["y"], count)


def normed() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(nn.Linear(FEATURES, 5), nn.LayerNorm(5), nn.Linear(5, CLASSES))
    )


def convolution() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, CLASSES)
        )
    )


class Decides(nn.Module):
    """Cannot be vmapped."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x)
        return out if float(self.out.weight.detach().sum()) > 0 else -out


@pytest.mark.parametrize("work", [Epochs(), Epochs(1, None), Steps(3, 4), FullGradient()])
def test_a_chain_is_measured_and_trained_in_blocks(memory: Path, work: Pass) -> None:
    found = chosen(work=work)
    assert found.path == "dense"  # many times faster for a model as small as this
    assert found.block > 1
    assert "measured" in found.why
    assert "through the module" in found.why


def test_another_model_is_measured_on_the_path_it_can_take(memory: Path) -> None:
    found = chosen(normed())
    assert found.path in ("vmap", "module")
    assert "measured" in found.why


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (convolution, "Conv2d"),
        (lambda: seeded(Decides), "vmapped"),
        (lambda: seeded(lambda: nn.Sequential(nn.Dropout(0.5), mlp())), "random numbers"),
    ],
)
def test_what_cannot_be_in_blocks_is_not_and_says_why(
    memory: Path, make: type[nn.Module], reason: str
) -> None:
    found = chosen(make())
    assert (found.path, found.block) == ("module", 1)
    assert reason in found.why


def test_a_block_is_no_larger_than_the_cohort(memory: Path) -> None:
    assert chosen(count=3).block <= 3
    assert chosen(count=1).block == 1
    assert chosen(count=0.2).block == 1


def test_a_choice_is_made_once(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = chosen()
    monkeypatch.setattr(on_processor, "_measure", lambda *_: pytest.fail("it was measured again"))
    assert chosen() == first
    assert list(json.loads(memory.read_text())) != []


def test_another_model_batch_or_cohort_is_another_choice(memory: Path) -> None:
    chosen()
    for number, again in enumerate(
        (lambda: chosen(normed()), lambda: chosen(work=Epochs(1, 5)), lambda: chosen(count=3))
    ):
        again()  # type: ignore[no-untyped-call]
        assert len(json.loads(memory.read_text())) == number + 2


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"x": 3}', "\x00"])
def test_a_damaged_memory_is_made_anew(
    memory: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    first = chosen()
    memory.write_text(content)
    monkeypatch.setattr(remembered, "_known", {})
    assert chosen().path == first.path
    assert len(json.loads(memory.read_text())) >= 1


@pytest.mark.parametrize("entry", [{"path": "warp", "block": 4}, {"block": 4}, {}])
def test_a_memory_of_what_there_is_not_is_made_anew(memory: Path, entry: dict[str, object]) -> None:
    chosen()
    (key,) = json.loads(memory.read_text())
    memory.write_text(json.dumps({key: entry}))
    assert chosen().path == "dense"


def test_where_nothing_can_be_written_nothing_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(remembered, "_known", {})
    assert chosen().path == "dense"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - names are enough


def test_nor_where_there_is_no_home_but_one_process_agrees_with_itself(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", homeless)
    first = chosen()
    monkeypatch.setattr(on_processor, "_measure", lambda *_: pytest.fail("it was measured again"))
    assert chosen() == first


class Edited(nn.Module):
    """Its forward changes, and its `repr` does not tell."""

    coupled = False

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x - x.mean(0) if self.coupled else x)
        return out


def test_what_was_remembered_is_tried_on_the_model_of_today(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(seeded(Edited)).path == "dense"
    monkeypatch.setattr(Edited, "coupled", True)
    found = chosen(seeded(Edited))
    assert found.path == "module"
    assert "rest of its batch" in found.why


def test_the_oldest_choices_are_forgotten(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_KEPT", 2)
    for size in (2, 3, 4):
        chosen(count=size)
    assert len(json.loads(memory.read_text())) == 2


def test_trials_leave_the_users_generator_and_threads_alone(memory: Path) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    chosen()
    chosen(seeded(lambda: nn.Sequential(nn.Dropout(0.5), mlp())))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def experiment(execution: Execution | None = None, rounds: int = 2) -> Experiment:
    return Experiment(
        fedavg(), federation(), mlp(), rounds, participation=Uniform(count=5), execution=execution
    )


def test_the_users_choice_is_taken(memory: Path) -> None:
    mine = Execution("vmap", 3)
    assert prepare(experiment(mine)).engine.execution == mine
    assert not memory.exists()


def test_a_resumed_run_keeps_what_it_began_with(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = hanse.run(experiment(), tmp_path / "run")
    recorded = begun.about()["engine"]
    memory.unlink()  # and another choice would be made now
    monkeypatch.setattr(remembered, "_known", {})
    monkeypatch.setattr(on_processor, "_measure", lambda *_: Execution("module", 1, "another day"))
    assert prepare(experiment()).engine.execution.path == "module"
    again = hanse.resume(tmp_path / "run", experiment(rounds=4))
    assert again.about()["engine"] == recorded
    kept = as_begun(begun, experiment()).execution
    assert kept is not None
    *_, unbroken = rounds(experiment(kept, rounds=4))
    state = again.latest(None)
    assert state is not None
    assert torch.equal(state.params, unbroken.state.params)
