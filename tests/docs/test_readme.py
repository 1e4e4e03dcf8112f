"""What the README says of the demo, and where it points."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.docs.pages import ROOT, blocks, hanse, text_of

if TYPE_CHECKING:
    from pathlib import Path

_NUMBER = re.compile(r"\d+\.\d+")


def test_its_links_lead_somewhere() -> None:
    text = text_of("README.md")
    targets = re.findall(r"\]\(([^)#]+)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_its_pictures_are_small() -> None:
    sizes = [picture.stat().st_size for picture in (ROOT / "docs" / "images").iterdir()]
    assert max(sizes) <= 200_000


@pytest.mark.slow
def test_the_demo_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    line = f"run {ROOT}/examples/smartwatch.toml --baselines --seeds 5 --out {tmp_path}/run"
    status, output = hanse(line, rounds=None)
    assert status == 0, output
    shown = next(b.content for b in blocks("README.md") if "5 seeds" in b.content)
    printed = output[output.index("test: ") :]
    expected, found = ([float(n) for n in _NUMBER.findall(text)] for text in (shown, printed))
    # Another processor rounds otherwise, and sixty rounds make it visible.
    assert found[: len(expected)] == pytest.approx(expected, abs=0.02, rel=0.1)
