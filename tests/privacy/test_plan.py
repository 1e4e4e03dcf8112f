"""The commands, and the picture: what it shows is what was computed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from tests.docs.pages import hanse

from hanse.privacy import GaussianEvent, epsilon
from hanse.report.plan import Plan, render_plan, render_svg

if TYPE_CHECKING:
    from pathlib import Path

SHOWN = Plan("<facts>", (1, 50, 100), {"rdp": (0.5, 1.0, 1.5), "pld": (0.4, 0.8, 1.25)}, 2.0)
ARGUMENTS = "--noise-multiplier 2 --rate 1 --rounds 30 --delta 1e-5"


def test_the_page_has_the_numbers_and_escapes_what_it_is_given() -> None:
    page = render_plan(SHOWN)
    for cell in ("0.8000", "1.2500", "1.5000", "RDP (dp-accounting)", "&lt;facts&gt;", "Budget"):
        assert cell in page
    assert "<facts>" not in page


def test_the_svg_stands_alone() -> None:
    svg = render_svg(SHOWN)
    root = ET.fromstring(svg)  # noqa: S314 - written by this program
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "PLD (dp-accounting): 1.250" in texts
    assert "<facts>" in texts
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched


@pytest.mark.parametrize("name", ["plan.html", "plan.svg"])
def test_a_plan_shows_epsilon_and_what_is_left(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = f"--epsilon 20 --clients 100 --parameters 400 --out {name}"
    status, printed = hanse(f"privacy plan {ARGUMENTS} {more}")
    assert status == 0, printed
    last = epsilon([GaussianEvent(2.0, count=30)], 1e-5, "pld")
    assert f"{last:.3f}" in printed
    assert "0.4 times the longest update" in printed  # sqrt(400) * 2 / 100
    assert "40 clients in a round, 40 in all" in printed
    assert "lasts" in printed
    assert (tmp_path / name).stat().st_size > 1000


def test_a_delta_that_is_no_promise_is_named(tmp_path: Path) -> None:
    _, printed = hanse(f"privacy plan {ARGUMENTS} --clients 1000000")
    assert "not below 1 / clients" in printed


def test_noise_is_twice_as_long_where_it_is_relative_to_a_replacement() -> None:
    drawn = "--sampling without-replacement --clients 100 --parameters 400"
    status, printed = hanse(
        f"privacy plan --noise-multiplier 2 --rate 0.5 --rounds 2 --delta 1e-5 {drawn}"
    )
    assert status == 0, printed
    assert "1.6 times" in printed  # sqrt(400) * (2 * 2) / 50
    assert "no proof for this sampling by pld" in printed


def test_calibrate_prints_what_every_accountant_asks_for() -> None:
    status, printed = hanse("privacy calibrate --epsilon 4 --delta 1e-5 --rounds 4 --rate 1")
    assert status == 0, printed
    assert "rdp" in printed
    assert "pld" in printed
    assert "epsilon 4 at delta 1e-05, every client in every round" in printed
