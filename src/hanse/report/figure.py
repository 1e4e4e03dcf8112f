"""A figure of the page: a chart, its legend, and its numbers as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.report.words import NARROW_SPACE, is_share, minus

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.report.charts import Drawing

# Rows of a table under a chart, and of the table of clients; more are thinned out or cut.
MOST_ROWS = 120
MOST_CLIENTS = 300
# From this many clients on, a tenth of them is more than the worst one.
TENTH_IS_SEVERAL = 11


@dataclass(frozen=True)
class Table:
    """Numbers under a chart.

    Attributes:
        head: the column titles.
        rows: the cells; the first of each row is its heading.
        note: what the rows leave out; empty where nothing.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of a legend.

    Attributes:
        name: what the mark stands for.
        style: the CSS class of the mark.
        shape: "line", "rule", "dot", "bar", "cell" or "tick".
        value: a number to the right of the name; may be empty.
    """

    name: str
    style: str
    shape: str
    value: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart with everything around it.

    Attributes:
        key: unique on the page.
        title: its heading.
        caption: a sentence or two that say what to see.
        legend: the marks, the most important first.
        drawing: the chart.
        table: its numbers.
        places: the horizontal value of each row of `table`, where the pointer may look it up.
    """

    key: str
    title: str
    caption: str
    legend: tuple[Key, ...]
    drawing: Drawing
    table: Table
    places: tuple[float, ...] = ()


def tick_format(metric: str) -> Callable[[float], str]:
    """How values of a metric are written on an axis."""
    if is_share(metric):
        return lambda value: f"{round(100 * value, 3):g}{NARROW_SPACE}%"
    return lambda value: minus(f"{value:,.4g}".replace("e+0", "e").replace("e-0", "e-"))


def share_bounds(metric: str) -> tuple[float | None, float | None]:
    """The bounds that an axis of a metric need not pass."""
    return (0.0, 1.0) if is_share(metric) else (None, None)
