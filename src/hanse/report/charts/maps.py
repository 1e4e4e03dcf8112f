"""A heat map: which client has how much of which class."""

from __future__ import annotations

from dataclasses import dataclass

from hanse.report.charts.svg import WIDE, Drawing, Element, add, canvas, draw, fit, label, num

STEPS = 8
_ROW_HEIGHTS = {True: (22.0, 9.0), False: (20.0, 8.0)}
_LABELLED_ROW = 12.0


@dataclass(frozen=True)
class HeatMap:
    """What a heat map shows.

    Attributes:
        key: unique on the page.
        title: its accessible name.
        description: what it shows, in a sentence.
        rows: names of the R rows.
        columns: names of the C columns.
        shares: R rows of C shares from 0 to 1.
    """

    key: str
    title: str
    description: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]


def heat_map(chart: HeatMap) -> Drawing:
    """Draw a heat map."""
    return draw(lambda width: _paint(chart, width))


def _paint(chart: HeatMap, width: int) -> Element:
    """The map at one width."""
    wide = width == WIDE
    most, least = _ROW_HEIGHTS[wide]
    row = min(most, max(least, 440.0 / max(len(chart.rows), 1)))
    longest = max((len(name) for name in chart.rows), default=0)
    left = min(12 + 6.8 * longest, 130.0 if wide else 84.0)
    column = min((width - left - 4) / max(len(chart.columns), 1), 76.0)
    names = [fit(name, 116.0 if wide else 92.0) for name in chart.columns]
    # Names that do not fit side by side are turned upright.
    turned = any(6.8 * len(name) > column - 4 for name in names)
    top = 10 + 6.6 * max((len(name) for name in names), default=0) if turned else 22.0
    root = canvas(chart.key, width, top + row * len(chart.rows) + 4, chart.title, chart.description)
    root.set("data-map", f"{num(left)} {num(top)} {column:.3f} {row:.3f}")
    every = max(1, -(-14 // max(int(column), 1))) if turned else 1
    for place, name in enumerate(names):
        if place % every:
            continue
        middle = left + column * (place + 0.5)
        if turned:
            add(
                root, "text", "tick",
                transform=f"translate({num(middle + 4)} {num(top - 6)}) rotate(-90)",
            ).text = name  # fmt: skip
        else:
            label(root, middle, top - 7, name, "tick", "middle")
    step = max(1, round(_LABELLED_ROW / row + 0.49))
    for place in range(0, len(chart.rows), step):
        base = top + row * (place + 0.5) + 4
        label(root, left - 8, base, fit(chart.rows[place], left - 10), "name", "end")
    _cells(root, chart, left, top, column, row)
    return root


def _cells(
    root: Element, chart: HeatMap, left: float, top: float, column: float, row: float
) -> None:
    """One path for each shade: thousands of cells would otherwise be thousands of elements."""
    paths: list[list[str]] = [[] for _ in range(STEPS)]
    wide, high = num(column - (1 if column > 6 else 0)), num(row - 1)
    for r, shares in enumerate(chart.shares):
        for c, share in enumerate(shares):
            corner = f"M{num(left + column * c)} {num(top + row * r)}"
            paths[shade(share)].append(f"{corner}h{wide}v{high}h-{wide}z")
    for step, cells in enumerate(paths):
        if cells:
            add(root, "path", f"heat-{step}", d="".join(cells))


def shade(share: float) -> int:
    """The shade of a share: 0 for none at all, up to `STEPS` - 1.

    Square roots of shares are divided evenly, so that a few examples differ visibly from none.
    """
    return 0 if share <= 0 else min(1 + int(share**0.5 * (STEPS - 1)), STEPS - 1)


def shade_from(step: int) -> float:
    """The smallest share that gets shade `step` (1 or more); exclusive for 1."""
    return ((step - 1) / (STEPS - 1)) ** 2
