"""A terminal of 80 columns, an experiment, and processes to run it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.cli.terminal import hanse
from tests.runs.forks import ForkServer, shared

if TYPE_CHECKING:
    from pathlib import Path

EXPERIMENT = """
name = "watches"

[data]
source = "smartwatch"
standardise = true

[model]
name = "softmax_regression"

[strategy]
name = "fedavg"

[run]
rounds = 2
execution = { path = "module", block = 1 }
"""


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an experiment of two rounds in `watches.toml`."""
    (tmp_path / "watches.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with baselines; tests copy it or only read it."""
    place = tmp_path_factory.mktemp("trained")
    (place / "watches.toml").write_text(EXPERIMENT)
    printed = hanse("run", str(place / "watches.toml"), "--out", str(place / "run"), "--baselines")
    assert printed.code == 0, printed.err
    return place / "run"


@pytest.fixture(scope="session")
def forks() -> ForkServer:
    return shared()
