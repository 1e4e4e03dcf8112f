"""What differential privacy of clients costs in accuracy: MNIST, 1,000 clients.

    python -m benchmarks.privacy.accuracy

Labels are divided by Dirichlet(1), with 60 images a client on average. In each of 100 rounds every
client takes part with probability 0.1. The noise is the least that keeps all rounds within epsilon
2 or 8 at delta 1e-4, by the accountant `pld`; beside them is plain FedAvg, which clips nothing.
Each run is a line of `accuracy.jsonl` at once, and a run that is there is not repeated. `--picture`
draws what is there. The data: `hanse data fetch mnist`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hanse
from benchmarks.simulation.measure import machine, versions
from benchmarks.simulation.tables import table
from hanse.data import Federation, idx_federation
from hanse.privacy import epsilon, noise_multiplier
from hanse.report.charts import LineChart, Series, lines
from hanse.report.figure import Figure, Key, Table, tick_format
from hanse.report.plan import standalone
from hanse.runs import run as run_to_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

RESULTS = Path(__file__).with_name("accuracy.jsonl")
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "private-accuracy.svg"
CLIENTS, RATE, ROUNDS, DELTA, EVERY, SEEDS = 1000, 0.1, 100, 1e-4, 5, (0, 1, 2)
BUDGETS: tuple[float | None, ...] = (None, 8.0, 2.0)
CLIP = 0.5
MODELS: dict[str, Callable[[], nn.Module]] = {
    "softmax": lambda: hanse.models.softmax_regression(784, 10),
    "mlp": lambda: hanse.models.mlp(784, 10, (32,)),
}
STYLES = {None: "run-0", 8.0: "run-1", 2.0: "run-2"}


@dataclass(frozen=True)
class Record:
    """A run that is finished.

    Attributes:
        model: a key of `MODELS`.
        budget: epsilon that the noise was chosen for; `None`: no noise.
        seed: of the division and of the run.
        noise: the noise multiplier.
        parameters: how many numbers the model has.
        rounds: that were evaluated.
        accuracies: of the test images, after each of `rounds`.
        spent: epsilon after each of them, by `pld`; 0 without noise.
        seconds: of processor time.
        date: of the run, UTC; likewise `machine` and `versions`.
    """

    model: str
    budget: float | None
    seed: int
    noise: float
    parameters: int
    rounds: list[int]
    accuracies: list[float]
    spent: list[float]
    seconds: float
    date: str
    machine: str
    versions: str


@functools.lru_cache(maxsize=1)
def _federation(seed: int) -> Federation:
    return idx_federation("mnist", CLIENTS, "dirichlet", seed=seed, alpha=1.0, min_size=10)


@functools.cache
def _noise(budget: float) -> float:
    return noise_multiplier(budget, DELTA, ROUNDS, RATE)


def experiment(model: str, budget: float | None, seed: int) -> hanse.Experiment:
    """A cell of the grid."""
    strategy = hanse.fedavg(lr=0.1, local_epochs=2)
    if budget is not None:
        noise = _noise(budget)
        strategy = hanse.dp_fedavg(lr=0.1, local_epochs=2, clip=CLIP, noise_multiplier=noise)
    return hanse.Experiment(
        strategy=strategy,
        data=_federation(seed),
        model=MODELS[model],
        rounds=ROUNDS,
        seed=seed,
        participation=hanse.Poisson(RATE),
        evaluate_every=EVERY,
        delta=DELTA if budget else None,
        name=f"{model}, {_words(budget)}",
    )


def run(model: str, budget: float | None, seed: int) -> Record:
    """Train one cell."""
    began, at, accuracies, spent = time.process_time(), [], [], []
    count = 0
    for done in hanse.rounds(experiment(model, budget, seed)):
        if "unseen" not in done.evaluations:
            continue
        statement, count = done.prepared.privacy, done.prepared.task.layout.size
        at.append(done.number)
        accuracies.append(round(done.evaluations["unseen"].overall["accuracy"], 4))
        spent.append(0.0 if statement is None else done.epsilon("pld") or 0.0)
    noise = 0.0 if budget is None else _noise(budget)
    return Record(
        model, budget, seed, noise, count, at, accuracies, spent,
        round(time.process_time() - began, 1), dt.datetime.now(tz=dt.UTC).date().isoformat(),
        machine(), versions(),
    )  # fmt: skip


def read() -> list[Record]:
    """The runs that are finished."""
    if not RESULTS.exists():
        return []
    return [Record(**json.loads(line)) for line in RESULTS.read_text("utf-8").splitlines()]


def run_missing(seeds: Sequence[int]) -> None:
    """Run what the results lack."""
    done = {(one.model, one.budget, one.seed) for one in read()}
    for seed in seeds:
        for model in MODELS:
            for budget in BUDGETS:
                if (model, budget, seed) in done:
                    continue
                found = run(model, budget, seed)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(found)) + "\n")
                print(f"{model}, {_words(budget)}, seed {seed}: {found.accuracies[-1]}", flush=True)


def summary(records: Sequence[Record]) -> list[str]:
    """A row for each model and epsilon, in Markdown."""
    rows = []
    for model in MODELS:
        for budget in BUDGETS:
            runs = [one for one in records if (one.model, one.budget) == (model, budget)]
            if not runs:
                continue
            first = runs[0]
            by_rdp = "–"
            if first.budget is not None:
                event = hanse.ClientDP(CLIP, first.noise).event(hanse.Poisson(RATE), CLIENTS)
                by_rdp = f"{epsilon([event] * ROUNDS, DELTA, 'rdp'):.2f}"
            rows.append(
                [
                    f"{model}, {first.parameters:,} parameters",
                    "none" if budget is None else f"{budget:g}",
                    by_rdp,
                    f"{first.noise:.3f}" if budget else "–",
                    *(_percent([one.accuracies[one.rounds.index(at)] for one in runs])
                      for at in (10, 30, ROUNDS)),
                    f"{sum(one.seconds for one in runs):.0f}",
                ]
            )  # fmt: skip
    head = ["model", "epsilon", "by `rdp`", "noise multiplier", "round 10", "round 30", "round 100",
            "seconds"]  # fmt: skip
    return table(head, rows)


def picture(records: Sequence[Record], model: str = "softmax") -> str:
    """Accuracy over rounds, a line for each epsilon, as an SVG."""
    series, legend, ends = [], [], {}
    for budget in BUDGETS:
        runs = [one for one in records if (one.model, one.budget) == (model, budget)]
        if not runs:
            continue
        at = runs[0].rounds
        columns = list(zip(*(one.accuracies for one in runs), strict=True))
        points = tuple((n, statistics.fmean(column)) for n, column in zip(at, columns, strict=True))
        band = tuple((n, min(column), max(column)) for n, column in zip(at, columns, strict=True))
        series.append(Series(_words(budget), STYLES[budget], points[1:], band[1:]))
        ends[budget] = f"{100 * points[-1][1]:.1f} %"
        legend.append(Key(_words(budget), STYLES[budget], "line", ends[budget]))
    title = "Accuracy over rounds, by epsilon"
    facts = f"MNIST, {CLIENTS:,} clients, {model}, Poisson({RATE}), delta {DELTA:g}, 3 seeds"
    chart = LineChart(
        "accuracy", title, facts, "rounds", tuple(reversed(series)), tick_format("accuracy"),
    )  # fmt: skip
    empty = Table(("Rounds",), ())
    return standalone(Figure("accuracy", title, facts, tuple(legend), lines(chart), empty), facts)


def _words(budget: float | None) -> str:
    return "without" if budget is None else f"epsilon {budget:g}"


def _percent(values: Sequence[float]) -> str:
    middle = f"{100 * statistics.fmean(values):.1f}"
    return middle if len(values) == 1 else f"{middle} ± {100 * statistics.stdev(values):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--picture", action="store_true", help=f"write {PICTURE.name}")
    parser.add_argument("--report", type=Path, help="train epsilon 2 into this run directory")
    given = parser.parse_args()
    if given.report is not None:
        print(run_to_disk(experiment("softmax", 2.0, 0), given.report).path / "report.html")
        return
    run_missing(range(given.seeds))
    print("\n".join(summary(read())))
    if given.picture:
        PICTURE.write_text(picture(read()), encoding="utf-8")


if __name__ == "__main__":
    main()
