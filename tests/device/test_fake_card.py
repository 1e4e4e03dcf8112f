"""On a card, all of a round's tensors lie there, and no step waits for it.

There is no card in these tests: see `fake.py`. Values are looked at where there is one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.device.fake import CARD, fake_card, placed
from tests.engine.small import FEATURES, federation, mlp, snapshot, world
from tests.strategies.table import ON_CARDS, TABLE, with_one_of

import hanse
import hanse.engines.make
import hanse.experiment
import hanse.records
from hanse.data import LazyClients, PackedClients
from hanse.engines import InProcess
from hanse.engines.capture import DirectCapture
from hanse.engines.on_device import Place
from hanse.local import LocalSGD
from hanse.models import Execution
from hanse.round import initial_state, run_round
from hanse.storage.checkpoint import read_checkpoint
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Gradient, Memory
    from hanse.models.execution import PathName


@pytest.mark.parametrize(
    ("name", "path", "capture"),
    with_one_of(
        [(p, c) for p in ("dense", "vmap", "module") for c in (None, DirectCapture())], ON_CARDS
    ),
)
def test_two_rounds_lie_on_the_card(
    name: str, path: PathName, capture: DirectCapture | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, strategy = world(), TABLE[name]
    with fake_card(monkeypatch) as card:
        place = Place(CARD, capture)
        engine = InProcess(strategy, small.task, small.data, Execution(path, 4), place)
        state = initial_state(strategy, small.task, CARD)
        for _ in range(2):
            state, _ = run_round(state, engine, small.population, small.task.layout)
        for tensor, value in snapshot(state).items():
            assert value.device == CARD, tensor
    assert card.read


@dataclass(frozen=True)
class Reads(LocalSGD):
    """Looks at a number in each step."""

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        super().step(state, gradient, pass_number)
        float(state["params"].sum())


@dataclass(frozen=True)
class Alpha(LocalSGD):
    """Passes a number on the card as one that torch reads."""

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        state["params"].sub_(gradient(state["params"]), alpha=state["rate"])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Elsewhere(LocalSGD):
    """Has a part of its state in the computer's memory."""

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        state = super().start(broadcast, memory, client)
        return {**state, "noise": torch.from_numpy(np.ones((len(client.id), 1)))}

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        super().step(state, gradient, pass_number)
        state["params"].add_(state["noise"])


@dataclass(frozen=True)
class Sends(LocalSGD):
    """Copies something to the card in each step."""

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        super().step(state, gradient, pass_number)
        state["params"].mul_(torch.tensor([1.0, 1.0, 1.0])[0].item())
        state["params"].add_(torch.from_numpy(np.zeros(1)).to(state["params"].device))


@pytest.mark.parametrize(
    ("local", "found"),
    [(Reads(), "waits"), (Alpha(), "item"), (Elsewhere(), "with"), (Sends(), "item|with")],
    ids=["reads", "alpha", "elsewhere", "sends"],
)
def test_the_card_that_is_not_there_notices(
    local: LocalSGD, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, strategy = world(), Strategy(local)
    engine = InProcess(strategy, small.task, small.data, Execution("dense", 4), Place(CARD))
    with fake_card(monkeypatch):
        state = initial_state(strategy, small.task, CARD)
        with pytest.raises(RuntimeError, match=found):
            run_round(state, engine, small.population, small.task.layout)


def lazy(packed: PackedClients) -> LazyClients:
    """Clients that are made by torch's factories when they are wanted."""

    def load(client: int) -> dict[str, Tensor]:
        rows = slice(int(packed.offsets[client]), int(packed.offsets[client + 1]))
        x = torch.zeros(rows.stop - rows.start, FEATURES, dtype=torch.float64)
        assert x.device.type == "cpu"
        return {"x": x, "y": packed.fields["y"][rows]}

    return LazyClients(len(packed), load, np.diff(packed.offsets))


@pytest.mark.parametrize("name", ["scaffold-1", "fedadam"])
@pytest.mark.parametrize("kind", ["packed", "lazy"])
def test_a_run_on_a_card_leaves_it_on_disk_and_is_resumed(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = federation()
    assert isinstance(data.train, PackedClients)
    if kind == "lazy":
        data = dataclasses.replace(data, train=lazy(data.train))
    monkeypatch.setattr(hanse.engines.make, "CudaCapture", lambda _: DirectCapture())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**30, 2**30))
    monkeypatch.setattr(hanse.experiment, "device_named", lambda *_: CARD)
    monkeypatch.setattr(hanse.experiment, "placed", placed)
    monkeypatch.setattr(hanse.records, "described", lambda _: "a card")
    experiment = hanse.Experiment(
        TABLE[name], data, mlp(), rounds=2, execution=Execution("dense", 4), device="cuda"
    )
    monkeypatch.setattr(hanse.experiment, "check_execution", lambda *_: None)
    with fake_card(monkeypatch):
        target = hanse.run(experiment, tmp_path / "run", baselines=kind == "packed")
        again = dataclasses.replace(experiment, rounds=4)
        hanse.resume(target.path, again)
        *_, last = hanse.rounds(experiment)
        assert last.state.params.device == CARD
        assert {value.device.type for value in last.model().state_dict().values()} == {"cpu"}
    state = read_checkpoint(target.path / "checkpoints" / "round-000004", None)
    assert {value.device.type for value in snapshot(state).values()} == {"cpu"}
    assert target.about()["engine"]["device"] == "a card"
