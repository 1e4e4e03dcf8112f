"""Any number of worker processes computes the bits that one process computes."""

from __future__ import annotations

import dataclasses
import gc
import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tests.engine.forked import Outcome, forked, here, pids, run
from tests.engine.small import (
    BAD,
    CLASSES,
    FEATURES,
    MODULE,
    SIZES,
    Chosen,
    World,
    clients,
    federation,
    mlp,
    regression,
    seeded,
    spoiled,
    world,
)
from tests.engine.test_extensions import Ditto, Median, RandK, SecureSum, TopK
from tests.engine.test_spans import ragged
from tests.strategies.table import TABLE, with_one_of
from torch import Tensor, nn

from hanse import Experiment, rounds
from hanse.core.errors import ConfigError
from hanse.core.types import Layer
from hanse.data.batching import Epochs
from hanse.engines import Processes
from hanse.engines.cohort import Cohort
from hanse.engines.make import make_engine
from hanse.layers import Weighted
from hanse.models import Execution, Task
from hanse.selection import Full, Poisson, Selected, Stragglers, Uniform
from hanse.strategies import fedavg, scaffold
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.core.types import (
        Aggregate,
        Broadcast,
        ClientContext,
        RoundContext,
        State,
        Update,
    )

PATHS = {
    "module": Execution("module", 1),
    "vmap": Execution("vmap", 2),
    "dense": Execution("dense", 3),
}
every_path = pytest.mark.parametrize("path", PATHS)
WORKERS = (1, 2, 3)


@cache
def small() -> World:
    return world()


def same_for_any_number_of_workers(
    one: World, strategy: Strategy, execution: Execution, rounds: int = 2
) -> Outcome:
    expected = here(one, strategy, execution, rounds)
    for workers in WORKERS:
        with forked(one, strategy, execution, workers) as engine:
            assert run(engine, one, rounds) == expected, f"{workers} workers"
    return expected


@pytest.mark.parametrize(("name", "path"), with_one_of([(path,) for path in PATHS]))
def test_every_strategy(name: str, path: str) -> None:
    same_for_any_number_of_workers(ragged(), TABLE[name], PATHS[path])


EXTENSIONS: dict[str, Strategy] = {
    "a space common to all": fedavg().then(RandK(20), RandK(5)),
    "a space of each client's own, and memory": fedavg(lr=0.02).then(TopK(3)),
    "totals of another kind": fedavg().replace(aggregation=SecureSum(7)),
    "every update": Strategy(
        fedavg().local, layers=(TopK(30), Weighted("uniform")), aggregation=Median()
    ),
    "personal models": Strategy(Ditto()),
}


@every_path
@pytest.mark.parametrize("name", EXTENSIONS)
def test_strategies_of_ones_own(name: str, path: str) -> None:
    same_for_any_number_of_workers(small(), EXTENSIONS[name], PATHS[path])


def normed() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, CLASSES)
        )
    )


@pytest.mark.parametrize("local", [(), ("1.*",), ("3.*",)], ids=["shared", "FedBN", "FedPer"])
def test_buffers_and_local_columns(local: tuple[str, ...]) -> None:
    sizes = tuple(n for n in SIZES if n % 10 != 1)  # no batch of a single example
    one = world(normed(), sizes=sizes, local=local, participation=Uniform(count=6))
    same_for_any_number_of_workers(one, fedavg(lr=0.05), Execution("module", 2), rounds=3)


def test_dropout() -> None:
    module = seeded(
        lambda: nn.Sequential(nn.Linear(FEATURES, 7), nn.Dropout(0.5), nn.Linear(7, CLASSES))
    )
    same_for_any_number_of_workers(world(module), scaffold(), MODULE)


@every_path
@pytest.mark.parametrize("name", ["fedprox", "scaffold-1", "fedprox-steps", "fedavg"])
def test_stragglers(name: str, path: str) -> None:
    one = dataclasses.replace(ragged(), stragglers=Stragglers(0.6))
    partial = TABLE[name].replace(partial="drop" if name == "fedavg" else "keep")
    same_for_any_number_of_workers(one, partial, PATHS[path])


