"""Runs cells one after another; each finished one is a line of JSON at once."""

from __future__ import annotations

import datetime as dt
import json
import time
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

import hanse
from benchmarks.fidelity.grid import Cell, Grid, Record
from benchmarks.simulation.measure import machine, versions

if TYPE_CHECKING:
    from pathlib import Path

_SAID = 50  # rounds between two lines on the terminal


def read(path: Path) -> list[Record]:
    if not path.exists():
        return []
    return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def append(path: Path, record: Record) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def run_missing(grid: Grid, path: Path) -> None:
    """Run what the results lack; which cells those are may depend on the ones before."""
    while True:
        records = read(path)
        for cell in islice(grid.missing(records), 1):
            print(f"{grid.name}: {_words(cell)}", flush=True)
            record = run(grid, cell)
            append(path, record)
            print(f"  {_outcome(record, grid.target)}, {record.minutes:.1f} minutes", flush=True)
            break
        else:
            return


def run(grid: Grid, cell: Cell) -> Record:
    """Train until the target is reached, or to the cap."""
    began = time.process_time()
    accuracies: list[float] = []
    diverged, execution = False, ""
    try:
        for done in hanse.rounds(grid.experiment(cell)):
            chosen = done.prepared.engine.execution
            execution = f"{chosen.path}, block {chosen.block}"
            (evaluation,) = done.evaluations.values()
            accuracies.append(round(evaluation.overall["accuracy"], 4))
            if grid.target is not None and accuracies[-1] >= grid.target:
                break
            if done.number and done.number % _SAID == 0:
                print(f"  round {done.number}: best {max(accuracies):.4f}", flush=True)
    except hanse.DivergenceError as error:
        print(f"  {error}", flush=True)
        diverged = True
    return Record(
        settings=cell.settings,
        rate=cell.rate,
        seed=cell.seed,
        accuracies=accuracies,
        diverged=diverged,
        minutes=round((time.process_time() - began) / 60, 3),
        date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        machine=machine(),
        versions=versions(),
        execution=execution,
    )


def _words(cell: Cell) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in cell.settings.items())
    return f"{settings}, rate {cell.rate:g}, seed {cell.seed}, {cell.cap} rounds at most"


def _outcome(record: Record, target: float | None) -> str:
    if record.diverged:
        return f"diverged after {record.rounds} rounds"
    needed = record.rounds_to(target)
    if needed is not None:
        return f"{needed} rounds"
    return f"{record.rounds} rounds, best {record.best:.4f}"
