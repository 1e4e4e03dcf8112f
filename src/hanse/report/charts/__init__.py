"""Charts as inline SVG, drawn twice: for a phone's width and for a desk's.

Colours are classes, so that the page's style sheet decides them for light, dark and paper. Every
text goes through an XML tree, so that nothing a user wrote can become markup.
"""

from hanse.report.charts.bars import Bar, BarChart, bars
from hanse.report.charts.lines import LineChart, Rule, Series, lines
from hanse.report.charts.maps import HeatMap, heat_map
from hanse.report.charts.points import (
    Histogram,
    Point,
    Scatter,
    Strip,
    StripRow,
    histogram_bars,
    scatter,
    strip,
)
from hanse.report.charts.svg import Drawing

__all__ = [
    "Bar",
    "BarChart",
    "Drawing",
    "HeatMap",
    "Histogram",
    "LineChart",
    "Point",
    "Rule",
    "Scatter",
    "Series",
    "Strip",
    "StripRow",
    "bars",
    "heat_map",
    "histogram_bars",
    "lines",
    "scatter",
    "strip",
]
