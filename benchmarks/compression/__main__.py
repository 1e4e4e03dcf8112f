"""Train with several compressors, and show accuracy against the bytes that clients sent.

A finished run is appended to the results at once, and skipped when the command is run again. All
settings of a seed are run before the next seed, so that an unfinished table compares like with
like. The data sets are fetched once with `hanse data fetch mnist` (`fashion-mnist`).

    python -m benchmarks.compression --write docs/compression.md
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.compression.pictures import draw
from benchmarks.compression.settings import Record, plan, run
from benchmarks.compression.tables import section
from benchmarks.simulation.tables import write

if TYPE_CHECKING:
    from collections.abc import Sequence


def read(path: Path) -> list[Record]:
    if not path.exists():
        return []
    return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def run_missing(path: Path) -> None:
    known = {record.cell for record in read(path)}
    for cell in plan():
        if cell in known:
            continue
        print(f"{cell.data}, {cell.setting}, seed {cell.seed}", flush=True)
        record = run(cell)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        print(f"  {record.accuracies[-1:]}, {record.minutes:.1f} minutes", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compression",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    folder = Path(__file__).parent
    add("--results", type=Path, default=folder / "results.jsonl", help="the finished runs")
    add("--write", type=Path, metavar="PAGE", help="put the table and pictures into this page")
    add("--table-only", action="store_true", help="run nothing: the table of what is finished")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    if not options.table_only:
        run_missing(options.results)
    records = read(options.results)
    if not records:
        raise SystemExit(f"{options.results} has no results yet")
    text = section(records)
    if options.write is not None:
        write(options.write, "bytes", text)
        for name, picture in draw(records).items():
            (options.write.parent / "images" / name).write_text(picture, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
