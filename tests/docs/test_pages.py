"""Every block of every page does what the page says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.docs.pages import PAGES, blocks, reading

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_can_do_what_a_page_says(page: str, tmp_path: Path) -> None:
    with reading(page, tmp_path) as reader:
        reader.follow()


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_of_a_known_kind(page: str) -> None:
    assert {block.language for block in blocks(page)} <= {"python", "toml", "console", "text"}
