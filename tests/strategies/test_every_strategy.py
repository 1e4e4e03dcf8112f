"""What holds for every strategy of the table."""

from __future__ import annotations

from functools import cache
from itertools import islice

import pytest
import torch
from tests.engine.small import (
    MODULE,
    federation,
    largest_difference,
    mlp,
    same_bits,
    snapshot,
    world,
)
from tests.strategies.table import FIXED_WIDTH, TABLE

import hanse.aggregation
import hanse.data
import hanse.layers
import hanse.local
import hanse.server
from hanse.experiment import Experiment, prepare
from hanse.models import Execution
from hanse.selection import Uniform
from hanse.strategy import Strategy
from hanse.training import rounds

every_strategy = pytest.mark.parametrize("name", TABLE)
both_paths = pytest.mark.parametrize("path", ["module", "vmap"])

# Gradients by other kernels differ in the last bits; three rounds of a small model amplify that a
# little, an adaptive server by up to 1 / tau = 1000.
ROUNDING = 1e-10


@cache
def final(name: str, execution: Execution, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return snapshot(world(dtype=dtype).run(TABLE[name], execution))


@every_strategy
@pytest.mark.parametrize(
    ("path", "block"), [("module", 4), ("vmap", 1), ("vmap", 4), ("vmap", 16)]
)
def test_paths_and_blocks_compute_the_same_state(name: str, path: str, block: int) -> None:
    found = final(name, Execution(path, block), torch.float64)  # type: ignore[arg-type]
    assert largest_difference(found, final(name, MODULE, torch.float64)) < ROUNDING


@every_strategy
def test_training_moves_the_model(name: str) -> None:
    start = snapshot(world().start(TABLE[name]))
    assert float((final(name, MODULE, torch.float64)["params"] - start["params"]).norm()) > 1e-3


@every_strategy
@pytest.mark.parametrize("block", [2, 4, 8])
def test_one_module_at_a_time_the_bits_do_not_depend_on_the_block(name: str, block: int) -> None:
    alone = final(name, MODULE, torch.float32)
    assert same_bits(final(name, Execution("module", block), torch.float32), alone)


# Where a batch is padded to the longest client of the block (a whole batch, a full gradient), vmap
# adds a sum over examples in another grouping, so that the last bits depend on the block.
@pytest.mark.parametrize("name", FIXED_WIDTH)
@pytest.mark.parametrize("block", [2, 4, 8])
def test_vmapped_the_bits_do_not_depend_on_the_block(name: str, block: int) -> None:
    alone = final(name, Execution("vmap", 1), torch.float32)
    assert same_bits(final(name, Execution("vmap", block), torch.float32), alone)


@every_strategy
@both_paths
def test_a_round_repeats_bit_for_bit_and_leaves_its_state_alone(name: str, path: str) -> None:
    small, strategy = world(), TABLE[name]
    execution = Execution(path, 4)  # type: ignore[arg-type]
    state, _ = small.step(small.start(strategy), strategy, execution)
    before = snapshot(state)
    once, _ = small.step(state, strategy, execution)
    twice, _ = small.step(state, strategy, execution)
    assert same_bits(snapshot(once), snapshot(twice))
    assert same_bits(snapshot(state), before)
    assert not same_bits(snapshot(once), before)


@every_strategy
def test_a_strategy_is_its_repr(name: str) -> None:
    names = {"Strategy": Strategy}
    for module in (hanse.aggregation, hanse.data, hanse.layers, hanse.local, hanse.server):
        names |= {public: getattr(module, public) for public in module.__all__}
    read = eval(repr(TABLE[name]), {"__builtins__": {}}, names)  # noqa: S307 - our own repr
    assert read == TABLE[name]
    assert hash(read) == hash(TABLE[name])


def test_different_strategies_compare_unequal() -> None:
    assert len(set(TABLE.values())) == len(TABLE)


@every_strategy
def test_a_strategy_cannot_be_changed(name: str) -> None:
    strategy = TABLE[name]
    for part in (strategy, *strategy.onion, strategy.aggregation, strategy.server):
        field = next(iter(part.__dataclass_fields__), None)  # type: ignore[union-attr]
        if field is not None:
            with pytest.raises(AttributeError):
                setattr(part, field, None)


@every_strategy
@both_paths
def test_a_resumed_run_gives_the_bits_of_an_unbroken_one(name: str, path: str) -> None:
    experiment = Experiment(
        TABLE[name],
        federation(),
        mlp(),
        rounds=6,
        participation=Uniform(count=5),
        evaluate_every=3,
        execution=Execution(path, 4),  # type: ignore[arg-type]
    )
    unbroken = list(rounds(experiment))
    half = list(islice(rounds(experiment), 4))[-1]
    assert half.number == 3
    resumed = list(rounds(prepare(experiment), start=half.state))
    assert [r.number for r in resumed] == [4, 5, 6]
    assert same_bits(snapshot(resumed[-1].state), snapshot(unbroken[-1].state))
    assert [r.train_loss for r in resumed] == [r.train_loss for r in unbroken[4:]]
    assert resumed[-1].evaluations["test"].overall == unbroken[-1].evaluations["test"].overall
