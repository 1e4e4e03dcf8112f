"""What the numbers say, in a paragraph, in a few figures, and in one table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.report.figure import TENTH_IS_SEVERAL, Table
from hanse.report.words import (
    NARROW_SPACE,
    clients,
    count,
    difference,
    listed,
    metric_name,
    named,
    spread,
    width,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.report.quantities import Spread
    from hanse.report.records import Experiment
    from hanse.report.summaries import MetricSummary, SplitSummary, Summary

_NAME = 48
_MOST_DROPPED = 40
_KIND = {"test": "training", "unseen": "unseen"}
_TILE_ALONE = {"test": "Worse than alone", "unseen": "Worse than single-client models"}
_Found = tuple["SplitSummary", "MetricSummary"]


@dataclass(frozen=True)
class Tile:
    """A figure to remember: what it is, the number, ± over seeds, and a line below it."""

    name: str
    value: str
    deviation: str
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
    # Unseen clients first: whether the model is of use to others is what most readers ask.
    found = [
        (split, split.metrics[0])
        for split in reversed(summary.splits)
        if split.metrics and split.metrics[0].overall is not None
    ]
    if not found and (promised := experiment.first.info.privacy) and not promised.exact:
        return [_progress(summary) + ".", "Exact numbers about clients are withheld."]
    if not found:
        return [_progress(summary) + ".", "No evaluation with finite numbers was written down."]
    return [
        _quality(experiment, summary, found, nouns),
        *_worst(found, nouns, summary.runs),
        *_alone(found, nouns),
        *_left_out(found, nouns),
        *_pooled(found, nouns),
    ]


def _progress(summary: Summary) -> str:
    """How far the training came."""
    done = f"{summary.trained:,} of {summary.rounds:,} rounds"
    seeds = f" with {summary.runs} seeds" if summary.runs > 1 else ""
    if summary.status == "diverged":
        return f"Training{seeds} diverged after {done}"
    if summary.status == "stopped":
        return f"Training{seeds} was stopped after {done}"
    if summary.status == "running":
        return f"Training{seeds} is under way, with {done} done"
    return f"After {summary.trained:,} {'round' if summary.trained == 1 else 'rounds'}{seeds}"


def _quality(
    experiment: Experiment, summary: Summary, found: list[_Found], nouns: Mapping[str, str]
) -> str:
    """How far the training came and what the model is worth on each split."""
    metric = found[0][1].metric
    share = metric == "accuracy"
    parts = []
    for split, numbers in found:
        held = "held-out " if split.split == "test" else ""
        who = clients(split.split, split.clients, nouns)
        link = "of" if share else "on"
        value = spread(metric, numbers.overall)
        parts.append(f"{value} {link} the {held}{nouns['examples']} of {who}")
    joined = " and ".join(parts)
    model = (
        f"the federated model classifies {joined} correctly"
        if share
        else f"the federated model’s {metric_name(metric).lower()} is {joined}"
    )
    start = _progress(summary)
    if summary.status == "finished":
        return f"{start}, {model}."
    if summary.status == "diverged":
        return (
            f"{start}. In the last evaluation with finite numbers{_at(experiment, found)}, {model}."
        )
    return f"{start}. So far, {model}."


def _at(experiment: Experiment, found: list[_Found]) -> str:
    """After which round a single run was evaluated last, in brackets."""
    split, metric = found[0]
    at = experiment.first.overall(split.split, metric.metric)[0]
    return f" (round {at:,})" if len(experiment.runs) == 1 and at is not None else ""


def _worst(found: list[_Found], nouns: Mapping[str, str], runs: int) -> list[str]:
    """Whom the model serves worst."""
    parts = []
    for split, metric in found:
        if metric.worst is None or split.clients <= 1:
            continue
        often = f" in {metric.worst.seeds} of {runs} seeds" if runs > 1 else ""
        often = f" in all {runs} seeds" if runs > 1 and metric.worst.seeds == runs else often
        name = named(metric.worst.name, _NAME)
        value = spread(metric.metric, metric.worst.value)
        parts.append(
            f"the worst-served {_KIND[split.split]} {nouns['client']} is {name}{often} ({value})"
        )
    text = ", ".join(parts)
    return [f"{text[:1].upper()}{text[1:]}."] if parts else []


def _alone(found: list[_Found], nouns: Mapping[str, str]) -> list[str]:
    """Which training clients had done better to train alone."""
    for split, metric in found:
        against = metric.comparison
        if against is None or split.split != "test":
            continue
        mean = difference(metric.metric, against.gain.mean)
        if split.clients == 1:
            return [f"The difference to training alone is {mean}."]
        several = against.worse.count > 1
        many = "None" if against.worse.mean == 0 else count(against.worse)
        average = "On average " if several and against.names else ""
        does = "does" if against.worse.mean <= 1 else "do"
        most = " (most often " if several else " (" if against.names else ""
        names = listed(
            against.names, 3 if several else 5, write=lambda name: named(name, _NAME)
        )  # fmt: skip
        who = f"{most}{names})" if against.names else ""
        return [
            (
                f"{average}{many} of the {against.compared:,} training {nouns['clients']} {does} "
                f"worse than by training alone{who}; the mean difference is {mean}."
            )
        ]
    return []


def _left_out(found: list[_Found], nouns: Mapping[str, str]) -> list[str]:
    """Clients whose numbers are not finite: a mean without them is better than it should be."""
    return [
        (
            f"{split.missing:,} of the {split.clients:,} {_KIND[split.split]} {nouns['clients']} "
            f"{'has' if split.missing == 1 else 'have'} no finite {metric.metric} and "
            f"{'is' if split.missing == 1 else 'are'} not in these numbers."
        )
        for split, metric in found
        if split.missing
    ]


def _pooled(found: list[_Found], nouns: Mapping[str, str]) -> list[str]:
    """What giving up the clients' privacy would buy."""
    values = [
        f"{spread(metric.metric, metric.pooled)} on the {_KIND[split.split]}"
        for split, metric in found
        if metric.pooled is not None
    ]
    if not values:
        return []
    reached = " and ".join(values)
    return [f"A model trained on all data in one place reaches {reached} {nouns['clients']}."]


