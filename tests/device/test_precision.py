"""Products in bfloat16: about the same training, and parameters that stay what they are."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from tests.device.small import CPU, Recorder, device_run, reads_nothing
from tests.engine.small import federation, mlp, seeded, snapshot, world
from tests.strategies.table import TABLE
from torch import nn

import hanse
from hanse.core.errors import ModelError
from hanse.data import standardise
from hanse.engines.on_device import Place
from hanse.experiment import prepare
from hanse.models import Execution
from hanse.models.executors import tuned
from hanse.records import about, fingerprint
from hanse.strategies import fedavg

if TYPE_CHECKING:
    from hanse.models.execution import PathName

EPSILON = 2**-8  # of bfloat16: half the distance between 1 and the next number
PATHS: dict[PathName, int] = {"module": 2, "vmap": 4, "dense": 4}
every_path = pytest.mark.parametrize("path", PATHS)


def executions(path: PathName) -> tuple[Execution, Execution]:
    return Execution(path, PATHS[path]), Execution(path, PATHS[path], precision="bfloat16")


@every_path
@pytest.mark.parametrize("name", ["fedavg", "fedprox-momentum-decay", "scaffold-1", "fedsgd"])
def test_it_differs_by_its_rounding_and_parameters_stay_float32(name: str, path: PathName) -> None:
    small = world(dtype=torch.float32)
    full, low = executions(path)
    one, other = (small.run(TABLE[name], execution, rounds=1) for execution in (full, low))
    assert {value.dtype for value in snapshot(other).values()} == {torch.float32}
    start = small.start(TABLE[name]).params
    apart = float((one.params - other.params).norm()) / float((one.params - start).norm())
    # Rounded are two or three operands in a row, and errors of single entries cancel in part.
    assert 0.02 * EPSILON < apart < 8 * EPSILON


@every_path
def test_training_reaches_about_the_same_loss(path: PathName) -> None:
    data = standardise(hanse.data.watch())
    losses = []
    for execution in executions(path):
        experiment = hanse.Experiment(
            fedavg(lr=0.1, batch_size=32),
            data,
            lambda: hanse.models.mlp(30, 7, hidden=(16,)),
            rounds=5,
            evaluate_every=5,
            execution=execution,
        )
        *_, last = hanse.rounds(experiment)
        losses.append(last.evaluations["test"].overall["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


@every_path
@pytest.mark.parametrize("recorded", [False, True])
def test_on_a_device_it_reads_no_number_and_computes_the_same(
    path: PathName, *, recorded: bool
) -> None:
    small, strategy = world(dtype=torch.float32), TABLE["fedprox-momentum-decay"]
    _, low = executions(path)
    place = Place(CPU, Recorder() if recorded else None)
    found = device_run(small, reads_nothing(strategy), low, 2, place)
    expected = small.run(strategy, low, rounds=2)
    # The same products of the same numbers, added up in single precision in another order.
    assert float((found.params - expected.params).abs().max()) < EPSILON * 0.02


def test_a_large_layers_gradient_is_a_product_in_bfloat16_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, strategy = world(dtype=torch.float32), TABLE["fedprox-momentum-decay"]
    _, low = executions("module")
    expected = small.run(strategy, low, rounds=1)
    monkeypatch.setattr(tuned, "_LARGE", 1)
    found = small.run(strategy, low, rounds=1)
    moved = float((expected.params - small.start(strategy).params).norm())
    assert float((found.params - expected.params).norm()) < EPSILON * moved


def test_convolutions_train_in_bfloat16() -> None:
    convolution = nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.Flatten(), nn.Linear(27, 3)
    )
    small = world(seeded(lambda: convolution).float(), dtype=torch.float32)
    for path in ("module", "vmap"):
        full, low = executions(path)
        one, other = (small.run(fedavg(), execution, rounds=1) for execution in (full, low))
        moved = float((one.params - small.start(fedavg()).params).norm())
        assert 0 < float((one.params - other.params).norm()) < 8 * EPSILON * moved


def test_it_is_part_of_the_run() -> None:
    experiment = hanse.Experiment(fedavg(), federation(dtype=torch.float32), mlp(torch.float32))
    marks = []
    for execution in executions("dense"):
        prepared = prepare(dataclasses.replace(experiment, execution=execution))
        assert about(prepared)["engine"]["precision"] == execution.precision
        marks.append(fingerprint(prepared))
    assert marks[0]["execution"] != marks[1]["execution"]


def test_double_precision_is_not_thrown_away() -> None:
    execution = Execution("dense", 4, precision="bfloat16")
    with pytest.raises(ModelError, match=r"float64(.|\n)*'full'"):
        prepare(hanse.Experiment(fedavg(), federation(), mlp(), execution=execution))


def test_another_precision_is_refused() -> None:
    with pytest.raises(ModelError, match="float16"):
        Execution("dense", 4, precision="float16")  # type: ignore[arg-type]
