"""What later parts of Hanse need, built here on the protocols alone and run through `run_round`.

Compression in a space common to all clients and in one of each client's own, clipping, secure
aggregation, a robust aggregate, and personal models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from tests.core.test_tree import context
from tests.engine.small import (
    BAD,
    MODULE,
    OTHERS,
    SIZES,
    VMAP,
    Recorded,
    World,
    largest_difference,
    mlp,
    regression,
    snapshot,
    world,
)
from tests.strategies.oracle import gradient
from torch import Tensor, nn

from hanse.aggregation import Sum
from hanse.core.rng import derive, generator
from hanse.core.types import (
    Aggregation,
    ClientContext,
    Layer,
    LocalTraining,
    Summed,
    Vector,
    vector,
)
from hanse.data.batching import Epochs
from hanse.evaluation import evaluate
from hanse.layers import Weighted
from hanse.local import SGD
from hanse.local.sgd import difference
from hanse.models import Execution
from hanse.selection import Full, Uniform
from hanse.server import ServerSGD
from hanse.strategies import fedavg, scaffold
from hanse.strategy import Strategy
from hanse.wire import Array, Size, Tag, alike

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.core.types import (
        Aggregate,
        Broadcast,
        Gradient,
        Memory,
        RoundContext,
        State,
        Update,
    )

executions = pytest.mark.parametrize(
    "execution", [MODULE, Execution("module", 4), VMAP, Execution("vmap", 16)], ids=repr
)


# ----------------------------------------------------- compression in a space common to all
@dataclass(frozen=True, eq=False)
class Coordinates:
    """Some coordinates of a longer vector, the same ones for every client."""

    chosen: Tensor  # [m]
    size: int
    linear = True
    isometric = False
    common = True

    def lift(self, values: Tensor) -> Tensor:
        full = values.new_zeros(*values.shape[:-1], self.size)
        return full.index_copy(-1, self.chosen, values)


@dataclass(frozen=True)
class RandK(Layer):
    """Sends `keep` random coordinates, scaled so that the expectation is what was given."""

    keep: int

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        delta, size = update["delta"], update["delta"].values.shape[1]
        drawn = generator(derive(broadcast.round.key, "rand-k")).permutation(size)[: self.keep]
        space = Coordinates(torch.from_numpy(drawn), size)
        values = delta.values[:, space.chosen] * (size / self.keep)
        return {**update, "delta": Vector(values, delta.scale, (*delta.space, space))}, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        delta = total["delta"]
        assert delta.values.shape == (self.keep,)
        lifted = Summed(delta.space[-1].lift(delta.values), delta.space[:-1])
        return {**total, "delta": lifted}, state


@executions
@pytest.mark.parametrize("inside", [True, False])
def test_sums_are_taken_in_a_common_space_and_lifted_by_its_layer(
    execution: Execution, *, inside: bool
) -> None:
    small, layers = world(), (RandK(10), Weighted())
    strategy = fedavg().replace(layers=layers if inside else layers[::-1])
    found = small.run(strategy, execution, rounds=1)
    plain = small.run(fedavg(), execution, rounds=1)
    kept = found.direction != 0
    assert int(kept.sum()) == 10
    expected = torch.where(kept, plain.direction * len(kept) / 10, 0.0)
    assert float((found.direction - expected).abs().max()) < 1e-12


def test_spaces_stack_and_are_left_in_reverse() -> None:
    small = world()
    strategy = fedavg().then(RandK(20), RandK(5))
    found = small.run(strategy, VMAP, rounds=1)
    # The inner five are drawn as positions among the outer twenty, by the same key.
    assert int((found.direction != 0).sum()) == 5


# ------------------------------------------------- compression in a space of a client's own
@dataclass(frozen=True, eq=False)
class OwnSupport:
    """For each client its own coordinates of a longer vector."""

    chosen: Tensor  # [K, m]
    size: int
    linear = True
    isometric = True
    common = False
    tag = Tag.OWN
    keeps = True

    def lift(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(values), self.size).scatter(1, self.chosen, values)

    def arrays(self, row: int) -> tuple[Array, ...]:
        return (self.chosen[row],)

    def sizes(self) -> tuple[Size, ...]:
        return alike(*self.arrays(0))


@dataclass(frozen=True)
class TopK(Layer):
    """Sends the largest coordinates and remembers the rest for the next time."""

    keep: int

    def init_client(self, broadcast: Broadcast) -> Memory:
        return {"rest": broadcast.params.new_zeros(broadcast.round.layout.shared)}

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        wanted = update["delta"].lifted() + memory["rest"]
        chosen = wanted.abs().topk(self.keep, dim=1).indices
        space = OwnSupport(chosen, wanted.shape[1])
        sent = vector(wanted.gather(1, chosen))._replace(space=(space,))
        return {**update, "delta": sent}, {"rest": wanted - sent.lifted()}


def compressed(recorded: Recorded) -> Strategy:
    """No weights: the server's `direction` is the plain sum of what was sent."""
    return fedavg(lr=0.02).replace(layers=(recorded, TopK(3)), server=ServerSGD(0.1))


