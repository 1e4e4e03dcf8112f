"""The strategies of docs/write-a-strategy.md do what the page says of them."""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.device.fake import CARD, fake_card
from tests.device.small import device_run
from tests.docs.pages import files, hanse, reading, tables
from tests.engine.small import largest_difference, snapshot, world
from torch import nn

from hanse.core.types import ClientContext, RoundContext
from hanse.data import Federation, federation_from_arrays
from hanse.engines import InProcess
from hanse.engines.capture import DirectCapture
from hanse.engines.on_device import Place
from hanse.experiment import Experiment
from hanse.models import Execution, squared_error
from hanse.round import initial_state, run_round
from hanse.selection import Full, Participation, Uniform
from hanse.strategies import fedavg
from hanse.training import Round, rounds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hanse.models.execution import PathName
    from hanse.strategy import Strategy

PAGE = "write-a-strategy.md"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the page's files in it, from which they can be imported."""
    with reading(PAGE, tmp_path):
        for name, content in files(PAGE).items():
            (tmp_path / name).write_text(content, encoding="utf-8")
        yield tmp_path


def module(name: str) -> Any:  # noqa: ANN401 - written while the test runs
    return importlib.import_module(name)


def different_lines(clients: int = 5) -> Federation:
    """Linear regressions whose clients disagree about the weights, and lie in different places."""
    numbers = np.random.default_rng(0)
    data = {}
    for client in range(clients):
        x = numbers.normal(size=(12, 3)) * (0.4 + 0.3 * client)
        y = x @ numbers.normal(size=3) + numbers.normal(size=12)
        data[f"client {client}"] = (x, y[:, None])
    return federation_from_arrays(data, dtype=None)


def train(
    strategy: Strategy,
    data: Federation,
    number: int,
    participation: Participation = Full(),
    execution: Execution | None = None,
) -> Round:
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    experiment = Experiment(
        strategy,
        data,
        model,
        rounds=number,
        loss=squared_error,
        participation=participation,
        execution=execution,
    )
    *_, last = rounds(experiment)
    return last


def optimum(data: Federation) -> torch.Tensor:
    """Of the mean over clients of their mean squared errors."""
    block = data.train.block(np.arange(len(data.train)))
    hessian, slope = torch.zeros(3, 3).double(), torch.zeros(3).double()
    for start, size in zip(block.starts, block.sizes, strict=True):
        x = block.fields["x"][start : start + size]
        y = block.fields["y"][start : start + size, 0]
        hessian += x.T @ x / len(x)
        slope += x.T @ y / len(x)
    found: torch.Tensor = torch.linalg.solve(hessian, slope)
    return found


def test_all_that_a_strategy_is_told_is_listed() -> None:
    listed = {row[0] for row in tables(PAGE)["What you are told"]}
    client = {f"client.{field.name}" for field in dataclasses.fields(ClientContext)}
    assert listed == client | {f"round_.{f.name}" for f in dataclasses.fields(RoundContext)}


def test_clipped_steps_are_those_of_plain_pytorch(folder: Path) -> None:
    data = different_lines(clients=1)
    strategy = module("my_strategy").my_fedavg(
        lr=0.01, local_epochs=7, batch_size=None, max_norm=0.2
    )
    found = train(strategy, data, 3).state.params
    fields = data.train.block(np.zeros(1, np.int64)).fields
    weight = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.01)
    norms = []
    for _ in range(3 * 7):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(fields["x"] @ weight.T, fields["y"])
        torch.autograd.backward(loss)
        norms.append(float(nn.utils.clip_grad_norm_(weight, 0.2)))
        optimizer.step()
    assert min(norms) > 0.2  # so that clipping was seen
    # clip_grad_norm_ divides by the norm plus 1e-6
    assert torch.allclose(found, weight.detach().flatten(), rtol=1e-4)


@pytest.mark.parametrize("execution", [Execution("module", 1), Execution("vmap", 4)])
@pytest.mark.parametrize("participation", [Full(), Uniform(count=3)])
def test_feddyn_reaches_the_optimum_that_fedavg_misses(
    folder: Path, execution: Execution, participation: Participation
) -> None:
    data, best = different_lines(), optimum(different_lines())
    strategy = module("feddyn").feddyn(lr=0.1, alpha=3.0, local_epochs=10, batch_size=None)
    plain = fedavg(lr=0.1, local_epochs=10, batch_size=None, weighting="uniform")
    found = train(strategy, data, 40, participation, execution).state.params
    missed = train(plain, data, 10, participation, execution).state.params
    assert float((missed - best).norm()) > 0.1
    assert float((found - best).norm()) < 1e-4


