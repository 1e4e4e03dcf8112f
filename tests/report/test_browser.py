"""The page in a real browser, on a phone and on a desk, by day and by night."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

Mode = Literal["light", "dark"]
KINDS = ("small", "big", "hundred", "regression", "diverged", "nasty", "huge", "group")

# Every text of the page, and of its charts, with the colour behind it.
CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = numbers(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const hidden = !element.checkVisibility() || element.closest("script, style, title, desc");
    if (!walker.currentNode.data.trim() || hidden) continue;
    const style = getComputedStyle(element);
    const colour = numbers(element.closest("svg") ? style.fill : style.color);
    const [one, other] = [light(colour), light(behind(element.closest("svg") ?? element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) bad.push([walker.currentNode.data.trim().slice(0, 40), ratio]);
  }
  return bad;
}"""
# The smallest letters on the page, in CSS pixels as they appear.
LETTERS = """() => Math.min(...[...document.querySelectorAll(".chart svg text")]
  .filter((text) => text.checkVisibility())
  .map((text) => parseFloat(getComputedStyle(text).fontSize)
    * text.ownerSVGElement.getBoundingClientRect().width
    / text.ownerSVGElement.viewBox.baseVal.width))"""


@pytest.fixture
def visit(browser: Browser, report: Callable[[str], Path]) -> Any:  # noqa: ANN401
    """Open the report of a kind of run; whatever the browser complains about fails the test."""
    contexts = []
    complaints: list[str] = []

    def give(kind: str, width: int = 1280, mode: Mode = "light", **options: Any) -> Page:  # noqa: ANN401
        out = report(kind)
        context = browser.new_context(
            offline=True,
            viewport={"width": width, "height": 900},
            color_scheme=mode,
            **options,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url in {out.as_uri(), "data:,"}
                else complaints.append(f"asked for {request.url}")
            ),
        )
        page.goto(out.as_uri())
        return page

    yield give
    for context in contexts:
        context.close()
    assert complaints == []


def point(page: Page, place: str, **options: Any) -> None:  # noqa: ANN401
    """Bring a mark into view, and only then point at it: scrolling closes the tooltip."""
    page.locator(place).first.scroll_into_view_if_needed()
    page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
    page.locator(place).first.hover(**options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_overflows(visit: Callable[..., Page], kind: str, width: int) -> None:
    page = visit(kind, width)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    wide, window = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= window
    assert page.evaluate(LETTERS) >= 9.5


@pytest.mark.parametrize("kind", ["small", "diverged", "group"])
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_stands_out(
    visit: Callable[..., Page], kind: str, width: int, mode: Mode
) -> None:
    page = visit(kind, width, mode)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate(CONTRAST) == []


def test_dark_mode_is_dark(visit: Callable[..., Page]) -> None:
    colours = {}
    for mode in ("light", "dark"):
        page = visit("small", mode=mode)
        colours[mode] = page.evaluate(
            """() => [document.body, document.querySelector('figure'),
                      document.querySelector('.wide .line.federated'),
                      document.querySelector('.wide .tick')].map((element) => {
                 const style = getComputedStyle(element);
                 return [style.backgroundColor, style.color, style.stroke, style.fill].join();
               })"""
        )
    assert all(light != dark for light, dark in zip(colours["light"], colours["dark"], strict=True))


@pytest.mark.parametrize("width", [320, 1280])
def test_one_of_the_two_drawings_shows(visit: Callable[..., Page], width: int) -> None:
    page = visit("small", width)
    shown = page.evaluate(
        """() => [...document.querySelectorAll('.chart')].map((chart) =>
             [...chart.children].filter((svg) => svg.checkVisibility())
             .map((svg) => svg.getAttribute('class')).join())"""
    )
    assert set(shown) == {"narrow" if width == 320 else "wide"}


def test_the_pointer_reads_the_curve(visit: Callable[..., Page]) -> None:
    page = visit("small")
    chart = page.locator("#curve-test-accuracy svg.wide")
    chart.scroll_into_view_if_needed()
    page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 15, box["y"] + 60)
    tip = page.locator(".tip").inner_text()
    row = page.locator("#curve-test-accuracy tbody tr").last.locator("th, td").all_text_contents()
    assert tip.splitlines() == [
        f"Round {row[0]}", f"All examples: {row[1]}", f"Worst client: {row[2]}",
    ]  # fmt: skip
    page.mouse.move(1, 1)
    assert page.locator(".tip").is_hidden()


def test_the_pointer_names_clients_and_cells(visit: Callable[..., Page]) -> None:
    page = visit("small")
    point(page, "#bars-test svg.wide .mark")
    assert page.locator(".tip").inner_text().startswith("subject 4: federated")
    point(page, "#strip-test svg.wide .mark")
    assert page.locator(".tip").inner_text().startswith("subject 4: federated")
    point(page, "#labels svg.wide", position={"x": 300, "y": 60})
    name, cell = page.locator(".tip").inner_text().splitlines()
    assert name.startswith("subject")
    assert cell.startswith("gesture")


def test_the_client_table_sorts(visit: Callable[..., Page]) -> None:
    page = visit("small")
    table = page.locator("#clients-test table.sortable")
    column = table.locator("tbody td:nth-child(2)")
    for order in ("ascending", "descending"):
        table.get_by_role("button", name="Examples").click()
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == order
        sizes = [int(text.replace(",", "")) for text in column.all_inner_texts()]
        assert sizes == sorted(sizes, reverse=order == "descending")
    table.get_by_role("button", name="Client").click()
    assert table.locator("tbody th").all_inner_texts() == [f"subject {k}" for k in range(1, 8)]


def test_nothing_is_lost_without_scripts(visit: Callable[..., Page]) -> None:
    with_scripts = visit("small").locator("main").inner_text()
    page = visit("small", java_script_enabled=False)
    assert page.locator(".wide .mark title").count() > 0
    assert page.locator("main").inner_text() == with_scripts
    page.locator("#curve-test-accuracy summary").click()
    assert page.locator("#curve-test-accuracy table").is_visible()


def test_it_prints(visit: Callable[..., Page]) -> None:
    page = visit("small", mode="dark")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 32, 39)"
    assert page.pdf(format="A4").startswith(b"%PDF")
