"""On a card, all of a round's tensors lie there, and no step waits for it.

There is no card in these tests: see `fake.py`. Values are looked at where there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.device.fake import CARD, fake_card
from tests.engine.small import snapshot, world
from tests.strategies.table import TABLE

from hanse.engines import InProcess
from hanse.engines.capture import DirectCapture
from hanse.engines.on_device import Place
from hanse.models import Execution
from hanse.round import initial_state, run_round

if TYPE_CHECKING:
    from hanse.models.execution import PathName


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("path", ["dense", "vmap", "module"])
@pytest.mark.parametrize("capture", [None, DirectCapture()], ids=["anew", "recorded"])
def test_two_rounds_lie_on_the_card(
    name: str, path: PathName, capture: DirectCapture | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, strategy = world(), TABLE[name]
    with fake_card(monkeypatch) as card:
        place = Place(CARD, capture)
        engine = InProcess(strategy, small.task, small.data, Execution(path, 4), place)
        state = initial_state(strategy, small.task, CARD)
        for _ in range(2):
            state, _ = run_round(state, engine, small.population, small.task.layout)
        for tensor, value in snapshot(state).items():
            assert value.device == CARD, tensor
    assert card.read
