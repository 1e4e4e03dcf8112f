"""The page of a comparison: self-contained, escaped, and in a real browser."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.report.conftest import NASTY, SPECS, build, write_run
from tests.report.test_browser import CONTRAST, LETTERS
from tests.report.test_page import Page

from hanse.comparison import compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser


CROWD = replace(SPECS["hundred"], clients=400, rounds=20)


def _two(folder: Path, kind: str) -> list[Path]:
    """A run, and one like it that serves its clients otherwise."""
    spec = CROWD if kind == "crowd" else SPECS[kind]
    one = write_run(folder / "one", spec)
    two = write_run(folder / f"two {'long ' * 12}", replace(spec, every=max(spec.every - 1, 1)))
    return [one, two]


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Comparisons, written once."""
    made: dict[str, Path] = {}

    def give(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp("comparison")
            if kind == "many":
                runs = [write_run(folder / f"run {k}", SPECS["small"]) for k in range(12)]
            elif kind == "groups":
                runs = [build(folder / name / "group", "group") for name in "ab"]
            else:
                runs = _two(folder, kind)
            made[kind] = compare(*runs, target="loss=1").write(folder / "page.html")
        return made[kind]

    return give


KINDS = ("small", "hundred", "crowd", "nasty", "regression", "one", "groups", "many")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_balanced_self_contained_and_escaped(pages: Callable[[str], Path], kind: str) -> None:
    text = pages(kind).read_text("utf-8")
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [tag for tag, _ in page.elements].count("script") == 1
    for _, attributes in page.elements:
        target = attributes.get("href", "#")
        assert target.startswith("#") or target == "data:,"
        assert target[1:] in ids or target in {"#", "data:,"}
        assert not any(key.startswith("on") for key in attributes)
    if kind == "nasty":
        assert NASTY[0] not in text
        assert "49" not in page.texts  # 7 * 7 of a template
    assert len(text) < 1_500_000


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    runs = _two(tmp_path, "small")
    assert compare(*runs).html() == compare(*runs).html()


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["small", "hundred", "nasty", "groups", "many"])
@pytest.mark.parametrize(("width", "mode"), [(320, "dark"), (390, "light"), (1280, "dark")])
def test_it_fits_and_every_text_stands_out(
    browser: Browser, pages: Callable[[str], Path], kind: str, width: int, mode: str
) -> None:
    out, complaints = pages(kind), []
    context = browser.new_context(
        offline=True,
        viewport={"width": width, "height": 900},
        color_scheme="dark" if mode == "dark" else "light",
    )
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(out.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    wide, window = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= window
    assert page.evaluate(LETTERS) >= 9.5
    assert page.evaluate(CONTRAST) == []
    context.close()
    assert complaints == []


@pytest.mark.browser
def test_its_tables_sort_and_its_curves_are_read(
    browser: Browser, pages: Callable[[str], Path]
) -> None:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(pages("small").as_uri())
    table = page.locator("#pairs-1-test table.sortable")
    table.get_by_role("button", name="Difference").click()
    cells = table.locator("tbody td:nth-child(5)")
    values = [float(cell.get_attribute("data-v") or "nan") for cell in cells.all()]
    assert values == sorted(values)
    chart = page.locator("#rounds-test-accuracy svg.wide")
    chart.scroll_into_view_if_needed()
    # Scrolling closes the tooltip: it has to be over first.
    page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 15, box["y"] + 60)
    said = page.locator(".tip").inner_text().splitlines()
    assert said[0] == "Round 60"
    assert said[1].startswith("one: ")
    context.close()
