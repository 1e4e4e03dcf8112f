"""Clients whose training fails, messages that are lost, rounds to which nobody comes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
from tests.engine.small import (
    BAD,
    FEATURES,
    MODULE,
    OTHERS,
    SIZES,
    VMAP,
    clients,
    largest_difference,
    regression,
    same_bits,
    seeded,
    snapshot,
    spoiled,
    world,
)
from torch import Tensor, nn

from hanse.core.errors import DivergenceError, StrategyError
from hanse.core.types import Layer
from hanse.data import Federation, PackedClients
from hanse.engines import Dropped
from hanse.experiment import Experiment
from hanse.layers import Weighted
from hanse.local import LocalSGD
from hanse.models import Execution, squared_error
from hanse.selection import Full, Poisson
from hanse.server import ServerAdam
from hanse.strategies import fedavg, fedprox, fedsgd, scaffold
from hanse.strategy import Strategy
from hanse.training import rounds

if TYPE_CHECKING:
    from hanse.core.types import Broadcast, ClientContext, Memory, Update


executions = pytest.mark.parametrize(
    "execution", [MODULE, Execution("module", 4), VMAP], ids=["alone", "block", "vmap"]
)
strategies = pytest.mark.parametrize(
    "strategy",
    [fedavg(lr=0.02), fedsgd(), fedprox(lr=0.02, server=ServerAdam()), scaffold(lr=0.02)],
    ids=["fedavg", "fedsgd", "fedprox", "scaffold"],
)


@executions
@strategies
def test_a_client_that_fails_is_named_and_counts_for_nothing(
    strategy: Strategy, execution: Execution
) -> None:
    start = regression().start(strategy)
    found, result = regression(BAD).step(start, strategy, execution)
    without, _ = regression(BAD, chosen=OTHERS).step(start, strategy, execution)
    assert result.dropped == (Dropped(BAD, "its update is not finite"),)
    assert result.accepted == len(OTHERS)
    assert largest_difference(snapshot(found), snapshot(without)) < 1e-12


@executions
def test_a_client_that_fails_remembers_what_it_did_before(execution: Execution) -> None:
    strategy = scaffold(lr=0.02)
    well, _ = regression().step(regression().start(strategy), strategy, execution)
    after, _ = regression(BAD).step(well, strategy, execution)
    before = well.clients.rows[BAD][1]["control"]
    assert torch.equal(after.clients.rows[BAD][1]["control"], before)
    assert not torch.equal(after.clients.rows[0][1]["control"], well.clients.rows[0][1]["control"])
    never_well, _ = regression(BAD).step(regression().start(strategy), strategy, execution)
    assert never_well.clients.rows.keys() == set(OTHERS)


@pytest.mark.parametrize("option", [1, 2])
@pytest.mark.parametrize("weighting", ["uniform", "examples"])
def test_lost_messages_keep_both_sides_of_scaffold_together(
    option: Literal[1, 2], weighting: Literal["uniform", "examples"]
) -> None:
    strategy = scaffold(lr=0.02, option=option, weighting=weighting)
    state = regression().start(strategy)
    for lost in ((), (0, 3), (5,), (), (1, 2, 7)):
        state, result = regression(*lost).step(state, strategy, VMAP)
        assert {d.client for d in result.dropped} == set(lost)
        total = sum(slots[1]["control"] for slots in state.clients.rows.values())
        gap = state.layers[0]["control"] - total / len(SIZES)
        assert float(gap.abs().max()) < 1e-12
        assert float(state.layers[0]["control"].abs().max()) > 1e-3


@pytest.mark.parametrize("path", ["module", "vmap", "dense"])
@pytest.mark.parametrize("bad", [(), (1,), (BAD,), (5, 6), (1, 4, 9)])
def test_whoever_fails_the_block_changes_nothing_but_the_last_bits(
    bad: tuple[int, ...], path: Literal["module", "vmap", "dense"]
) -> None:
    small, strategy = regression(*bad), fedavg(lr=0.02)
    alone = snapshot(small.run(strategy, Execution(path, 1), rounds=1))
    for block in (2, 3, 8, 16):
        found = snapshot(small.run(strategy, Execution(path, block), rounds=1))
        assert largest_difference(found, alone) < 1e-13, block


@dataclass(frozen=True)
class Crowd(Layer):
    """Cannot do with nobody: a largest value of none is an error."""

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        assert float(update["delta"].values.max()) > -1
        rows = {len(v.values) for v in update.values()} | {len(broadcast.params), len(memory["n"])}
        assert rows == {len(client.id)}
        return update, {"n": memory["n"] + 1}

    def init_client(self, broadcast: Broadcast) -> Memory:
        return {"n": torch.zeros(())}


@executions
def test_layers_see_the_clients_that_did_not_fail_and_are_not_asked_about_nobody(
    execution: Execution,
) -> None:
    strategy = scaffold(lr=0.02).then(Crowd())
    found = regression(BAD, 5).run(strategy, execution, rounds=2)
    assert found.clients.rows.keys() == set(OTHERS) - {5}
    assert {float(slots[3]["n"]) for slots in found.clients.rows.values()} == {2.0}


class Tower(nn.Module):
    """A body whose gradient vanishes at the start, and a head whose gradient can overflow."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, 1, bias=False)
        self.head = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head * self.body(x)
        return out