def test_feddyns_state_is_the_mean_of_its_memories(folder: Path) -> None:
    strategy = module("feddyn").feddyn(lr=0.01, alpha=1.0)
    last = train(strategy, different_lines(), 6, Uniform(count=2))
    slopes = [slots[1]["slope"] for slots in last.state.clients.rows.values()]
    mean = torch.stack(slopes).sum(dim=0) / 5
    assert torch.allclose(last.state.layers[0]["h"], mean, atol=1e-12)
    assert float(mean.norm()) > 1e-3


def test_updates_are_no_longer_than_a_multiple_of_the_usual(folder: Path) -> None:
    data = different_lines()
    bounded = module("bounded")
    strategy = fedavg(lr=0.01, weighting="uniform")
    loose = strategy.replace(layers=(bounded.BoundNorms(1e9), *strategy.layers))
    tight = strategy.replace(layers=(bounded.BoundNorms(0.1), *strategy.layers))
    plain = train(strategy, data, 2)
    assert torch.allclose(train(loose, data, 2).state.params, plain.state.params, atol=1e-12)
    one, two = train(tight, data, 1), train(tight, data, 2)
    assert one.result is not None
    usual = float(one.state.layers[1]["usual"])
    assert usual == pytest.approx(one.result.facts.norm.mean())  # the first round is not bounded
    assert float((two.state.params - one.state.params).norm()) <= 0.1 * usual * (1 + 1e-12)
    assert float((plain.state.params - one.state.params).norm()) > 0.1 * usual


@pytest.mark.parametrize("name", ["my_strategy.py:my_fedavg", "feddyn.py:feddyn"])
def test_a_strategy_of_the_page_runs_stops_and_resumes(name: str, folder: Path) -> None:
    def run(out: str, more: str = "") -> dict[str, Any]:
        key = "max_norm" if "my_fedavg" in name else "alpha"
        text = files(PAGE)["experiment.toml"].replace("my_strategy.py:my_fedavg", name)
        (folder / "experiment.toml").write_text(text.replace("max_norm", key), encoding="utf-8")
        status, output = hanse(f"run experiment.toml --out {out} {more}")
        assert status == 0, output
        lines = (folder / out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    assert run("whole")["round"] == 2
    run("broken")
    status, output = hanse("resume broken --rounds 4")
    assert status == 0, output
    status, output = hanse("resume whole --rounds 3")
    assert status == 0, output
    status, output = hanse("resume whole --rounds 4")
    assert status == 0, output
    whole, broken = (load_file(folder / out / "model.safetensors") for out in ("whole", "broken"))
    assert all(torch.equal(whole[tensor], broken[tensor]) for tensor in {*whole, *broken})


@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("my_strategy", "my_fedavg", {"lr": 0.01, "max_norm": 0.2}),
        ("feddyn", "feddyn", {"lr": 0.1, "alpha": 3.0}),
        ("bounded", "bounded_fedavg", {"lr": 0.1}),
    ],
)
@pytest.mark.parametrize("path", ["vmap", "dense"])
def test_they_train_on_a_graphics_card_with_recorded_steps(
    folder: Path,
    name: str,
    make: str,
    options: dict[str, float],
    path: PathName,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strategy = getattr(module(name), make)(**options)
    small, execution = world(participation=Uniform(count=7)), Execution(path, 4)
    found = device_run(small, strategy, execution)
    expected = small.run(strategy, execution)
    assert largest_difference(snapshot(found), snapshot(expected)) < 1e-12
    with fake_card(monkeypatch):
        engine = InProcess(
            strategy, small.task, small.data, execution, Place(CARD, DirectCapture())
        )
        state = initial_state(strategy, small.task, CARD)
        for _ in range(2):
            state, _ = run_round(state, engine, small.population, small.task.layout)
        assert {value.device for value in snapshot(state).values()} == {CARD}
