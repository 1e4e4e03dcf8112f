"""Figures over rounds: every metric on every split, and how far the clients drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.report.charts import LineChart, Rule, Series, lines
from hanse.report.figure import (
    MOST_ROWS,
    TENTH_IS_SEVERAL,
    Figure,
    Key,
    Table,
    share_bounds,
    tick_format,
)
from hanse.report.quantities import finite, thin
from hanse.report.records import LOSS
from hanse.report.words import NARROW_SPACE, clients, metric_name, number, quantity

if TYPE_CHECKING:
    from hanse.report.quantities import ClientStats, Number
    from hanse.report.records import Experiment, RunRecord, Split
    from hanse.report.summaries import MetricSummary, SplitSummary

Curve = Mapping[int, float | None]
_MOST_METRICS = 6


@dataclass(frozen=True)
class _Line:
    """A line to be: one curve for each run.

    Attributes:
        name: its name in the legend.
        style: its CSS class.
        runs: for each run, round -> value.
        band: for a single run, round -> (low, high) behind the line.
    """

    name: str
    style: str
    runs: tuple[Curve, ...]
    band: Mapping[int, tuple[float, float]] | None = None

    def rounds(self) -> set[int]:
        """The rounds with an entry in any run."""
        return {at for curve in self.runs for at in curve}

    def values(self, at: int) -> list[float]:
        """The finite values of a round, one for each run that has it."""
        return finite(curve.get(at) for curve in self.runs)

    def series(self) -> Series:
        """The mean over runs, with a band from the lowest to the highest run."""
        points: list[tuple[float, Number]] = []
        band: list[tuple[float, float, float]] = []
        for at in sorted(self.rounds()):
            values = self.values(at)
            points.append((at, sum(values) / len(values) if values else None))
            if len(self.runs) > 1 and values:
                band.append((at, min(values), max(values)))
            elif self.band and at in self.band:
                band.append((at, *self.band[at]))
        if len(self.runs) > 1:
            points = [point for point in points if point[1] is not None]
        kept = [band[place] for place in thin(len(band), MOST_ROWS)] if band else []
        return Series(self.name, self.style, tuple(points), tuple(kept))

    def last(self, write: Callable[[float | None], str]) -> str:
        """The last value, for the legend."""
        known = [value for _, value in self.series().points if value is not None]
        return write(known[-1]) if known else ""


def metric_figures(experiment: Experiment, splits: tuple[SplitSummary, ...]) -> list[Figure]:
    """A figure for every metric and split that was evaluated."""
    return [
        figure
        for metric in experiment.metrics[:_MOST_METRICS]
        for split in splits
        if (figure := _metric_figure(experiment, split, metric)) is not None
    ]


def _metric_figure(experiment: Experiment, split: SplitSummary, metric: str) -> Figure | None:
    """One metric on one split by round; None where it was never measured."""
    found = next((known for known in split.metrics if known.metric == metric), None)
    if found is None:
        return None
    several = len(experiment.runs) > 1
    lower = experiment.lower_is_better(metric)

    def stat(pick: Callable[[ClientStats], float]) -> tuple[Curve, ...]:
        return tuple(
            {at: pick(stats[metric]) for at, stats in run.curves.get(split.split, {}).items()
             if metric in stats}
            for run in experiment.runs
        )  # fmt: skip

    found_by_run = tuple(overall(run, split.split, metric) for run in experiment.runs)
    name = "All examples, mean of seeds" if several else "All examples"
    drawn = [_Line(name, "federated", found_by_run)]
    if split.clients >= TENTH_IS_SEVERAL:
        decile = stat(lambda stats: stats.worst_decile(lower_is_better=lower))
        drawn.append(_Line("Worst decile of clients", "decile", decile))
    if split.clients > 1:
        drawn.append(
            _Line("Worst client", "worst", stat(lambda stats: stats.worst(lower_is_better=lower)))
        )
    if metric == LOSS and split.split == "test":
        train = tuple({row.round: row.train_loss for row in run.rounds} for run in experiment.runs)
        drawn.append(_Line("Training loss of the cohort", "muted", train))
    drawn = [line for line in drawn if any(line.values(at) for at in line.rounds())]
    if not drawn:
        return None
    nouns = experiment.first.info.data.nouns
    who = clients(split.split, split.clients, nouns)
    kind = "held-out " if split.split == "test" else ""
    caption = f"On the {kind}{nouns['examples']} of {who}."
    if several:
        caption += f" Lines are means over {len(experiment.runs)} seeds, bands reach from the "
        caption += "lowest to the highest."
    return _figure(
        key=f"curve-{split.split}-{metric}",
        title=f"{metric_name(metric)}, {'training' if split.split == 'test' else 'unseen'} "
        f"{nouns['clients']}",
        caption=caption,
        drawn=drawn,
        rules=_rules(found),
        write=lambda value: quantity(metric, value),
        tick=tick_format(metric),
        bounds=share_bounds(metric),
        log_y=metric == LOSS,
    )


def overall(run: RunRecord, split: Split, metric: str) -> Curve:
    """Round -> the example-weighted metric of one run; None in rounds whose loss is not finite."""
    return {
        row.round: metrics.get(metric) if metrics.get(LOSS, 0.0) is not None else None
        for row in run.rounds
        if (metrics := row.metrics.get(split)) is not None
    }


def _rules(found: MetricSummary) -> tuple[Rule, ...]:
    """The baselines as lines to compare with."""
    named = (
        ("Pooled data, one model", "pooled", found.pooled),
        ("Each client alone", "alone", found.alone),
    )
    return tuple(Rule(name, style, value.mean) for name, style, value in named if value)


def drift_figures(experiment: Experiment) -> list[Figure]:
    """How large the clients' updates are, and how far they agree."""
    runs = experiment.runs
    single = runs[0] if len(runs) == 1 else None
    norm = [
        _Line(
            "Mean over clients",
            "federated",
            tuple({row.round: row.norm_mean for row in run.rounds} for run in runs),
            _spread(single, "norm"),
        ),
        _Line(
            "Largest",
            "worst",
            tuple({row.round: row.norm_max for row in run.rounds} for run in runs),
        ),
    ]
    cosine = [
        _Line(
            "Between two clients’ updates",
            "federated",
            tuple({row.round: row.pairwise_cosine for row in run.rounds} for run in runs),
        ),
        _Line(
            "With the previous mean update (median client)",
            "second",
            tuple(
                {at: stats["cosine"].median for at, stats in run.curves.get("train", {}).items()
                 if "cosine" in stats}
                for run in runs
            ),
            _spread(single, "cosine"),
        ),
    ]  # fmt: skip
    shaded = f" The shaded band holds the middle 80{NARROW_SPACE}% of clients." if single else ""
    found = [
        _drift(
            "drift-norm", "Size of the clients’ updates", norm, log_y=True,
            caption="L2 norm of what a client changed in a round. A client far above the others "
            "pulls the model its way." + (shaded if norm[0].band else ""),
        ),
        _drift(
            "drift-cosine", "Agreement of the clients’ updates", cosine, log_y=False,
            caption="Cosine: 1 where updates point the same way, 0 where they are unrelated, "
            "below 0 where clients undo each other’s work." + (shaded if cosine[1].band else ""),
        ),
    ]  # fmt: skip
    return [figure for figure in found if figure is not None]


