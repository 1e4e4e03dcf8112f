"""What every chart is made of: elements, scales, ticks and axes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

# The tree is only written here, never parsed: the attacks on XML parsers do not apply.
from xml.etree import ElementTree as ET

from markupsafe import Markup

from hanse.report.words import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Element = ET.Element
# Widths in user units, near the CSS pixels that a chart gets on a phone and on a desk, so that the
# 12-unit letters come out readable on both.
NARROW, WIDE = 290, 540
_NOT_AN_ID = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Drawing:
    """A chart in two widths; the page shows one of them.

    Attributes:
        narrow: the SVG for containers as wide as a phone.
        wide: the SVG for wider ones.
    """

    narrow: Markup
    wide: Markup


def draw(painter: Callable[[int], Element]) -> Drawing:
    """Both widths of what `painter` makes of a width in user units."""
    return Drawing(narrow=_markup(painter(NARROW)), wide=_markup(painter(WIDE)))


def _markup(element: Element) -> Markup:
    """The SVG as text that a template may insert as it is."""
    # ElementTree has escaped every text and attribute.
    return Markup(ET.tostring(element, encoding="unicode"))  # noqa: S704


def canvas(key: str, width: int, height: float, title: str, description: str) -> Element:
    """An SVG that screen readers announce by its title and description.

    Args:
        key: what makes the ids of this chart unique on the page.
        width: in user units.
        height: in user units.
        title: the accessible name.
        description: what the chart shows, in a sentence.
    """
    name = f"{_NOT_AN_ID.sub('-', key.lower()).strip('-')}-{width}"
    element = ET.Element(
        "svg",
        {
            "viewBox": f"0 0 {width} {num(height)}",
            "role": "img",
            "class": "narrow" if width == NARROW else "wide",
            "aria-labelledby": f"{name}-t {name}-d",
        },
    )
    ET.SubElement(element, "title", {"id": f"{name}-t"}).text = title
    ET.SubElement(element, "desc", {"id": f"{name}-d"}).text = description
    return element


def add(parent: Element, tag: str, style: str, **attributes: float | str) -> Element:
    """A child with a class and attributes; numbers are rounded to tenths."""
    given = {"class": style} if style else {}
    for key, value in attributes.items():
        given[key.replace("_", "-")] = value if isinstance(value, str) else num(value)
    return ET.SubElement(parent, tag, given)


def tip(element: Element, content: str) -> None:
    """Give a mark a tooltip."""
    ET.SubElement(element, "title").text = content


def label(
    parent: Element, x: float, y: float, content: str, style: str = "", anchor: str = "start"
) -> None:
    """A text whose baseline starts, is centred or ends at (x, y)."""
    given: dict[str, float | str] = {"x": x, "y": y}
    if anchor != "start":
        given["text-anchor"] = anchor
    add(parent, "text", style, **given).text = content


def num(value: float) -> str:
    """A coordinate, to a tenth of a unit."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def fit(text: str, width: float) -> str:
    """`text` cut to about `width` units of 12-unit letters."""
    return shorten(text, max(4, int(width / 7)))


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from values to user units.

    Attributes:
        low: the value at `start`.
        high: the value at `end`; above `low`.
        start: user units.
        end: user units.
        log: whether equal ratios are equal distances; `low` is then above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where `value` lies; values outside are moved to the nearest end."""
        held = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(held / self.low) / math.log(self.high / self.low)
        else:
            share = (held - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most about `most` round values from `low` to `high`."""
        return _log_ticks(self.low, self.high, most) if self.log else _ticks(self, most)


def domain(
    values: Sequence[float], *, log: bool = False, zero: bool = False
) -> tuple[float, float]:
    """Bounds that hold all the values with a little room; (0, 1) without any.

    Args:
        values: finite numbers; above 0 for a logarithmic scale.
        log: whether the room is a ratio.
        zero: whether 0 is among the values to hold.
    """
    if not values:
        return (0.5, 1.5) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        return (low / 1.2, high * 1.2)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(high) * 0.1 or 0.5
        return (low - (0 if zero and low == 0 else room), high + room)
    room = (high - low) * 0.06
    return (low if zero and low == 0 else low - room, high if zero and high == 0 else high + room)


def _ticks(scale: Scale, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    # A quarter below the even step counts as even: a few ticks more than asked beat too few.
    raw = 0.75 * (scale.high - scale.low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    # Twelve digits: 0.30000000000000004 is 0.3.
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, thinned out; with their twos and fives where there are few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    powers = [10.0**k for k in range(first, last + 1)]
    if len(powers) > most:
        return powers[:: math.ceil(len(powers) / most)]
    finer = [f * 10.0**k for k in range(first - 1, last + 1) for f in (1, 2, 5)]
    kept = [tick for tick in finer if low <= tick <= high]
    return kept if len(kept) <= most + 1 else powers


@dataclass(frozen=True)
class Plot:
    """The area that data is drawn in.

    Attributes:
        root: the SVG.
        x: the horizontal scale.
        y: the vertical scale.
    """

    root: Element
    x: Scale
    y: Scale

    def grid(self, y_format: Callable[[float], str], most: int = 5) -> None:
        """Horizontal lines with their values at the left."""
        for value in self.y.ticks(most):
            height = self.y(value)
            add(self.root, "line", "grid", x1=self.x.start, x2=self.x.end, y1=height, y2=height)
            label(self.root, self.x.start - 6, height + 4, y_format(value), "tick", "end")

    def columns(self, x_format: Callable[[float], str], most: int, *, lines: bool = False) -> None:
        """Values along the bottom, with vertical lines if `lines`."""
        bottom = max(self.y.start, self.y.end)
        top = min(self.y.start, self.y.end)
        for value in self.x.ticks(most):
            place = self.x(value)
            if lines:
                add(self.root, "line", "grid", x1=place, x2=place, y1=top, y2=bottom)
            label(self.root, place, bottom + 16, x_format(value), "tick", "middle")

    def axis(self, content: str) -> None:
        """The line along the bottom and what it measures, right-aligned below it."""
        bottom = max(self.y.start, self.y.end)
        add(self.root, "line", "axis", x1=self.x.start, x2=self.x.end, y1=bottom, y2=bottom)
        label(self.root, self.x.end, bottom + 32, content, "axis-label", "end")


def margin(formatted: Sequence[str]) -> float:
    """The room that tick labels need at the left, in user units."""
    return 12 + 6.4 * max((len(text) for text in formatted), default=2)


def path(points: Sequence[tuple[float, float] | None]) -> str:
    """Path data through the points, interrupted at each None."""
    parts: list[str] = []
    pen = "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        parts.append(f"{pen}{num(point[0])} {num(point[1])}")
        pen = "L"
    return "".join(parts)
