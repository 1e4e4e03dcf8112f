"""A picture of a privacy plan: epsilon over rounds, by each accountant."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from hanse.core.errors import RunError
from hanse.report.charts import LineChart, Rule, Series, lines
from hanse.report.figure import Figure, Key, Table, tick_format
from hanse.report.html import templates
from hanse.report.words import number
from hanse.storage import write_atomically, writing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hanse.report.charts import Drawing

# The styles differ in their dashes, too: curves of two accountants may lie on each other.
_STYLES = {"rdp": "run-0", "pld": "run-2", "opacus-rdp": "run-1", "opacus-prv": "run-3"}
_NAMES = {
    "rdp": "RDP (dp-accounting)",
    "pld": "PLD (dp-accounting)",
    "opacus-rdp": "RDP (Opacus)",
    "opacus-prv": "PRV (Opacus)",
}
_LEGEND_ROW = 20


@dataclass(frozen=True)
class Plan:
    """What a plan shows.

    Attributes:
        facts: what was accounted for, in a line.
        rounds: numbers of rounds, ascending.
        curves: by accountant, epsilon after each of `rounds`.
        budget: an epsilon to compare with, or None.
        notes: sentences below the picture.
    """

    facts: str
    rounds: tuple[int, ...]
    curves: Mapping[str, tuple[float, ...]]
    budget: float | None = None
    notes: tuple[str, ...] = ()


def write_plan(plan: Plan, out: Path) -> Path:
    """Write a plan as an HTML page, with its numbers, or as one SVG.

    The file appears whole or not at all.

    Returns:
        Where it was written.

    Raises:
        RunError: where it cannot be written, or is to be something else than HTML or SVG.
    """
    kind = out.suffix.lower()
    if kind not in {".html", ".htm", ".svg"}:
        raise RunError(
            f"a picture of a plan in {out.name!r}",
            why="it is an HTML page or an SVG",
            instead="a name that ends in .html or .svg, such as plan.html",
        )
    content = render_svg(plan) if kind == ".svg" else render_plan(plan)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    return out


def render_plan(plan: Plan) -> str:
    """The page; the same plan gives the same page."""
    page = templates().get_template("plan.html.j2")
    return page.render(facts=plan.facts, figure_of=_figure(plan), notes=plan.notes)


def render_svg(plan: Plan) -> str:
    """The chart by itself, with a title, a legend and the colours of the page."""
    return standalone(_figure(plan), plan.facts)


def standalone(figure: Figure, facts: str) -> str:
    """A figure as an SVG by itself, with its title, a line below it, and its legend."""
    inner = ET.fromstring(figure.drawing.wide)  # noqa: S314 - written by this program
    width, height = map(float, inner.attrib["viewBox"].split()[2:])
    top, rows = 44.0, len(figure.legend)
    whole = height + top + rows * _LEGEND_ROW + 8
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"-8 0 {width + 24:g} {whole:g}",
            "width": f"{1.5 * width:g}",
            "font-family": "system-ui, sans-serif",
        },
    )
    style = resources.files("hanse.report").joinpath("style.css").read_text("utf-8")
    ET.SubElement(root, "style").text = style
    ET.SubElement(
        root, "rect", {"x": "-8", "width": "100%", "height": "100%", "fill": "var(--surface)"}
    )
    ET.SubElement(root, "text", {"x": "12", "y": "20", "class": "row-name"}).text = figure.title
    ET.SubElement(root, "text", {"x": "12", "y": "37"}).text = facts
    inner.attrib.update(
        {"y": f"{top:g}", "width": f"{width:g}", "height": f"{height:g}", "overflow": "visible"}
    )
    root.append(inner)
    for row, key in enumerate(figure.legend):
        y = top + height + 4 + row * _LEGEND_ROW
        ET.SubElement(root, "path", {"class": f"{key.shape} {key.style}", "d": f"M12 {y:g}h26"})
        text = f"{key.name}: {key.value}"
        ET.SubElement(root, "text", {"x": "46", "y": f"{y + 4:g}"}).text = text
    return ET.tostring(root, encoding="unicode") + "\n"


def _figure(plan: Plan) -> Figure:
    last = plan.rounds[-1]
    caption = f"What {last:,} rounds cost together. Each line is an upper bound."
    legend = [
        Key(_NAMES[name], _STYLES[name], "line", number(curve[-1]))
        for name, curve in plan.curves.items()
    ]
    if plan.budget is not None:
        legend.append(Key("Budget", "worse", "rule", number(plan.budget)))
    rows = tuple(
        (f"{n:,}", *(f"{curve[place]:.4f}" for curve in plan.curves.values()))
        for place, n in enumerate(plan.rounds)
    )
    table = Table(("Rounds", *(_NAMES[name] for name in plan.curves)), rows)
    return Figure(
        "epsilon", "Epsilon over rounds", caption, tuple(legend), _drawing(plan, caption), table,
        tuple(map(float, plan.rounds)),
    )  # fmt: skip


def _drawing(plan: Plan, caption: str) -> Drawing:
    series = tuple(
        Series(_NAMES[name], _STYLES[name], tuple(zip(plan.rounds, curve, strict=True)))
        for name, curve in plan.curves.items()
    )
    rules = () if plan.budget is None else (Rule("Budget", "worse", plan.budget),)
    return lines(
        LineChart(
            "epsilon", "Epsilon over rounds", caption, "rounds", series, tick_format("epsilon"),
            rules, bounds=(0.0, None),
        )
    )  # fmt: skip
