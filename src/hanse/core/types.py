"""The types of a round: what travels, what stays, and the parts of a strategy.

Shapes: K clients of a block, P columns of the parameter vector, S of them shared (see
`ParameterLayout`), m the length of whatever vector travels. A node in a real federation has K = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hanse.core.layout import ParameterLayout
    from hanse.core.rng import Key, Keys

Memory = Mapping[str, Tensor]
"""What a client keeps between rounds: `[K, ...]` for a block, no leading K for one client."""
State = Mapping[str, Tensor]
"""What the server keeps between rounds for one part of a strategy."""


# --------------------------------------------------------------------------- what travels
class Space(Protocol):
    """How a shorter or rotated vector stands for a longer one."""

    @property
    def linear(self) -> bool:
        """Lifting a sum equals summing what was lifted."""

    @property
    def isometric(self) -> bool:
        """Lifting keeps the Euclidean norm."""

    @property
    def common(self) -> bool:
        """Every client of the round uses this very space, so sums may be taken inside it."""

    def lift(self, values: Tensor) -> Tensor:
        """From `[..., m]` back to the longer vector it stands for."""


class Vector(NamedTuple):
    """One thing that travels, for a block of K clients: row k is `scale[k] * values[k]`.

    Weighting and clipping touch only `scale`.
    """

    values: Tensor  # [K, m]
    scale: Tensor  # [K]
    space: tuple[Space, ...] = ()  # the last one was entered last, and is lifted first

    def scaled(self, factor: Tensor) -> Vector:
        """Each row times its `factor` `[K]`."""
        return self._replace(scale=self.scale * factor)

    def lifted(self) -> Tensor:
        """The rows in full, `[K, m]` of the outermost space."""
        values = self.values * self.scale.unsqueeze(1)
        for space in reversed(self.space):
            values = space.lift(values)
        return values


def vector(values: Tensor) -> Vector:
    """Rows `[K, m]` as they are, with scale one."""
    return Vector(values, torch.ones(len(values), dtype=values.dtype, device=values.device))


Update = Mapping[str, Vector]
"""What a client sends, by name: `delta`, SCAFFOLD's `control`, `weight`, `buffers`, …"""


class Summed(NamedTuple):
    """One named sum over the cohort, in the last linear space common to all its clients."""

    values: Tensor  # [m]
    space: tuple[Space, ...] = ()

    def lifted(self) -> Summed:
        """The same sum in its outermost space."""
        values = self.values
        for space in reversed(self.space):
            values = space.lift(values)
        return Summed(values)


Aggregate = Mapping[str, Summed]
"""What the server's halves see: named sums (or robust estimates of sums), never one client."""


# --------------------------------------------------------------------------- contexts
@dataclass(frozen=True)
class RoundContext:
    """What both sides know of a round.

    Attributes:
        number: rounds count from 1.
        key: the round's key; derive purposes from it.
        population: the number of clients that have examples, and so can take part.
        expected: the expected size of the cohort.
        cohort: the number of clients selected.
        setting: `"cross-silo"`, `"cross-device"`, or `"evaluation"`: then nobody trains, and
            population and cohort are the clients that are being evaluated.
        layout: the columns of the parameter vector.
    """

    number: int
    key: Key | Keys  # 0-d
    population: int
    expected: float
    cohort: int
    setting: str
    layout: ParameterLayout


class Facts(NamedTuple):
    """What the engine knows of K clients' training once it is done."""

    steps: Tensor  # [K], gradient steps taken in the first pass
    loss: Tensor  # [K], mean training loss over the first pass
    effective_steps: Tensor | None = None  # [K], as `LocalTraining.effective_steps` says

    def of(self, rows: Tensor) -> Facts:
        """The facts of some of the clients."""
        effective = None if self.effective_steps is None else self.effective_steps[rows]
        return Facts(self.steps[rows], self.loss[rows], effective)