@executions
def test_error_feedback_loses_nothing(execution: Execution) -> None:
    small, recorded = world(), Recorded()
    strategy = compressed(recorded)
    state = small.start(strategy)
    sent = torch.zeros_like(state.params)
    for _ in range(3):
        state, _ = small.step(state, strategy, execution)
        sent += state.direction
    rest = sum(slots[3]["rest"] for slots in state.clients.rows.values())
    given = torch.stack([row for rows in recorded.seen.values() for row in rows]).sum(0)
    assert float((sent + rest - given).abs().max()) < 1e-12
    assert 3 < int((state.direction != 0).sum()) <= 7 * 3  # seven clients, three each


@executions
def test_a_client_that_fails_takes_only_its_own_support_with_it(execution: Execution) -> None:
    strategy = compressed(Recorded())
    found = regression(BAD).run(strategy, execution, rounds=1)
    without = regression(BAD, chosen=OTHERS).run(strategy, execution, rounds=1)
    assert largest_difference(snapshot(found), snapshot(without)) < 1e-12


# ----------------------------------------------------------------------------------- clipping
@dataclass(frozen=True)
class Clip(Layer):
    """Bounds the norm of each client's `delta`, by its scale alone."""

    bound: float

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        delta = update["delta"]
        norms = torch.linalg.vector_norm(delta.lifted(), dim=1)
        return {**update, "delta": delta.scaled((self.bound / norms).clamp(max=1.0))}, memory


@executions
@pytest.mark.parametrize(
    ("first", "bound"),
    [((), 0.15), ((RandK(10),), 0.15), ((TopK(3),), 0.06)],
    ids=["plain", "rand-k", "top-k"],
)
def test_clipping_bounds_every_row_and_keeps_its_direction(
    execution: Execution, first: tuple[Layer, ...], bound: float
) -> None:
    before, after = Recorded(), Recorded()
    strategy = fedavg().replace(layers=(*first, before, Clip(bound), after, Weighted()))
    world().run(strategy, execution, rounds=2)
    norms = []
    for k, rows in before.seen.items():
        for row, clipped in zip(rows, after.seen[k], strict=True):
            norms.append(float(row.norm()))
            assert float((clipped - row * min(1.0, bound / float(row.norm()))).norm()) < 1e-15
            assert float(clipped.norm()) <= bound * (1 + 1e-15)
    assert min(norms) < bound < max(norms)  # some are clipped, some are not


# -------------------------------------------------------------------------- secure aggregation
ONE = 2**24  # fixed point


class Masked(NamedTuple):
    """Masked sums over Z / 2^64, and whose they are."""

    sums: dict[str, Tensor]
    spaces: dict[str, tuple[Any, ...]]
    positions: frozenset[int]


