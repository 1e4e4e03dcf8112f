"""One federated round, top to bottom.

select a cohort, and who of it is late -> broadcast -> each client: local training, layers in order,
contribution -> aggregate -> layers' server halves in reverse -> server optimiser -> memories are
accepted
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from hanse.core.device import CPU, placed
from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.core.types import Broadcast, Exchange, RoundContext, Summed
from hanse.engines import STRAGGLER, Dropped
from hanse.memory import ClientMemory
from hanse.selection import Selected, Separated
from hanse.wire import broadcast_message, length

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.layout import ParameterLayout
    from hanse.core.types import Aggregate, State
    from hanse.engines import ClientFacts, Collected
    from hanse.models import Execution, Task
    from hanse.selection import Participation, Stragglers
    from hanse.strategy import Partial, Strategy


@dataclass(frozen=True, eq=False)
class FederationState:
    """All that a run carries from one round to the next, where the run computes.

    Attributes:
        round: the number of rounds done.
        params: `[P]`; local columns hold what a client starts from.
        buffers: `[b]`, likewise.
        layers: the server's state of each layer of the onion.
        optimizer: the server optimiser's state.
        direction: `[S]`, the last round's mean update, to measure drift against.
        clients: what clients remember.
        first_loss: 0-d, the first loss, to tell divergence by; 0 before it. On the processor.
        exploded: 0-d, how many times in a row the loss has been far above it. On the processor.
    """

    round: int
    params: Tensor
    buffers: Tensor
    layers: tuple[State, ...]
    optimizer: State
    direction: Tensor
    clients: ClientMemory
    first_loss: Tensor
    exploded: Tensor

    def on(self, device: torch.device) -> FederationState:
        """The same state on a device."""
        if self.params.device == device:
            return self
        return dataclasses.replace(
            self,
            params=self.params.to(device),
            buffers=self.buffers.to(device),
            layers=tuple(_on(device, layer) for layer in self.layers),
            optimizer=_on(device, self.optimizer),
            direction=self.direction.to(device),
            clients=self.clients.on(device),
        )


def _on(device: torch.device, state: State) -> State:
    return {name: value.to(device) for name, value in state.items()}


class RoundResult(NamedTuple):
    """What a round was, besides the state it led to."""

    cohort: int
    dropped: tuple[Dropped, ...]
    facts: ClientFacts
    pairwise_cosine: float
    broadcast: int  # bytes of the message that each client of the cohort is sent
    exchange: Exchange = Exchange()  # whether there is an aggregate of those who answered

    @property
    def accepted(self) -> int:
        """How many updates were used."""
        return self.cohort - len(self.dropped)


class Engine(Protocol):
    """Where clients' work is done."""

    @property
    def strategy(self) -> Strategy:
        """What is done."""

    @property
    def task(self) -> Task:
        """The model and its loss."""

    @property
    def execution(self) -> Execution:
        """How gradients are computed."""

    def collect(
        self,
        broadcast: Broadcast,
        selected: Selected,
        memory: ClientMemory,
        direction: Tensor,
        upcoming: Callable[[], Selected] | None = None,
    ) -> Collected:
        """Let the selected clients train, and aggregate what they send.

        `upcoming` are the next round's, for an engine that loads examples ahead.
        """

    def close(self) -> None:
        """End what was started for `collect`, which may still be called again."""


@dataclass(frozen=True)
class Population:
    """Who there is to choose from, and how a cohort is chosen.

    Attributes:
        clients: how many there are.
        participation: chooses from them.
        setting: the setting's name.
        seed: of the run's rounds; a secret where cohorts must be one.
        rounds: how many there will be; `None` if that is open.
        empty: ascending, the clients without examples. They are drawn like the others, have
            nothing to train on, and would send an update of weight 0: so they are not asked.
        stragglers: who of a cohort is too slow for all of its work; `None`: nobody.
    """

    clients: int
    participation: Participation
    setting: str
    seed: int
    rounds: int | None = None
    empty: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    stragglers: Stragglers | None = None

    def cohort(self, number: int, policy: Partial) -> tuple[Selected, Selected]:
        """Who trains in a round, and who would be too late for it; known before it comes.

        Args:
            number: of the round.
            policy: what becomes of partial work.
        """
        key = derive(self.seed, "round", number)
        if isinstance(self.participation, Separated):  # one schedule for all rounds
            schedule = derive(self.seed, "schedule")
            ids = self.participation.select(self.clients, schedule, number)
        else:
            ids = self.participation.select(self.clients, derive(key, "cohort"))
        if len(self.empty):
            ids = np.setdiff1d(ids, self.empty)
        everyone, nobody = Selected(ids), Selected(ids[:0])
        if self.stragglers is None:
            return everyone, nobody
        shares = self.stragglers.shares(ids, derive(key, "stragglers"))
        late = shares < 1
        if not late.any():
            return everyone, nobody
        if policy == "keep":
            return Selected(ids, shares), nobody
        return Selected(ids[~late]), Selected(ids[late], shares[late])


def initial_state(strategy: Strategy, task: Task, device: torch.device = CPU) -> FederationState:
    """The state before round 1."""
    params, buffers = (value.to(device) for value in task.initial())
    layout = task.layout
    with placed(device):
        layers = tuple(layer.init_server(layout, params.dtype) for layer in strategy.onion)
        optimizer = strategy.server.init(layout.shared, params.dtype)
    return FederationState(
        round=0,
        params=params,
        buffers=buffers,
        layers=layers,
        optimizer=optimizer,
        direction=params.new_zeros(layout.shared),
        clients=ClientMemory(),
        first_loss=torch.tensor(0.0, dtype=torch.float64),
        exploded=torch.tensor(0),
    )


