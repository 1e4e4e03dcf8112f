"""What the numbers say, in a paragraph, in a few figures, and in one table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.report.figure import Table
from hanse.report.words import (
    clients,
    count,
    difference,
    duration,
    is_share,
    listed,
    metric_name,
    shorten,
    spread,
    whole,
    width,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.report.records import Experiment
    from hanse.report.summaries import MetricSummary, SplitSummary, Summary

_NAME = 48
_MOST_DROPPED = 40


@dataclass(frozen=True)
class Tile:
    """A figure to remember: what it is, the number, and a line below it."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class DroppedClient:
    """A client whose updates were not accepted: its name, in which rounds, and why."""

    name: str
    rounds: str
    reasons: str


def sentences(experiment: Experiment, summary: Summary) -> list[str]:
    """The verdict, a sentence each: how far, how good, for whom worst, and was it worth it."""
    nouns = experiment.first.info.data.nouns
    found = [_progress(summary)]
    splits = [
        (split, split.metrics[0])
        for split in reversed(summary.splits)
        if split.metrics and split.metrics[0].overall is not None
    ]
    if not splits:
        return [*found, "No evaluation with finite numbers was written down."]
    found += _quality(splits, nouns)
    for split, metric in splits:
        if metric.worst is not None and split.clients > 1:
            found.append(_worst(split, metric, nouns, summary.runs))
    for split, metric in splits:
        found += _worth(split, metric, nouns)
    return found


def _progress(summary: Summary) -> str:
    """How far the training came."""
    done = f"{summary.trained:,} of {summary.rounds:,} rounds"
    seeds = f" with {summary.runs} seeds" if summary.runs > 1 else ""
    if summary.status == "diverged":
        return f"Training{seeds} diverged after {done}; these are the last finite numbers."
    if summary.status == "stopped":
        return f"Training{seeds} was stopped after {done}."
    if summary.status == "running":
        return f"Training{seeds} is under way: {done} are done."
    rounds = "round" if summary.trained == 1 else "rounds"
    return f"Training{seeds} ran for {summary.trained:,} {rounds}."


def _quality(
    splits: list[tuple[SplitSummary, MetricSummary]], nouns: Mapping[str, str]
) -> list[str]:
    """What the model is worth on each split, in one sentence."""
    parts = []
    metric = splits[0][1]
    share = metric.metric == "accuracy"
    for split, found in splits:
        held = "held-out " if split.split == "test" else ""
        where = f"{split.examples:,} {held}{nouns['examples']} of {_who(split, nouns)}"
        value = spread(found.metric, found.overall)
        parts.append(f"{value} of the {where}" if share else f"{value} on the {where}")
    joined = " and ".join(parts)
    if share:
        return [f"The federated model classifies {joined} correctly."]
    name = metric_name(metric.metric).lower()
    return [f"The federated model’s {name} is {joined}."]


def _who(split: SplitSummary, nouns: Mapping[str, str]) -> str:
    """The clients of a split: `3 unseen clients`."""
    return clients(split.split, split.clients, nouns)


def _worst(
    split: SplitSummary, metric: MetricSummary, nouns: Mapping[str, str], runs: int
) -> str:
    """Whom the model serves worst."""
    worst = metric.worst
    if worst is None:
        return ""
    kind = "training" if split.split == "test" else "unseen"
    often = f" (in {worst.seeds} of {runs} seeds)" if runs > 1 else ""
    value = spread(metric.metric, worst.value)
    return (
        f"Among the {kind} {nouns['clients']} it serves {shorten(worst.name, _NAME)} worst{often}, "
        f"at {value}."
    )


def _worth(
    split: SplitSummary, metric: MetricSummary, nouns: Mapping[str, str]
) -> list[str]:
    """Whether it was worth federating, next to training alone and to pooling the data."""
    found = []
    against = metric.comparison
    kind = "training" if split.split == "test" else "unseen"
    if against is not None:
        alone = "training alone" if split.split == "test" else "the models of single clients would"
        number = count(against.worse)
        many = "None" if against.worse.mean == 0 else number
        does = "does" if against.worse.mean <= 1 else "do"
        gain = difference(metric.metric, against.gain.mean)
        found.append(
            f"{many} of the {against.compared:,} {kind} {nouns['clients']} {does} worse than "
            f"{'by ' if split.split == 'test' else 'the average of '}{alone}"
            f" (mean difference {gain})."
            if split.split == "test"
            else f"{many} of the {against.compared:,} {kind} {nouns['clients']} {does} worse than "
            f"with the average model of a single client (mean difference {gain})."
        )
        if against.names and split.split == "test":
            names = [shorten(name, _NAME) for name in against.names]
            found.append(f"Worse off: {listed(names)}.")
    if metric.pooled is not None:
        value = spread(metric.metric, metric.pooled)
        found.append(
            f"Pooling all data in one place would reach {value} on the {kind} {nouns['clients']}."
        )
    return found