@every_path
def test_dropped_clients(path: str) -> None:
    one = regression(BAD, 7)
    expected = same_for_any_number_of_workers(one, scaffold(lr=0.01), PATHS[path])
    assert sorted(dropped.client for dropped in expected.rounds[0][1]) == [BAD, 7]


@every_path
def test_nobody_whose_update_can_be_used(path: str) -> None:
    chosen = Chosen((2, BAD))
    data = spoiled(clients(), 2, BAD)
    one = world(nn.Linear(FEATURES, CLASSES).double(), data=data, participation=chosen)
    same_for_any_number_of_workers(one, fedavg(), PATHS[path])


@every_path
@pytest.mark.parametrize("cohort", [(), (4,), (4, 0)])
def test_cohorts_smaller_than_the_number_of_workers(cohort: tuple[int, ...], path: str) -> None:
    one = world(participation=Chosen(cohort))
    same_for_any_number_of_workers(one, scaffold(), PATHS[path])


def test_cohorts_whose_size_changes_from_round_to_round() -> None:
    one = world(participation=Poisson(0.2))
    expected = same_for_any_number_of_workers(one, scaffold(), MODULE, rounds=6)
    assert len({cohort for cohort, *_ in expected.rounds}) > 2


def test_spans_of_several_blocks() -> None:
    one = world(sizes=[1 + k % 7 for k in range(150)], participation=Full())
    everyone = Selected(np.arange(150))
    spans = [Cohort.of(one.data, everyone, Epochs(), 1, workers) for workers in WORKERS]
    assert [s.level for s in spans] == [5, 4, 3]
    for name in ("fedavg", "scaffold-2"):
        same_for_any_number_of_workers(one, TABLE[name], MODULE)
        same_for_any_number_of_workers(one, TABLE[name], Execution("vmap", 2))


def test_a_large_memory_makes_spans_short() -> None:
    one, everyone = clients([1] * 64), Selected(np.arange(64))
    levels = [
        Cohort.of(one, everyone, Epochs(), 1, 1, size).level
        for size in (0, 1 << 20, 1 << 23, 1 << 30)
    ]
    assert levels == [4, 4, 2, 0]


