"""Run the cells of a sweep that are not done yet, one after another, and keep their table."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.comparison.measures import Goal, split_and_metric
from hanse.config import read_experiment
from hanse.core.errors import ConfigError, DivergenceError, RunError, did_you_mean
from hanse.experiment import prepare
from hanse.runs import as_begun, carry_on, finish, start
from hanse.storage import (
    RunDirectory,
    half_written,
    read_json,
    take_lock,
    to_json,
    write_atomically,
    writing,
)
from hanse.sweeps.cells import Cell, Grid, cells_of_file, cells_of_function
from hanse.sweeps.table import Row, SweepTable, read_row, tabulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hanse.experiment import Experiment, Prepared
    from hanse.report.records import Split

FORMAT = 1
_ABOUT = "sweep.json"


@dataclass(frozen=True, eq=False)
class Task:
    """A run of the sweep.

    Attributes:
        number: of the run, from 1.
        total: how many there are.
        cell: what it is a run of.
        seed: its seed.
        path: its directory.
        status: of `run.json`; None where it was not begun.
    """

    number: int
    total: int
    cell: Cell
    seed: int
    path: Path
    status: str | None


@dataclass(frozen=True, eq=False)
class Sweep:
    """A grid in a directory.

    Attributes:
        path: the directory; each cell has a folder in it, with a run in each of `seed-0`, ….
        grid: the cells.
        seeds: of every cell: the same, so that cells are compared seed by seed.
        by: the split and the metric that say which cell is best.
        goal: a value to be reached, if one was given.
    """

    path: Path
    grid: Grid
    seeds: tuple[int, ...]
    by: tuple[Split, str]
    goal: Goal | None

    @classmethod
    def of(
        cls,
        path: Path,
        grid: Grid,
        seeds: int = 1,
        *,
        by: str | None = None,
        target: str | None = None,
    ) -> Sweep:
        """A sweep whose every part has been looked at; nothing is written.

        Args:
            path: its directory, a new one or that of the same sweep.
            grid: the cells.
            seeds: how many seeds each cell is run with.
            by: `metric` or `split.metric`; without it test clients' primary metric.
            target: `metric=value` or `split.metric=value`.

        Raises:
            HanseError: a cell, the target or the metric cannot be meant, or something else is in
                the directory.
        """
        if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
            raise ConfigError(
                f"seeds = {seeds!r}",
                why="it is how many times each cell is run",
                instead="a whole number of at least 1, such as seeds = 3",
            )
        each = grid.measured()
        split, metric = _checked(each, by, "the metric to rank by")
        goal = None if target is None else Goal.of(target)
        if goal is not None:
            wanted = goal.metric if goal.split is None else f"{goal.split}.{goal.metric}"
            goal = Goal(*_checked(each, wanted, "the target's metric"), goal.value)
        _check_directory(path, grid)
        every = tuple(range(grid.seed, grid.seed + seeds))
        return cls(path, grid, every, (split, metric), goal)

    def run(
        self,
        train: Callable[[Prepared, RunDirectory], None],
        begin: Callable[[Task], None] | None = None,
    ) -> SweepTable:
        """Run what is not done yet, and write the table after each run.

        A run that is finished or has diverged is kept; one that was stopped or killed goes on.

        Args:
            train: carries a run on and finishes it.
            begin: told of every run, before it is trained or kept.

        Raises:
            RunError: another process runs this sweep, or it cannot be written.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        handle = take_lock(self.path, "wait for it to end (or stop it), then the same command")
        try:
            for left in half_written(self.path):
                left.unlink()
            if not (self.path / _ABOUT).exists():
                about = {"format": FORMAT, "base": self.grid.base}
                write_atomically(self.path / _ABOUT, to_json(about) + "\n")
            return self._run(train, begin)
        finally:
            os.close(handle)

    def _run(
        self,
        train: Callable[[Prepared, RunDirectory], None],
        begin: Callable[[Task], None] | None,
    ) -> SweepTable:
        rows = {cell.name: self._row(cell) for cell in self.grid.cells}
        for task in self._tasks():
            if begin is not None:
                begin(task)
            if task.status in ("finished", "diverged"):
                _check_same(task)
                continue
            with contextlib.suppress(DivergenceError):  # its row says so
                train(*_prepared(task))
            rows[task.cell.name] = self._row(task.cell)
            self._write(rows)
        return self._write(rows)

    def _tasks(self) -> Iterator[Task]:
        total = len(self.grid.cells) * len(self.seeds)
        pairs = [(cell, seed) for cell in self.grid.cells for seed in self.seeds]
        for number, (cell, seed) in enumerate(pairs, start=1):
            path = self.path / cell.name / f"seed-{seed}"
            known = (path / "run.json").is_file()
            status = str(RunDirectory(path).about()["status"]) if known else None
            yield Task(number, total, cell, seed, path, status)

    def _row(self, cell: Cell) -> Row:
        return read_row(self.path, cell.name, cell.settings, list(self.seeds), self.goal)

    def _write(self, rows: Mapping[str, Row]) -> SweepTable:
        table = tabulate(
            self.path, self.grid.axes, tuple(rows.values()), list(self.seeds), self.by, self.goal
        )
        write_atomically(self.path / "table.md", table.markdown())
        write_atomically(self.path / "table.csv", table.csv())
        write_atomically(self.path / "table.json", table.json())
        return table