def tiles(summary: Summary, nouns: Mapping[str, str]) -> list[Tile]:
    """The figures to remember: up to four for each split."""
    return [
        tile for split in summary.splits if split.metrics for tile in _split_tiles(split, nouns)
    ]


def _split_tiles(split: SplitSummary, nouns: Mapping[str, str]) -> list[Tile]:
    """The figures to remember of one split."""
    metric = split.metrics[0]
    kind, unit, against = _KIND[split.split], metric.metric, metric.comparison
    others = [
        f"{label} {spread(unit, value)}"
        for label, value in (("alone", metric.alone), ("pooled", metric.pooled))
        if value is not None
    ]
    evaluated = f"{split.examples:,} {nouns['examples']}" if split.examples else "from noisy counts"
    note = " · ".join(others) or evaluated
    found = [_tile(f"{metric_name(unit)}, {kind} {nouns['clients']}", unit, metric.overall, note)]
    if split.clients > 1 and metric.worst is not None:
        name = named(metric.worst.name, _NAME)
        found.append(_tile(f"Worst {kind} {nouns['client']}", unit, metric.worst.value, name))
        if split.clients >= TENTH_IS_SEVERAL:
            tenth = f"mean of the {-(-split.clients // 10):,} served worst"
            found.append(_tile("Worst decile", unit, metric.worst_decile, tenth))
        else:
            middle = f"standard deviation, mean {spread(unit, metric.client_mean)}"
            deviation = width(unit, metric.client_std)
            found.append(Tile(f"Spread over {nouns['clients']}", *_parted(deviation), middle))
    if split.clients > 1 and against is not None:
        many, deviation = _parted(count(against.worse))
        mean = f"mean difference {difference(unit, against.gain.mean)}"
        value = f"{many} of {against.compared:,}"
        found.append(Tile(_TILE_ALONE[split.split], value, deviation, mean))
    elif split.metrics[-1] is not metric:
        loss = split.metrics[-1]
        found.append(_tile(metric_name(loss.metric), loss.metric, loss.overall, "all examples"))
    return found


def _tile(name: str, metric: str, value: Spread | None, note: str) -> Tile:
    """A tile of a value over seeds."""
    return Tile(name, *_parted(spread(metric, value)), note)


def _parted(text: str) -> tuple[str, str]:
    """`86.9 ± 4.2 %` as its value, `86.9 %`, and its deviation, `± 4.2`."""
    value, sign, deviation = text.partition("\u00a0±\u00a0")
    if not sign:
        return text, ""
    number_, space, unit = deviation.partition(NARROW_SPACE)
    return f"{value}{space}{unit}", f"± {number_}"


def numbers(summary: Summary) -> Table:
    """Every number: a row for each split and metric."""
    rows = []
    for split in summary.splits:
        kind = _KIND[split.split]
        for metric in split.metrics:
            unit = metric.metric
            worst = spread(unit, metric.worst.value) if metric.worst else "–"
            if metric.worst and split.clients > 1:
                worst += f" ({named(metric.worst.name, 28)})"
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
    empty = [place for place in range(2, 8) if all(row[place] == "–" for row in rows)]
    kept = [place for place in range(len(head)) if place not in empty]
    several = f"Mean ± standard deviation over {summary.runs} seeds. " if summary.runs > 1 else ""
    note = several + (
        "“All examples” weighs clients by their examples, “client mean” counts each once; the "
        "worst decile is the mean over the tenth of the clients served worst (rounded up)."
        if 2 in kept
        else "Estimates from noisy counts of clients, each client counting once."
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
    reasons: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for run in experiment.runs:
        for row in run.rounds:
            for drop in row.dropped:
                at = f"{row.round} (seed {run.info.seed})" if several else str(row.round)
                # What follows a colon is about one round only ("straggler: did 37 % …").
                key = drop.name, drop.reason.partition(": ")[0]
                gathered[key].append(at)
                reasons[key].add(drop.reason)
    rows = [
        DroppedClient(
            name,
            f"{'round' if len(at) == 1 else 'rounds'} {listed(at, 8)}",
            kind if len(reasons[name, kind]) > 1 else next(iter(reasons[name, kind])),
        )
        for (name, kind), at in gathered.items()
    ]
    return rows[:_MOST_DROPPED], max(0, len(rows) - _MOST_DROPPED)
