"""Dots: the distribution over clients, and examples against a metric; bins where there are many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hanse.report.charts.svg import (
    WIDE,
    Drawing,
    Element,
    Plot,
    Scale,
    add,
    canvas,
    domain,
    draw,
    label,
    margin,
    tip,
)
from hanse.report.quantities import histogram, quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# More dots than this merge into a blot; from here on the distribution is drawn instead.
MOST_DOTS = 300
_ROW = 84.0
_RADIUS = 4.5
_BINS = 40


@dataclass(frozen=True)
class Point:
    """A client.

    Attributes:
        x: its number of examples, or the metric in a strip.
        y: the metric; unused in a strip.
        tip: its tooltip.
        style: its CSS class; empty for that of its row.
    """

    x: float
    tip: str
    y: float = 0.0
    style: str = ""


@dataclass(frozen=True)
class StripRow:
    """One distribution over clients.

    Attributes:
        name: what was measured.
        note: a number to the right of the name.
        style: the CSS class of its dots.
        points: the clients.
        middle: where the mark of the mean is.
    """

    name: str
    note: str
    style: str
    points: tuple[Point, ...]
    middle: float | None


@dataclass(frozen=True)
class Strip:
    """Distributions over clients, one below the other on the same axis.

    Attributes:
        zero: whether the axis has zero on it, with a line: for differences.
        (the others as in the other charts)
    """

    key: str
    title: str
    description: str
    x_label: str
    rows: tuple[StripRow, ...]
    x_format: Callable[[float], str]
    bounds: tuple[float | None, float | None] = (None, None)
    zero: bool = False


@dataclass(frozen=True)
class Scatter:
    """Examples (logarithmic, from left to right) against a metric."""

    key: str
    title: str
    description: str
    x_label: str
    points: tuple[Point, ...]
    x_format: Callable[[float], str]
    y_format: Callable[[float], str]
    bounds: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Histogram:
    """How many clients have a value in each bin: (lower edge, upper edge, clients)."""

    key: str
    title: str
    description: str
    x_label: str
    bins: tuple[tuple[float, float, int], ...]
    x_format: Callable[[float], str]
    style: str


class Tenth(NamedTuple):
    """A tenth of the clients, by their examples, and the quantiles of their metric."""

    fewest: float
    size: float
    most: float
    low: float
    median: float
    high: float
    clients: int


def strip(chart: Strip) -> Drawing:
    """Draw a strip: dots for up to `MOST_DOTS` clients a row, a histogram for more."""
    return draw(lambda width: _strip(chart, width))


def scatter(chart: Scatter) -> Drawing:
    """Draw a scatter: dots for up to `MOST_DOTS` clients, for more the spread in each tenth."""
    return draw(lambda width: _scatter(chart, width))


def histogram_bars(chart: Histogram) -> Drawing:
    """Draw a histogram."""
    return draw(lambda width: _histogram(chart, width))


def held(values: Sequence[float], bounds: tuple[float | None, float | None]) -> tuple[float, float]:
    """The bounds of an axis: the values with some room, within `bounds`."""
    low, high = domain(values)
    low = low if bounds[0] is None else max(low, bounds[0])
    high = high if bounds[1] is None else min(high, bounds[1])
    return low, high


def _strip(chart: Strip, width: int) -> Element:
    """The strip at one width."""
    values = [point.x for row in chart.rows for point in row.points]
    values += [0.0] * chart.zero
    x = Scale(*held(values, chart.bounds), 12.0, width - 12.0)
    bottom = 8.0 + _ROW * len(chart.rows)
    root = canvas(chart.key, width, bottom + 42, chart.title, chart.description)
    plot = Plot(root, x, Scale(0, 1, bottom, 26.0))
    plot.columns(chart.x_format, 6 if width == WIDE else 4, lines=True)
    plot.axis(chart.x_label)
    if chart.zero:
        add(root, "line", "axis", x1=x(0.0), x2=x(0.0), y1=26.0, y2=bottom)
    for place, row in enumerate(chart.rows):
        top = 8.0 + _ROW * place
        label(root, 0, top + 11, row.name, "row-name")
        label(root, width, top + 11, row.note, "row-note", "end")
        if len(row.points) > MOST_DOTS:
            _density(root, row, x, top)
        else:
            _swarm(root, row, x, top)
        if row.middle is not None:
            at = x(row.middle)
            add(root, "line", f"mean {row.style}", x1=at, x2=at, y1=top + 20, y2=top + _ROW - 6)
    return root


def _swarm(root: Element, row: StripRow, x: Scale, top: float) -> None:
    """Dots that make room for each other, as far as the row is high."""
    middle = top + 20 + (_ROW - 26) / 2
    radius = _radius(len(row.points))
    room = (_ROW - 26) / 2 - radius
    placed: list[tuple[float, float]] = []
    step = radius / 2
    # Candidates for the height, nearest to the middle first, in turn above and below.
    offsets = [0.0] + [s * k * step for k in range(1, int(room / step) + 1) for s in (-1, 1)]
    for point in sorted(row.points, key=lambda point: (point.x, point.tip)):
        at = x(point.x)
        near = [(px, py) for px, py in placed[-80:] if at - px < 2 * radius]
        free = (
            offset
            for offset in offsets
            if all(math.hypot(at - px, offset - py) >= 2 * radius for px, py in near)
        )
        # Where a column is full, dots lie on each other, spread over its height.
        offset = next(free, offsets[len(placed) % len(offsets)])
        placed.append((at, offset))
        style = f"mark dot {point.style or row.style}"
        dot = add(root, "circle", style, cx=at, cy=middle + offset, r=radius - 0.5)
        tip(dot, point.tip)


def _radius(count: int) -> float:
    """The radius of dots: the more there are, the smaller."""
    return _RADIUS if count <= 60 else 3.6 if count <= 150 else 3.0


def _density(root: Element, row: StripRow, x: Scale, top: float) -> None:
    """A histogram in place of dots."""
    counts = histogram((point.x for point in row.points), x.low, x.high, _BINS)
    base, room, most = top + _ROW - 6, _ROW - 30, max(counts)
    size = (x.end - x.start) / _BINS
    for place, count in enumerate(counts):
        if count:
            height = max(room * count / most, 1.0)
            add(
                root, "rect", f"bar {row.style}",
                x=x.start + size * place + 0.5, y=base - height, width=size - 1, height=height,
            )  # fmt: skip


def _scatter(chart: Scatter, width: int) -> Element:
    """The scatter at one width."""
    wide = width == WIDE
    height = 260.0 if wide else 220.0
    groups = tenths(chart.points) if len(chart.points) > MOST_DOTS else []
    ys = [edge for group in groups for edge in (group.low, group.median, group.high)] or [
        point.y for point in chart.points
    ]
    xs = [group.size for group in groups] or [point.x for point in chart.points]
    y = Scale(*held(ys, chart.bounds), height - 42, 10.0)
    left = margin([chart.y_format(tick) for tick in y.ticks(5)])
    low, high = domain([max(value, 1.0) for value in xs], log=True)
    x = Scale(low, high, left, width - 12.0, log=True)
    root = canvas(chart.key, width, height, chart.title, chart.description)
    plot = Plot(root, x, y)
    plot.grid(chart.y_format)
    plot.columns(chart.x_format, 6 if wide else 4)
    plot.axis(chart.x_label)
    radius = _radius(len(chart.points)) - 0.5
    for group in groups:
        _tenth(root, chart, group, x, y)
    for point in () if groups else chart.points:
        style = f"mark dot {point.style}"
        dot = add(root, "circle", style, cx=x(max(point.x, 1.0)), cy=y(point.y), r=radius)
        tip(dot, point.tip)
    return root


def tenths(points: Sequence[Point]) -> list[Tenth]:
    """Ten equally large groups of clients, by their examples."""
    ordered = sorted(points, key=lambda point: (point.x, point.y))
    found = []
    for k in range(10):
        part = ordered[len(ordered) * k // 10 : len(ordered) * (k + 1) // 10]
        if part:
            sizes, ys = [point.x for point in part], sorted(point.y for point in part)
            edges = (quantile(ys, 0.1), quantile(ys, 0.5), quantile(ys, 0.9))
            found.append(Tenth(sizes[0], quantile(sizes, 0.5), sizes[-1], *edges, len(part)))
    return found


def _tenth(root: Element, chart: Scatter, group: Tenth, x: Scale, y: Scale) -> None:
    """A dot at the median and a line from the 10 % to the 90 % quantile."""
    mark = add(root, "g", "mark")
    at = x(max(group.size, 1.0))
    add(mark, "line", "whisker federated", x1=at, x2=at, y1=y(group.low), y2=y(group.high))
    add(mark, "circle", "dot federated", cx=at, cy=y(group.median), r=4.5)
    write = chart.y_format
    tip(
        mark,
        f"{group.clients:,} clients with {group.fewest:,.0f} to {group.most:,.0f} examples: "
        f"median {write(group.median)}, the middle 80\u202f% {write(group.low)} to "
        f"{write(group.high)}",
    )


def _histogram(chart: Histogram, width: int) -> Element:
    """The histogram at one width."""
    height = 220.0 if width == WIDE else 190.0
    most = max((count for *_, count in chart.bins), default=1)
    y = Scale(0, max(most, 1) * 1.05, height - 42, 10.0)
    left = margin([f"{tick:,.0f}" for tick in y.ticks(4)])
    low, high = chart.bins[0][0], chart.bins[-1][1]
    x = Scale(low, high if high > low else low + 1, left, width - 12.0)
    root = canvas(chart.key, width, height, chart.title, chart.description)
    plot = Plot(root, x, y)
    plot.grid(lambda value: f"{value:,.0f}", 4)
    plot.columns(chart.x_format, 6 if width == WIDE else 4)
    plot.axis(chart.x_label)
    for start, end, count in chart.bins:
        if count:
            bar = add(
                root, "rect", f"mark bar {chart.style}",
                x=x(start) + 0.5, y=y(count), width=max(x(end) - x(start) - 1, 0.5),
                height=y(0) - y(count),
            )  # fmt: skip
            clients = "client" if count == 1 else "clients"
            tip(bar, f"{chart.x_format(start)} to {chart.x_format(end)}: {count:,} {clients}")
    return root
