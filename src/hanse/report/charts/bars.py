"""Horizontal bars, a row per client, with marks to compare with."""

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
    fit,
    label,
    tip,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_ROW = 24


@dataclass(frozen=True)
class Bar:
    """A row.

    Attributes:
        name: what it stands for.
        value: the length of the bar.
        tip: its tooltip.
        style: the CSS class of the bar.
        marks: (CSS class, value) of marks on the same row.
    """

    name: str
    value: float
    tip: str
    style: str
    marks: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class BarChart:
    """What a bar chart shows.

    Attributes:
        key: unique on the page.
        title: its accessible name.
        description: what it shows, in a sentence.
        x_label: what the bars measure.
        bars: the rows from the top.
        x_format: how values are written.
        ceiling: a bound of the axis that need not be passed, such as 1 for a share.
    """

    key: str
    title: str
    description: str
    x_label: str
    bars: tuple[Bar, ...]
    x_format: Callable[[float], str]
    ceiling: float | None = None


def bars(chart: BarChart) -> Drawing:
    """Draw a bar chart."""
    return draw(lambda width: _paint(chart, width))


def _paint(chart: BarChart, width: int) -> Element:
    """The chart at one width."""
    wide = width == WIDE
    longest = max((len(bar.name) for bar in chart.bars), default=0)
    left = min(10 + 6.8 * longest, 150.0 if wide else 92.0)
    values = [v for bar in chart.bars for v in (bar.value, *(mark for _, mark in bar.marks))]
    low, high = domain(values, zero=True)
    high = high if chart.ceiling is None else min(high, chart.ceiling)
    right = 12.0 + 3.2 * len(chart.x_format(high))
    x = Scale(low, high if high > low else low + 1, left, width - right)
    bottom = 4.0 + _ROW * len(chart.bars)
    root = canvas(chart.key, width, bottom + 42, chart.title, chart.description)
    plot = Plot(root, x, Scale(0, 1, bottom, 4.0))
    plot.columns(chart.x_format, 5 if wide else 3, lines=True)
    plot.axis(chart.x_label)
    zero = x(0.0)
    for place, bar in enumerate(chart.bars):
        top = 4.0 + _ROW * place
        row = add(root, "g", "mark")
        # The whole row answers to the pointer, also where the bar is short.
        add(row, "rect", "hit", x=0.0, y=top, width=float(width), height=float(_ROW))
        label(row, left - 8, top + 16, fit(bar.name, left - 8), "name", "end")
        end = x(bar.value)
        size = max(abs(end - zero), 1.0)
        add(
            row, "rect", f"bar {bar.style}",
            x=min(zero, end), y=top + 6, width=size, height=_ROW - 12.0, rx=2.0,
        )  # fmt: skip
        for style, value in bar.marks:
            at = x(value)
            add(row, "line", f"tickmark {style}", x1=at, x2=at, y1=top + 3, y2=top + _ROW - 3)
        tip(row, bar.tip)
    return root
