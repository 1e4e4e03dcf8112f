"""Hanse alone: large cohorts, large populations, its start, and two worker processes.

    python -m benchmarks.simulation.scaling --write docs/performance.md

Parts: `cohort`, a round's seconds against the number of clients in it; `population`, a million
clients loaded when they are chosen; `start`, the first round of a fresh process; `help`, the
command line's; `workers`, one against two. A finished part is kept in the results at once, and
replaces what was there of it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.simulation.driver import Engine, Launch, chosen_cores
from benchmarks.simulation.environments import ROOT
from benchmarks.simulation.measure import machine, versions
from benchmarks.simulation.models import write_initial
from benchmarks.simulation.scaling_child import A_ROUND, CLIENTS, POPULATION, ROUNDS
from benchmarks.simulation.tables import all_of, table, write
from benchmarks.simulation.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PART = "scaling"
COHORTS = (100, 300, 1000, 3000, 10_000)
REFERENCE = 1000
SMALL = ("logistic-regression", "mlp")
TARGET_WORKERS = {"logistic-regression": 1.8, "cifar-cnn": 1.8, "mcmahan-cnn": 1.8}
_CHILD = [sys.executable, "-m", "benchmarks.simulation.scaling_child"]


@dataclass(frozen=True)
class Part:
    """A table and a sentence below it."""

    title: str
    titles: list[str]
    rows: list[list[str]]
    note: str
    date: str
    machine: str
    versions: str


@dataclass(frozen=True)
class Amount:
    """How often each engine is asked in turn, for how many rounds; how often processes start."""

    interleavings: int
    rounds: int
    starts: int


def cohort(amount: Amount) -> Part:
    """A round's time against its clients."""
    seconds: dict[int, list[list[float]]] = {count: [] for count in COHORTS}
    memory = {}
    with ExitStack() as stack:
        running = {}
        for count in COHORTS:
            print(f"  cohort of {count}", flush=True)
            command = [*_CHILD, "cohort", str(count)]
            running[count] = stack.enter_context(Engine(command, chosen_cores(1)))
            running[count].prepare()
        for _ in range(amount.interleavings):
            for count, engine in running.items():
                # About as long for each: a small cohort's rounds are many.
                wanted = max(amount.rounds, min(100, amount.rounds * REFERENCE // count))
                seconds[count].append(engine.rounds(wanted)[0])
                memory[count] = engine.memory
    a_client = {k: [statistics.median(turn) / k for turn in seconds[k]] for k in COHORTS}
    linear = a_client[REFERENCE]
    rows = []
    for count, turns in a_client.items():
        ratio = statistics.median(turn / one for turn, one in zip(turns, linear, strict=True))
        middle = statistics.median(turns)
        rows.append(
            [
                f"{count:,}",
                f"{count * middle:.4f}",
                f"{1e6 * middle:.1f}",
                f"{100 * (ratio - 1):+.1f} %",
                f"{memory[count]:.0f}",
                str(sum(map(len, seconds[count]))),
            ]
        )
    return part(
        "Cohorts",
        ["clients a round", "seconds a round", "µs a client", "from linear", "MB", "rounds"],
        rows,
        f"Logistic regression on one core; the same {CLIENTS:,} clients of 10 to 30 examples lie "
        "in memory every time, and so many of them are drawn in each round. Linear is the time of "
        f"{REFERENCE:,} clients, multiplied; the target is within 10 %. MB is the peak of "
        "the rounds in a process of its own, with the data of all clients.",
    )


def population(amount: Amount) -> Part:
    """A million clients that are loaded when they are chosen."""
    runs = [child("population") for _ in range(amount.starts)]
    lines = (
        ("`import torch`, seconds", "import", ".2f"),
        ("to the beginning of the first round, seconds", "ready", ".2f"),
        ("to the end of the first round, seconds", "first", ".2f"),
        ("a round, seconds", "round", ".3f"),
        ("memory before the first round, MB", "before", ".0f"),
        ("memory after the first round, MB", "after first", ".0f"),
        (f"memory after {ROUNDS} rounds, MB", "after", ".0f"),
        ("its peak, MB", "peak", ".0f"),
    )
    return part(
        "A population of a million",
        ["", "median", "least", "most"],
        [[title, *spread([run[key] for run in runs], form)] for title, key, form in lines],
        f"Logistic regression, {POPULATION:,} lazy clients, {A_ROUND:,} a round, one core; "
        f"{len(runs)} fresh processes. Seconds count from before `import torch`; the target for "
        "the beginning is 5.",
    )


def start(amount: Amount) -> Part:
    """The first round of a fresh process."""
    rows = []
    for name in SMALL:
        runs = [child("first", name) for _ in range(amount.starts)]
        imports = statistics.median(run["import"] for run in runs)
        firsts = spread([run["first"] for run in runs], ".2f")
        rows.append([WORKLOADS[name].title, *firsts, f"{imports:.2f}"])
    return part(
        "The first round",
        ["", "seconds", "least", "most", "`import torch`"],
        rows,
        f"From the end of `import torch` to the end of the first round, in {amount.starts} fresh "
        "processes on one core, each with an empty cache directory. The target is 1.",
    )


def command_line(amount: Amount) -> Part:
    """How fast the command line answers."""
    hanse = str(Path(sys.executable).with_name("hanse"))
    times = []
    for _ in range(4 * amount.starts):
        began = time.perf_counter()
        subprocess.run([hanse, "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    look = (
        "import sys; from hanse.cli.app import app; app(['--help'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", look], check=False, stdout=subprocess.DEVNULL)
    return part(
        "The command line",
        ["", "seconds", "least", "most"],
        [["`hanse --help`", *spread(times, ".3f")]],
        f"{len(times)} times. The target is 0.3. It imports "
        f"{'PyTorch, and should not' if loaded.returncode else 'no PyTorch'}.",
    )


def spread(values: Sequence[float], form: str) -> list[str]:
    """The median, the least and the most of some numbers."""
    return [f"{value:{form}}" for value in (statistics.median(values), min(values), max(values))]


def workers(amount: Amount) -> Part:
    """One worker process against two, on every workload."""
    rows = []
    cores = chosen_cores(2)
    for workload in WORKLOADS.values():
        print(f"  {workload.title}", flush=True)
        seconds: dict[int, list[list[float]]] = {1: [], 2: []}
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            initial = Path(folder) / "initial.npz"
            write_initial(workload, initial, torch.float32)
            running = {}
            for count in (1, 2):
                launch = Launch("hanse", cores, workers=count)
                running[count] = stack.enter_context(launch.start(workload, initial))
                running[count].prepare()
            for _ in range(amount.interleavings):
                for count, engine in running.items():
                    seconds[count].append(engine.rounds(amount.rounds)[0])
            memory = [running[count].memory for count in (1, 2)]
        medians = {k: [statistics.median(run) for run in seconds[k]] for k in seconds}
        gain = statistics.median(a / b for a, b in zip(medians[1], medians[2], strict=True))
        goal = TARGET_WORKERS.get(workload.name, 1.4)
        rows.append(
            [
                workload.title,
                *(f"{statistics.median(medians[count]):.4f}" for count in (1, 2)),
                f"{gain:.2f} of {goal:g}: {'met' if gain >= goal else '**missed**'}",
                *(f"{value:.0f}" for value in memory),
            ]
        )
    return part(
        "Worker processes",
        ["", "one, seconds", "two, seconds", "times as fast", "one, MB", "two, MB"],
        rows,
        f"Both on two cores; {amount.interleavings} times {amount.rounds} rounds of each in turn. "
        "MB is the peak resident memory of one process, and the proportional set of a tree.",
    )


def child(*arguments: str) -> dict[str, Any]:
    """What a fresh process with an empty cache directory prints."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            ["taskset", "-c", str(chosen_cores(1)[0]), *_CHILD, *arguments],
            cwd=ROOT,
            env=os.environ | {"XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def part(title: str, titles: list[str], rows: list[list[str]], note: str) -> Part:
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    return Part(title, titles, rows, note, today, machine(), versions())


PARTS: Mapping[str, Callable[[Amount], Part]] = {
    "cohort": cohort,
    "population": population,
    "start": start,
    "help": command_line,
    "workers": workers,
}


def section(parts: Sequence[Part], command: str) -> str:
    """The tables in Markdown."""
    lines = []
    for one in parts:
        lines += [f"### {one.title}", "", *table(one.titles, one.rows), "", one.note, ""]
    about = (
        f"Measured with {all_of(one.versions for one in parts)} on "
        f"{all_of(one.machine for one in parts)}; {all_of(one.date for one in parts)}."
    )
    return "\n".join([*lines, about, "", f"```console\n{command}\n```"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=f"of {', '.join(PARTS)}; all",
    )
    add("--rounds", type=int, default=5, help="in each interleaving (5)")
    add("--interleavings", type=int, default=5, help="how often all are asked in turn (5)")
    add("--starts", type=int, default=5, help="fresh processes of each kind (5)")
    add("--json", type=Path, metavar="FILE", default=Path("runs/scaling.json"))
    add("--write", type=Path, metavar="PAGE", help="put the tables between this page's markers")
    add("--table-only", action="store_true", help="run nothing: the tables of what is finished")
    options = parser.parse_args(arguments)

    options.json.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(options.json.read_text("utf-8")) if options.json.exists() else {}
    amount = Amount(options.interleavings, options.rounds, options.starts)
    for name in [] if options.table_only else options.parts:
        print(name, flush=True)
        kept[name] = asdict(PARTS[name](amount))
        options.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    parts = [Part(**kept[name]) for name in PARTS if name in kept and name in options.parts]
    if not parts:
        raise SystemExit(f"{options.json} has none of these parts")
    text = section(parts, "$ make bench")
    print(text)
    if options.write is not None:
        write(options.write, PART, text)


if __name__ == "__main__":
    main()