def tiles(summary: Summary, experiment: Experiment) -> list[Tile]:
    """The figures to remember."""
    found = []
    for split in summary.splits:
        if not split.metrics:
            continue
        metric = split.metrics[0]
        kind = "training" if split.split == "test" else "unseen"
        nouns = experiment.first.info.data.nouns
        name = f"{metric_name(metric.metric)}, {kind} {nouns['clients']}"
        others = [
            f"{label} {spread(metric.metric, value)}"
            for label, value in (("alone", metric.alone), ("pooled", metric.pooled))
            if value is not None
        ]
        note = " · ".join(others) or f"{split.examples:,} {nouns['examples']}"
        found.append(Tile(name, spread(metric.metric, metric.overall), note))
        if split.clients > 1 and metric.worst is not None:
            found.append(
                Tile(
                    f"Worst {kind} {nouns['client']}",
                    spread(metric.metric, metric.worst.value),
                    shorten(metric.worst.name, _NAME),
                )
            )
        if split.clients > 1 and metric.comparison is not None:
            against = metric.comparison
            where = "training alone" if split.split == "test" else "with single-client models"
            found.append(
                Tile(
                    f"Worse than {where}",
                    f"{count(against.worse)} of {against.compared:,}",
                    f"mean difference {difference(metric.metric, against.gain.mean)}",
                )
            )
    info = experiment.first.info
    done = f"{summary.trained:,}" if summary.trained >= summary.rounds else (
        f"{summary.trained:,} of {summary.rounds:,}"
    )  # fmt: skip
    found.append(Tile("Rounds", done, duration(summary.seconds)))
    if info.parameters is not None:
        buffers = f"{info.buffers:,} buffers" if info.buffers else "trained together"
        found.append(Tile("Parameters", whole(info.parameters), buffers))
    return found


def numbers(summary: Summary) -> Table:
    """Every number: a row for each split and metric."""
    rows = []
    for split in summary.splits:
        kind = "training" if split.split == "test" else "unseen"
        for metric in split.metrics:
            unit = metric.metric
            worst = spread(unit, metric.worst.value) if metric.worst else "–"
            if metric.worst and split.clients > 1:
                worst += f" ({shorten(metric.worst.name, 28)})"
            rows.append(
                (
                    f"{metric_name(unit)}, {kind}",
                    spread(unit, metric.overall),
                    spread(unit, metric.client_mean),
                    width(unit, metric.client_std),
                    spread(unit, metric.worst_decile),
                    worst,
                    spread(unit, metric.alone),
                    spread(unit, metric.pooled),
                )
            )
    head = ("", "All examples", "Client mean", "Std over clients", "Worst decile", "Worst client",
            "Alone", "Pooled")  # fmt: skip
    empty = [place for place in (6, 7) if all(row[place] == "–" for row in rows)]
    kept = [place for place in range(len(head)) if place not in empty]
    several = (
        f"Mean ± standard deviation over {summary.runs} seeds. " if summary.runs > 1 else ""
    )
    note = several + (
        "“All examples” weighs clients by their examples, “client mean” counts each once; the "
        "worst decile is the mean over the tenth of the clients served worst (at least one)."
    )
    return Table(
        tuple(head[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in rows),
        note,
    )


def dropped(experiment: Experiment) -> tuple[list[DroppedClient], int]:
    """The clients whose updates were not accepted, and how many of them are not listed."""
    several = len(experiment.runs) > 1
    gathered: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for run in experiment.runs:
        for row in run.rounds:
            for drop in row.dropped:
                at = f"{row.round} (seed {run.info.seed})" if several else str(row.round)
                gathered[(drop.name, drop.reason)].append(at)
    rows = [
        DroppedClient(name, f"{'round' if len(at) == 1 else 'rounds'} {listed(at, 8)}", reason)
        for (name, reason), at in gathered.items()
    ]
    return rows[:_MOST_DROPPED], max(0, len(rows) - _MOST_DROPPED)


def percent(metric: str) -> bool:
    """Whether a metric is shown in percent."""
    return is_share(metric)
