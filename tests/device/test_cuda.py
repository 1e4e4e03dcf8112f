"""A card gives a processor's numbers, with graphs and without.

The tests marked `cuda` need a card and are skipped without one. Each of them runs on the processor
as well, for fewer strategies: there, what would be a graph is called each time.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.device.small import CPU, device_run
from tests.device.test_graphs import Clipped
from tests.engine.small import (
    World,
    federation,
    largest_difference,
    mlp,
    same_bits,
    seeded,
    snapshot,
    world,
)
from tests.strategies.table import ON_CARDS, TABLE
from torch import nn

import hanse
from hanse.core.device import device_named
from hanse.data import LazyClients, PackedClients
from hanse.engines import InProcess
from hanse.engines.capture import CudaCapture, DirectCapture, unwaiting
from hanse.engines.on_device import DeviceWork, Place
from hanse.models import Execution
from hanse.round import initial_state, run_round
from hanse.selection import Full
from hanse.strategies import fedavg, scaffold
from hanse.strategy import Strategy
from hanse.training import rounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from hanse.models.execution import PathName
    from hanse.round import FederationState

CARD = (
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no graphics card"),
)
FEW = ("fedavg", "fedprox-momentum-decay", "scaffold-1-chunks")
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CARD)])
strategies = pytest.mark.parametrize(
    ("name", "device"),
    [("cpu-" + name, "cpu") for name in FEW]
    + [pytest.param(name, "cuda", marks=CARD) for name in ON_CARDS],
)
# Sums in another order, in double precision; an adaptive server amplifies by up to 1000.
ROUNDING = 1e-9
BLOCKS: dict[PathName, int] = {"dense": 5, "vmap": 4, "module": 3}


def place(device: str, *, recorded: bool) -> Place:
    there = device_named(device)
    capture = DirectCapture() if there == CPU else CudaCapture(there)
    return Place(there, capture if recorded else None)


def run(
    device: str,
    strategy: Strategy,
    execution: Execution,
    *,
    small: World | None = None,
    recorded: bool = True,
) -> FederationState:
    """Three rounds, and their state in the computer's memory."""
    small = small or world()
    there = place(device, recorded=recorded)
    engine = InProcess(strategy, small.task, small.data, execution, there)
    state = initial_state(strategy, small.task, there.device)
    for _ in range(3):
        state, _ = run_round(state, engine, small.population, small.task.layout)
    assert {value.device for value in snapshot(state).values()} == {there.device}
    return state.on(CPU)


@strategies
@pytest.mark.parametrize("path", BLOCKS)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_card_computes_what_a_processor_does(
    name: str, device: str, path: PathName, *, recorded: bool
) -> None:
    strategy, execution = TABLE[name.removeprefix("cpu-")], Execution(path, BLOCKS[path])
    found = run(device, strategy, execution, recorded=recorded)
    expected = world().run(strategy, execution)
    assert largest_difference(snapshot(found), snapshot(expected)) < ROUNDING


@strategies
def test_rounds_with_the_same_state_have_the_same_bits(name: str, device: str) -> None:
    strategy = TABLE[name.removeprefix("cpu-")]
    one, other = (run(device, strategy, Execution("dense", 4)) for _ in range(2))
    assert same_bits(snapshot(one), snapshot(other))


@devices
@pytest.mark.parametrize("path", BLOCKS)
def test_bfloat16_differs_by_its_rounding(device: str, path: PathName) -> None:
    small = world(dtype=torch.float32)
    low = Execution(path, BLOCKS[path], precision="bfloat16")
    found = run(device, fedavg(), low, small=small).params
    expected = small.run(fedavg(), Execution(path, BLOCKS[path])).params
    moved = float((expected - small.start(fedavg()).params).norm())
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).norm()) < 8 * 2**-8 * moved


def convolution() -> nn.Module:
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 8, 2, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)),
    )


@devices
@pytest.mark.parametrize("path", ["vmap", "module"])
def test_convolutions_have_all_digits_of_single_precision(device: str, path: PathName) -> None:
    # With TensorFloat-32, errors would be about 1e-3.
    small = world(seeded(convolution).float(), dtype=torch.float32)
    found = run(device, fedavg(), Execution(path, 4), small=small)
    expected = small.run(fedavg(), Execution("module", 1))
    assert float((found.params - expected.params).abs().max()) < 1e-5


