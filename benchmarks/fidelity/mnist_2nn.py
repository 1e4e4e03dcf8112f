"""FedAvg on MNIST with the 2NN: rounds to 97 %, beside the published numbers.

McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
AISTATS 2017, table 1, rows of the 2NN with E = 1, C = 0.1 and B = 10: 100 clients, a tenth of them
in a round, one local epoch in batches of 10. The published 87 rounds (IID) and 664 rounds (two
shards of sorted labels per client) are at the learning rate that was best for each.

MNIST is fetched once with `hanse data fetch mnist`. A finished cell (partition, rate, seed) is
appended to the results at once and skipped when the command is run again.

    python -m benchmarks.fidelity.mnist_2nn --write docs/fidelity.md
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

import hanse
from hanse.data import idx_federation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hanse.data import Federation

Partition = Literal["iid", "shards"]

PARTITIONS: tuple[Partition, ...] = ("iid", "shards")
TITLES = {"iid": "IID", "shards": "two shards per client"}
PUBLISHED = {"iid": 87, "shards": 664}
PARAMETERS = 199_210
CLIENTS = 100
BEGIN, END = "<!-- mnist_2nn: begin -->", "<!-- mnist_2nn: end -->"
RESULTS = Path(__file__).with_suffix(".jsonl")


@dataclass(frozen=True)
class Cell:
    """One run: the rounds it took, and where it was timed.

    `reached` is the first round whose best accuracy so far is the target, and None if that did not
    happen in the `accuracies` (round 0 is the untrained model).
    """

    partition: Partition
    rate: float
    seed: int
    target: float
    reached: int | None
    diverged: bool
    seconds_a_round: float
    minutes: float
    date: str
    machine: str
    versions: str
    execution: str
    accuracies: list[float]

    @property
    def rounds(self) -> int:
        return len(self.accuracies) - 1

    def answers(self, partition: str, rate: float, seed: int, target: float, cap: int) -> bool:
        """Whether there is nothing left to run."""
        same = (self.partition, self.rate, self.seed, self.target) == (
            partition,
            rate,
            seed,
            target,
        )
        return same and (self.reached is not None or self.diverged or self.rounds >= cap)


def run(
    federation: Federation, partition: Partition, rate: float, seed: int, target: float, cap: int
) -> Cell:
    """Train until the target is reached, or for `cap` rounds."""
    experiment = hanse.Experiment(
        strategy=hanse.fedavg(lr=rate, local_epochs=1, batch_size=10),
        data=federation,
        model=lambda: hanse.models.mlp(784, 10, hidden=(200, 200)),
        rounds=cap,
        seed=seed,
        participation=hanse.Uniform(fraction=0.1),
        evaluate_every=1,
    )
    accuracies: list[float] = []
    seconds: list[float] = []
    reached, diverged, execution = None, False, ""
    try:
        for done in hanse.rounds(experiment):
            chosen = done.prepared.engine.execution
            execution = f"{chosen.path}, block {chosen.block}"
            if done.number == 0 and len(done.state.params) != PARAMETERS:
                raise SystemExit(f"the model has {len(done.state.params)} parameters")
            accuracies.append(round(done.evaluations["unseen"].overall["accuracy"], 4))
            seconds.append(done.seconds)
            if accuracies[-1] >= target:
                reached = done.number
                break
            if done.number and done.number % 50 == 0:
                print(f"  round {done.number}: best {max(accuracies):.4f}", flush=True)
    except hanse.DivergenceError as error:
        print(f"  {error}", flush=True)
        diverged = True
    return Cell(
        partition=partition,
        rate=rate,
        seed=seed,
        target=target,
        reached=reached,
        diverged=diverged,
        seconds_a_round=round(statistics.median(seconds[1:] or seconds), 3),
        minutes=round(sum(seconds) / 60, 2),
        date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        machine=machine(),
        versions=f"Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"Hanse {version('hanse')}",
        execution=execution,
        accuracies=accuracies,
    )


def machine() -> str:
    """The processor, its cores, and how many threads are used."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {models[0] if models else platform.machine()}; one thread"


def read(path: Path) -> list[Cell]:
    if not path.exists():
        return []
    return [Cell(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def append(path: Path, cell: Cell) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(cell)) + "\n")


def run_missing(
    path: Path,
    partitions: Iterable[Partition],
    rates: Sequence[float],
    seeds: Sequence[int],
    target: float,
    cap: int,
) -> None:
    """Run the cells that the results lack: every rate on a seed before the next seed."""
    known = read(path)
    for partition, seed in product(partitions, seeds):
        missing = [
            rate
            for rate in rates
            if not any(cell.answers(partition, rate, seed, target, cap) for cell in known)
        ]
        if not missing:
            continue
        federation = idx_federation("mnist", CLIENTS, partition, seed=seed, shards_per_client=2)
        for rate in missing:
            print(f"{TITLES[partition]}, rate {rate:g}, seed {seed}", flush=True)
            cell = run(federation, partition, rate, seed, target, cap)
            append(path, cell)
            print(f"  {_rounds(cell)} rounds, {cell.minutes:.1f} minutes", flush=True)