def sweep(
    experiment: str | Path | Callable[..., Experiment],
    over: Mapping[str, Sequence[Any]],
    directory: str | Path,
    *,
    seeds: int = 1,
    by: str | None = None,
    target: str | None = None,
) -> SweepTable:
    """Run every combination of some values, each with the same seeds.

    What is done is kept: after an interruption the same call goes on, and a call with more seeds
    or more values runs those that are new. A cell that diverges is a row that says so.

    Args:
        experiment: the path of an experiment file, or a function that makes an `Experiment` of the
            values, given by keyword.
        over: the values by name: `{"strategy.lr": [0.1, 0.3]}` for a file, `{"lr": [0.1, 0.3]}`
            for a function with a parameter `lr`.
        directory: where; a new directory, or that of the same sweep.
        seeds: how many seeds each cell is run with, from the experiment's own on.
        by: `"metric"` or `"split.metric"`, what decides which cell is best; without it the
            accuracy of test clients, or what else there is.
        target: `"metric=value"`: also say after how many rounds it was reached.

    Raises:
        HanseError: something cannot be meant; no run was begun.
    """
    grid = (
        cells_of_function(experiment, over)
        if callable(experiment)
        else cells_of_file(read_experiment(Path(experiment)), over)
    )
    return Sweep.of(Path(directory), grid, seeds, by=by, target=target).run(_train)


def _train(prepared: Prepared, run: RunDirectory) -> None:
    for _ in carry_on(prepared, run):
        pass
    finish(prepared, run)


def _prepared(task: Task) -> tuple[Prepared, RunDirectory]:
    """The run of a task, begun if it was not."""
    experiment = task.cell.experiment(task.seed)
    if task.status is not None:
        run = RunDirectory.open(task.path)
        return prepare(as_begun(run, experiment)), run
    prepared = prepare(experiment)
    if task.path.is_dir():  # a process was killed before it was a run
        with writing(task.path):
            for left in half_written(task.path):
                left.unlink()
            for name in ("config.toml", ".lock"):
                (task.path / name).unlink(missing_ok=True)
    config = task.cell.config
    text = None if config is None else config(task.seed, prepared.data)
    return prepared, start(prepared, task.path, config=text)


def _checked(
    each: Sequence[tuple[list[Split], list[str]]], name: str | None, what: str
) -> tuple[Split, str]:
    """A split and a metric that every cell will be evaluated by."""
    splits = [s for s in each[0][0] if all(s in others for others, _ in each)]
    metrics = [m for m in each[0][1] if all(m in others for _, others in each)]
    if not splits:
        raise ConfigError(
            "the cells have no test clients in common",
            why="cells are compared by how they serve the same clients",
            instead="data with test examples or unseen clients",
        )
    split, metric = (None, None) if name is None else split_and_metric(name)
    if metric is None:  # as in a report: accuracy, else the user's first, else the loss
        metric = "accuracy" if "accuracy" in metrics else metrics[0]
    if metric not in metrics or (split or splits[0]) not in splits:
        raise ConfigError(
            f"{what} is {name}",
            why=f"the cells are evaluated on {' and '.join(splits)} clients, by "
            f"{' and '.join(metrics)}",
            instead=did_you_mean(metric, metrics)
            if metric not in metrics
            else f"{splits[0]}.{metric}",
        )
    return split or splits[0], metric


def _check_directory(path: Path, grid: Grid) -> None:
    """Refuse a directory with something else in it.

    Raises:
        RunError: it holds other files, or a sweep of another experiment.
    """
    if not path.exists():
        return
    if not (path / _ABOUT).is_file():
        here = set(path.iterdir()) if path.is_dir() else {path}
        if here <= {path / ".lock", *half_written(path)}:
            return  # empty, or a process was killed before it had written the first file
        raise RunError(
            f"{path} exists already, and is no sweep",
            why="a sweep never overwrites anything",
            instead="another directory (--out)",
        )
    found = read_json(path / _ABOUT).get("base")
    base: Any = grid.base
    if found != base:
        raise RunError(
            f"{path} holds a sweep of another experiment: {_different(found, base)}",
            why="its cells would not be comparable with the new ones",
            instead="another directory (--out), or the experiment as it was",
        )


def _different(found: Any, base: Any, name: str = "") -> str:  # noqa: ANN401 - what JSON can hold
    """The first place in which two bases differ."""
    if isinstance(found, dict) and isinstance(base, dict):
        for key in {**found, **base}:
            if found.get(key) != base.get(key):
                return _different(found.get(key), base.get(key), f"{name}.{key}".lstrip("."))
    there, here = ("nothing" if value is None else repr(value) for value in (found, base))
    return f"{name or 'the file'} was {there:.60} and is {here:.60}"


def _check_same(task: Task) -> None:
    """Refuse a run that is done but of another experiment: it would pass for this cell's.

    Raises:
        RunError: what differs.
    """
    experiment, about = task.cell.experiment(task.seed), RunDirectory.open(task.path).about()
    ours = (repr(experiment.strategy), experiment.seed, experiment.rounds)
    theirs = (about.get("strategy_repr"), about.get("seed"), about["rounds"])
    for name, one, two in zip(("strategy", "seed", "rounds"), ours, theirs, strict=True):
        if one != two:
            raise RunError(
                f"{task.path} has {name} = {two!s:.200}, and its cell {one!s:.200}",
                why="it is a run of another experiment",
                instead="another directory for the sweep, or the experiment as it was",
            )
