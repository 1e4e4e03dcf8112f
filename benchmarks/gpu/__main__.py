"""Time a round on a graphics card: Hanse, Hanse without graphs, a plain PyTorch loop, and pfl.

    python -m benchmarks.gpu

prints a table for each workload of the simulation's benchmark, and how far Hanse is from what the
card can do at most. Every engine is a process of its own; they are asked for rounds in turn. pfl
takes part where its environment has been made with a PyTorch for this card:

    python -m benchmarks.simulation.environments pfl

    python -m benchmarks.gpu --device cpu --quick

runs the same code on the processor, with few clients, to see that it works.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.gpu import ceilings
from benchmarks.gpu.amounts import amount
from benchmarks.gpu.child import ENGINES, PEAK, difference, smaller
from benchmarks.gpu.tables import Result, ceiling_table, workload_table
from benchmarks.simulation.driver import Engine, EngineError, Launch, chosen_cores
from benchmarks.simulation.environments import is_ready
from benchmarks.simulation.models import write_initial
from benchmarks.simulation.workloads import WORKLOADS, make_data
from hanse.core.device import described, device_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.simulation.workloads import Workload


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", default="cuda", help="cuda, cuda:1, or cpu to try the code (cuda)")
    add("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    add("--engines", nargs="+", choices=[*ENGINES, "pfl"], default=[*ENGINES, "pfl"])
    add("--rounds", type=int, default=5, help="in each interleaving (5)")
    add("--interleavings", type=int, default=5, help="how often all are asked in turn (5)")
    add("--quick", action="store_true", help="few clients, one round, small products")
    add("--json", type=Path, metavar="FILE", help="append a line for each workload")
    options = parser.parse_args(arguments)
    device = device_named(options.device)
    if options.quick:
        options.rounds = options.interleavings = 1

    print(f"{described(device)}; PyTorch {torch.__version__}\n")
    most = ceilings.measure(device, quick=options.quick)
    print("\n".join(ceiling_table(most)), "\n", flush=True)
    for name in options.workloads:
        workload = smaller(WORKLOADS[name], 3 if options.quick else None)
        results, missing = measure(workload, options)
        needed = amount(workload, make_data(workload, np.dtype(np.float32)))
        print("\n".join(workload_table(workload, results, missing, needed, most)), "\n", flush=True)
        if options.json is not None:
            with options.json.open("a", encoding="utf-8") as file:
                entries = {key: dataclasses.asdict(value) for key, value in results.items()}
                line = {"device": described(device), "workload": name, "engines": entries}
                file.write(json.dumps({**line, "ceilings": dataclasses.asdict(most)}) + "\n")


def measure(
    workload: Workload, options: argparse.Namespace
) -> tuple[dict[str, Result], dict[str, str]]:
    """Keep all engines running, and ask them for rounds in turn."""
    results: dict[str, Result] = {}
    missing: dict[str, str] = {}
    running: dict[str, Engine] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        initial = Path(folder) / "initial.npz"
        write_initial(workload, initial, torch.float32)
        weights: dict[str, dict[str, Any]] = {}
        for name in options.engines:
            if name == "pfl" and (options.quick or not is_ready("pfl")):
                missing[name] = "was left out" if options.quick else "has no environment"
                continue
            engine = stack.enter_context(_start(name, workload, initial, options))
            try:
                first = engine.prepare()
                path = Path(folder) / f"{name}.npz"
                engine.write_weights(path)
            except EngineError as error:
                missing[name] = f"failed: {str(error).splitlines()[-1]:.200}"
                print(error, file=sys.stderr)
                continue
            with np.load(path) as file:
                weights[name] = {key: file[key] for key in file.files}
            running[name] = engine
            results[name] = Result(first[0], float(weights[name].get(PEAK, np.nan)))
        for _ in range(options.interleavings):
            for name, engine in running.items():
                seconds, _ = engine.rounds(options.rounds)
                results[name].seconds.append(statistics.median(seconds))
    for name, result in results.items():
        if name.startswith("hanse") and "loop" in weights:
            result.apart = difference(weights[name], weights["loop"])
    return results, missing


def _start(name: str, workload: Workload, initial: Path, options: argparse.Namespace) -> Engine:
    if name == "pfl":  # takes a card by itself, if its PyTorch finds one
        return Launch("pfl", chosen_cores(1)).start(workload, initial)
    command = [
        *(sys.executable, "-m", "benchmarks.gpu.child", name, workload.name, str(initial)),
        *("--device", options.device),
        *(["--clients", str(workload.clients)] if options.quick else []),
    ]
    return Engine(command, chosen_cores(1))


if __name__ == "__main__":
    main()
