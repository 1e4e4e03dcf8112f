"""Time a round of Hanse beside other simulators and a plain PyTorch loop.

Every engine is a process in an environment of its own. All of a workload's engines start from the
same weights, train the same clients with the same batch sizes, and are asked for rounds in turn:
what slows the machine for a while slows all. Weights are compared with the plain loop's on the
same batches. A finished workload is appended to the results at once.

The peers' environments are made by

    python -m benchmarks.simulation.environments

and everything that docs/performance.md shows by

    python -m benchmarks.simulation --json results.jsonl --write docs/performance.md

For a quick look: --workloads mlp --engines hanse floor --cores 1 --rounds 2 --interleavings 2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.simulation.measure import Amount, append, measure, read
from benchmarks.simulation.tables import section, write
from benchmarks.simulation.workloads import ENGINES, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

PART = "simulation"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--workloads",
        nargs="+",
        choices=WORKLOADS,
        default=list(WORKLOADS),
        metavar="NAME",
        help=f"of {', '.join(WORKLOADS)}; all",
    )
    add(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=list(ENGINES),
        metavar="NAME",
        help=f"of {', '.join(ENGINES)}; all",
    )
    add(
        "--cores",
        nargs="+",
        type=int,
        choices=[1, 2],
        default=[1, 2],
        help="for each engine; both: one after the other",
    )
    add("--rounds", type=int, default=5, help="in each interleaving (5)")
    add("--interleavings", type=int, default=5, help="how often all are asked in turn (5)")
    add("--flower-rounds", type=int, help="Flower's rounds in each interleaving, if others")
    add("--hanse-workers", type=int, help="Hanse's worker processes, if not one for each core")
    add("--skip-float64", action="store_true", help="do not compare the weights in float64 too")
    add(
        "--json",
        type=Path,
        metavar="FILE",
        default=Path("runs/simulation.jsonl"),
        help="JSON lines, one for each finished workload and number of cores",
    )
    add("--write", type=Path, metavar="PAGE", help="put the tables between this page's markers")
    add("--table-only", action="store_true", help="run nothing: the tables of what is finished")
    options = parser.parse_args(arguments)

    options.json.parent.mkdir(parents=True, exist_ok=True)
    if not options.table_only:
        flower = options.flower_rounds or options.rounds
        exact = not options.skip_float64
        amount = Amount(options.interleavings, options.rounds, flower, exact)
        for cores in options.cores:
            for name in options.workloads:
                workload = WORKLOADS[name]
                print(f"{workload.title}, {cores} of the cores each", flush=True)
                engines = [engine for engine in ENGINES if engine in options.engines]
                record = measure(workload, engines, cores, options.hanse_workers, amount)
                append(options.json, record)
    records = [
        record
        for record in read(options.json)
        if record.workload in options.workloads and record.cores in options.cores
    ]
    if not records:
        raise SystemExit(f"{options.json} has none of these workloads")
    text = section(records, "$ make bench")
    print(text)
    if options.write is not None:
        write(options.write, PART, text)


if __name__ == "__main__":
    main()