@dataclass(frozen=True, eq=False)
class SecureSum(Aggregation):
    """Pairwise masks that cancel in the sum; the later of two subtracts what the earlier adds.

    `cohort` is given by the test.
    """

    cohort: int
    opened: list[frozenset[int]] = field(default_factory=list)

    @property
    def sees(self) -> Literal["sum"]:
        return "sum"

    def mask(self, one: int, other: int, name: str, size: int) -> Tensor:
        drawn = generator(derive(7, one, other, name)).integers(-(2**63), 2**63, size)
        return torch.from_numpy(drawn)

    def masks(self, position: int, others: frozenset[int], name: str, size: int) -> Tensor:
        total = torch.zeros(size, dtype=torch.int64)
        for other in others - {position}:
            mask = self.mask(min(position, other), max(position, other), name, size)
            total += mask if position < other else -mask
        return total

    def contribution(self, update: Update, client: ClientContext) -> Masked:
        everyone = frozenset(range(self.cohort))
        sums, spaces = {}, {}
        for name, sent in update.items():
            values, space = sent.values * sent.scale.unsqueeze(1), sent.space
            while space and not all(s.common and s.linear for s in space):
                values, space = space[-1].lift(values), space[:-1]
            rows = (values * ONE).round().to(torch.int64)
            masks = [self.masks(int(p), everyone, name, rows.shape[1]) for p in client.position]
            sums[name], spaces[name] = rows + torch.stack(masks), space
        return Masked(sums, spaces, frozenset())

    def block(self, contribution: Masked, client: ClientContext) -> Masked:
        sums = {name: rows.sum(0) for name, rows in contribution.sums.items()}
        positions = frozenset(int(p) for p in client.position)
        return Masked(sums, contribution.spaces, positions)

    def merge(self, left: Masked, right: Masked) -> Masked:
        sums = {name: value + right.sums[name] for name, value in left.sums.items()}
        return Masked(sums, left.spaces, left.positions | right.positions)

    def opening(self, total: Masked, round_: RoundContext) -> dict[str, Tensor]:
        """The survivors' masks with those who dropped out."""
        dropped = frozenset(range(round_.cohort)) - total.positions
        self.opened.append(dropped)
        zero = {name: torch.zeros_like(value) for name, value in total.sums.items()}
        for position in total.positions:
            for name, value in zero.items():
                value.add_(self.masks(position, dropped, name, len(value)))
        return zero

    def finish(self, total: Masked, opening: Mapping[str, Tensor]) -> Aggregate:
        return {
            name: Summed((value - opening[name]).double() / ONE, total.spaces[name])
            for name, value in total.sums.items()
        }


@executions
@pytest.mark.parametrize("bad", [(), (4,), (0, 1, 9)])
def test_masked_sums_are_the_plain_sums(execution: Execution, bad: tuple[int, ...]) -> None:
    small, strategy = regression(*bad), scaffold(lr=0.02)
    secure = strategy.replace(aggregation=SecureSum(len(SIZES)))
    plain = small.run(strategy, execution, rounds=1)
    found = small.run(secure, execution, rounds=1)
    # Each of eleven clients rounds to half of 2^-24.
    assert largest_difference(snapshot(found), snapshot(plain)) < 11 * 0.5 / ONE
    assert isinstance(secure.aggregation, SecureSum)
    assert [len(dropped) for dropped in secure.aggregation.opened] == [len(bad)]


def test_masked_sums_may_be_taken_in_a_common_space() -> None:
    small = world(participation=Full())
    strategy = fedavg(weighting="uniform").then(RandK(10))
    secure = strategy.replace(aggregation=SecureSum(len(SIZES)))
    plain, found = small.run(strategy, VMAP), small.run(secure, VMAP)
    assert float((found.params - plain.params).abs().max()) < 1e-5
    assert int((found.direction != 0).sum()) == 10


def test_a_single_contribution_is_masked_in_every_coordinate() -> None:
    sent = SecureSum(2).contribution({"delta": vector(torch.zeros(1, 50))}, context(1))
    assert int((sent.sums["delta"].abs() < 2**32).sum()) == 0


# ---------------------------------------------------------------------------- robust aggregates
@dataclass(frozen=True)
class Median(Aggregation):
    """The coordinate-wise median, times the number of clients: an estimate of the sum."""

    @property
    def sees(self) -> Literal["every update"]:
        return "every update"

    def contribution(self, update: Update, client: ClientContext) -> dict[str, Tensor]:
        return {name: sent.lifted() for name, sent in update.items()}

    def block(self, contribution: dict[str, Tensor], client: ClientContext) -> dict[str, Tensor]:
        return contribution

    def merge(self, left: dict[str, Tensor], right: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.cat([rows, right[name]]) for name, rows in left.items()}

    def finish(self, total: dict[str, Tensor], opening: None) -> Aggregate:
        return {
            name: Summed(len(rows) * torch.from_numpy(np.median(rows.numpy(), axis=0)))
            for name, rows in total.items()
        }


