"""The table of a sweep: a row for each cell, and which cell is best."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanse.comparison.markdown import escaped
from hanse.comparison.markdown import table as markdown_table
from hanse.comparison.measures import outcome, reached
from hanse.comparison.pairs import contrast
from hanse.comparison.tables import KIND, between, number_of_rounds
from hanse.evaluation.spread import lower_is_better
from hanse.report.figure import Table
from hanse.report.quantities import over_seeds
from hanse.report.reading import read
from hanse.report.records import Experiment
from hanse.report.words import NOTHING, difference, metric_name, quantity, spread
from hanse.storage import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hanse.comparison.measures import Goal, Outcome
    from hanse.comparison.pairs import Contrast
    from hanse.report.quantities import Spread
    from hanse.report.records import Split


@dataclass(frozen=True)
class Row:
    """A cell and what came of it.

    Attributes:
        name: of its folder.
        settings: what it has of what is varied.
        status: "finished", "diverged", "unfinished" or "not begun".
        seeds: how many seeds are finished.
        wanted: how many there are to be.
        diverged: how many diverged.
        outcomes: (split, metric) -> final and best value over the finished seeds.
        reached: rounds to the target over the seeds that reached it; None where none did.
        reaching: how many seeds reached it.
    """

    name: str
    settings: Mapping[str, str]
    status: str
    seeds: int
    wanted: int
    diverged: int
    outcomes: Mapping[tuple[Split, str], Outcome]
    reached: Spread | None
    reaching: int

    def final(self, split: Split, metric: str) -> float | None:
        """The mean over seeds of a metric at the end."""
        found = self.outcomes.get((split, metric))
        return None if found is None or found.final is None else found.final.mean


@dataclass(frozen=True)
class SweepTable:
    """The cells of a sweep.

    Attributes:
        path: the sweep's directory.
        axes: the names of what is varied.
        rows: the cells in the order of the grid.
        by: the split and the metric that say which cell is best.
        goal: a value to be reached, if one was given.
        best: the best of the cells whose seeds are all finished; None without one.
        next: the second best.
        contrast: the best against the second, paired by seed and by client.
    """

    path: Path
    axes: tuple[str, ...]
    rows: tuple[Row, ...]
    by: tuple[Split, str]
    goal: Goal | None
    best: Row | None
    next: Row | None
    contrast: Contrast | None

    @property
    def columns(self) -> tuple[tuple[Split, str], ...]:
        """The splits and metrics that the cells have, the deciding one first."""
        found = dict.fromkeys(key for row in self.rows for key in row.outcomes)
        return tuple(sorted(found, key=lambda key: key != self.by))

    def table(self) -> Table:
        """As cells of text."""
        columns = self.columns or (self.by,)
        several = len({split for split, _ in columns}) > 1
        head = [*self.axes, "Seeds"]
        for split, metric in columns:
            head.append(metric_name(metric) + (f", {KIND[split]}" if several else ""))
            if (split, metric) == self.by:
                head.append("Best round’s")
        if self.goal is not None:
            head.append(f"Rounds to {quantity(self.goal.metric, self.goal.value)}")
        rows = tuple(self._cells(row, columns) for row in self.rows)
        note = "Mean ± standard deviation over seeds, after the last round." * any(
            row.wanted > 1 for row in self.rows
        )
        return Table((*head, ""), rows, note)

    def _cells(self, row: Row, columns: tuple[tuple[Split, str], ...]) -> tuple[str, ...]:
        cells = [row.settings.get(axis, NOTHING) for axis in self.axes]
        cells.append(f"{row.seeds} of {row.wanted}" if row.seeds < row.wanted else str(row.seeds))
        for key in columns:
            found = row.outcomes.get(key)
            cells.append(spread(key[1], found.final if found else None))
            if key == self.by:
                cells.append(spread(key[1], found.best if found else None))
        if self.goal is not None:
            cells.append(_rounds(row))
        word = "best" if self.best is row else "" if row.status == "finished" else row.status
        return (*cells, word)

    def sentences(self) -> list[str]:
        """Which cell is best, and how sure that is."""
        if self.best is None:
            return ["No cell is finished with all its seeds."]
        split, metric = self.by
        found = self.best.outcomes[self.by]
        text = (
            f"Best by {metric_name(metric).lower()} on {KIND[split]} clients: "
            f"{_named(self.best)}, {spread(metric, found.final)}."
        )
        return [text, *self._against()]

    def _against(self) -> list[str]:
        if self.next is None or self.contrast is None:
            return []
        metric, found = self.by[1], self.contrast
        text = f"Against {_named(self.next)}: "
        if found.by_seed is not None:
            seeds = found.by_seed.count
            sure = f", 95\u202f% interval {between(metric, found.by_seed)}" * (seeds > 1)
            text += f"{difference(metric, found.by_seed.mean)} over {seeds} paired "
            text += f"seed{'s' * (seeds > 1)}{sure}; "
        text += f"of {len(found.pairs):,} clients {found.better:,} are served better and "
        text += f"{found.worse:,} worse."
        picked = (
            "The best cell was picked on the examples that its number is given for, so that "
            "number flatters it."
        )
        return [text, picked]

    def markdown(self) -> str:
        """The table and the sentences."""
        parts = [*markdown_table(self.table()), *map(escaped, self.sentences())]
        return "\n\n".join(parts) + "\n"

    def csv(self) -> str:
        """A line for each cell, with plain numbers."""
        out = io.StringIO()
        columns = [f"{split}.{metric}" for split, metric in self.columns]
        head = [*self.axes, "cell", "status", "seeds", "diverged"]
        for name in columns:
            head += [f"{name}.mean", f"{name}.std", f"{name}.best.mean", f"{name}.best.std"]
        head += ["rounds_to_target.mean", "rounds_to_target.seeds"] * (self.goal is not None)
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(head)
        for row in self.rows:
            cells: list[Any] = [row.settings.get(axis, "") for axis in self.axes]
            cells += [row.name, row.status, row.seeds, row.diverged]
            for key in self.columns:
                found = row.outcomes.get(key)
                cells += _plain(found.final if found else None)
                cells += _plain(found.best if found else None)
            if self.goal is not None:
                cells += [row.reached.mean if row.reached else "", row.reaching]
            writer.writerow(cells)
        return out.getvalue()

    def json(self) -> str:
        """All of it as JSON."""
        rows = [
            {
                "cell": row.name,
                "settings": dict(row.settings),
                "status": row.status,
                "seeds": row.seeds,
                "wanted": row.wanted,
                "diverged": row.diverged,
                "metrics": {
                    f"{split}.{metric}": {
                        "final": _spread(found.final),
                        "best": _spread(found.best),
                    }
                    for (split, metric), found in row.outcomes.items()
                },
                "rounds_to_target": _spread(row.reached),
            }
            for row in self.rows
        ]
        found = self.contrast
        against = None
        if found is not None and self.next is not None:
            seeds = found.by_seed
            against = {
                "cell": self.next.name,
                "by_seed": seeds and {"mean": seeds.mean, "low": seeds.low, "high": seeds.high,
                                      "seeds": seeds.count},
                "by_client": {"mean": found.clients.mean, "low": found.clients.low,
                              "high": found.clients.high, "better": found.better,
                              "worse": found.worse, "clients": len(found.pairs)},
            }  # fmt: skip
        content = {
            "axes": list(self.axes),
            "by": ".".join(self.by),
            "target": self.goal and f"{self.goal.split}.{self.goal.metric}={self.goal.value!r}",
            "best": None if self.best is None else self.best.name,
            "against": against,
            "cells": rows,
        }
        return to_json(content) + "\n"


def _named(row: Row) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.settings.items()) or "the base"


def _rounds(row: Row) -> str:
    if row.reached is None:
        return NOTHING
    text = number_of_rounds(row.reached.mean)
    return text if row.reaching >= row.seeds else f"{text} ({row.reaching} of {row.seeds} seeds)"


def _plain(found: Spread | None) -> list[Any]:
    return ["", ""] if found is None else [found.mean, "" if found.std is None else found.std]


def _spread(found: Spread | None) -> dict[str, Any] | None:
    return None if found is None else {
        "mean": found.mean, "std": found.std, "seeds": found.count}  # fmt: skip


def read_row(
    path: Path, name: str, settings: Mapping[str, str], seeds: list[int], goal: Goal | None
) -> Row:
    """What came of a cell so far.

    Raises:
        RunError: one of its files is malformed.
    """
    folders = [path / name / f"seed-{seed}" for seed in seeds]
    runs = [read(folder) for folder in folders if (folder / "run.json").is_file()]
    finished = tuple(one.first for one in runs if one.first.info.status == "finished")
    diverged = sum(one.first.info.status == "diverged" for one in runs)
    status = "finished" if len(finished) == len(seeds) else "unfinished" if runs else "not begun"
    if diverged:
        status = "diverged" if len(seeds) == 1 else f"diverged ({diverged} of {len(seeds)} seeds)"
    outcomes = {}
    found = []
    if finished:
        cell = Experiment(path / name, group=True, runs=finished)
        outcomes = {
            (split, metric): outcome(cell, split, metric)
            for split in cell.splits
            for metric in cell.metrics
        }
        if goal is not None and goal.split is not None:
            lower = lower_is_better(goal.metric)
            at = [reached(run, goal.split, goal, lower=lower) for run in finished]
            found = [float(one.round) for one in at if one is not None]
    return Row(
        name, settings, status, len(finished), len(seeds), diverged, outcomes,
        over_seeds(found), len(found),
    )  # fmt: skip


def tabulate(
    path: Path,
    axes: tuple[str, ...],
    rows: tuple[Row, ...],
    seeds: list[int],
    by: tuple[Split, str],
    goal: Goal | None,
) -> SweepTable:
    """The table of rows, with the best cell against the next."""
    sign = 1 if lower_is_better(by[1]) else -1
    ranked = sorted(
        (row for row in rows if row.status == "finished" and row.final(*by) is not None),
        key=lambda row: sign * (row.final(*by) or 0.0),
    )
    best, following = (*ranked[:2], None, None)[:2]
    found = None
    if best is not None and following is not None:
        two = [
            Experiment(
                path / row.name,
                group=True,
                runs=tuple(read(path / row.name / f"seed-{seed}").first for seed in seeds),
            )
            for row in (following, best)
        ]
        found = contrast(two[0], two[1], *by)
    return SweepTable(path, axes, rows, by, goal, best, following, found)
