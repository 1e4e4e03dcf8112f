"""A small experiment file, and processes that can be killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.runs.conftest import CLIENTS
from tests.runs.forks import ForkServer, shared

if TYPE_CHECKING:
    from pathlib import Path

EXPERIMENT = """
name = "small"

[data]
source = "clients.py:make"

[model]
name = "softmax_regression"

[strategy]
name = "fedavg"
batch_size = 3

[run]
rounds = 2
execution = { path = "module", block = 1 }
"""


@pytest.fixture(scope="session")
def forks() -> ForkServer:
    return shared()


def write_files(folder: Path) -> None:
    """The experiment `small.toml`, and its clients."""
    (folder / "clients.py").write_text(CLIENTS)
    (folder / "small.toml").write_text(EXPERIMENT)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `small.toml` in it."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
