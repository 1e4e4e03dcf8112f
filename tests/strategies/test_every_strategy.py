"""What holds for every strategy of the table."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING, Literal

import pytest
from tests.engine.small import (
    MODULE,
    VMAP,
    federation,
    largest_difference,
    mlp,
    same_bits,
    snapshot,
    world,
)
from tests.strategies.table import TABLE, participation

import hanse
import hanse.aggregation
import hanse.compression
import hanse.data
import hanse.local
from hanse.experiment import Experiment, prepare
from hanse.models import Execution
from hanse.training import rounds

if TYPE_CHECKING:
    import torch

every_strategy = pytest.mark.parametrize("name", TABLE)
every_path = pytest.mark.parametrize("path", ["module", "vmap", "dense"])

# Gradients by other kernels differ in the last bits; three rounds of a small model amplify that a
# little, an adaptive server by up to 1 / tau = 1000.
ROUNDING = 1e-10


@cache
def final(name: str, execution: Execution) -> dict[str, torch.Tensor]:
    return snapshot(world().run(TABLE[name], execution))


@every_strategy
@pytest.mark.parametrize(
    ("path", "block"),
    [("module", 4), ("vmap", 1), ("vmap", 5), ("dense", 1), ("dense", 4), ("dense", 16)],
)
def test_paths_and_blocks_compute_the_same_state(
    name: str, path: Literal["module", "vmap", "dense"], block: int
) -> None:
    found = final(name, Execution(path, block))
    assert largest_difference(found, final(name, MODULE)) < ROUNDING


@every_strategy
def test_training_moves_the_model(name: str) -> None:
    start = snapshot(world().start(TABLE[name]))
    assert float((final(name, MODULE)["params"] - start["params"]).norm()) > 1e-3


@every_strategy
@every_path
def test_a_round_repeats_bit_for_bit_and_leaves_its_state_alone(
    name: str, path: Literal["module", "vmap", "dense"]
) -> None:
    small, strategy = world(), TABLE[name]
    execution = Execution(path, 4)
    state, _ = small.step(small.start(strategy), strategy, execution)
    before = snapshot(state)
    once, _ = small.step(state, strategy, execution)
    twice, _ = small.step(state, strategy, execution)
    assert same_bits(snapshot(once), snapshot(twice))
    assert same_bits(snapshot(state), before)
    assert not same_bits(snapshot(once), before)


@every_strategy
def test_a_strategy_is_its_repr(name: str) -> None:
    names = {public: getattr(hanse, public) for public in hanse.__all__}
    for module in (hanse.aggregation, hanse.compression, hanse.data, hanse.local):
        names |= {public: getattr(module, public) for public in module.__all__}
    read = eval(repr(TABLE[name]), {"__builtins__": {}}, names)  # noqa: S307 - our own repr
    assert read == TABLE[name]
    assert hash(read) == hash(TABLE[name])


def test_different_strategies_compare_unequal() -> None:
    assert len(set(TABLE.values())) == len(TABLE)


@every_strategy
def test_the_parts_of_a_strategy_cannot_be_changed(name: str) -> None:
    strategy = TABLE[name]
    for part in (strategy, *strategy.onion, strategy.aggregation, strategy.server):
        assert dataclasses.is_dataclass(part)
        for field in dataclasses.fields(part):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, field.name, None)


@every_strategy
def test_a_resumed_run_gives_the_bits_of_an_unbroken_one(name: str) -> None:
    experiment = Experiment(
        TABLE[name],
        federation(),
        mlp(),
        rounds=6,
        participation=participation(name),
        evaluate_every=3,
        execution=VMAP,
    )
    unbroken = list(rounds(experiment))
    resumed = list(rounds(prepare(experiment), start=unbroken[3].state))
    assert [r.number for r in resumed] == [4, 5, 6]
    assert same_bits(snapshot(resumed[-1].state), snapshot(unbroken[-1].state))
    assert [r.train_loss for r in resumed] == [r.train_loss for r in unbroken[4:]]
    assert resumed[-1].evaluations["test"].overall == unbroken[-1].evaluations["test"].overall
