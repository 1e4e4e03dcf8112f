"""Small federations, models and runs, shared by the tests of engines, strategies and training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from hanse.core.rng import derive
from hanse.core.types import Layer
from hanse.data import Federation, PackedClients
from hanse.data.batching import Pass, plan
from hanse.engines import InProcess
from hanse.models import Execution, Task, cross_entropy, squared_error
from hanse.round import FederationState, Population, RoundResult, initial_state, run_round
from hanse.selection import Full, Participation, Stragglers, Uniform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from hanse.core.types import Broadcast, ClientContext, Memory, Update
    from hanse.models import Loss
    from hanse.strategy import Strategy

SIZES = (5, 33, 1, 13, 2, 26, 10, 3, 20, 8, 17)
FEATURES, CLASSES = 4, 3
MODULE, VMAP = Execution("module", 1), Execution("vmap", 4)


def clients(
    sizes: Sequence[int] = SIZES, *, labels: bool = True, dtype: torch.dtype = torch.float64
) -> PackedClients:
    """Clients whose inputs lie around different centres; labels, or numbers to predict."""
    random = np.random.default_rng(len(sizes))
    arrays = []
    for n in sizes:
        x = torch.from_numpy(random.normal(size=(n, FEATURES)) + random.normal(size=FEATURES))
        y = random.integers(0, CLASSES, n) if labels else random.normal(size=(n, 1))
        target = torch.from_numpy(y)
        arrays.append({"x": x.to(dtype), "y": target if labels else target.to(dtype)})
    return PackedClients.from_arrays(arrays)


def federation(sizes: Sequence[int] = SIZES, dtype: torch.dtype = torch.float64) -> Federation:
    """Clients with test examples: each tests on another client's kind of data."""
    return Federation(clients(sizes, dtype=dtype), clients(sizes[::-1], dtype=dtype))


def mlp(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Seven hidden units between `FEATURES` and `CLASSES`."""
    return seeded(
        lambda: nn.Sequential(nn.Linear(FEATURES, 7), nn.Tanh(), nn.Linear(7, CLASSES))
    ).to(dtype)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` makes, always with the same weights, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make().double()


@dataclass(frozen=True)
class Chosen(Participation):
    """The same clients in every round."""

    ids: tuple[int, ...]

    def expected(self, population: int) -> float:
        return float(len(self.ids))

    def select(self, population: int, key: object) -> NDArray[np.int64]:
        return np.array(self.ids, np.int64)


@dataclass(frozen=True, eq=False)
class World:
    """A task, clients, and who of them takes part."""

    task: Task
    data: PackedClients
    participation: Participation = Uniform(count=7)
    seed: int = 3
    stragglers: Stragglers | None = None

    @property
    def population(self) -> Population:
        return Population(
            len(self.data),
            self.participation,
            "cross-silo",
            self.seed,
            stragglers=self.stragglers,
        )

    def start(self, strategy: Strategy) -> FederationState:
        return initial_state(strategy, self.task)

    def step(
        self, state: FederationState, strategy: Strategy, execution: Execution = MODULE
    ) -> tuple[FederationState, RoundResult]:
        engine = InProcess(strategy, self.task, self.data, execution)
        return run_round(state, engine, self.population, self.task.layout)

    def run(
        self, strategy: Strategy, execution: Execution = MODULE, rounds: int = 3
    ) -> FederationState:
        state = self.start(strategy)
        for _ in range(rounds):
            state, _result = self.step(state, strategy, execution)
        return state

    def cohort(self, number: int) -> list[int]:
        key = derive(derive(self.seed, "round", number), "cohort")
        return [int(k) for k in self.participation.select(len(self.data), key)]

    def shares(self, number: int) -> dict[int, float]:
        """The part of its work that each client of a cohort does in time."""
        ids = self.cohort(number)
        if self.stragglers is None:
            return dict.fromkeys(ids, 1.0)
        key = derive(derive(self.seed, "round", number), "stragglers")
        shares = self.stragglers.shares(np.array(ids, np.int64), key)
        return dict(zip(ids, shares.tolist(), strict=True))

    def examples(self, client: int) -> tuple[Tensor, Tensor]:
        rows = slice(int(self.data.offsets[client]), int(self.data.offsets[client + 1]))
        return self.data.fields["x"][rows], self.data.fields["y"][rows]

    def batches(
        self, work: Pass, number: int, client: int, pass_number: int = 0
    ) -> list[tuple[Tensor, Tensor]]:
        """The batches of a client in a round, from the plan that engines use, without padding.

        A straggler's are the first ones of the first pass.
        """
        key = derive(derive(self.seed, "round", number), "clients")
        own = derive(derive(key, np.array([client])), "pass", pass_number)
        x, y = self.examples(client)
        steps = plan(work, np.array([len(x)]), np.zeros(1, np.int64), own)
        rows = [step.rows[0, : int(step.counts[0])] for step in steps]
        if pass_number == 0:
            rows = rows[: math.ceil(self.shares(number).get(client, 1.0) * len(rows))]
        return [(x[chosen], y[chosen]) for chosen in rows]


def world(
    module: nn.Module | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    data: PackedClients | None = None,
    loss: Loss = cross_entropy,
    local: Sequence[str] = (),
    participation: Participation = Uniform(count=7),
    dtype: torch.dtype = torch.float64,
    stragglers: Stragglers | None = None,
) -> World:
    task = Task.of(mlp(dtype) if module is None else module, loss=loss, local=local)
    data = clients(sizes, dtype=dtype) if data is None else data
    return World(task, data, participation, stragglers=stragglers)


BAD = 3
OTHERS = tuple(k for k in range(len(SIZES)) if k != BAD)


def spoiled(data: PackedClients, *bad: int) -> PackedClients:
    """The same clients; the gradients of the bad ones overflow."""
    x = data.fields["x"].clone()
    for k in bad:
        x[int(data.offsets[k]) : int(data.offsets[k + 1])] = 1e200
    return PackedClients({**data.fields, "x": x}, data.offsets, data.names)


def regression(*bad: int, chosen: tuple[int, ...] | None = None) -> World:
    module = seeded(lambda: nn.Linear(FEATURES, 1))
    data = spoiled(clients(labels=False), *bad)
    participation = Full() if chosen is None else Chosen(chosen)
    return world(module, data=data, loss=squared_error, participation=participation)


@dataclass(frozen=True, eq=False)
class Recorded(Layer):
    """Notes each client's `delta` as it passes, in full."""

    seen: dict[int, list[Tensor]] = field(default_factory=dict)

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        for k, row in zip(client.id, update["delta"].lifted(), strict=True):
            self.seen.setdefault(int(k), []).append(row.clone())
        return update, memory


def snapshot(state: FederationState) -> dict[str, Tensor]:
    """Copies of every tensor of a state, by a name that says where it is."""
    parts = {"params": state.params, "buffers": state.buffers, "direction": state.direction}
    parts |= {f"optimizer.{k}": v for k, v in state.optimizer.items()}
    for number, layer in enumerate(state.layers):
        parts |= {f"layers.{number}.{k}": v for k, v in layer.items()}
    for client, slots in state.clients.rows.items():
        for number, slot in enumerate(slots):
            parts |= {f"clients.{client}.{number}.{k}": v for k, v in slot.items()}
    return {name: value.clone() for name, value in parts.items()}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Over all tensors of two snapshots, which must hold the same ones."""
    assert one.keys() == other.keys()
    gaps = [float((value - other[k]).abs().max()) for k, value in one.items() if value.numel()]
    return float(np.max(gaps))  # NaN stays NaN, which is below nothing


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())