@dataclass(frozen=True)
class ClientContext:
    """What K clients know of themselves; none of it travels unless a layer sends it.

    Attributes:
        id: `[K]` int64, the clients' numbers in the population.
        position: `[K]` int64, their places in the cohort.
        key: `[K]` uint64, each client's key for this round.
        round: the round they take part in.
        examples: `[K]`, how many examples each trains on, in the parameters' dtype.
        facts: what is known after training; `None` before.
    """

    id: NDArray[np.int64]
    position: NDArray[np.int64]
    key: Keys
    round: RoundContext
    examples: Tensor
    facts: Facts | None = None


class Broadcast(NamedTuple):
    """What the server publishes for a round.

    At a client, `params` is `[K, P]`, its local columns the client's own, and `buffers` `[K, b]`.
    """

    params: Tensor  # [P], or [K, P] at clients
    buffers: Tensor  # [b], or [K, b] at clients
    extra: Mapping[str, Tensor]  # what layers add: control variates, clip norms, …
    round: RoundContext
    sent: Vector | None = None  # [1, m], where the shared parameters travel compressed

    def adding(self, **extra: Tensor) -> Broadcast:
        """The same broadcast with more named tensors."""
        return self._replace(extra={**self.extra, **extra})


# --------------------------------------------------------------------- the parts of a strategy
Scalar = float | Tensor
"""A number; as a 0-d tensor it may change between replays of a recorded graph."""


class Gradient(Protocol):
    """The seam between algorithms and speed: the loss gradient, bound to one step's batches."""

    def __call__(self, at: Tensor) -> Tensor:
        """The gradient of each client's batch loss at `at` `[K, P]`, as a new `[K, P]`."""

    def add_to(
        self, target: Tensor, at: Tensor, *, scale: Scalar = 1.0, keep: Scalar = 1.0
    ) -> None:
        """`target = keep * target + scale * gradient(at)`, in place; `target` may be `at`."""


class Layer(Protocol):
    """A part with a client half and a server half; what is not overridden does nothing.

    Client halves run in order, server halves in reverse. A layer is a frozen dataclass: what it
    remembers is `Memory` (a client's) or `State` (the server's), never an attribute.
    """

    @property
    def averaged(self) -> tuple[str, ...]:
        """The vectors it sends of which its server half needs the mean: `Weighted` makes it."""
        return ()

    @property
    def uses_steps(self) -> bool:
        """Its client half reads `client.facts.effective_steps`, which are computed for it."""
        return False

    @property
    def unconditional(self) -> bool:
        """Server halves run although nobody's update could be used, on sums that are zero.

        The vectors are those that the strategy's parts declare in `sends`, and no other.
        """
        return False

    @property
    def answers_always(self) -> bool:
        """Its client half is given zeros of a client whose update is not finite.

        Otherwise such a client sends nothing.
        """
        return False

    def sends(self, layout: ParameterLayout) -> Mapping[str, int]:
        """The vectors it adds to what a client sends, each with its number of columns."""
        return {}

    def init_client(self, broadcast: Broadcast) -> Memory:
        """A client's memory before its first round, without the leading K."""
        return {}

    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """The server's state before round 1."""
        return {}

    def on_broadcast(self, broadcast: Broadcast, state: State) -> Broadcast:
        """Server: what is published."""
        return broadcast

    def on_published(self, broadcast: Broadcast, state: State) -> State:
        """Server: what it remembers of what was published, whoever answers."""
        return state

    def on_receive(self, broadcast: Broadcast, memory: Memory, client: ClientContext) -> Broadcast:
        """Client, before training."""
        return broadcast

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Client, after training: what is sent, and the memory kept once the server accepts it."""
        return update, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """Server: sees sums over the cohort."""
        return total, state

    def of_nobody(self, total: Aggregate, round_: RoundContext) -> Aggregate:
        """Server: sums of zeros as this layer's client half would have left them."""
        return total

    def reported(self, state: State) -> Mapping[str, Tensor]:
        """Server: numbers (0-d) that a run's records show after each round, by name."""
        return {}


