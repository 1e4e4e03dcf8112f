"""A small experiment on disk, and processes to run it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.runs.forks import ForkServer, shared

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = """
import numpy as np

from hanse.data import Federation, federation_from_arrays


def make() -> Federation:
    random = np.random.default_rng(0)

    def people() -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {
            f"person {k}": (random.normal(size=(4 + k, 3)), random.integers(0, 3, 4 + k))
            for k in range(6)
        }

    return federation_from_arrays(people(), test=people(), classes=["a", "b", "c"])
"""

# Every kind of state there is: controls at clients and server, moments, a model drawn at random.
EXPERIMENT = """
name = "small"

[data]
source = "clients.py:make"

[model]
name = "mlp"
hidden = [4]

[strategy]
name = "scaffold"
batch_size = 3
server = { optimizer = "adam" }

[run]
rounds = 8
participation = { kind = "uniform", fraction = 0.5 }
"""


@pytest.fixture(scope="session")
def forks() -> ForkServer:
    return shared()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an experiment of eight rounds, `experiment.toml`."""
    (tmp_path / "clients.py").write_text(CLIENTS)
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    return tmp_path
