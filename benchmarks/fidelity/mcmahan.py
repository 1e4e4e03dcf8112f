"""FedAvg on MNIST: rounds to 97 % with the 2NN, and to 99 % with the CNN.

McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
AISTATS 2017, tables 1 and 2: 100 clients, a tenth of them in a round (C = 0.1), one local epoch in
batches of 10 (E = 1, B = 10), the learning rate that is best for each row.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import hanse
from benchmarks.fidelity.grid import Cell, Grid, Record, Settings
from benchmarks.fidelity.tables import mean_rounds, rounds
from benchmarks.simulation.tables import table
from hanse.data import Federation, idx_federation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

TITLES = {"iid": "IID", "shards": "two shards per client"}
PUBLISHED = {"mnist_2nn": {"iid": 87, "shards": 664}, "mnist_cnn": {"iid": 34}}


@functools.lru_cache(maxsize=1)
def _federation(partition: str, seed: int) -> Federation:
    return idx_federation("mnist", 100, partition, seed=seed, shards_per_client=2)  # type: ignore[arg-type]


def _experiment(model: Callable[[], nn.Module], cell: Cell) -> hanse.Experiment:
    return hanse.Experiment(
        strategy=hanse.fedavg(lr=cell.rate, local_epochs=1, batch_size=10),
        data=_federation(str(cell.settings["partition"]), cell.seed),
        model=model,
        rounds=cell.cap,
        seed=cell.seed,
        participation=hanse.Uniform(fraction=0.1),
        evaluate_every=1,
    )


def _section(grid: Grid, records: Sequence[Record]) -> list[str]:
    published = PUBLISHED[grid.name]
    seeds = [f"seed {seed}" for seed in grid.seeds]
    titles = ["partition", "rate", *seeds, "mean ± s.d.", "published", "minutes"]
    rows, sayings = [], []
    for settings in grid.settings:
        partition = str(settings["partition"])
        means: dict[float, float] = {}
        for rate in sorted(grid.rates):
            found = grid.found(records, settings, rate)
            if not found:
                continue
            by_seed = {record.seed: rounds([record], grid.target) for record in found}
            rows.append(
                [
                    TITLES[partition],
                    f"{rate:g}",
                    *(by_seed.get(seed, "") for seed in grid.seeds),
                    rounds(found, grid.target),
                    str(published[partition]),
                    f"{sum(record.minutes for record in found):.1f}",
                ]
            )
            means[rate] = mean_rounds(found, grid.target) or 0.0
        sayings += _sayings(grid, records, settings, means, published[partition])
    return [*table(titles, rows), "", *sayings]


def _sayings(
    grid: Grid,
    records: Sequence[Record],
    settings: Settings,
    means: Mapping[float, float],
    published: int,
) -> list[str]:
    title = TITLES[str(settings["partition"])]
    lines = []
    if grid.tuning_seed is not None:
        tried = sorted(grid.tried(records, settings), key=lambda record: record.rate)
        said = "; ".join(f"{one.rate:g}: {rounds([one], grid.target)}" for one in tried)
        lines.append(
            f"- {title}: the rate was chosen on seed {grid.tuning_seed}, by these rounds: {said}. "
            "A rate was given up once another had needed fewer."
        )
    if means:
        best = min(means, key=lambda rate: means[rate])
        ratio = published / means[best]
        lines.append(
            f"- {title}: fewest rounds at rate {best:g}, {means[best]:.0f} on average beside the "
            f"published {published} ({ratio:.1f} to 1)."
        )
    return lines


MLP = Grid(
    name="mnist_2nn",
    fetch="mnist",
    settings=({"partition": "iid"}, {"partition": "shards"}),
    experiment=functools.partial(
        _experiment, functools.partial(hanse.models.mlp, 784, 10, hidden=(200, 200))
    ),
    section=_section,
    cap=lambda _: 1000,
    rates=(0.05, 0.1, 0.2),
    target=0.97,
)
CNN = Grid(
    name="mnist_cnn",
    fetch="mnist",
    settings=({"partition": "iid"},),
    experiment=functools.partial(_experiment, functools.partial(hanse.models.cnn, 10)),
    section=_section,
    cap=lambda _: 150,
    rates=(0.1, 0.2, 0.05),
    seeds=(0, 1),
    target=0.99,
    tuning_seed=0,
)
