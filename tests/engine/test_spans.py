"""How long spans are decides nothing: neither a sum nor a loss, to the last bit."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from tests.engine.forked import here
from tests.engine.small import CLASSES, FEATURES, World, world
from tests.strategies.table import TABLE
from torch import nn

from hanse.models import Execution
from hanse.selection import Full

LENGTHS = (1, 2, 64)  # blocks


@cache
def ragged() -> World:
    """Single precision and clients of many sizes: rounding shows, wherever there is any."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module = nn.Sequential(nn.Linear(FEATURES, 5), nn.ReLU(), nn.Linear(5, CLASSES))
    sizes = [1 + 7 * k % 37 for k in range(14)]
    return world(module, sizes=sizes, participation=Full(), dtype=torch.float32)


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("path", ["module", "vmap", "dense"])
@pytest.mark.parametrize("name", TABLE)
def test_the_bits_do_not_depend_on_the_spans(
    name: str, path: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for length in LENGTHS:
        monkeypatch.setattr("hanse.engines.cohort._SPAN_BLOCKS", length)
        found.append(here(ragged(), TABLE[name], Execution(path, block), 1))  # type: ignore[arg-type]
    assert all(outcome.state == found[0].state for outcome in found)
    assert all(outcome.rounds == found[0].rounds for outcome in found)
