"""Read runs, see whether they can be compared, and pair their clients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.comparison.measures import Goal
from hanse.comparison.pairs import Contrast, contrast, matched
from hanse.comparison.settings import (
    Setting,
    check_clients,
    common_metrics,
    common_splits,
    independent,
    settings,
)
from hanse.core.errors import ConfigError, did_you_mean
from hanse.report.reading import read
from hanse.report.words import listed
from hanse.storage import write_atomically, writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hanse.report.records import Experiment, Split

MOST = 12  # more lines in a chart cannot be told apart


@dataclass(frozen=True)
class Comparison:
    """Two or more experiments, the first of them the reference.

    Attributes:
        labels: what each is called here: the end of its path, as far as it tells them apart.
        experiments: the runs of each.
        splits: the splits that all were evaluated on.
        metrics: the metrics that all have, the primary one first.
        contrasts: each experiment but the first against the first, by split and metric.
        settings: what they differ in.
        warnings: why a difference may not mean what it seems to.
        goal: a value of a metric to be reached, if one was given.
    """

    labels: tuple[str, ...]
    experiments: tuple[Experiment, ...]
    splits: tuple[Split, ...]
    metrics: tuple[str, ...]
    contrasts: tuple[tuple[Contrast, ...], ...]
    settings: tuple[Setting, ...]
    warnings: tuple[str, ...]
    goal: Goal | None = None

    @property
    def primary(self) -> str:
        """The metric to look at first."""
        return self.metrics[0]

    def contrast(self, place: int, split: str, metric: str) -> Contrast | None:
        """Experiment number `place` (from 1) against the first; None where nothing was paired."""
        for found in self.contrasts[place - 1]:
            if (found.split, found.metric) == (split, metric):
                return found
        return None

    def markdown(self) -> str:
        """Tables in Markdown, for a pull request."""
        from hanse.comparison.markdown import markdown

        return markdown(self)

    def html(self) -> str:
        """One page with everything in it."""
        from hanse.comparison.page import page

        return page(self)

    def write(self, path: str | Path) -> Path:
        """Write the page, whole or not at all.

        Raises:
            RunError: it cannot be written.
        """
        place = Path(path)
        content = self.html()
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, content)
        return place


def compare(*runs: str | Path, target: str | None = None) -> Comparison:
    """Compare runs on the same data with the first of them.

    Each run is a run directory, or one with a run in each of `seed-0`, `seed-1`, …; where two
    have the same seeds they are compared seed by seed.

    Args:
        *runs: two or more directories.
        target: a value to be reached, `"accuracy=0.9"` or `"unseen.accuracy=0.9"`.

    Raises:
        ConfigError: fewer than two runs, too many, or one twice; a target that cannot be meant.
        RunError: one is no run or is damaged, or they are not about the same clients and metrics.
    """
    paths = [Path(run) for run in runs]
    _check_number(paths)
    goal = None if target is None else Goal.of(target)
    experiments = tuple(read(path) for path in paths)
    labels = _labels(paths)
    check_clients(labels, experiments)
    splits = common_splits(labels, experiments)
    metrics = common_metrics(labels, experiments)
    if goal is not None:
        goal = checked(goal, splits, metrics)
    found = settings(experiments)
    contrasts = tuple(
        tuple(
            one
            for split in splits
            for metric in metrics
            if (one := contrast(experiments[0], other, split, metric)) is not None
        )
        for other in experiments[1:]
    )
    warnings = _warnings(labels, experiments, found, metrics)
    return Comparison(labels, experiments, splits, metrics, contrasts, found, warnings, goal)


def checked(goal: Goal, splits: Sequence[Split], metrics: Sequence[str]) -> Goal:
    """The goal with its split named.

    Raises:
        ConfigError: the runs have no such split or metric.
    """
    if goal.metric not in metrics:
        raise ConfigError(
            f"the target {goal.metric} = {goal.value:g}",
            why="the runs do not all have this metric",
            instead=did_you_mean(goal.metric, metrics),
        )
    if goal.split is not None and goal.split not in splits:
        raise ConfigError(
            f"the target {goal.split}.{goal.metric} = {goal.value:g}",
            why=f"the runs were not all evaluated on {goal.split} clients",
            instead=f"one of: {', '.join(splits)}",
        )
    return Goal(goal.split or splits[0], goal.metric, goal.value)


def _check_number(paths: list[Path]) -> None:
    if not 2 <= len(paths) <= MOST:
        raise ConfigError(
            f"{len(paths)} run{'s' * (len(paths) != 1)} to compare",
            why=f"a comparison is of two to {MOST}: the others with the first",
            instead="two or more directories of runs; `hanse report` shows a single one",
        )
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise ConfigError(
                f"{path} is there twice",
                why="a run does not differ from itself",
                instead="each directory once",
            )
        seen.add(path.resolve())


def _labels(paths: list[Path]) -> tuple[str, ...]:
    """The shortest ends of the paths that are all different."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        found = ["/".join(part[-length:]) for part in parts]
        if len(set(found)) == len(found):
            break
    else:
        found = [str(path) for path in paths]
    return tuple(found)


