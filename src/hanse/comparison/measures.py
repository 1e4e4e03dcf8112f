"""What a run reached, and what it spent on the way."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.errors import ConfigError
from hanse.report.curves import overall
from hanse.report.quantities import finite, over_seeds
from hanse.report.records import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.report.quantities import Spread
    from hanse.report.records import Experiment, RunRecord, Split

Curve = dict[int, float]


@dataclass(frozen=True)
class Goal:
    """A value of a metric to be reached.

    Attributes:
        split: on which split; None: the first that was evaluated.
        metric: its name.
        value: what it must be, or be better than.
    """

    split: Split | None
    metric: str
    value: float

    @classmethod
    def of(cls, text: str) -> Goal:
        """From `metric=value` or `split.metric=value`.

        Raises:
            ConfigError: another form.
        """
        name, equals, number = text.partition("=")
        split, metric = split_and_metric(name)
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not equals or not metric or not abs(value) < float("inf"):
            raise ConfigError(
                f"the target {text!r}",
                why="it names no metric and number",
                instead="metric=value, such as accuracy=0.9 or unseen.accuracy=0.9",
            )
        return cls(split, metric, value)


def split_and_metric(name: str) -> tuple[Split | None, str]:
    """`unseen.accuracy` as its split and its metric; `accuracy` has no split."""
    for split in SPLITS:
        if name.strip().startswith(f"{split}."):
            return split, name.strip().removeprefix(f"{split}.")
    return None, name.strip()


@dataclass(frozen=True)
class Best:
    """The best value over the rounds of a run, and when it was reached."""

    value: float
    round: int


@dataclass(frozen=True)
class Reached:
    """When a run reached a goal first, and what it had spent by then."""

    round: int
    bytes: float | None
    seconds: float | None


@dataclass(frozen=True)
class Outcome:
    """A metric on a split, over the seeds of an experiment.

    Attributes:
        final: after the last evaluation with a finite value.
        best: of all rounds.
        best_round: when, where there is a single run.
        runs: how many runs have a value.
    """

    final: Spread | None
    best: Spread | None
    best_round: int | None
    runs: int


@dataclass(frozen=True)
class Spent:
    """What a run of the experiment took, means over its seeds.

    Attributes:
        up: bytes sent to the server; None where not written down.
        down: bytes sent by it.
        seconds: of all rounds, evaluation included.
        a_round: median seconds of a round of training.
    """

    up: float | None
    down: float | None
    seconds: float | None
    a_round: float | None


def curve(run: RunRecord, split: Split, metric: str) -> Curve:
    """Round -> the example-weighted metric, where it was measured and is finite."""
    found = overall(run, split, metric)
    return {at: value for at, value in found.items() if value is not None}


def outcome(experiment: Experiment, split: Split, metric: str) -> Outcome:
    """What the runs of an experiment reached."""
    lower = experiment.lower_is_better(metric)
    final = over_seeds(run.overall(split, metric)[1] for run in experiment.runs)
    tops = [best(found, lower=lower) for run in experiment.runs
            if (found := curve(run, split, metric))]  # fmt: skip
    return Outcome(
        final=final,
        best=over_seeds(top.value for top in tops),
        best_round=tops[0].round if len(experiment.runs) == 1 and tops else None,
        runs=final.count if final else 0,
    )


def best(found: Curve, *, lower: bool) -> Best:
    """The best value of a curve that has one; the earliest of equals."""
    sign = 1.0 if lower else -1.0
    value, at = min((sign * value, at) for at, value in found.items())
    return Best(sign * value, at)


def reached(run: RunRecord, split: Split, goal: Goal, *, lower: bool) -> Reached | None:
    """When a run first was as good as the goal; None if it never was."""
    found = curve(run, split, goal.metric)
    for at in sorted(found):
        if found[at] <= goal.value if lower else found[at] >= goal.value:
            sent, took = so_far(run)[at]
            return Reached(at, sent, took)
    return None


def so_far(run: RunRecord) -> Mapping[int, tuple[float | None, float | None]]:
    """Round -> bytes in both directions and seconds up to its end; None from the first unknown."""
    sent: float | None = 0.0
    took: float | None = 0.0
    found = {}
    for row in run.rounds:
        traffic = None if row.bytes_up is None or row.bytes_down is None else (
            row.bytes_up + row.bytes_down)  # fmt: skip
        if row.round > 0:  # nothing travels before the first round
            sent = None if sent is None or traffic is None else sent + traffic
        took = None if took is None or row.seconds is None else took + row.seconds
        found[row.round] = (sent, took)
    return found


def spent(experiment: Experiment) -> Spent:
    """What the runs of an experiment took on average."""
    totals = []
    for run in experiment.runs:
        trained = [row for row in run.rounds if row.round > 0]
        ups = [row.bytes_up for row in trained if row.bytes_up is not None]
        downs = [row.bytes_down for row in trained if row.bytes_down is not None]
        seconds = finite(row.seconds for row in trained)
        known = bool(trained) and len(ups) == len(downs) == len(trained)
        totals.append(
            Spent(
                up=float(sum(ups)) if known else None,
                down=float(sum(downs)) if known else None,
                seconds=run.info.seconds,
                a_round=statistics.median(seconds) if seconds else None,
            )
        )
    return Spent(
        up=_mean([one.up for one in totals]),
        down=_mean([one.down for one in totals]),
        seconds=_mean([one.seconds for one in totals]),
        a_round=_mean([one.a_round for one in totals]),
    )


def _mean(values: list[float | None]) -> float | None:
    """The mean; None where one is unknown."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None
