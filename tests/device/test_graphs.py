"""Recorded steps give the numbers of steps that are computed anew."""

from __future__ import annotations

import pytest
from tests.device.small import CPU, Recorder, device_run, unread
from tests.engine.small import largest_difference, snapshot, world
from tests.strategies.table import TABLE

from hanse.engines.on_device import Place
from hanse.models import Execution

EXACT = 1e-12
every_strategy = pytest.mark.parametrize("name", TABLE)


@every_strategy
@pytest.mark.parametrize(("path", "block"), [("vmap", 5), ("vmap", 3), ("dense", 16), ("dense", 4)])
def test_recorded_steps_compute_the_same_state(name: str, path: str, block: int) -> None:
    execution = Execution(path, block)  # type: ignore[arg-type]
    recorder = Recorder()
    found = device_run(world(), TABLE[name], execution, place=Place(CPU, recorder))
    expected = world().run(TABLE[name], execution)
    assert largest_difference(snapshot(found), snapshot(expected)) < EXACT
    assert recorder.replayed > 0


@every_strategy
@pytest.mark.parametrize(("path", "block"), [("vmap", 5), ("dense", 4), ("module", 3)])
def test_steps_computed_anew_on_a_device_read_no_number(name: str, path: str, block: int) -> None:
    execution = Execution(path, block)  # type: ignore[arg-type]
    found = device_run(world(), unread(TABLE[name]), execution, place=Place(CPU))
    expected = world().run(TABLE[name], execution)
    assert largest_difference(snapshot(found), snapshot(expected)) < EXACT