def _warnings(
    labels: Sequence[str],
    experiments: Sequence[Experiment],
    found: Sequence[Setting],
    metrics: Sequence[str],
) -> tuple[str, ...]:
    """Why differences may not mean what they seem to."""
    texts = []
    several = independent(found)
    if len(several) > 1:
        texts.append(
            f"The runs differ in {len(several)} settings ({listed([s.key for s in several])}): "
            "which of them makes the difference cannot be told."
        )
    for label, experiment in zip(labels, experiments, strict=True):
        for run in experiment.runs:
            info = run.info
            seed = f" (seed {info.seed})" if len(experiment.runs) > 1 else ""
            if info.status != "finished":
                state = {"running": "is not finished", "stopped": "was stopped"}
                done = f"{run.trained_rounds:,} of {info.rounds:,} rounds"
                text = f"{label}{seed} {state.get(info.status, 'diverged')}: {done} are compared."
                texts.append(text)
    lengths = {label: one.first.trained_rounds
               for label, one in zip(labels, experiments, strict=True)}  # fmt: skip
    if len(set(lengths.values())) > 1 and all(
        run.info.status == "finished" for one in experiments for run in one.runs
    ):
        each = ", ".join(f"{label} {rounds:,}" for label, rounds in lengths.items())
        texts.append(f"The runs have different numbers of rounds ({each}).")
    exact = [label for label, one in zip(labels, experiments, strict=True)
             if any(run.info.privacy and run.info.privacy.exact for run in one.runs)]  # fmt: skip
    if exact:
        texts.append(
            f"The numbers of {listed(exact)} are exact ones of a simulation: no privacy guarantee "
            "covers them, nor a choice that is made by them."
        )
    texts += _about_seeds(labels, experiments)
    if len({(run.info.machine, run.info.torch) for one in experiments for run in one.runs}) > 1:
        texts.append("The runs were made on different machines: do not compare their times.")
    missing = [m for one in experiments for m in one.metrics if m not in metrics]
    if missing:
        texts.append(
            f"Not in all runs, and so not compared: {listed(list(dict.fromkeys(missing)))}."
        )
    return tuple(texts)


def _about_seeds(labels: Sequence[str], experiments: Sequence[Experiment]) -> list[str]:
    texts = []
    for label, other in zip(labels[1:], experiments[1:], strict=True):
        same = len(matched(experiments[0], other))
        most = max(len(experiments[0].runs), len(other.runs))
        if not same:
            texts.append(
                f"{labels[0]} and {label} have no seed in common: their difference is also one of "
                "luck."
            )
        elif same < most:
            texts.append(
                f"{labels[0]} and {label} are paired by the {same} seed{'s' * (same > 1)} that "
                "both have."
            )
    return texts
