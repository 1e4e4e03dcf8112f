"""Rounds of several engines in turn, and what they came to."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.simulation.agreement import Agreement
from benchmarks.simulation.driver import EngineError, launches
from benchmarks.simulation.environments import COMMAND, is_ready
from benchmarks.simulation.processes import memory_gib, processor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.simulation.driver import Engine, Launch
    from benchmarks.simulation.workloads import Workload


@dataclass(frozen=True)
class Measured:
    """What one engine did on a workload.

    Attributes:
        first: seconds from when it is imported to the end of its first round.
        difference: how far its weights were from the floor's, see `Agreement`.
        exact_difference: likewise in float64; `None` if that was not compared.
        threads: of PyTorch, with which a round was fastest; 0 where that is not ours to choose.
        memory: the peak in MB: resident memory, or the proportional set of a tree of processes.
        seconds: a list for each interleaving, with each round's seconds.
        cpu: likewise, CPU seconds of the engine and its descendants.
    """

    first: float
    difference: float
    exact_difference: float | None = None
    threads: int = 0
    memory: float = 0.0
    seconds: list[list[float]] = field(default_factory=list)
    cpu: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Record:
    """One workload on a number of cores."""

    workload: str
    cores: int
    workers: int
    engines: dict[str, Measured]
    missing: dict[str, str]
    date: str
    machine: str
    versions: str


@dataclass(frozen=True)
class Amount:
    """How much to measure.

    Attributes:
        interleavings: how often all engines are asked in turn.
        rounds: each time, of each engine.
        flower_rounds: each time, of Flower, whose rounds take many seconds.
        exact: whether the weights are compared in float64 too.
    """

    interleavings: int
    rounds: int
    flower_rounds: int
    exact: bool = True

    def of(self, engine: str) -> int:
        return self.flower_rounds if engine == "flower" else self.rounds


def measure(
    workload: Workload, engines: Sequence[str], cores: int, workers: int | None, amount: Amount
) -> Record:
    """Start the engines, compare their weights, and ask them for rounds in turn."""
    missing = {name: why for name, why in workload.cannot.items() if name in engines}
    for name in engines:
        if not is_ready(name):
            missing[name] = f"has no environment; make it with `{COMMAND} {name}`"
    wanted = launches([name for name in engines if name not in missing], cores, workers)
    with tempfile.TemporaryDirectory() as folder:
        in_float64 = Agreement(workload, Path(folder) / "float64", exact=True)
        exact = _exact_distances(workload, in_float64, wanted) if amount.exact else {}
        in_float32 = Agreement(workload, Path(folder) / "float32", exact=False)
        results = _in_turn(workload, in_float32, wanted, amount, missing)
    return Record(
        workload.name,
        cores,
        workers or cores,
        {name: replace(found, exact_difference=exact.get(name)) for name, found in results.items()},
        missing,
        dt.datetime.now(tz=dt.UTC).date().isoformat(),
        machine(),
        versions(),
    )


def _exact_distances(
    workload: Workload, agreement: Agreement, wanted: Sequence[Launch]
) -> dict[str, float]:
    """How far from the floor's the weights are in float64, one engine after another."""
    found = {}
    for launch in wanted:
        name = launch.engine
        with replace(launch, exact=True).start(workload, agreement.initial) as engine:
            try:
                engine.prepare()
                found[name] = agreement.distance(launch, engine)
            except EngineError as error:
                print(f"  {name} failed in float64:\n{error}", flush=True)
                continue
        print(f"  {name}: {found[name]:.1e} from the floor in float64", flush=True)
    return found


def _in_turn(
    workload: Workload,
    agreement: Agreement,
    wanted: Sequence[Launch],
    amount: Amount,
    missing: dict[str, str],
) -> dict[str, Measured]:
    """Keep all engines running, and ask them for rounds in turn."""
    found: dict[str, Measured] = {}
    running: dict[str, Engine] = {}
    with ExitStack() as stack:
        for launch in wanted:
            engine = stack.enter_context(launch.start(workload, agreement.initial))
            try:
                first = engine.prepare()
                distance = agreement.distance(launch, engine)
                most = len(launch.cores)
                threads = engine.choose_threads(most) if launch.is_threaded else 0
            except EngineError as error:
                missing[launch.engine] = _failed(launch.engine, error)
                continue
            running[launch.engine] = engine
            found[launch.engine] = Measured(first[0], distance, threads=threads)
            print(
                f"  {launch.engine}: first round after {first[0]:.2f} s, second {first[1]:.3f} s, "
                f"{distance:.1e} from the floor in float32",
                flush=True,
            )
        for turn in range(amount.interleavings):
            for name, engine in list(running.items()):
                try:
                    seconds, cpu = engine.rounds(amount.of(name))
                except EngineError as error:
                    missing[name] = _failed(name, error)
                    del running[name], found[name]
                    continue
                found[name].seconds.append(seconds)
                found[name].cpu.append(cpu)
            said = ", ".join(f"{name} {np.median(found[name].seconds[-1]):.3f}" for name in running)
            print(f"  interleaving {turn + 1} of {amount.interleavings}: {said}", flush=True)
        return {name: replace(found[name], memory=running[name].memory) for name in running}


def _failed(name: str, error: EngineError) -> str:
    print(f"  {name} failed:\n{error}", flush=True)
    return "failed: " + str(error).splitlines()[-1][:200]


def machine() -> str:
    """The processor, its cores and the memory."""
    return f"{processor()}, {os.cpu_count()} cores, {memory_gib()} GiB"


def versions() -> str:
    """What Hanse and the floor ran on."""
    return (
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, Hanse {version('hanse')}"
    )


def middle(runs: Sequence[Sequence[float]]) -> float:
    """The median of all rounds of all interleavings."""
    return statistics.median(value for run in runs for value in run)


def append(path: Path, record: Record) -> None:
    """Add a line to the results."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def read(path: Path) -> list[Record]:
    """The results; a later line replaces an earlier one of the same workload and cores."""
    found: dict[tuple[str, int], Record] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            engines = {name: Measured(**engine) for name, engine in values["engines"].items()}
            record = Record(**{**values, "engines": engines})
            found[record.workload, record.cores] = record
    return list(found.values())