@executions
def test_a_median_of_updates_is_the_servers_direction(execution: Execution) -> None:
    recorded = Recorded()
    strategy = Strategy(
        fedavg().local, layers=(recorded, Weighted("uniform")), aggregation=Median()
    )
    found = world().run(strategy, execution, rounds=1)
    rows = np.stack([rows[0].numpy() for rows in recorded.seen.values()])
    assert len(rows) == 7
    assert float((found.direction - torch.from_numpy(np.median(rows, axis=0))).abs().max()) < 1e-14


def test_a_median_of_compressed_updates_is_taken_in_full() -> None:
    recorded = Recorded()
    layers = (TopK(30), recorded, Weighted("uniform"))
    strategy = Strategy(fedavg().local, layers=layers, aggregation=Median())
    found = world().run(strategy, VMAP, rounds=1)
    rows = np.stack([rows[0].numpy() for rows in recorded.seen.values()])
    assert float((found.direction - torch.from_numpy(np.median(rows, axis=0))).abs().max()) < 1e-14


# ------------------------------------------------------------------------------ personal models
@dataclass(frozen=True)
class Ditto(LocalTraining):
    """FedAvg, and beside it a personal model of each client's, held near the global one.

    Source: Li et al., "Ditto: Fair and robust federated learning through personalization", ICML
    2021, algorithm 1.
    """

    optimizer: SGD = SGD(0.1)
    work: Epochs = Epochs()
    pull: float = 0.5

    @property
    def passes(self) -> tuple[Epochs, ...]:
        return (self.work, self.work)

    def init_client(self, broadcast: Broadcast) -> Memory:
        return {"personal": broadcast.params.clone()}

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        own = {"personal": memory["personal"].clone(), "anchor": -self.pull * broadcast.params}
        return {**self.optimizer.start(broadcast), **own}

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        if pass_number == 0:
            self.optimizer.step(state, gradient)
        else:
            own = {**state, "params": state["personal"]}
            self.optimizer.step(own, gradient, decay=self.pull, constant=state["anchor"])

    def trained(self, state: Mapping[str, Tensor]) -> Tensor:
        return state["params"]

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        return {"delta": vector(difference(state, broadcast))}, {"personal": state["personal"]}

    def model_for(self, broadcast: Broadcast, memory: Memory) -> Tensor:
        return memory["personal"]


def personal_models(small: World, ditto: Ditto, rounds: int) -> dict[int, Tensor]:
    """The personal half of algorithm 1 as a loop, given the global models of each round."""
    module, models = mlp(), dict[int, Tensor]()
    state = small.start(fedavg())
    for number in range(1, rounds + 1):
        for k in small.cohort(number):
            v = models.get(k, state.params).clone()
            for x, y in small.batches(ditto.work, number, k, pass_number=1):
                pull = ditto.pull * (v - state.params)
                v = v - 0.1 * (gradient(module, small.task.loss, v, x, y) + pull)
            models[k] = v
        state, _ = small.step(state, fedavg())
    return models


@executions
def test_personal_models_train_beside_the_global_one(execution: Execution) -> None:
    small, ditto = world(), Ditto()
    found = small.run(Strategy(ditto), execution)
    assert float((found.params - small.run(fedavg()).params).abs().max()) < 1e-12
    expected = personal_models(small, ditto, rounds=3)
    assert found.clients.rows.keys() == expected.keys()
    for k, slots in found.clients.rows.items():
        assert float((slots[1]["personal"] - expected[k]).abs().max()) < 1e-12


@pytest.mark.parametrize("split", ["test", "unseen"])
def test_clients_are_evaluated_with_their_personal_models(split: str) -> None:
    small, strategy = world(participation=Uniform(count=3)), Strategy(Ditto())
    state = small.run(strategy)
    assert 3 <= len(state.clients.rows) < len(SIZES)
    found = evaluate(
        small.task, strategy, state, small.data, np.arange(len(SIZES), dtype=np.int64), split
    )
    for k in range(len(SIZES)):
        known = split == "test" and k in state.clients.rows
        params = state.clients.rows[k][1]["personal"] if known else state.params
        x, y = small.examples(k)
        with torch.no_grad():
            outputs = small.task.with_values(params, state.buffers)(x)
            expected = float(nn.functional.cross_entropy(outputs, y))
        assert found.metrics["loss"][k] == pytest.approx(expected, abs=1e-12)


def test_a_sum_says_that_it_sees_sums_only() -> None:
    assert Sum().sees == SecureSum(2).sees == "sum"
    assert Median().sees == "every update"