def test_a_client_is_dropped_where_only_what_it_keeps_is_not_finite() -> None:
    data = clients((4, 4), labels=False)
    huge = PackedClients({f: v * 1e160 for f, v in data.fields.items()}, data.offsets, data.names)
    small = world(
        seeded(Tower), data=huge, loss=squared_error, local=("head",), participation=Full()
    )
    state, _ = small.step(small.start(fedavg()), fedavg(batch_size=None))
    kept = [slots[0]["params"] for slots in state.clients.rows.values()]
    assert all(bool(params.isfinite().all()) for params in kept)


@strategies
def test_a_round_without_a_usable_update_ends_the_run_and_spares_its_state(
    strategy: Strategy,
) -> None:
    data = Federation(spoiled(clients(labels=False), *range(len(SIZES))))
    module = seeded(lambda: nn.Linear(FEATURES, 1))
    run = rounds(Experiment(strategy, data, module, loss=squared_error))
    start = next(run).state
    before = snapshot(start)
    with pytest.raises(DivergenceError, match="none of the 11 clients") as caught:
        next(run)
    assert same_bits(snapshot(start), before)
    assert "smaller" in caught.value.instead


@strategies
def test_a_round_to_which_nobody_comes_changes_nothing(strategy: Strategy) -> None:
    small = dataclasses.replace(regression(), participation=Poisson(1e-9))
    state, _ = regression().step(small.start(strategy), strategy)
    after, result = small.step(state, strategy)
    assert (result.cohort, result.accepted, result.dropped) == (0, 0, ())
    assert len(result.facts.id) == len(result.facts.loss) == 0
    assert np.isnan(result.pairwise_cosine)
    assert same_bits(snapshot(after), snapshot(state))
    assert after.round == state.round + 1


def test_a_run_goes_on_after_an_empty_round() -> None:
    module = seeded(lambda: nn.Linear(FEATURES, 1))
    experiment = Experiment(
        fedavg(lr=0.02),
        Federation(clients(labels=False)),
        module,
        rounds=12,
        loss=squared_error,
        participation=Poisson(0.1),
    )
    seen = list(rounds(experiment))[1:]
    empty = [r for r in seen if r.result is not None and r.result.cohort == 0]
    assert 0 < len(empty) < len(seen)
    assert all(r.train_loss is None for r in empty)
    assert [r.number for r in seen] == list(range(1, 13))


@dataclass(frozen=True)
class Leaning(LocalSGD):
    """Keeps a vector of the model's length, and none for each client."""

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        lean = torch.linspace(0, 1, broadcast.params.shape[1], dtype=torch.float64)
        return {**self.optimizer.start(broadcast), "lean": lean}


def test_a_state_without_a_row_for_each_client_is_refused() -> None:
    with pytest.raises(StrategyError, match=r"'lean' of shape \[\d+\]"):
        regression().run(Strategy(Leaning()), Execution("vmap", 4), rounds=1)


def test_two_weightings_are_refused() -> None:
    with pytest.raises(StrategyError, match="two Weighted"):
        regression().run(fedavg().then(Weighted("uniform")), Execution("vmap", 4), rounds=1)
