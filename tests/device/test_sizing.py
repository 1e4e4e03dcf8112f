"""Blocks as large as memory allows, and the faster path: by a device whose memory is made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import torch
from tests.device.small import CPU, Recorder
from tests.engine.small import CLASSES, FEATURES, World, seeded, world
from torch import nn

from hanse.engines.on_device import Place
from hanse.engines.span import Trainer
from hanse.models import Execution
from hanse.strategies import fedavg, fedsgd, scaffold
from hanse.tuning import on_card, remembered
from hanse.tuning.on_card import choose_on_card

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from hanse.strategy import Strategy


@dataclass
class MadeUp:
    """A device on which a client takes 100 bytes, and a block 50; and that is as slow as told."""

    room: int
    slow: str = "module"
    most: int = 10**9
    tried: list[tuple[str, int]] = field(default_factory=list)
    now: tuple[str, int] = ("", 0)

    @property
    def place(self) -> Place:
        return Place(CPU, Recorder())

    @property
    def name(self) -> str:
        return f"made up, {self.room}, {self.slow}, {self.most}"

    def free(self) -> int:
        return self.room

    def peak(self, run: Callable[[], None]) -> int:
        run()
        return 50 + 100 * self.now[1]

    def seconds(self, run: Callable[[], None]) -> float:
        path, block = self.now
        self.tried.append(self.now)
        run()
        return (10.0 if path == self.slow else 1.0) * block


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Callable[..., MadeUp]:
    monkeypatch.setattr(remembered, "_file", lambda: tmp_path / "execution.json")
    trainer = Trainer

    def make(room: int, slow: str = "module", most: int = 10**9) -> MadeUp:
        made_up = MadeUp(room, slow, most)

        def noted(*arguments: object) -> object:
            execution = arguments[2]
            assert isinstance(execution, Execution)
            if execution.block > made_up.most:
                raise torch.cuda.OutOfMemoryError
            made_up.now = execution.path, execution.block
            return trainer(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(on_card, "Trainer", noted)
        return made_up

    return make


def choose(
    meter: MadeUp, expected: float, small: World | None = None, strategy: Strategy | None = None
) -> Execution:
    small = world() if small is None else small
    x, y = small.data.fields["x"][:12], small.data.fields["y"][:12]
    return choose_on_card(strategy or fedavg(), small.task, x, y, expected, meter)


@pytest.mark.parametrize(
    ("room", "expected", "block"),
    [
        (100_000, 20.0, 20),
        (4100, 500.0, 20),
        (4100, 7.0, 7),
        (4100, 22.0, 11),
        (300, 500.0, 1),
        (0, 500.0, 1),
    ],
)
def test_a_block_is_the_cohort_or_what_fits_in_half_the_free_memory(
    room: int, expected: float, block: int, meter: Callable[..., MadeUp]
) -> None:
    found = choose(meter(room), expected)
    assert (found.path, found.block) == ("dense", block)
    assert "measured" in found.why


def test_where_memory_runs_out_all_the_same_blocks_are_halved(
    meter: Callable[..., MadeUp],
) -> None:
    assert choose(meter(100_000, most=6), 20.0).block == 5


def test_the_module_is_taken_where_it_is_faster(meter: Callable[..., MadeUp]) -> None:
    found = choose(meter(100_000, slow="dense"), 20.0)
    assert (found.path, found.block) == ("module", 1)


def test_convolutions_are_candidates_for_blocks(meter: Callable[..., MadeUp]) -> None:
    module = seeded(
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(3, CLASSES)
        )
    )
    made_up = meter(100_000)
    assert choose(made_up, 20.0, world(module)).path == "vmap"
    assert {path for path, _ in made_up.tried} == {"vmap", "module"}


def test_a_model_that_needs_its_exact_batches_goes_through_the_module(
    meter: Callable[..., MadeUp],
) -> None:
    module = seeded(lambda: nn.Sequential(nn.Linear(FEATURES, CLASSES), nn.BatchNorm1d(CLASSES)))
    made_up = meter(100_000)
    assert choose(made_up, 20.0, world(module)).path == "module"
    assert {path for path, _ in made_up.tried} == {"module"}


@pytest.mark.parametrize("strategy", [scaffold(option=1), fedsgd(), fedavg(batch_size=None)])
def test_every_kind_of_work_can_be_tried(strategy: Strategy, meter: Callable[..., MadeUp]) -> None:
    assert choose(meter(100_000), 4.0, strategy=strategy).path == "dense"


def test_what_was_chosen_is_remembered_for_the_strategy_and_the_device(
    meter: Callable[..., MadeUp],
) -> None:
    chosen = choose(meter(100_000), 20.0)
    again = meter(100_000)
    assert choose(again, 20.0) == chosen
    assert not again.tried
    other = meter(100_001)
    choose(other, 20.0)
    assert other.tried
    again = meter(100_000)
    choose(again, 20.0, strategy=fedavg(momentum=0.9))
    assert again.tried
