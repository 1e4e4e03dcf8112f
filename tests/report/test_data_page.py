"""The page of `hanse data inspect --out`: what it says, and how it looks in a browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.report.conftest import NASTY
from tests.report.test_browser import CONTRAST, LETTERS

from hanse.core.errors import RunError
from hanse.data import Federation, federation_from_arrays, partitioned, split
from hanse.report import write_data
from hanse.report.inspection import render_data

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser


def labelled(clients: int, alpha: float, min_size: int = 1) -> Federation:
    labels = np.random.default_rng(0).integers(0, 10, 50 * clients)
    parts = split(labels, clients, "dirichlet", seed=0, alpha=alpha, min_size=min_size)
    return partitioned(
        np.zeros((len(labels), 2), np.float32), labels, parts, classes=tuple("0123456789"),
        name="split <digits>", test_fraction=0.2, may_be_empty=True,
    )  # fmt: skip


def nasty() -> Federation:
    people = {name[:200]: (np.zeros((3, 2)), np.zeros(3, np.int64)) for name in NASTY}
    return federation_from_arrays(people, classes=list(NASTY), name=NASTY[0], attribution=NASTY[1])


def quantities() -> Federation:
    people = {f"site {k}": (np.zeros((k + 1, 2)), np.zeros(k + 1)) for k in range(5)}
    return federation_from_arrays(people, name="sensors")


PAGES: dict[str, Any] = {
    "few": lambda: labelled(8, alpha=0.3),
    "many": lambda: labelled(150, alpha=0.1, min_size=0),
    "quantities": quantities,
    "nasty": nasty,
}


def plain(page: str) -> str:
    return re.sub(r"<[^>]*>", " ", page.partition("<main>")[2].partition("<script>")[0])


def test_the_numbers_are_on_the_page() -> None:
    page = render_data(labelled(8, alpha=0.3))
    rows = re.findall(r"<tr><th scope=\"row\"><bdi>client (\d)</bdi></th>(.*?)</tr>", page)
    federation = labelled(8, alpha=0.3)
    sizes = federation.train.sizes(np.arange(8))
    fields, starts, _ = federation.train.block(np.arange(8))
    found: dict[int, list[list[int]]] = {}
    for client, cells in rows:
        numbers = [int(cell) for cell in re.findall(r"<td>(\d+)</td>", cells)]
        found.setdefault(int(client), []).append(numbers)
    for client in range(8):
        labels = fields["y"][int(starts[client]) : int(starts[client] + sizes[client])]
        counts = np.bincount(labels.numpy(), minlength=10).tolist()
        assert found[client] == [[sizes[client]], [*counts, sizes[client]]]


def test_empty_clients_and_those_left_out_are_told() -> None:
    said = plain(render_data(PAGES["many"]()))
    sizes = PAGES["many"]().train.sizes(np.arange(150))
    assert f"{int((sizes == 0).sum())} clients have none" in said
    assert "The first 60 of 150 clients." in said
    assert "The largest tenth of the clients has" in said


def test_quantities_have_no_map() -> None:
    page = render_data(quantities())
    assert 'id="sizes"' in page
    assert 'id="labels"' not in page
    assert "Labels at a client" not in page


def test_names_cannot_become_markup() -> None:
    page = render_data(nasty())
    assert page.count("<script>") == 1
    assert "<img" not in page
    page.encode()


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = write_data(quantities(), tmp_path / "new" / "skew.html")
    assert out.read_text() == render_data(quantities())
    with pytest.raises(RunError, match=r"skew.png") as caught:
        write_data(quantities(), tmp_path / "skew.png")
    assert "skew.html" in caught.value.instead
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new"]


@pytest.mark.browser
@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("width", [320, 1280])
def test_it_can_be_read_in_a_browser(
    browser: Browser, tmp_path: Path, kind: str, width: int
) -> None:
    out = write_data(PAGES[kind](), tmp_path / "skew.html")
    complaints: list[str] = []
    for mode in ("light", "dark"):
        context = browser.new_context(
            offline=True,
            viewport={"width": width, "height": 900},
            color_scheme="dark" if mode == "dark" else "light",
        )
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(out.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        wide, window = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= window
        assert page.evaluate(LETTERS) >= 9.5
        assert page.evaluate(CONTRAST) == []
        context.close()
    assert complaints == []
