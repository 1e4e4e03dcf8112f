"""FedAvg on MNIST where clients have one class or two, with and without public examples.

Zhao et al., "Federated learning with non-IID data", arXiv:1806.00582, 2018: 10 clients, all of them
in every round, one local epoch in batches of 100. "1-class" deals the images sorted by label to the
clients in tenths, "2-class" in two twentieths each. With sharing, 5 % of the training images, as
many of each class, belong to nobody and are mixed into every client's own.

MNIST is fetched once with `hanse data fetch mnist`. A finished cell (partition, sharing, seed) is
appended to the results at once and skipped when the command is run again.

    python -m benchmarks.fidelity.data_sharing --write docs/fidelity.md
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import statistics
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from benchmarks.fidelity.mnist_2nn import machine

import hanse
from hanse.data import idx_federation

if TYPE_CHECKING:
    from collections.abc import Sequence

Partition = Literal["iid", "shards"]

CELLS: tuple[tuple[str, Partition, int, float], ...] = (
    ("IID", "iid", 1, 0.0),
    ("2-class", "shards", 2, 0.0),
    ("2-class", "shards", 2, 0.05),
    ("1-class", "shards", 1, 0.0),
    ("1-class", "shards", 1, 0.05),
)
CLIENTS = 10
BEGIN, END = "<!-- data_sharing: begin -->", "<!-- data_sharing: end -->"
RESULTS = Path(__file__).with_suffix(".jsonl")


@dataclass(frozen=True)
class Cell:
    """One run: test accuracy after every round (round 0 is the untrained model)."""

    kind: str
    public: float
    seed: int
    rate: float
    rounds: int
    minutes: float
    date: str
    machine: str
    versions: str
    accuracies: list[float]


def run(cell: tuple[str, Partition, int, float], seed: int, rate: float, rounds: int) -> Cell:
    """Train for some rounds, whatever comes of it."""
    kind, partition, shards, public = cell
    began = time.perf_counter()
    experiment = hanse.Experiment(
        strategy=hanse.fedavg(lr=rate, local_epochs=1, batch_size=100),
        data=idx_federation(
            "mnist", CLIENTS, partition, seed=seed, shards_per_client=shards, public=public
        ),
        model=lambda: hanse.models.mlp(784, 10, hidden=(200, 200)),
        rounds=rounds,
        seed=seed,
        execution=hanse.Execution("module", 1),
    )
    accuracies = [
        round(done.evaluations["unseen"].overall["accuracy"], 4)
        for done in hanse.rounds(experiment)
    ]
    return Cell(
        kind=kind,
        public=public,
        seed=seed,
        rate=rate,
        rounds=rounds,
        minutes=round((time.perf_counter() - began) / 60, 2),
        date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        machine=machine(),
        versions=f"Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"Hanse {version('hanse')}",
        accuracies=accuracies,
    )


def read(path: Path) -> list[Cell]:
    """The cells that are done."""
    if not path.exists():
        return []
    return [Cell(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def section(cells: Sequence[Cell], command: str) -> str:
    """What the page says of these cells, in Markdown."""
    seeds = sorted({cell.seed for cell in cells})
    groups: dict[tuple[str, float], dict[int, Cell]] = defaultdict(dict)
    for cell in cells:
        groups[cell.kind, cell.public][cell.seed] = cell
    titles = ["clients have", "public", *(f"seed {s}" for s in seeds), "mean ± s.d.", "at half"]
    table = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for kind, _, _, public in CELLS:
        found = groups.get((kind, public), {})
        if not found:
            continue
        last = {seed: 100 * cell.accuracies[-1] for seed, cell in found.items()}
        half = [100 * cell.accuracies[cell.rounds // 2] for cell in found.values()]
        spread = f" ± {statistics.stdev(last.values()):.2f}" if len(last) > 1 else ""
        table.append(
            [
                kind,
                f"{public:.0%}" if public else "none",
                *(f"{last[seed]:.2f}" if seed in last else "" for seed in seeds),
                f"{statistics.mean(last.values()):.2f}{spread}",
                f"{statistics.mean(half):.2f}",
            ]
        )
    lines = ["| " + " | ".join(row) + " |" for row in table]
    rounds = sorted({cell.rounds for cell in cells})
    about = (
        f"Test accuracy in per cent after {' and '.join(map(str, rounds))} rounds, and after half "
        f"of them; rate {' and '.join(f'{r:g}' for r in sorted({c.rate for c in cells}))}. "
        f"Measured with {' and '.join(sorted({c.versions for c in cells}))} on "
        f"{' and '.join(sorted({c.machine for c in cells}))}; "
        f"{' and '.join(sorted({c.date for c in cells}))}; "
        f"{sum(cell.minutes for cell in cells):.0f} minutes in all."
    )
    return "\n".join([*lines, "", about, "", f"```console\n{command}\n```"])


def write(page: Path, text: str) -> None:
    """Replace what is between the page's markers."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} lacks the markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity.data_sharing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seeds", nargs="+", type=int, default=[0, 1])
    add("--rounds", type=int, default=30)
    add("--rate", type=float, default=0.05, help="clients' learning rate")
    add("--results", type=Path, default=RESULTS, help="JSON lines, one for each finished cell")
    add("--write", type=Path, metavar="PAGE", help="put the table between this page's markers")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    wanted = [(cell, seed) for seed in options.seeds for cell in CELLS]
    key = {(c.kind, c.public, c.seed, c.rate, c.rounds) for c in read(options.results)}
    for cell, seed in wanted:
        if (cell[0], cell[3], seed, options.rate, options.rounds) in key:
            continue
        done = run(cell, seed, options.rate, options.rounds)
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(done)) + "\n")
        print(
            f"{done.kind}, public {done.public:g}, seed {seed}: {done.accuracies[-1]}", flush=True
        )
    cells = [
        cell
        for cell in read(options.results)
        if cell.seed in options.seeds and (cell.rate, cell.rounds) == (options.rate, options.rounds)
    ]
    command = "$ hanse data fetch mnist\n$ python -m benchmarks.fidelity.data_sharing"
    text = section(cells, f"{command} --write docs/fidelity.md")
    print(text)
    if options.write is not None:
        write(options.write, text)


if __name__ == "__main__":
    main()
