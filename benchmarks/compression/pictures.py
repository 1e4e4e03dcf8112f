"""Accuracy against bytes, a picture for each data set."""

from __future__ import annotations

import statistics
from importlib import resources
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from benchmarks.compression.settings import DATA
from benchmarks.compression.tables import PLAIN, lines
from hanse.report.charts.svg import Plot, Scale, add, canvas, domain, label, tip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.compression.settings import Record
    from benchmarks.compression.tables import Line

_WIDTH, _HEIGHT, _TOP = 720, 380, 56.0
FEEDBACK = ", error feedback"
_LEGEND = {"federated": "no memory", "alone": "error feedback"}


def draw(records: Sequence[Record]) -> dict[str, str]:
    """Pictures by their file names."""
    return {
        f"compression-{data}.svg": _picture(data, title, found)
        for data, title in DATA.items()
        if (found := lines(records, data))
    }


def _picture(data: str, title: str, found: list[Line]) -> str:
    means = [statistics.mean(line.accuracy) for line in found]
    y = Scale(*domain(means), _HEIGHT - 48.0, _TOP)
    x = Scale(*domain([line.message for line in found], log=True), 52.0, _WIDTH - 12.0, log=True)
    root = canvas(data, _WIDTH, _HEIGHT, title, "Accuracy against the bytes of a client's message.")
    root.attrib.update({"xmlns": "http://www.w3.org/2000/svg", "font-family": "sans-serif"})
    style = resources.files("hanse.report").joinpath("style.css").read_text("utf-8")
    root.insert(0, ET.Element("style"))
    root[0].text = style
    background = ET.Element("rect", {"width": "100%", "height": "100%", "fill": "var(--surface)"})
    root.insert(1, background)
    label(root, 12, 20, title, "row-name")
    plot = Plot(root, x, y)
    plot.grid(lambda value: f"{value:g} %")
    plot.columns(lambda value: f"{value:,.0f}", 6)
    plot.axis("bytes of a client's message")
    plain = statistics.mean(next(line.accuracy for line in found if line.setting == PLAIN))
    add(root, "line", "rule muted", x1=x.start, x2=x.end, y1=y(plain), y2=y(plain))
    taken: list[tuple[float, float, float]] = []
    for line, mean in sorted(zip(found, means, strict=True), key=lambda pair: pair[1]):
        at, height = x(line.message), y(mean)
        dot = add(root, "circle", f"mark dot {_style(line.setting)}", cx=at, cy=height, r=5.0)
        tip(dot, f"{line.setting}: {mean:.2f} %, {line.message:,.0f} bytes")
        name = line.setting.removesuffix(FEEDBACK)
        half, place = 3.2 * len(name), height - 10
        middle = min(at, _WIDTH - half - 4)
        while any(abs(middle - m) < half + h and abs(place - b) < 12 for m, h, b in taken):
            place -= 12
        taken.append((middle, half, place))
        label(root, middle, place, name, "", "middle")
    for number, (style, name) in enumerate(_LEGEND.items()):
        at = _WIDTH - 300 + 130 * number
        add(root, "circle", f"dot {style}", cx=at, cy=16, r=5.0)
        label(root, at + 10, 20, name)
    return ET.tostring(root, encoding="unicode") + "\n"


def _style(setting: str) -> str:
    return "alone" if setting.endswith(FEEDBACK) else "federated"