def test_single_precision_and_a_larger_model_in_arenas_that_grow() -> None:
    module = nn.Sequential(nn.Linear(FEATURES, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh())
    module.append(nn.Linear(300, CLASSES))
    one = world(module, dtype=torch.float32, sizes=[6] * 40, participation=Full())
    same_for_any_number_of_workers(one, scaffold(), Execution("module", 2))


def test_workers_stay_for_the_whole_run_and_as_many_are_started_as_are_needed() -> None:
    one, seen = world(participation=Poisson(0.3)), list[set[int]]()
    with forked(one, fedavg(), MODULE, 3) as engine:
        assert not pids()
        run(engine, one, 8, lambda number: seen.append(set(pids())))
    assert len(seen[-1]) == 3
    assert all(before <= after for before, after in itertools.pairwise(seen))


def test_an_engine_works_again_after_it_was_closed() -> None:
    with forked(small(), scaffold(), MODULE, 2) as engine:
        found = run(engine, small(), 4, lambda number: engine.close())
    assert found == here(small(), scaffold(), MODULE, 4)


def test_an_engine_that_is_forgotten_ends_its_workers() -> None:
    engine = Processes(fedavg(), small().task, small().data, MODULE, 2)
    run(engine, small())
    assert len(pids()) == 2
    del engine
    gc.collect()
    assert not pids()


@dataclass(frozen=True)
class Wandering(Layer):
    """State at the server and in the broadcast, in tensors of unusual shapes and types."""

    def init_server(self, layout: Any, dtype: torch.dtype) -> State:  # noqa: ANN401 - unused
        return {"turn": torch.tensor(0), "grid": torch.arange(6.0).reshape(2, 3)}

    def on_broadcast(self, broadcast: Broadcast, state: State) -> Broadcast:
        return broadcast.adding(
            turn=state["turn"],
            transposed=state["grid"].T,
            repeated=torch.tensor([2.0]).expand(4),
            nothing=torch.zeros(0, 3),
            half=torch.tensor([0.5], dtype=torch.bfloat16),
            truth=torch.tensor([True, False]),
        )

    def on_client(
        self,
        update: Update,
        broadcast: Broadcast,
        memory: Mapping[str, Tensor],
        client: ClientContext,
    ) -> tuple[Update, Mapping[str, Tensor]]:
        extra = broadcast.extra
        assert extra["transposed"].stride() == (1, 3)
        assert extra["repeated"].stride() == (0,)
        assert extra["nothing"].shape == (0, 3)
        factor = extra["transposed"][1, 1] / 4 * extra["repeated"][3] * extra["half"][0]
        factor = factor * extra["truth"][0] + extra["turn"]
        scale = factor.double().expand(len(client.id))
        return {**update, "delta": update["delta"].scaled(scale)}, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        return total, {"turn": state["turn"] + 1, "grid": state["grid"]}


def test_a_layer_with_state_and_extras_of_any_shape() -> None:
    one = small()
    found = same_for_any_number_of_workers(one, fedavg().then(Wandering()), MODULE, rounds=3)
    assert found != here(one, fedavg(), MODULE, 3)


def test_rounds_end_their_workers_when_nobody_listens_any_more() -> None:
    experiment = Experiment(fedavg(), federation(), mlp(), 2, execution=MODULE, workers=2)
    going = rounds(experiment)
    next(going), next(going)
    assert len(pids()) == 2
    going.close()
    assert not pids()
    assert [done.number for done in rounds(experiment)] == [0, 1, 2]
    assert not pids()


def test_two_runs_side_by_side_do_not_mix() -> None:
    def run_of(seed: int, workers: int) -> Any:  # noqa: ANN401 - an iterator of rounds
        parts = scaffold(), federation(), mlp(), 4
        return rounds(Experiment(*parts, seed=seed, workers=workers, execution=MODULE))

    mixed = list(zip(run_of(1, 2), run_of(2, 3), strict=True))
    for number, seed in enumerate((1, 2)):
        alone = list(run_of(seed, 1))
        for done, expected in zip(mixed, alone, strict=True):
            assert torch.equal(done[number].state.params, expected.state.params)
    assert not pids()


def test_threads_of_the_parent_do_not_hang_its_forks() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        large = torch.randn(500, 500)
        assert (large @ large).isfinite().all()
        one = world(nn.Sequential(nn.Linear(FEATURES, 500), nn.Linear(500, CLASSES)).double())
        with forked(one, fedavg(batch_size=None), MODULE, 2) as engine:
            found = run(engine, one)
    finally:
        torch.set_num_threads(before)
    assert found == here(one, fedavg(batch_size=None), MODULE)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2", None])
def test_a_number_of_workers_that_cannot_be_is_refused(workers: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match="workers = "):
        Experiment(fedavg(), federation(), mlp(), workers=workers)


@pytest.mark.parametrize("missing", ["fork", "memfd_create"])
def test_without_fork_only_one_worker_is_taken(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(f"os.{missing}")
    Experiment(fedavg(), federation(), mlp(), workers=1)
    with pytest.raises(ConfigError, match="workers are forks"):
        Experiment(fedavg(), federation(), mlp(), workers=2)


def test_a_model_or_data_on_another_device_is_refused() -> None:
    module, one = mlp(), small()
    module.register_buffer("table", torch.zeros(3, dtype=torch.int64, device="meta"))
    with pytest.raises(ConfigError, match="tensors on meta"):
        make_engine(2, fedavg(), Task.of(module), one.data, MODULE)
    fields = {**one.data.fields, "more": torch.zeros(len(one.data.fields["x"]), device="meta")}
    data = dataclasses.replace(one.data, fields=fields)
    with pytest.raises(ConfigError, match="tensors on meta"):
        make_engine(2, fedavg(), one.task, data, MODULE)
