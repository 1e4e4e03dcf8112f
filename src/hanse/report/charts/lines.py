"""Line charts over rounds, with a band over seeds or clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    margin,
    num,
    path,
)
from hanse.report.words import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.report.quantities import Number

_HEIGHT = {True: 250, False: 210}
_BUCKETS = 120
_FEW_POINTS = 25
_LOG_RATIO = 1000.0


def number_of_rounds(value: float) -> str:
    """A tick of an axis of whole numbers."""
    return f"{value:,.0f}" if value == int(value) else number(value)


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        name: its name in the legend.
        style: its CSS class.
        points: (x, value) ascending in x; a value of None interrupts the line.
        band: (x, low, high) ascending in x, shaded behind the line; may be empty.
    """

    name: str
    style: str
    points: tuple[tuple[float, Number], ...]
    band: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Rule:
    """A horizontal line to compare with.

    Attributes:
        name: its name in the legend.
        style: its CSS class.
        value: its height, in the unit of the vertical axis.
    """

    name: str
    style: str
    value: float


@dataclass(frozen=True)
class LineChart:
    """What a line chart shows.

    Attributes:
        key: unique on the page.
        title: its accessible name.
        description: what it shows, in a sentence.
        x_label: what the horizontal axis measures.
        series: the lines, the most important last, so that it is drawn on top.
        rules: horizontal lines to compare with.
        y_format: how values are written.
        bounds: bounds of the vertical axis that need not be passed, such as (0, 1) for a share.
        log_x: whether the horizontal axis is logarithmic (x above 0).
        x_format: how values along the horizontal axis are written.
        log_y: whether the vertical axis may become logarithmic: it does for positive values that
            span more than three orders of magnitude.
    """

    key: str
    title: str
    description: str
    x_label: str
    series: tuple[Series, ...]
    y_format: Callable[[float], str]
    rules: tuple[Rule, ...] = ()
    bounds: tuple[float | None, float | None] = (None, None)
    log_x: bool = False
    log_y: bool = False
    x_format: Callable[[float], str] = number_of_rounds


def lines(chart: LineChart) -> Drawing:
    """Draw a line chart."""
    return draw(lambda width: _paint(chart, width))


def _vertical(chart: LineChart, top: float, bottom: float) -> Scale:
    """The vertical scale that holds every line, band and rule."""
    values = [value for series in chart.series for _, value in series.points if value is not None]
    values += [edge for series in chart.series for _, *edges in series.band for edge in edges]
    values += [rule.value for rule in chart.rules]
    log = (
        chart.log_y and bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_RATIO
    )
    low, high = domain(values, log=log)
    floor, ceiling = chart.bounds
    low = low if floor is None or log else max(low, floor)
    high = high if ceiling is None else min(high, ceiling)
    return Scale(low, high, bottom, top, log=log)


def _paint(chart: LineChart, width: int) -> Element:
    """The chart at one width."""
    wide = width == WIDE
    height = _HEIGHT[wide]
    y = _vertical(chart, 10.0, height - 42.0)
    left = margin([chart.y_format(tick) for tick in y.ticks(5)])
    xs = [x for series in chart.series for x, _ in series.points]
    low, high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    x = Scale(low, high if high > low else low + 1, left, width - 10.0, log=chart.log_x)
    root = canvas(chart.key, width, height, chart.title, chart.description)
    root.set("data-x", f"{num(x.start)} {num(x.end)} {x.low} {x.high} {int(x.log)}")
    root.set("data-y", f"{num(y.end)} {num(y.start)}")
    plot = Plot(root, x, y)
    plot.grid(chart.y_format)
    plot.columns(chart.x_format, 6 if wide else 4)
    plot.axis(chart.x_label)
    for series in chart.series:
        if series.band:
            over = [(x(at), y(high)) for at, _, high in series.band]
            under = [(x(at), y(low)) for at, low, _ in reversed(series.band)]
            add(root, "path", f"band {series.style}", d=path([*over, *under]) + "Z")
    for rule in chart.rules:
        place = y(rule.value)
        add(root, "line", f"rule {rule.style}", x1=x.start, x2=x.end, y1=place, y2=place)
    for series in chart.series:
        _line(root, series, x, y)
    return root


def _line(root: Element, series: Series, x: Scale, y: Scale) -> None:
    """A line, with dots where it has few points and at its end."""
    points = [
        None if value is None else (x(at), y(value)) for at, value in _decimate(series.points)
    ]
    add(root, "path", f"line {series.style}", d=path(points))
    known = [point for point in points if point is not None]
    for place in known[:-1] if len(known) <= _FEW_POINTS else []:
        add(root, "circle", f"knot {series.style}", cx=place[0], cy=place[1], r=2.2)
    for place in known[-1:]:
        add(root, "circle", f"dot {series.style}", cx=place[0], cy=place[1], r=4.0)


def _decimate(points: tuple[tuple[float, Number], ...]) -> list[tuple[float, Number]]:
    """The points, or of each of many stretches the lowest and the highest, so that spikes stay."""
    if len(points) <= 2 * _BUCKETS:
        return list(points)
    kept: list[tuple[float, Number]] = []
    size = -(-len(points) // _BUCKETS)
    for start in range(0, len(points), size):
        stretch = [(value, at) for at, value in points[start : start + size] if value is not None]
        if not stretch:
            kept.append((points[start][0], None))
            continue
        ends = {(at, value) for value, at in (min(stretch), max(stretch))}
        kept += sorted(ends)
    last = points[-1]
    return kept if kept[-1] == last else [*kept, last]
