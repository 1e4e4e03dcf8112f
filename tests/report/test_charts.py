"""Charts: scales that hold their values, ticks that are round, marks that are where they belong."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hanse.report.charts import (
    Bar,
    BarChart,
    HeatMap,
    Histogram,
    LineChart,
    Point,
    Rule,
    Scatter,
    Series,
    Strip,
    StripRow,
    bars,
    heat_map,
    histogram_bars,
    lines,
    scatter,
    strip,
)
from hanse.report.charts.maps import STEPS, shade, shade_from
from hanse.report.charts.points import MOST_DOTS
from hanse.report.charts.svg import Scale, domain, num

if TYPE_CHECKING:
    from hanse.report.charts import Drawing

finite = st.floats(-1e9, 1e9)


def roots(drawing: Drawing) -> list[ET.Element]:
    return [ET.fromstring(text) for text in (drawing.narrow, drawing.wide)]  # noqa: S314 (ours)


def having(root: ET.Element, style: str) -> list[ET.Element]:
    return [found for found in root.iter() if style in found.get("class", "").split()]


def line_chart(*series: Series, **changes: object) -> LineChart:
    kept = {"key": "k", "title": "t", "description": "d", "x_label": "round", "y_format": str}
    return LineChart(series=series, **(kept | changes))  # type: ignore[arg-type]


@given(st.lists(finite, min_size=1, max_size=20), st.integers(2, 8))
def test_a_scale_holds_its_values_and_its_ticks_are_round(values: list[float], most: int) -> None:
    low, high = domain(values)
    assert low < high
    assert low <= min(values)
    assert high >= max(values)
    scale = Scale(low, high, 0, 100)
    assert all(-1e-6 <= scale(value) <= 100 + 1e-6 for value in values)
    ticks = scale.ticks(most)
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 2 * most + 2
    tiny = 1e-6 * (high - low)
    assert all(low - tiny <= tick <= high + tiny for tick in ticks)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20))
def test_a_logarithmic_scale_holds_its_values(values: list[float]) -> None:
    low, high = domain(values, log=True)
    scale = Scale(low, high, 0, 100, log=True)
    assert all(-1e-6 <= scale(value) <= 100 + 1e-6 for value in values)
    assert all(low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9) for tick in scale.ticks(5))


@given(finite, finite)
def test_a_linear_scale_is_linear(one: float, other: float) -> None:
    assume(abs(one - other) > 1e-3)
    scale = Scale(min(one, other), max(one, other), 10, 30)
    assert math.isclose(scale((one + other) / 2), 20, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (-0.04, "0"), (2.36, "2.4"), (-1.26, "-1.3"), (100.0, "100")]
)
def test_coordinates_are_short(value: float, text: str) -> None:
    assert num(value) == text


def test_every_chart_has_a_name_a_description_and_a_role() -> None:
    point = Point(1.0, "<tip>", 2.0)
    row = StripRow("<row>", "note", "federated", (point,), 1.0)
    drawings = [
        lines(line_chart(Series("a", "federated", ((0, 1.0), (1, 2.0))))),
        bars(BarChart("b", "<t>", "<d>", "x", (Bar("<n>", 1.0, "<tip>", "federated"),), str)),
        strip(Strip("s", "<t>", "<d>", "x", (row,), str)),
        scatter(Scatter("c", "<t>", "<d>", "x", (point,), str, str)),
        histogram_bars(Histogram("h", "<t>", "<d>", "x", ((0.0, 1.0, 3),), str, "federated")),
        heat_map(HeatMap("m", "<t>", "<d>", ("<r>",), ("<c>",), ((0.5,),))),
    ]
    ids: list[str] = []
    for drawing in drawings:
        for root in roots(drawing):
            assert root.get("role") == "img"
            title, description = root.find("title"), root.find("desc")
            assert title is not None
            assert description is not None
            assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
            ids += [str(title.get("id")), str(description.get("id"))]
    assert len(ids) == len(set(ids))


def test_a_line_is_interrupted_where_there_is_no_value() -> None:
    points: tuple[tuple[float, float | None], ...] = ((0, 1.0), (1, None), (2, 3.0), (3, 4.0))
    for root in roots(lines(line_chart(Series("a", "federated", points)))):
        (path,) = having(root, "line")
        assert str(path.get("d")).count("M") == 2
        assert str(path.get("d")).count("L") == 1


def test_a_line_chart_grows_upwards_and_holds_rules() -> None:
    chart = line_chart(
        Series("a", "federated", ((0, 0.2), (10, 0.8)), band=((0, 0.1, 0.3), (10, 0.7, 0.9))),
        rules=(Rule("pooled", "pooled", 0.95),),
        bounds=(0.0, 1.0),
    )
    for root in roots(chart_drawing := lines(chart)):
        assert chart_drawing.narrow != chart_drawing.wide
        first, last = having(root, "knot") + having(root, "dot")
        (rule,) = having(root, "rule")
        assert float(str(first.get("cy"))) > float(str(last.get("cy")))
        assert float(str(rule.get("y1"))) < float(str(last.get("cy")))
        assert len(having(root, "band")) == 1


def test_an_exploding_loss_gets_a_logarithmic_axis() -> None:
    series = Series("a", "federated", tuple((k, 10.0**k) for k in range(7)))
    for root in roots(lines(line_chart(series, log_y=True))):
        heights = [float(str(dot.get("cy"))) for dot in having(root, "knot")]
        steps = [one - other for one, other in itertools.pairwise(heights)]
        assert max(steps) - min(steps) < 0.5


def test_a_long_line_is_thinned_and_keeps_its_spike() -> None:
    points = tuple((float(k), 1.0 if k != 5001 else 50.0) for k in range(10_000))
    drawing = lines(line_chart(Series("a", "federated", points)))
    assert len(drawing.wide) < 20_000
    plain = lines(line_chart(Series("a", "federated", tuple((x, 1.0) for x, _ in points))))
    assert drawing.wide.count("L") >= plain.wide.count("L")
    (path,) = having(roots(drawing)[1], "line")
    heights = [float(part.split()[1]) for part in str(path.get("d"))[1:].split("L")]
    assert max(heights) - min(heights) > 100


@pytest.mark.parametrize("count", [1, 2, 50, MOST_DOTS])
def test_a_strip_has_a_dot_for_every_client(count: int) -> None:
    points = tuple(Point(0.5 + 0.001 * (k % 7), f"client {k}") for k in range(count))
    row = StripRow("Federated", "", "federated", points, 0.5)
    for root in roots(strip(Strip("s", "t", "d", "x", (row,), str))):
        dots = having(root, "dot")
        assert len(dots) == count
        assert {dot.findtext("title") for dot in dots} == {point.tip for point in points}
        heights = [float(str(dot.get("cy"))) for dot in dots]
        assert min(heights) >= 0
        assert max(heights) <= 92


def test_more_clients_become_a_histogram() -> None:
    points = tuple(Point(k / 1000, "") for k in range(MOST_DOTS + 1))
    row = StripRow("Federated", "", "federated", points, 0.1)
    for root in roots(strip(Strip("s", "t", "d", "x", (row,), str))):
        assert not having(root, "dot")
        assert 10 < len(having(root, "bar")) <= 40


def test_a_scatter_of_many_clients_shows_tenths() -> None:
    points = tuple(Point(float(k), "", 0.5) for k in range(5000))
    for root in roots(scatter(Scatter("s", "t", "d", "x", points, str, str))):
        assert len(having(root, "dot")) == 10
        assert len(having(root, "whisker")) == 10


def test_bars_below_zero_go_to_the_left() -> None:
    found = (Bar("a", -2.0, "", "federated"), Bar("b", 2.0, "", "federated", (("alone", 1.0),)))
    for root in roots(bars(BarChart("b", "t", "d", "x", found, str))):
        left, right = having(root, "bar")
        end = float(str(left.get("x"))) + float(str(left.get("width")))
        assert end == pytest.approx(float(str(right.get("x"))), abs=0.2)
        assert len(having(root, "tickmark")) == 1


@given(st.floats(0, 1))
def test_shades_grow_with_shares(share: float) -> None:
    step = shade(share)
    assert 0 <= step < STEPS
    assert (step == 0) == (share == 0)
    if step > 1:
        assert share >= shade_from(step) - 1e-9
    if 1 <= step < STEPS - 1:
        assert share <= shade_from(step + 1) + 1e-9


def test_a_heat_map_has_a_cell_for_every_pair() -> None:
    shares = tuple(tuple((r + c) / 20 for c in range(10)) for r in range(6))
    names = tuple("abcdef")
    chart = HeatMap("m", "t", "d", names, tuple(f"class {c}" for c in range(10)), shares)
    for root in roots(heat_map(chart)):
        cells = [found for found in root.iter() if found.get("class", "").startswith("heat-")]
        assert sum(str(cell.get("d")).count("M") for cell in cells) == 60
        assert len(cells) <= STEPS
