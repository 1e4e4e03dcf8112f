"""What is compared: data sets, compressors, and one run."""

from __future__ import annotations

import datetime as dt
import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

import hanse
from benchmarks.simulation.measure import machine, versions
from hanse import HalfPrecision, Quantize, RandomK, Sign, TopK, Weighted
from hanse.core.types import Layer
from hanse.data import Federation, idx_federation
from hanse.layers import Compress, ErrorFeedback
from hanse.wire import update_lengths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from hanse.core.types import Broadcast, ClientContext, Memory, Update

DATA = {
    "mnist": "MNIST, two shards a client",
    "fashion-mnist": "Fashion-MNIST, Dirichlet(0.3)",
}
ROUNDS, LAST = 600, 20
CLIENTS, FRACTION = 100, 0.1
RATE, BATCH = 0.05, 10
SEEDS = (0, 1, 2)

# Within error feedback, rounding to nearest: what it leaves out is sent later. Else unbiased.
SETTINGS: Mapping[str, Layer | None] = {
    "uncompressed": None,
    "half precision": Compress(HalfPrecision()),
    "8 bits": Compress(Quantize(8)),
    "4 bits": Compress(Quantize(4)),
    "2 bits": Compress(Quantize(2)),
    "sign, error feedback": ErrorFeedback(Sign()),
    "random 10 %": Compress(RandomK(0.1)),
    "top 10 %, 8 bits": Compress(TopK(0.1) >> Quantize(8)),
    "top 3 %, 8 bits": Compress(TopK(0.03) >> Quantize(8)),
    "top 1 %, 8 bits": Compress(TopK(0.01) >> Quantize(8)),
    "top 10 %, 8 bits, error feedback": ErrorFeedback(TopK(0.1) >> Quantize(8, "nearest")),
    "top 3 %, 8 bits, error feedback": ErrorFeedback(TopK(0.03) >> Quantize(8, "nearest")),
    "top 1 %, 8 bits, error feedback": ErrorFeedback(TopK(0.01) >> Quantize(8, "nearest")),
}


@dataclass(frozen=True)
class Cell:
    """One run."""

    data: str
    setting: str
    seed: int


@dataclass(frozen=True)
class Record:
    """A run that is finished, and where it ran.

    Attributes:
        data: of its cell, likewise `setting` and `seed`.
        layers: the setting, as Hanse writes it.
        rounds: how many there were; fewer than `ROUNDS` where training diverged.
        accuracies: by all test examples, after each of the last rounds.
        up: bytes of the messages that the clients sent, in all.
        messages: how many these were.
        minutes: of processor time.
        date: of the run, UTC; likewise `machine`, `versions` and `execution`.
    """

    data: str
    setting: str
    seed: int
    layers: str
    rounds: int
    accuracies: list[float]
    up: int
    messages: int
    minutes: float
    date: str
    machine: str
    versions: str
    execution: str

    @property
    def cell(self) -> Cell:
        return Cell(self.data, self.setting, self.seed)


@dataclass(frozen=True)
class Counting(Layer):
    """Behind all other layers: how long the clients' messages are, to the byte."""

    seen: list[int] = field(default_factory=list)

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        self.seen.extend(update_lengths(update).tolist())
        return update, memory


def plan() -> Iterator[Cell]:
    """All cells. A seed is finished, with all settings and data, before the next is begun."""
    for seed in SEEDS:
        for data in DATA:
            for setting in SETTINGS:
                yield Cell(data, setting, seed)


def run(cell: Cell) -> Record:
    began, counting = time.process_time(), Counting()
    layer = SETTINGS[cell.setting]
    layers = (*((layer,) if layer is not None else ()), Weighted("examples"), counting)
    federation = _federation(cell.data, cell.seed)
    experiment = hanse.Experiment(
        strategy=hanse.fedavg(lr=RATE, batch_size=BATCH).replace(layers=layers),
        data=federation,
        model=_model,
        rounds=ROUNDS,
        seed=cell.seed,
        participation=hanse.Uniform(fraction=FRACTION),
        evaluate_every=ROUNDS,
    )
    accuracies: list[float] = []
    execution, rounds = "", 0
    try:
        for done in hanse.rounds(experiment):
            chosen = done.prepared.engine.execution
            execution, rounds = f"{chosen.path}, block {chosen.block}", done.number
            if done.number > ROUNDS - LAST:
                accuracies.append(_accuracy(done.model(), federation))
    except hanse.DivergenceError as error:
        print(f"  {error}", flush=True)
    return Record(
        data=cell.data,
        setting=cell.setting,
        seed=cell.seed,
        layers=repr(layer),
        rounds=rounds,
        accuracies=accuracies,
        up=sum(counting.seen),
        messages=len(counting.seen),
        minutes=round((time.process_time() - began) / 60, 3),
        date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        machine=machine(),
        versions=versions(),
        execution=execution,
    )


def _model() -> nn.Module:
    return hanse.models.mlp(784, 10, hidden=(50,))


@functools.lru_cache(maxsize=1)
def _federation(data: str, seed: int) -> Federation:
    if data == "mnist":
        return idx_federation("mnist", CLIENTS, "shards", seed=seed, shards_per_client=2)
    return idx_federation("fashion-mnist", CLIENTS, "dirichlet", seed=seed, alpha=0.3)


def _accuracy(model: nn.Module, federation: Federation) -> float:
    held = federation.unseen
    if held is None:
        raise SystemExit("there are no test images")
    block = held.block(np.arange(len(held)))
    with torch.no_grad():
        found = model(block.fields["x"]).argmax(1)
    return round(float((found == block.fields["y"]).double().mean()), 4)
