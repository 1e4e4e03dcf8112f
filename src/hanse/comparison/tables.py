"""The numbers of a comparison as tables and sentences, the same for page, Markdown and terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hanse.comparison.measures import outcome, reached, spent
from hanse.report.figure import Table
from hanse.report.privacy import last_spent
from hanse.report.quantities import mean, over_seeds
from hanse.report.words import (
    NOTHING,
    difference,
    duration,
    listed,
    metric_name,
    named,
    number,
    quantity,
    size,
    spread,
)

if TYPE_CHECKING:
    from hanse.comparison.comparing import Comparison
    from hanse.comparison.pairs import Contrast
    from hanse.comparison.statistics import Interval
    from hanse.report.records import Experiment, Split

_NAME = 48
_POINTS = "\u202fpts"
_NAMED = 3
_FEW = 4  # experiments that are columns rather than rows
_MOST_METRICS = 4
KIND = {"test": "training", "unseen": "unseen"}


def overview(comparison: Comparison) -> Table:
    """What each experiment reached and spent."""
    several = len(comparison.splits) > 1
    columns = [
        (split, metric)
        for metric in comparison.metrics[:_MOST_METRICS]
        for split in comparison.splits
    ]
    head = ["Run"]
    for split, metric in columns:
        name = metric_name(metric) + (f", {KIND[split]}" if several else "")
        head += [name, f"{name}: best"]
    goal = comparison.goal
    if goal is not None:
        head.append(f"To {metric_name(goal.metric).lower()} {quantity(goal.metric, goal.value)}")
    private = any(run.info.privacy for one in comparison.experiments for run in one.runs)
    if private:
        head.append("Epsilon of a run")
    head += ["Sent up", "Sent down", "A round", "Rounds", "Status"]
    rows = []
    for label, experiment in zip(comparison.labels, comparison.experiments, strict=True):
        cells = [label]
        for split, metric in columns:
            cells += _reached(experiment, split, metric)
        if goal is not None:
            cells.append(_to_goal(comparison, experiment))
        if private:
            cells.append(_epsilon(experiment))
        took = spent(experiment)
        trained = sorted({run.trained_rounds for run in experiment.runs})
        cells += [
            size(took.up),
            size(took.down),
            _seconds(took.a_round),
            " to ".join(f"{rounds:,}" for rounds in dict.fromkeys((trained[0], trained[-1]))),
            listed(list(dict.fromkeys(run.info.status for run in experiment.runs))),
        ]
        rows.append(tuple(cells))
    table = Table(tuple(head), tuple(rows), _overview_note(comparison))
    return turned(table) if len(rows) <= _FEW else table


def turned(table: Table) -> Table:
    """Columns as rows."""
    first, *others = zip(table.head, *table.rows, strict=True)
    return replace(table, head=first, rows=tuple(others))


def _overview_note(comparison: Comparison) -> str:
    notes = []
    if any(len(one.runs) > 1 for one in comparison.experiments):
        notes.append("Mean ± standard deviation over seeds; what was sent is the mean of a seed.")
    notes.append(
        "The best value of all rounds is picked with hindsight on the very examples it is given "
        "for, so it flatters. Bytes are counted from the shapes of what travels. A round is the "
        "median round, evaluation included."
    )
    return " ".join(notes)


def _reached(experiment: Experiment, split: Split, metric: str) -> list[str]:
    found = outcome(experiment, split, metric)
    at = "" if found.best_round is None else f" (round {found.best_round:,})"
    top = spread(metric, found.best)
    return [spread(metric, found.final), top if top == NOTHING else top + at]


def _epsilon(experiment: Experiment) -> str:
    """What the costliest run of an experiment has cost by itself, or would."""
    costs = []
    for run in experiment.runs:
        now = last_spent(run)
        cost = None if now is None else now.tightest[0]
        if run.info.privacy is None:
            return "no privacy"
        if cost is None:
            return NOTHING
        costs.append((cost, run.info.privacy))
    cost, promised = max(costs, key=lambda one: one[0])
    at = "" if promised.delta is None else f" at delta {promised.delta:g}"
    return f"{number(cost)}{at}" if promised.protects else f"would be {number(cost)}{at}"


def _to_goal(comparison: Comparison, experiment: Experiment) -> str:
    """When the goal was reached, with the bytes and seconds until then, over seeds."""
    goal = comparison.goal
    if goal is None or goal.split is None:
        return NOTHING
    lower = experiment.lower_is_better(goal.metric)
    found = [reached(run, goal.split, goal, lower=lower) for run in experiment.runs]
    there = [one for one in found if one is not None]
    if not there:
        return "not reached"
    middle = over_seeds(float(one.round) for one in there)
    rounds = number_of_rounds(middle.mean if middle else 0.0)
    text = f"{rounds} round{'s' * (rounds != '1')}, {size(mean(one.bytes for one in there))}, "
    text += _seconds(mean(one.seconds for one in there))
    return text if len(there) == len(found) else f"{text} ({len(there)} of {len(found)} seeds)"


def number_of_rounds(value: float) -> str:
    """A number of rounds, or a mean of some."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _seconds(value: float | None) -> str:
    if value is None or value >= 1:
        return duration(value)
    return f"{1000 * value:.{0 if value >= 0.01 else 1}f}\u202fms"


