"""The commands about several runs: compare and sweep."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hanse.cli.running import train
from hanse.comparison import compare
from hanse.comparison.tables import overview, paired, sentences, turned
from hanse.config import read_experiment, with_overrides
from hanse.config.grid import axis
from hanse.core.errors import ConfigError
from hanse.storage import write_atomically, writing
from hanse.sweeps import Sweep, cells_of_file

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.experiment import Prepared
    from hanse.report.figure import Table as Cells
    from hanse.storage import RunDirectory
    from hanse.sweeps.running import Task


def compare_runs(
    paths: tuple[Path, ...], out: Path | None, markdown: Path | None, target: str | None
) -> None:
    """`hanse compare`."""
    found = compare(*paths, target=target)
    if markdown is not None and str(markdown) == "-":
        click.echo(found.markdown(), nl=False)
    elif markdown is not None:
        with writing(markdown):
            markdown.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(markdown, found.markdown())
    console = Console(highlight=False, stderr=str(markdown) == "-")
    if markdown is None:
        for text in sentences(found):
            console.print(text, markup=False)
        for warning in found.warnings:
            console.print(f"note: {warning}", style="yellow", markup=False)
        _print(console, overview(found))
        _print(console, turned(paired(found, only=found.primary)))
    elif str(markdown) != "-":
        console.print(f"markdown: {markdown}", markup=False, soft_wrap=True)
    if out is not None:
        console.print(f"comparison: {found.write(out)}", markup=False, soft_wrap=True)
    elif markdown is None:
        console.print("--out compare.html draws the curves and the clients", style="dim")


def sweep_file(
    path: Path,
    over: tuple[str, ...],
    overrides: list[str],
    out: Path | None,
    seeds: int,
    by: str | None,
    target: str | None,
) -> None:
    """`hanse sweep`."""
    console = Console(highlight=False)
    file = with_overrides(read_experiment(path), overrides)
    axes: dict[str, list[object]] = {}
    for text in over:
        name, values = axis(text)
        if name in axes or any(name == one.partition("=")[0].strip() for one in overrides):
            raise ConfigError(
                f"{name} is given twice",
                why="one would silently take the place of the other",
                instead=f"one --over {name}=… with all its values, and no --set {name}",
            )
        axes[name] = values
    grid = cells_of_file(file, axes)
    name = str(file.content.get("name", "experiment"))
    directory = out or path.cwd() / "runs" / f"{name}-sweep"
    sweep = Sweep.of(directory, grid, seeds, by=by, target=target)
    console.print(
        f"{len(grid.cells)} cells, {seeds} seed{'s' * (seeds > 1)} each: {directory}",
        markup=False,
        soft_wrap=True,
    )
    table = sweep.run(functools.partial(_train, console), functools.partial(_begin, console))
    _print(console, table.table())
    for sentence in table.sentences():
        console.print(sentence, markup=False)
    console.print(f"table: {directory / 'table.md'} (.csv, .json)", markup=False, soft_wrap=True)


def _begin(console: Console, task: Task) -> None:
    word = {None: "", "finished": ": done", "diverged": ": diverged"}.get(task.status, ": goes on")
    text = f"{task.number} of {task.total}: {task.cell.name} · seed {task.seed}{word}"
    console.print(text, markup=False, soft_wrap=True, style="dim" if word else "bold")


def _train(console: Console, prepared: Prepared, run: RunDirectory) -> None:
    train(console, prepared, run, again="the same command goes on")


def _print(console: Console, cells: Cells) -> None:
    table = Table()
    for place, heading in enumerate(cells.head):
        table.add_column(Text(heading), justify="right" if place else "left")
    for row in cells.rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    if cells.note:
        console.print(cells.note, style="dim", markup=False)