def _drift(key: str, title: str, drawn: list[_Line], *, caption: str, log_y: bool) -> Figure | None:
    """A figure of updates over rounds; None without any value."""
    kept = [line for line in drawn if any(line.values(at) for at in line.rounds())]
    if not kept:
        return None
    return _figure(
        key=key, title=title, caption=caption, drawn=kept, rules=(), write=number,
        tick=tick_format(key), bounds=(None, None), log_y=log_y,
    )  # fmt: skip


def _spread(run: RunRecord | None, metric: str) -> Mapping[int, tuple[float, float]] | None:
    """Round -> the 10 % and 90 % quantile over clients, where a round has several clients."""
    if run is None:
        return None
    curve = run.curves.get("train", {})
    return {
        at: (stats[metric].q10, stats[metric].q90)
        for at, stats in curve.items()
        if metric in stats and stats[metric].count > 1
    } or None


def _figure(
    *,
    key: str,
    title: str,
    caption: str,
    drawn: list[_Line],
    rules: tuple[Rule, ...],
    write: Callable[[float | None], str],
    tick: Callable[[float], str],
    bounds: tuple[float | None, float | None],
    log_y: bool,
) -> Figure:
    """The chart of some lines, with its legend and table."""
    chart = LineChart(
        key=key,
        title=f"{title} by round",
        description=caption,
        x_label="round",
        # The last is drawn on top: the first line matters most.
        series=tuple(line.series() for line in reversed(drawn)),
        y_format=tick,
        rules=rules,
        bounds=bounds,
        log_y=log_y,
    )
    legend = [Key(line.name, line.style, "line", line.last(write)) for line in drawn]
    legend += [Key(rule.name, rule.style, "rule", write(rule.value)) for rule in rules]
    rounds = sorted(
        {at for line in drawn for at in line.rounds() if line.values(at)},
    )
    kept = [rounds[place] for place in thin(len(rounds), MOST_ROWS)]
    left_out = len(rounds) - len(kept)
    return Figure(
        key=key,
        title=title,
        caption=caption,
        legend=tuple(legend),
        drawing=lines(chart),
        table=Table(
            head=("Round", *(line.name for line in drawn)),
            rows=tuple(
                (str(at), *(_cell(line.values(at), write) for line in drawn)) for at in kept
            ),
            note=f"{left_out:,} rounds between these are left out." if left_out else "",
        ),
        places=tuple(float(at) for at in kept),
    )


def _cell(values: list[float], write: Callable[[float | None], str]) -> str:
    """The mean over runs, with the lowest and the highest of several."""
    if not values:
        return write(None)
    middle = write(sum(values) / len(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({write(min(values))} to {write(max(values))})"