def section(cells: Sequence[Cell], command: str) -> str:
    """What the page says of these cells, in Markdown."""
    seeds = sorted({cell.seed for cell in cells})
    groups: dict[tuple[Partition, float], dict[int, Cell]] = defaultdict(dict)
    for cell in cells:  # a later line replaces an earlier one, which had a smaller cap
        groups[cell.partition, cell.rate][cell.seed] = cell
    titles = [
        "partition",
        "rate",
        *(f"seed {seed}" for seed in seeds),
        "mean ± s.d.",
        "published",
        "seconds a round",
        "minutes in total",
    ]
    table = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for (partition, rate), found in sorted(groups.items()):
        row = [_rounds(found[seed]) if seed in found else "" for seed in seeds]
        seconds = statistics.median(cell.seconds_a_round for cell in found.values())
        minutes = sum(cell.minutes for cell in found.values())
        mean = _mean(list(found.values()))
        times = [f"{seconds:.2f}", f"{minutes:.1f}"]
        table.append(
            [TITLES[partition], f"{rate:g}", *row, mean, str(PUBLISHED[partition]), *times]
        )
    lines = ["| " + " | ".join(row) + " |" for row in table]
    about = (
        f"Measured with {_all(cell.versions for cell in cells)} on "
        f"{_all(cell.machine for cell in cells)}; "
        f"execution: {_all(cell.execution for cell in cells)}; "
        f"{_all(cell.date for cell in cells)}; "
        f"{sum(cell.minutes for cell in cells):.0f} minutes in all. The seconds are each run's "
        "median and include judging the model on the 10,000 test images."
    )
    return "\n".join([*lines, "", *_verdicts(groups), "", about, "", f"```console\n{command}\n```"])


def _verdicts(groups: dict[tuple[Partition, float], dict[int, Cell]]) -> list[str]:
    """For each partition, its best rate beside what was published, and what missed the target."""
    lines = []
    for partition in PARTITIONS:
        means = {
            rate: statistics.mean(cell.reached or 0 for cell in found.values())
            for (which, rate), found in groups.items()
            if which == partition and all(cell.reached for cell in found.values())
        }
        if means:
            best = min(means, key=lambda rate: means[rate])
            ratio = PUBLISHED[partition] / means[best]
            lines.append(
                f"- {TITLES[partition]}: fewest rounds at rate {best:g}, {means[best]:.0f} on "
                f"average beside the published {PUBLISHED[partition]} ({ratio:.1f} to 1)."
            )
        for (which, rate), found in sorted(groups.items()):
            for seed, cell in sorted(found.items()):
                if which == partition and cell.reached is None:
                    why = "the training diverged" if cell.diverged else "the runs end there"
                    lines.append(
                        f"- {TITLES[partition]}, rate {rate:g}, seed {seed} missed the target: its "
                        f"best accuracy in {cell.rounds} rounds was {max(cell.accuracies):.2%}, "
                        f"and {why}."
                    )
    return lines


def _rounds(cell: Cell) -> str:
    return f"> {cell.rounds}" if cell.reached is None else str(cell.reached)


def _mean(cells: Sequence[Cell]) -> str:
    reached = [cell.reached for cell in cells if cell.reached is not None]
    if len(reached) < len(cells):
        return f"{len(reached)} of {len(cells)} reached it"
    spread = f" ± {statistics.stdev(reached):.1f}" if len(reached) > 1 else ""
    return f"{statistics.mean(reached):.1f}{spread}"


def _all(found: Iterable[str]) -> str:
    return " and ".join(sorted(set(found)))


def write(page: Path, text: str) -> None:
    """Replace what is between the page's markers."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} lacks the markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity.mnist_2nn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--partitions", nargs="+", choices=PARTITIONS, default=PARTITIONS)
    add("--rates", nargs="+", type=float, default=[0.05, 0.1, 0.2], help="clients' learning rates")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--target", type=float, default=0.97, help="test accuracy to reach")
    add("--cap", type=int, default=1000, help="rounds after which a run gives up")
    add("--results", type=Path, default=RESULTS, help="JSON lines, one for each finished cell")
    add("--write", type=Path, metavar="PAGE", help="put the table between this page's markers")
    add("--table-only", action="store_true", help="run nothing: the table of what is finished")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    if not options.table_only:
        run_missing(
            options.results,
            options.partitions,
            options.rates,
            options.seeds,
            options.target,
            options.cap,
        )
    cells = [
        cell
        for cell in read(options.results)
        if cell.partition in options.partitions
        and cell.rate in options.rates
        and cell.seed in options.seeds
        and cell.target == options.target
    ]
    if not cells:
        raise SystemExit(f"{options.results} has none of these cells")
    command = "$ hanse data fetch mnist\n$ python -m benchmarks.fidelity.mnist_2nn"
    text = section(cells, f"{command} --write docs/fidelity.md")
    print(text)
    if options.write is not None:
        write(options.write, text)


if __name__ == "__main__":
    main()