def run_round(
    state: FederationState, engine: Engine, population: Population, layout: ParameterLayout
) -> tuple[FederationState, RoundResult]:
    """One round, where the state lies; the given state is left as it is."""
    with placed(state.params.device):
        return _round(state, engine, population, layout)


def _round(
    state: FederationState, engine: Engine, population: Population, layout: ParameterLayout
) -> tuple[FederationState, RoundResult]:
    strategy, number = engine.strategy, state.round + 1
    key = derive(population.seed, "round", number)
    selected, late = population.cohort(number, strategy.partial)
    cohort = len(selected.ids) + len(late.ids)
    context = RoundContext(
        number=number,
        key=derive(key, "clients"),
        population=population.clients - len(population.empty),
        expected=population.participation.expected(population.clients),
        cohort=cohort,
        setting=population.setting,
        layout=layout,
    )

    broadcast = publish(state, strategy, context)
    state = dataclasses.replace(state, layers=_published(strategy, state.layers, broadcast))

    upcoming = None
    if number != population.rounds:
        upcoming = partial(_trains, population, number + 1, strategy.partial)
    collected = engine.collect(broadcast, selected, state.clients, state.direction, upcoming)

    result = RoundResult(
        cohort,
        (*_too_late(late), *collected.dropped),
        collected.facts,
        collected.pairwise_cosine,
        length(broadcast_message(broadcast, engine.task.buffers.shared)),
        collected.exchange,
    )
    total = _what_is_released(collected.aggregate, strategy, state.params, context)
    if total is None:  # nobody came, or nobody's update could be used
        return dataclasses.replace(state, round=number), result

    total, layers = _server_halves(strategy, total, state.layers, context)
    delta = _delta(total)
    shared = state.params[: layout.shared]
    shared, optimizer = strategy.server.step(shared, delta, state.optimizer, context)
    after = dataclasses.replace(
        state,
        round=number,
        params=torch.cat([shared, state.params[layout.shared :]]),
        buffers=_moved(state.buffers, total),
        layers=layers,
        optimizer=optimizer,
        direction=delta,
        clients=state.clients.accept(collected.memory),
    )
    return after, result


def _trains(population: Population, number: int, policy: Partial) -> Selected:
    return population.cohort(number, policy)[0]


def _too_late(late: Selected) -> list[Dropped]:
    if late.shares is None:
        return []
    return [
        Dropped(int(k), f"{STRAGGLER}did {int(100 * share)} % of its work in time")
        for k, share in zip(late.ids, late.shares, strict=True)
    ]


def publish(state: FederationState, strategy: Strategy, context: RoundContext) -> Broadcast:
    """The model, and what the layers add to it."""
    # Copies: whoever writes into the broadcast by mistake does not change the server's state.
    broadcast = Broadcast(state.params.clone(), state.buffers.clone(), {}, context)
    for layer, remembered in zip(strategy.onion, state.layers, strict=True):
        broadcast = layer.on_broadcast(broadcast, remembered)
    return broadcast


def _published(
    strategy: Strategy, states: tuple[State, ...], broadcast: Broadcast
) -> tuple[State, ...]:
    pairs = zip(strategy.onion, states, strict=True)
    return tuple(layer.on_published(broadcast, state) for layer, state in pairs)


def _what_is_released(
    total: Aggregate | None, strategy: Strategy, params: Tensor, context: RoundContext
) -> Aggregate | None:
    """The aggregate, or what stands for it where there is none: sums of nothing, or nothing."""
    if not any(layer.unconditional for layer in strategy.onion):
        return total
    declared: dict[str, int] = {}
    for layer in strategy.onion:
        declared |= layer.sends(context.layout)
    if total is None:
        zeros: Aggregate = {k: Summed(params.new_zeros(m)) for k, m in declared.items()}
        for layer in strategy.onion:
            zeros = layer.of_nobody(zeros, context)
        return zeros
    if total.keys() != declared.keys():
        raise StrategyError(
            f"clients send {sorted(total)}, and the strategy's parts declare {sorted(declared)}",
            why="a round without clients would release other vectors, which tells that it had none",
            instead="a method sends(layout) of the part that sends them",
        )
    return total


def _server_halves(
    strategy: Strategy, total: Aggregate, states: tuple[State, ...], context: RoundContext
) -> tuple[Aggregate, tuple[State, ...]]:
    after: list[State] = []
    for layer, remembered in zip(reversed(strategy.onion), reversed(states), strict=True):
        total, kept = layer.on_server(total, remembered, context)
        if not all(isinstance(value, torch.Tensor) for value in kept.values()):
            raise StrategyError(
                f"{type(layer).__name__} keeps {kept!r:.120} at the server",
                why="state is written to checkpoints as tensors",
                instead="torch.tensor(…) for every number",
            )
        after.append(kept)
    return total, tuple(reversed(after))


def _delta(total: Aggregate) -> Tensor:
    unread = sorted(set(total) - {"delta", "buffers"})
    if "delta" not in total or unread:
        raise StrategyError(
            f"after all server halves the aggregate holds {sorted(total)}",
            why="the server optimiser reads 'delta' (and 'buffers', if the model has any): the "
            "rest would be lost unnoticed",
            instead="an on_server that takes out what its on_client put in",
        )
    return total["delta"].lifted().values


def _moved(buffers: Tensor, total: Aggregate) -> Tensor:
    """Buffers are averaged, never optimised."""
    if "buffers" not in total:
        return buffers
    change = total["buffers"].lifted().values
    return torch.cat([buffers[: len(change)] + change, buffers[len(change) :]])
