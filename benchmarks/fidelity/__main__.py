"""Train what papers trained, and show the results beside theirs.

A finished run is appended to the results at once and skipped when the command is run again; a
run that was interrupted is started anew. The data sets are fetched once with `hanse data fetch`.

    python -m benchmarks.fidelity similarity --write docs/fidelity.md
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.fidelity import data_sharing, mcmahan, silos, similarity, stragglers
from benchmarks.fidelity.driver import read, run_missing
from benchmarks.fidelity.tables import page_section
from benchmarks.simulation.tables import write

if TYPE_CHECKING:
    from collections.abc import Sequence

GRIDS = {
    grid.name: grid
    for grid in (
        mcmahan.MLP,
        mcmahan.CNN,
        similarity.GRID,
        stragglers.GRID,
        silos.GRID,
        data_sharing.GRID,
    )
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="+", choices=GRIDS, metavar="NAME", help=f"of {', '.join(GRIDS)}")
    add("--seeds", nargs="+", type=int, help="instead of the benchmark's own")
    folder = Path(__file__).parent
    add("--results", type=Path, default=folder, help="the folder with NAME.jsonl")
    add("--write", type=Path, metavar="PAGE", help="put the tables between this page's markers")
    add("--table-only", action="store_true", help="run nothing: the tables of what is finished")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    for name in options.names:
        grid = GRIDS[name]
        if options.seeds:
            grid = replace(grid, seeds=tuple(options.seeds))
        results = options.results / f"{name}.jsonl"
        if not options.table_only:
            run_missing(grid, results)
        records = read(results)
        if not records:
            raise SystemExit(f"{results} has no results yet")
        text = page_section(grid, records)
        if options.write is not None:
            write(options.write, name, text)
        print(text)


if __name__ == "__main__":
    main()