class LocalTraining(Layer, Protocol):
    """What one client does with its data: the outermost layer.

    The state is a mapping of tensors `[K, ...]`; the engine hands `step` the first rows of each,
    those whose clients still have steps to take.
    """

    def sends(self, layout: ParameterLayout) -> Mapping[str, int]:
        """What `finish` sends, each vector with its number of columns."""
        return {"delta": layout.shared}

    @property
    def passes(self) -> tuple[Any, ...]:
        """How the data is walked through: `hanse.data.Epochs`, `Steps`, … each."""

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        """The state before the first step."""

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        """One step on one batch per client, in place."""

    def trained(self, state: Mapping[str, Tensor]) -> Tensor | None:
        """The parameters `[K, P]` after training, or `None` where a client trains none."""

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        """What is sent (vectors over the shared columns) and what is remembered if accepted."""

    def effective_steps(self, broadcast: Broadcast, taken: Tensor) -> Tensor | None:
        """How many plain steps, each with a whole gradient, the steps `taken` `[K]` amount to.

        That is the sum of the factors with which a walk adds up its gradients; `Normalized` divides
        by it. `None`: a walk is no sum of gradients with known factors.
        """
        return None

    def model_for(self, broadcast: Broadcast, memory: Memory) -> Tensor:
        """The parameters `[K, P]` that clients are evaluated with."""
        return broadcast.params


class Exchange(NamedTuple):
    """How the exchanges behind the contributions went.

    Attributes:
        lost: whose contribution is not in the aggregate though it was made, and why, by client id:
            what these clients remember does not change.
        failure: why there is no aggregate at all; empty where there is one.
        numbers: that a run's records show of the round, by name.
    """

    lost: Mapping[int, str] = MappingProxyType({})
    failure: str = ""
    numbers: Mapping[str, float] = MappingProxyType({})


class Aggregation(Protocol):
    """A commutative monoid over contributions: streams in O(m), merges in a fixed order.

    `opening` stands for the further exchanges a protocol needs after the contributions are in
    (secure aggregation's unmasking); a plain sum needs none.
    """

    @property
    def sees(self) -> Literal["sum", "group sums", "every update"]:
        """What the server learns of single updates."""

    def contribution(self, update: Update, client: ClientContext) -> Any:  # noqa: ANN401 - opaque
        """Client: what is sent for K clients."""

    def block(self, contribution: Any, client: ClientContext) -> Any:  # noqa: ANN401 - opaque
        """Server: the partial total of a block of accepted contributions."""

    def merge(self, left: Any, right: Any) -> Any:  # noqa: ANN401 - opaque
        """Two partial totals as one; neither is used afterwards."""

    def opening(self, total: Any, round_: RoundContext) -> Any:  # noqa: ANN401 - opaque
        """In a simulation: what the later exchanges would reveal; `None` where there are none."""
        return None

    def exchange(self, total: Any, opening: Any) -> Exchange:  # noqa: ANN401 - opaque
        """Whom these exchanges lost on their way, and whether there is anything to finish."""
        return Exchange()

    def finish(self, total: Any, opening: Any) -> Aggregate:  # noqa: ANN401 - opaque
        """The aggregate of the round."""


class ServerOptimizer(Protocol):
    """Turns the aggregated `delta` into new parameters."""

    def init(self, size: int, dtype: torch.dtype) -> State:
        """The state before round 1."""

    def step(
        self, params: Tensor, delta: Tensor, state: State, round_: RoundContext
    ) -> tuple[Tensor, State]:
        """New parameters and state; `delta` points where the clients went."""


Step = Callable[[Mapping[str, Tensor], Gradient, int], None]
"""`LocalTraining.step`: the state's rows, the gradient of their batches, the number of the pass."""


class Work(Protocol):
    """The engine's side of a client's round: batches in, facts out."""

    @property
    def buffers(self) -> Tensor:
        """`[K, b]`: the model's buffers, as training leaves them."""

    def walk(self, pass_number: int, state: dict[str, Tensor], step: Step) -> None:
        """Take all steps of a pass; each is given the rows of the clients that still train.

        Args:
            pass_number: of `LocalTraining.passes`.
            state: as `LocalTraining.start` made it; changed in place.
            step: `LocalTraining.step`.
        """

    def facts(self) -> Facts:
        """What is known once the passes are done."""
