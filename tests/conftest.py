"""What every test shares: one thread, one Hypothesis profile, one browser."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

# The machine's load must not fail a test: no deadline. CI replays the same examples each time.
settings.register_profile(
    "hanse",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("hanse")

# Tests run side by side, and small models gain nothing from threads.
torch.set_num_threads(1)

# What is remembered between runs must not come from, or go to, the developer's own cache.
os.environ["XDG_CACHE_HOME"] = _cache = tempfile.mkdtemp(prefix="hanse-tests-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; without one, skips, or fails where HANSE_REQUIRE_BROWSER is set."""
    program = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if program is None:
        if os.environ.get("HANSE_REQUIRE_BROWSER"):
            pytest.fail("HANSE_REQUIRE_BROWSER is set, and there is no chromium in PATH")
        pytest.skip("no chromium in PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox needs rights that root in a container lacks.
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page that cannot reach any network: what it shows, it brought along."""
    context = browser.new_context(offline=True)
    yield context.new_page()
    context.close()