def paired(comparison: Comparison, only: str | None = None) -> Table:
    """Every experiment but the first against the first, a row for each split and metric.

    Args:
        comparison: the experiments.
        only: the metric to show; all of them without.
    """
    rows = []
    for label, contrasts in zip(comparison.labels[1:], comparison.contrasts, strict=True):
        for found in contrasts:
            metric = found.metric
            if only not in (None, metric):
                continue
            rows.append(
                (
                    f"{label}: {metric_name(metric).lower()}, {KIND[found.split]}",
                    difference(metric, found.clients.mean),
                    between(metric, found.clients),
                    f"{found.better:,}",
                    f"{found.worse:,}",
                    f"{len(found.pairs):,}",
                    p_value(found.sign),
                    _by_seed(found),
                )
            )
    head = ("", "Mean over clients", "95 % interval", "Better", "Worse", "Clients",
            "Sign test p", "All examples, by seed")  # fmt: skip
    note = (
        "Differences are other minus first, each client against itself, and counting once. The "
        "interval (Student’s t) and the sign test treat clients as a sample, for models that are "
        "as they are: training again with another seed would move them too. How much by itself is "
        "what the last column shows, where several seeds are in both."
    )
    return Table(head, tuple(rows), note)


def between(metric: str, found: Interval) -> str:
    """The ends of an interval."""
    if found.low is None or found.high is None:
        return NOTHING
    low, high = (difference(metric, end) for end in (found.low, found.high))
    return f"{low.removesuffix(_POINTS)} to {high}"


def p_value(p: float) -> str:
    """A p-value, without digits that mean nothing."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _by_seed(found: Contrast) -> str:
    if found.by_seed is None:
        return NOTHING
    middle = difference(found.metric, found.by_seed.mean)
    if found.by_seed.count == 1:
        return f"{middle} (1 seed)"
    return f"{middle} ({between(found.metric, found.by_seed)}; {found.by_seed.count} seeds)"


def settings(comparison: Comparison) -> Table:
    """The settings that differ."""
    rows = tuple((setting.key, *setting.values) for setting in comparison.settings)
    return Table(("Setting", *comparison.labels), rows)


def sentences(comparison: Comparison) -> list[str]:
    """What the comparison says, a paragraph for each experiment but the first and each split."""
    found = []
    for place, contrasts in enumerate(comparison.contrasts, start=1):
        mine = [one for one in contrasts if one.metric == comparison.primary]
        if mine:
            found += [_about(comparison, place, one) for one in reversed(mine)]
        else:
            label = comparison.labels[place]
            found.append(f"No client has a finite {comparison.primary} in both {label} and "
                         f"{comparison.labels[0]}.")  # fmt: skip
    return found


def _about(comparison: Comparison, place: int, found: Contrast) -> str:
    metric, split = found.metric, found.split
    nouns = comparison.experiments[0].first.info.data.nouns
    one, two = (
        spread(metric, outcome(comparison.experiments[k], split, metric).final) for k in (0, place)
    )
    start = (
        f"{metric_name(metric)} on {KIND[split]} {nouns['clients']}: {two} with "
        f"{comparison.labels[place]}, {one} with {comparison.labels[0]}."
    )
    n = len(found.pairs)
    if n == 1:
        return f"{start} The difference is {difference(metric, found.clients.mean)}."
    losers = [f"{named(p.name, _NAME)} {difference(metric, p.difference)}" for p in found.losers]
    who = f" ({listed(losers, _NAMED)})" if losers else ""
    sure = between(metric, found.clients)
    return (
        f"{start} {found.better:,} of {n:,} {nouns['clients']} are served better, "
        f"{found.worse:,} worse{who}. On average over clients "
        f"{difference(metric, found.clients.mean)} (95\u202f% interval {sure})"
        f"{_over_seeds(found)}."
    )


def _over_seeds(found: Contrast) -> str:
    """Whether training again would have come to the same."""
    seeds = found.by_seed
    if seeds is None or seeds.count < 2:
        return ""
    return (
        f"; over all examples and {seeds.count} paired seeds "
        f"{difference(found.metric, seeds.mean)} "
        f"({between(found.metric, seeds)})"
    )
