"""FedAvg, SCAFFOLD, FedProx and FedNova on Fashion-MNIST in ten silos.

Li et al., "Federated learning on non-IID data silos: an experimental study", ICDE 2022: ten
clients, all in every round, 50 rounds of ten local epochs in batches of 64, rate 0.01, momentum
0.9, a CNN with two convolutions; labels by Dirichlet(0.5), or two labels for each client. The
published numbers are from the page of Flower's baseline `niid_bench`, which repeats the paper.

A full run takes hours on one core, so `ROUNDS` and `EPOCHS` are smaller.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from torch import nn

import hanse
from benchmarks.fidelity.grid import Cell, Grid, Record
from benchmarks.fidelity.tables import claims, percent
from benchmarks.simulation.tables import table
from hanse.data import Federation, idx_federation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROUNDS, EPOCHS = 5, 2
TITLES = {"labels": "two labels per client", "dirichlet": "Dirichlet(0.5)"}
# After 50 rounds of ten epochs, in percent.
PUBLISHED = {
    "dirichlet": {"FedAvg": 88.09, "SCAFFOLD": 88.44, "FedProx": 88.15, "FedNova": 88.22},
    "labels": {"FedAvg": 78.10, "SCAFFOLD": 33.80, "FedProx": 78.05, "FedNova": 71.67},
}
ALGORITHMS = ("FedAvg", "SCAFFOLD", "FedProx", "FedNova", "SCAFFOLD, II")


def cnn() -> nn.Module:
    """The silos' CNN: 6 and 16 channels, then 120, 84 and 10 units."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


@functools.lru_cache(maxsize=1)
def _federation(partition: str, seed: int) -> Federation:
    return idx_federation(
        "fashion-mnist",
        10,
        partition,  # type: ignore[arg-type]
        seed=seed,
        alpha=0.5,
        min_size=10,
        labels_per_client=2,
    )


def _strategy(algorithm: str, rate: float) -> hanse.Strategy:
    work: dict[str, Any] = {"lr": rate, "local_epochs": EPOCHS, "batch_size": 64, "momentum": 0.9}
    match algorithm:
        case "FedAvg":
            return hanse.fedavg(**work)
        case "SCAFFOLD":  # with momentum only option 1 is sound
            return hanse.scaffold(option=1, weighting="examples", **work)
        case "SCAFFOLD, II":  # without momentum, at the rate that momentum comes to
            work |= {"lr": 10 * rate, "momentum": 0.0}
            return hanse.scaffold(option=2, weighting="examples", **work)
        case "FedProx":
            return hanse.fedprox(mu=0.01, **work)
        case "FedNova":
            return hanse.fednova(**work)
    raise SystemExit(f"no algorithm {algorithm!r}")


def _experiment(cell: Cell) -> hanse.Experiment:
    return hanse.Experiment(
        strategy=_strategy(str(cell.settings["algorithm"]), cell.rate),
        data=_federation(str(cell.settings["partition"]), cell.seed),
        model=cnn,
        rounds=cell.cap,
        seed=cell.seed,
        evaluate_every=1,
    )


def _section(grid: Grid, records: Sequence[Record]) -> list[str]:
    titles = ["partition", "algorithm", "best accuracy", "published", "seeds", "minutes"]
    rows, best = [], {}
    for settings in grid.settings:
        partition, algorithm = str(settings["partition"]), str(settings["algorithm"])
        found = grid.found(records, settings, grid.rates[0])
        values = [record.best for record in found]
        if found:
            best[partition, algorithm] = sum(values) / len(values)
        rows.append(
            [
                TITLES[partition],
                algorithm,
                percent(values) + " (diverged)" * any(record.diverged for record in found),
                f"{PUBLISHED[partition][algorithm.partition(',')[0]]:.2f}",
                ", ".join(str(record.seed) for record in found),
                f"{sum(record.minutes for record in found):.1f}" if found else "",
            ]
        )
    about = (
        f"{ROUNDS} rounds of {EPOCHS} epochs here, 50 rounds of 10 epochs in the paper; in percent."
    )
    return [*table(titles, rows), "", about, "", *claims(_claims(best))]


def _claims(best: Mapping[tuple[str, str], float]) -> Iterator[tuple[str, bool | None]]:
    """What the published table shows, and whether it is so here."""
    names = tuple(PUBLISHED["dirichlet"])
    if all(("dirichlet", name) in best for name in names):
        values = [best["dirichlet", name] for name in names]
        yield "at Dirichlet(0.5) the four are within a point", max(values) - min(values) <= 0.01
    if all(("labels", name) in best for name in names):
        plain = best["labels", "FedAvg"]
        yield (
            "at two labels FedAvg and FedProx are within a point",
            (abs(best["labels", "FedProx"] - plain) <= 0.01),
        )
        yield "at two labels FedNova is behind FedAvg", best["labels", "FedNova"] < plain
        yield (
            "at two labels SCAFFOLD is far behind FedAvg",
            best["labels", "SCAFFOLD"] < plain - 0.1,
        )
    for name in names:
        if ("dirichlet", name) in best and ("labels", name) in best:
            yield (
                f"{name} does worse with two labels than at Dirichlet(0.5)",
                best["labels", name] < best["dirichlet", name],
            )


GRID = Grid(
    name="silos",
    fetch="fashion-mnist",
    settings=tuple(
        {"partition": partition, "algorithm": algorithm}
        for partition in TITLES
        for algorithm in ALGORITHMS
    ),
    experiment=_experiment,
    section=_section,
    cap=lambda _: ROUNDS,
    rates=(0.01,),
    seeds=(0,),
)