@devices
def test_dropout_and_statistics_stay_each_clients_own(device: str) -> None:
    module = seeded(
        lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    )
    small = world(module, sizes=(10, 15, 5, 20), participation=Full())
    one, other = (
        run(device, fedavg(batch_size=5), Execution("module", block), small=small)
        for block in (1, 3)
    )
    assert largest_difference(snapshot(one), snapshot(other)) < ROUNDING


@devices
def test_a_resumed_run_gives_the_bits_of_an_unbroken_one(device: str, tmp_path: Path) -> None:
    experiment = hanse.Experiment(
        scaffold(option=1, momentum=0.9),
        federation(),
        mlp(),
        rounds=4,
        execution=Execution("dense", 4),
        device=device,
    )
    unbroken = hanse.run(experiment, tmp_path / "unbroken")
    stopped = hanse.run(dataclasses.replace(experiment, rounds=2), tmp_path / "stopped")
    hanse.resume(stopped.path, experiment)
    one, other = (
        (target.path / "model.safetensors").read_bytes() for target in (unbroken, stopped)
    )
    assert one == other


@devices
def test_an_experiment_with_nothing_chosen_is_evaluated_as_on_a_processor(device: str) -> None:
    experiment = hanse.Experiment(fedavg(lr=0.1), federation(), mlp(), rounds=3, device=device)
    losses = []
    for where in (device, "cpu"):
        *_, last = rounds(dataclasses.replace(experiment, device=where))
        losses.append(last.evaluations["test"].metrics["loss"])
        assert next(last.model().parameters()).device == CPU
    assert float(np.abs(losses[0] - losses[1]).max()) < ROUNDING


@devices
def test_lazy_clients_are_loaded_into_the_computers_memory(device: str) -> None:
    packed = federation().train
    assert isinstance(packed, PackedClients)

    def load(client: int) -> dict[str, Tensor]:
        rows = slice(int(packed.offsets[client]), int(packed.offsets[client + 1]))
        assert torch.zeros(1).device == CPU
        return {name: field[rows] for name, field in packed.fields.items()}

    lazy = LazyClients(len(packed), load)
    small = dataclasses.replace(world(data=packed), data=lazy)  # type: ignore[arg-type]
    found = run(device, scaffold(), Execution("dense", 4), small=small)
    expected = world(data=packed).run(scaffold(), Execution("dense", 4))
    assert largest_difference(snapshot(found), snapshot(expected)) < ROUNDING


@devices
def test_a_step_that_reads_a_number_is_computed_anew(device: str) -> None:
    strategy = Strategy(Clipped())
    expected = world().run(strategy, Execution("dense", 4))
    if device == "cpu":  # where it can be called each time as well
        found = device_run(world(), strategy, Execution("dense", 4), place=Place(CPU))
    else:
        with pytest.warns(RuntimeWarning, match="Clipped"):
            found = run(device, strategy, Execution("dense", 4))
    assert largest_difference(snapshot(found), snapshot(expected)) < ROUNDING
    after = run(device, fedavg(), Execution("dense", 4))  # and the card is as it was
    assert bool(after.params.isfinite().all())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no graphics card")
@pytest.mark.parametrize("name", ON_CARDS)
@pytest.mark.parametrize("path", BLOCKS)
@pytest.mark.parametrize("recorded", [True, False])
def test_no_pass_waits_for_the_card(
    name: str, path: PathName, monkeypatch: pytest.MonkeyPatch, *, recorded: bool
) -> None:
    small, strategy, there = (
        world(participation=Full()),
        TABLE[name],
        place("cuda", recorded=recorded),
    )
    engine = InProcess(strategy, small.task, small.data, Execution(path, BLOCKS[path]), there)
    state = initial_state(strategy, small.task, there.device)
    state, _ = run_round(state, engine, small.population, small.task.layout)  # records
    walk: Callable[..., None] = DeviceWork.walk

    def watched(*arguments: object) -> None:
        with unwaiting():
            walk(*arguments)

    monkeypatch.setattr(DeviceWork, "walk", watched)
    run_round(state, engine, small.population, small.task.layout)
