"""FedProx and FedAvg where a part of the devices does not finish its work.

Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, section 5.2: logistic
regression on Synthetic(1, 1), 30 devices, ten of them in a round, 200 rounds of 20 local epochs in
batches of 10, rate 0.01; 0, 50 or 90 % of each cohort are stragglers. FedAvg drops their work,
FedProx keeps what they have done, with mu = 0 and mu = 1. The paper shows curves.

The paper's devices have 9,600 examples together. Sizes are drawn from a long tail, so `SEEDS` are
those among 0 to 11 whose total comes nearest to that.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator, Mapping, Sequence

import hanse
from benchmarks.fidelity.grid import Cell, Grid, Record
from benchmarks.fidelity.tables import claims, percent
from benchmarks.simulation.tables import table
from hanse.data import Federation, synthetic

SHARES = (0, 50, 90)
ALGORITHMS = ("FedAvg", "FedProx, mu = 0", "FedProx, mu = 1")
SEEDS = (2, 10, 7)
ROUNDS, LAST = 200, 50
Means = Mapping[tuple[int, str], float]


@functools.lru_cache(maxsize=1)
def _federation(seed: int) -> Federation:
    return synthetic(1, 1, clients=30, seed=seed)


def _strategy(algorithm: str, rate: float) -> hanse.Strategy:
    if algorithm == "FedAvg":
        return hanse.fedavg(lr=rate, local_epochs=20, batch_size=10)
    mu = float(algorithm.rpartition(" ")[2])
    return hanse.fedprox(lr=rate, mu=mu, local_epochs=20, batch_size=10)


def _experiment(cell: Cell) -> hanse.Experiment:
    share = float(cell.settings["stragglers"]) / 100
    return hanse.Experiment(
        strategy=_strategy(str(cell.settings["algorithm"]), cell.rate),
        data=_federation(cell.seed),
        model=functools.partial(hanse.models.softmax_regression, 60, 10),
        rounds=cell.cap,
        seed=cell.seed,
        participation=hanse.Uniform(count=10),
        stragglers=hanse.Stragglers(share) if share else None,
        evaluate_every=1,
        execution=hanse.Execution("dense", 10),
    )


def _late(record: Record) -> list[float]:
    return record.accuracies[-LAST:]


def _section(grid: Grid, records: Sequence[Record]) -> list[str]:
    titles = ["stragglers", "algorithm", "last rounds", "from round to round", "best"]
    titles += ["seeds", "minutes"]
    rows, means, steady = [], {}, {}
    for settings in grid.settings:
        share, algorithm = int(settings["stragglers"]), str(settings["algorithm"])
        found = grid.found(records, settings, grid.rates[0])
        if not found:
            continue
        late = [statistics.mean(_late(record)) for record in found]
        moves = [statistics.stdev(_late(record)) for record in found]
        means[share, algorithm] = statistics.mean(late)
        steady[share, algorithm] = statistics.mean(moves)
        rows.append(
            [
                f"{share} %",
                algorithm,
                percent(late),
                f"{100 * statistics.mean(moves):.2f}",
                percent([record.best for record in found]),
                ", ".join(str(record.seed) for record in found),
                f"{sum(record.minutes for record in found):.1f}",
            ]
        )
    return [*table(titles, rows), "", *claims(_claims(means, steady))]


def _claims(means: Means, steady: Means) -> Iterator[tuple[str, bool | None]]:
    """What the paper's curves show, and whether it is so here."""
    plain, kept, held = ALGORITHMS
    for share in SHARES[1:]:
        yield (
            f"at {share} % FedProx with mu = 0, which keeps partial work, is better than FedAvg",
            _above(means, (share, kept), (share, plain)),
        )
        yield (
            f"at {share} % FedProx with mu = 1 is better than FedAvg",
            _above(means, (share, held), (share, plain)),
        )
        yield (
            f"at {share} % mu = 1 is steadier than mu = 0 from round to round",
            _above(steady, (share, kept), (share, held)),
        )
    yield (
        "FedAvg gets worse from 0 to 90 %",
        _above(means, (0, plain), (90, plain)),
    )


def _above(values: Means, one: tuple[int, str], other: tuple[int, str]) -> bool | None:
    if one not in values or other not in values:
        return None
    return values[one] > values[other]


GRID = Grid(
    name="stragglers",
    fetch=None,
    settings=tuple(
        {"stragglers": share, "algorithm": algorithm}
        for share in (90, 50, 0)
        for algorithm in ALGORITHMS
        if share or algorithm != ALGORITHMS[1]  # without stragglers mu = 0 is FedAvg
    ),
    experiment=_experiment,
    section=_section,
    cap=lambda _: ROUNDS,
    rates=(0.01,),
    seeds=SEEDS,
)
