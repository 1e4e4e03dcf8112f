"""The charts of a comparison: curves by round, byte and second, and clients' differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanse.comparison.measures import curve, so_far
from hanse.report.charts import Bar, BarChart, LineChart, Point, Series, Strip, StripRow
from hanse.report.charts import bars as draw_bars
from hanse.report.charts import lines as draw_lines
from hanse.report.charts import strip as draw_strip
from hanse.report.charts.lines import number_of_rounds
from hanse.report.charts.points import MOST_DOTS
from hanse.report.figure import MOST_ROWS, Figure, Key, Table, share_bounds, tick_format
from hanse.report.quantities import finite, thin
from hanse.report.records import LOSS
from hanse.report.words import (
    clients,
    difference,
    duration,
    is_share,
    metric_name,
    minus,
    quantity,
    shorten,
    size,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hanse.comparison.comparing import Comparison
    from hanse.comparison.pairs import Contrast, Pair
    from hanse.report.records import Experiment, Split

BY = {"rounds": "round", "bytes": "sent in both directions", "seconds": "time of the rounds"}
_FORMATS: Mapping[str, Callable[[float], str]] = {
    "rounds": number_of_rounds, "bytes": size, "seconds": lambda value: f"{value:g}\u202fs",
}  # fmt: skip
_LOSERS, _WINNERS = 12, 4
_TIP = 48
_MOST_METRICS = 4
# At: place on the axis, mean, lowest and highest over seeds.
_Point = tuple[float, float, float, float]


def curves(comparison: Comparison, by: str) -> list[Figure]:
    """A figure for each metric and split against rounds; of the primary metric alone else."""
    metrics = comparison.metrics[:_MOST_METRICS] if by == "rounds" else comparison.metrics[:1]
    return [
        figure
        for metric in metrics
        for split in comparison.splits
        if (figure := _curves(comparison, split, metric, by)) is not None
    ]


def _curves(comparison: Comparison, split: Split, metric: str, by: str) -> Figure | None:
    """One metric on one split; None where nothing can be drawn."""
    lines = [_points(experiment, split, metric, by) for experiment in comparison.experiments]
    if not any(lines):
        return None
    write = _FORMATS[by]
    nouns = comparison.experiments[0].first.info.data.nouns
    several = any(len(one.runs) > 1 for one in comparison.experiments)
    held = "held-out " if split == "test" else ""
    caption = f"Over the {held}{nouns['examples']} of {_who(comparison, split)}."
    if several:
        caption += " Lines are means over seeds, bands reach from the lowest to the highest."
    series, legend = [], []
    for place, (label, line) in enumerate(zip(comparison.labels, lines, strict=True)):
        at = sorted(line)
        band = tuple((line[k][0], line[k][2], line[k][3]) for k in at if len(
            comparison.experiments[place].runs) > 1)  # fmt: skip
        points = tuple((line[k][0], line[k][1]) for k in at)
        series.append(Series(label, f"run-{place}", points, band))
        last = quantity(metric, points[-1][1]) if points else "–"
        legend.append(Key(label, f"run-{place}", "line", last))
    key = f"{by}-{split}-{metric}"
    kind = "training" if split == "test" else "unseen"
    chart = LineChart(
        key=key,
        title=f"{metric_name(metric)} by {BY[by]}",
        description=caption,
        x_label=BY[by],
        series=tuple(reversed(series)),
        y_format=tick_format(metric),
        bounds=share_bounds(metric),
        log_y=metric == LOSS,
        x_format=write,
    )
    table, places = _curve_table(comparison, lines, metric, by)
    return Figure(
        key=key,
        title=f"{metric_name(metric)}, {kind} {nouns['clients']}",
        caption=caption,
        legend=tuple(legend),
        drawing=draw_lines(chart),
        table=table,
        places=places,
    )


def _who(comparison: Comparison, split: Split) -> str:
    first = comparison.experiments[0].first
    values = first.federated(split)
    return clients(split, len(values.clients) if values else 0, first.info.data.nouns)


def _points(experiment: Experiment, split: Split, metric: str, by: str) -> dict[int, _Point]:
    """Round -> where it lies on the axis and the values of the runs that have it."""
    found: dict[int, list[tuple[float, float]]] = {}
    for run in experiment.runs:
        total = so_far(run)
        for at, value in curve(run, split, metric).items():
            sent, took = total.get(at, (None, None))
            place = {"rounds": float(at), "bytes": sent, "seconds": took}[by]
            if place is not None:
                found.setdefault(at, []).append((place, value))
    points = {}
    for at, entries in found.items():
        values = finite(value for _, value in entries)
        place = sum(place for place, _ in entries) / len(entries)
        points[at] = (place, sum(values) / len(values), min(values), max(values))
    return points


def _curve_table(
    comparison: Comparison, lines: list[dict[int, _Point]], metric: str, by: str
) -> tuple[Table, tuple[float, ...]]:
    """The numbers by round; and the rounds, where the pointer may look them up."""
    rounds = sorted({at for line in lines for at in line})
    kept = [rounds[place] for place in thin(len(rounds), MOST_ROWS)]
    left_out = len(rounds) - len(kept)
    write = {"bytes": size, "seconds": duration}.get(by)
    rows = []
    for at in kept:
        cells = []
        for line in lines:
            point = line.get(at)
            if write is not None:
                cells.append(write(point[0]) if point else "–")
            cells.append(quantity(metric, point[1]) if point else "–")
        rows.append((str(at), *cells))
    head = ["Round"]
    for label in comparison.labels:
        head += [label] if write is None else [f"{label}: {by}", label]
    note = f"{left_out:,} rounds between these are left out." if left_out else ""
    places = tuple(float(at) for at in kept) if write is None else ()
    return Table(tuple(head), tuple(rows), note), places


def difference_figures(comparison: Comparison, place: int, contrast: Contrast) -> list[Figure]:
    """How the differences are spread over clients, and who loses and gains most."""
    if len(contrast.pairs) == 1:
        return []
    return [_spread(comparison, place, contrast), _extremes(comparison, place, contrast)]


def _tick(metric: str) -> Callable[[float], str]:
    """How differences are written on an axis: of shares in percentage points."""
    if not is_share(metric):
        return tick_format(metric)
    return lambda value: minus(f"{round(100 * value, 3):g}")


def _axis(contrast: Contrast) -> str:
    unit = ", percentage points" if is_share(contrast.metric) else ""
    good = "left is better" if contrast.lower_is_better else "right is better"
    return f"difference{unit} ({good})"


def _spread(comparison: Comparison, place: int, contrast: Contrast) -> Figure:
    metric, label = contrast.metric, comparison.labels[place]
    many = len(contrast.pairs) > MOST_DOTS
    points = tuple(
        Point(pair.difference, "" if many else _tip(comparison, place, contrast, pair),
              style="worse" if contrast.gain(pair) < 0 else "")
        for pair in contrast.pairs
    )  # fmt: skip
    mean = difference(metric, contrast.clients.mean)
    row = StripRow(
        "Each client", f"mean {mean}", "federated", points, contrast.clients.mean
    )  # fmt: skip
    caption = (
        "How many clients have which difference" if many else "A dot is a client"
    ) + ". The line is their mean, each counting once."
    chart = Strip(
        key=f"spread-{place}-{contrast.split}-{metric}",
        title=f"Differences of {label} over clients",
        description=caption,
        x_label=_axis(contrast),
        rows=(row,),
        x_format=_tick(metric),
        zero=True,
    )
    ordered = sorted(pair.difference for pair in contrast.pairs)
    at = [ordered[round(share * (len(ordered) - 1))] for share in (0, 0.1, 0.5, 0.9, 1)]
    head = ("Clients", "Least", "10 %", "Median", "90 %", "Most")
    cells = (f"{len(ordered):,}", *(difference(metric, value) for value in at))
    title = f"{metric_name(metric)}: {label} minus {comparison.labels[0]}"
    legend = (Key("Better", "federated", "dot"), Key("Worse", "worse", "dot")) if not many else ()
    return Figure(
        chart.key, title, caption, legend, draw_strip(chart), Table(head, (cells,))
    )  # fmt: skip


def _extremes(comparison: Comparison, place: int, contrast: Contrast) -> Figure:
    pairs = contrast.pairs
    shown = list(pairs)
    if len(pairs) > _LOSERS + _WINNERS:
        shown = [*pairs[:_LOSERS], *pairs[-_WINNERS:]]
    cut = len(shown) < len(pairs)
    title = "Who loses and who gains most" if cut else "Client by client"
    caption = (
        f"The {_LOSERS} clients that lose most and the {_WINNERS} that gain most, of "
        f"{len(pairs):,}."
        if cut
        else "The largest loser first."
    )
    metric = contrast.metric
    chart = BarChart(
        key=f"extremes-{place}-{contrast.split}-{metric}",
        title=title,
        description=caption,
        x_label=_axis(contrast),
        bars=tuple(
            Bar(
                name=pair.name,
                value=pair.difference,
                tip=_tip(comparison, place, contrast, pair),
                style="worse" if contrast.gain(pair) < 0 else "federated",
            )
            for pair in shown
        ),
        x_format=_tick(metric),
    )
    head = ("Client", comparison.labels[0], comparison.labels[place], "Difference")
    cells = tuple(
        (
            pair.name,
            quantity(metric, pair.reference),
            quantity(metric, pair.other),
            difference(metric, pair.difference),
        )
        for pair in shown
    )
    return Figure(chart.key, title, caption, (), draw_bars(chart), Table(head, cells))


def _tip(comparison: Comparison, place: int, contrast: Contrast, pair: Pair) -> str:
    metric = contrast.metric
    return (
        f"{shorten(pair.name, _TIP)}: {difference(metric, pair.difference)} "
        f"({comparison.labels[0]} {quantity(metric, pair.reference)}, "
        f"{comparison.labels[place]} {quantity(metric, pair.other)})"
    )
