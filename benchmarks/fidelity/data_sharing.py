"""FedAvg on MNIST where clients have one class or two, with and without public examples.

Zhao et al., "Federated learning with non-IID data", arXiv:1806.00582, 2018: 10 clients, all of them
in every round, one local epoch in batches of 100. "1-class" deals the images sorted by label to the
clients in tenths, "2-class" in two twentieths each. With sharing, 5 % of the training images, as
many of each class, belong to nobody and are mixed into every client's own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import hanse
from benchmarks.fidelity.grid import Cell, Grid, Record
from benchmarks.fidelity.tables import percent
from benchmarks.simulation.tables import table
from hanse.data import Federation, idx_federation

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 30
SHARDS = {"IID": 0, "2-class": 2, "1-class": 1}
CELLS = (("IID", 0.0), ("2-class", 0.0), ("2-class", 0.05), ("1-class", 0.0), ("1-class", 0.05))


def _federation(kind: str, public: float, seed: int) -> Federation:
    shards = SHARDS[kind]
    return idx_federation(
        "mnist",
        10,
        "shards" if shards else "iid",
        seed=seed,
        shards_per_client=shards or 1,
        public=public,
    )


def _experiment(cell: Cell) -> hanse.Experiment:
    kind, public = str(cell.settings["clients have"]), float(cell.settings["public"])
    return hanse.Experiment(
        strategy=hanse.fedavg(lr=cell.rate, local_epochs=1, batch_size=100),
        data=_federation(kind, public, cell.seed),
        model=functools.partial(hanse.models.mlp, 784, 10, hidden=(200, 200)),
        rounds=cell.cap,
        seed=cell.seed,
        execution=hanse.Execution("module", 1),
    )


def _section(grid: Grid, records: Sequence[Record]) -> list[str]:
    seeds = [f"seed {seed}" for seed in grid.seeds]
    titles = ["clients have", "public", *seeds, "mean ± s.d.", "at half", "minutes"]
    rows = []
    for settings in grid.settings:
        found = grid.found(records, settings, grid.rates[0])
        last = {record.seed: record.accuracies[-1] for record in found}
        half = [record.accuracies[record.rounds // 2] for record in found]
        rows.append(
            [
                str(settings["clients have"]),
                f"{settings['public']:.0%}" if settings["public"] else "none",
                *(percent([last[seed]]) if seed in last else "" for seed in grid.seeds),
                percent(list(last.values())),
                percent(half).partition(" ")[0],
                f"{sum(record.minutes for record in found):.1f}" if found else "",
            ]
        )
    about = f"Accuracy on the test images in percent after {ROUNDS} rounds, and after half of them;"
    return [*table(titles, rows), "", f"{about} rate {grid.rates[0]:g}."]


GRID = Grid(
    name="data_sharing",
    fetch="mnist",
    settings=tuple({"clients have": kind, "public": public} for kind, public in CELLS),
    experiment=_experiment,
    section=_section,
    cap=lambda _: ROUNDS,
    rates=(0.05,),
    seeds=(0, 1),
)
