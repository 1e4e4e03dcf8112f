"""An audit on a page: the numbers side by side, and how well canaries are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import ConfigError
from hanse.report.charts import Bar, BarChart, LineChart, Series, bars, lines
from hanse.report.figure import Figure, Key, Table, tick_format
from hanse.report.html import templates
from hanse.report.words import number
from hanse.storage import write_atomically, writing

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.auditing.report import Audit

_BINS = 40
_KINDS = (".json", ".html", ".htm")


def check_name(out: Path) -> None:
    """Refuse a name that does not say in which of the formats to write.

    Raises:
        ConfigError: it ends in something else.
    """
    if out.suffix.lower() not in _KINDS:
        raise ConfigError(
            f"{out} to write the audit to",
            why="its name does not say in which format",
            instead="a name that ends in .json (all numbers) or .html (a page)",
        )


def write_audit(found: Audit, out: Path) -> Path:
    """Write an audit as JSON or as an HTML page; the file appears whole or not at all.

    Returns:
        Where it was written.

    Raises:
        ConfigError: its name ends in something else.
        RunError: it cannot be written.
    """
    check_name(out)
    content = found.to_json() if out.suffix.lower() == ".json" else render_audit(found)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    return out


def render_audit(found: Audit) -> str:
    """The page; the same audit gives the same page."""
    page = templates().get_template("audit.html.j2")
    return page.render(
        facts=found.facts,
        verdict=found.verdict,
        figures=(_numbers(found), _scores(found)),
        notes=found.notes,
    )


def _numbers(found: Audit) -> Figure:
    """Claim, bound and estimate as bars."""
    rows = [
        (f"Claimed ({found.accountant})", found.claimed, "run-0"),
        ("Bound from below", found.bound, "worse" if found.broken else "run-1"),
    ]
    if found.estimate is not None:
        rows.append(("Estimate, no bound", found.estimate.epsilon, "run-2"))
    rows.append(("Largest bound possible", found.most, "run-3"))
    caption = (
        f"Epsilon at delta {found.delta:g}. The bound holds with {100 * found.confidence:g} % "
        f"confidence: {found.guesses.right:,} of {found.guesses.made:,} guesses were right."
    )
    longest = 2 * max(found.claimed, found.most)  # of a bar: an estimate may be in the thousands
    chart = BarChart(
        "epsilon", "Epsilon", caption, "epsilon",
        tuple(Bar(name, min(value, longest), f"{name}: {number(value)}", style)
              for name, value, style in rows),
        tick_format("epsilon"),
    )  # fmt: skip
    table = Table(("", "Epsilon"), tuple((name, f"{value:.4f}") for name, value, _ in rows))
    legend = tuple(Key(name, style, "bar", number(value)) for name, value, style in rows)
    return Figure("epsilon", "What is claimed, and what was found", caption, legend, bars(chart),
                  table)  # fmt: skip


def _scores(found: Audit) -> Figure:
    """How many canaries have which score, those in and those out."""
    scores, coins = np.array(found.scores), np.array(found.coins)
    edges = np.histogram_bin_edges(scores, _BINS)
    middles = (edges[1:] + edges[:-1]) / 2
    series, counts = [], []
    for name, style, chosen in (("out", "run-1", ~coins), ("in", "run-0", coins)):
        many, _ = np.histogram(scores[chosen], edges)
        counts.append(many)
        points = tuple(zip(middles.tolist(), map(float, many), strict=True))
        series.append(Series(f"Canaries {name}", style, points))
    caption = (
        "How well each canary's direction agrees with what was released. The further the two "
        "hills lie apart, the more is given away."
    )
    chart = LineChart(
        "scores", "Scores of canaries", caption, "inner product", tuple(series),
        tick_format("score"), bounds=(0.0, None), x_format=tick_format("score"),
    )  # fmt: skip
    rows = tuple(
        (f"{middle:.4g}", *(f"{many[place]:,}" for many in reversed(counts)))
        for place, middle in enumerate(middles)
    )
    legend = tuple(Key(one.name, one.style, "line") for one in reversed(series))
    return Figure(
        "scores", "Canaries told apart", caption, legend, lines(chart),
        Table(("Inner product", "Canaries in", "Canaries out"), rows), tuple(middles.tolist()),
    )  # fmt: skip
