"""Recorded steps give the numbers of steps that are computed anew.

What records them here calls the step each time, and lets it read no number.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from tests.device.small import CPU, Recorder, device_run, reads_nothing
from tests.engine.small import BAD, largest_difference, regression, snapshot, world
from tests.strategies.table import ON_CARDS, TABLE, with_one_of

from hanse.core.types import vector
from hanse.data.batching import Epochs
from hanse.engines import InProcess
from hanse.engines.graphs import sizes
from hanse.engines.on_device import Place
from hanse.local import SGD, LocalSGD, StepDecay
from hanse.models import Execution, Task
from hanse.models.executors import tuned
from hanse.round import run_round
from hanse.selection import Full, Uniform
from hanse.strategies import fedavg, fedprox
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Gradient, Memory, Update
    from hanse.models.execution import PathName

EXACT = 1e-12


@pytest.mark.parametrize(
    ("name", "path", "block"),
    with_one_of([("vmap", 5), ("dense", 16), ("vmap", 3), ("dense", 4)], ON_CARDS),
)
def test_recorded_steps_compute_the_same_state(name: str, path: PathName, block: int) -> None:
    execution, recorder = Execution(path, block), Recorder()
    found = device_run(world(), TABLE[name], execution, place=Place(CPU, recorder))
    expected = world().run(TABLE[name], execution)
    assert largest_difference(snapshot(found), snapshot(expected)) < EXACT
    assert recorder.replayed > 0


@pytest.mark.parametrize(
    ("name", "path", "block"), with_one_of([("vmap", 5), ("dense", 4), ("module", 3)], ON_CARDS)
)
def test_steps_computed_anew_on_a_device_read_no_number(
    name: str, path: PathName, block: int
) -> None:
    execution = Execution(path, block)
    found = device_run(world(), reads_nothing(TABLE[name]), execution, place=Place(CPU))
    expected = world().run(TABLE[name], execution)
    assert largest_difference(snapshot(found), snapshot(expected)) < EXACT


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_large_layers_gradient_goes_to_its_weight_without_a_number_read(
    momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "_LARGE", 1)
    small, strategy = world(), fedprox(mu=0.5, momentum=momentum)
    found = device_run(small, reads_nothing(strategy), Execution("module", 3), place=Place(CPU))
    assert len(tuned.tuned(small.task).aims) == 2
    monkeypatch.undo()
    expected = small.run(strategy, Execution("module", 3))
    assert largest_difference(snapshot(found), snapshot(expected)) < EXACT


@pytest.mark.parametrize("name", ["fedprox-momentum-decay", "scaffold-1-chunks"])
def test_steps_are_recorded_once_for_all_blocks_and_rounds(name: str) -> None:
    small = world(participation=Full())
    counts = []
    for rounds in (1, 2, 4):
        recorder = Recorder()
        device_run(small, TABLE[name], Execution("dense", 4), rounds, Place(CPU, recorder))
        counts.append(recorder.recorded)
    assert counts[0] == counts[1] == counts[2] > 0


def test_a_cohort_that_grows_gets_more_room() -> None:
    # The first rounds are small: their memory does not suffice for the later ones.
    small, strategy = world(), TABLE["scaffold-1-momentum"]
    states = []
    for place in (Place(CPU, Recorder()), None):
        engine = InProcess(strategy, small.task, small.data, Execution("dense", 8), place)
        state = small.start(strategy)
        for who in (Uniform(count=2), Uniform(count=3), Full(), Uniform(count=2)):
            population = dataclasses.replace(small.population, participation=who)
            state, _ = run_round(state, engine, population, small.task.layout)
        states.append(snapshot(state))
    assert largest_difference(*states) < EXACT


def test_the_rate_of_each_round_is_used() -> None:
    strategy, execution = fedavg(lr=StepDecay(0.2, 0.01, every=1)), Execution("dense", 4)
    one, two = (device_run(world(), strategy, execution, rounds) for rounds in (1, 2))
    three = device_run(world(), strategy, execution, 3)
    steps = [float((b.params - a.params).norm()) for a, b in ((one, two), (two, three))]
    first = float((one.params - world().start(strategy).params).norm())
    assert steps[0] < 0.1 * first
    assert steps[1] < 0.1 * steps[0]


def test_clients_that_are_done_do_not_move_on() -> None:
    # A strong pull would move them towards the global model, with weights of zero too.
    strategy, execution = fedprox(lr=0.1, mu=5.0, local_epochs=3), Execution("dense", 16)
    small = world(sizes=(1, 60, 2, 40), participation=Full())
    found = device_run(small, strategy, execution, 2)
    expected = small.run(strategy, Execution("module", 1), 2)
    assert largest_difference(snapshot(found), snapshot(expected)) < EXACT


def test_a_client_that_overflows_is_dropped_and_harms_nobody() -> None:
    found = device_run(regression(BAD), fedavg(lr=0.02), Execution("dense", 4), 1)
    expected = regression(BAD).run(fedavg(lr=0.02), Execution("module", 1), 1)
    assert bool(found.params.isfinite().all())
    assert largest_difference(snapshot(found), snapshot(expected)) < EXACT


def test_sizes_end_at_one_and_at_the_block() -> None:
    assert sizes(1) == [1]
    for block in (2, 7, 64, 1000):
        found = sizes(block)
        assert (found[0], found[-1]) == (1, block)
        assert all(a < b <= max(1.25 * a + 1, a + 1) for a, b in pairwise(found))


# ----------------------------------------------------------------------------- users' own trainings
@dataclass(frozen=True)
class Remembered(LocalSGD):
    """Trains in its memory, which `finish` reads again."""

    def init_client(self, broadcast: Broadcast) -> Memory:
        return {"own": broadcast.params.clone()}

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        return {**super().start(broadcast, memory, client), "own": memory["own"]}

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        super().step(state, gradient, pass_number)
        state["own"].mul_(0.9).add_(state["params"], alpha=0.1)

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        # `memory["own"]` is the very tensor that the steps have changed.
        delta = state["params"] - broadcast.params + 0.1 * (memory["own"] - broadcast.params)
        return {"delta": vector(delta)}, {"own": memory["own"]}


@dataclass(frozen=True)
class Twins(LocalSGD):
    """Has a tensor under two names, a tensor of counts, and a number that changes."""

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        state = super().start(broadcast, memory, client)
        taken = torch.zeros(len(client.id), dtype=torch.int64)
        return {**state, "same": state["params"], "taken": taken, "shrinks": torch.tensor(1.0)}

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        super().step(state, gradient, pass_number)
        state["taken"].add_(1)
        state["shrinks"].mul_(0.99)
        state["same"].mul_(state["shrinks"])

    def finish(
        self,
        state: Mapping[str, Tensor],
        broadcast: Broadcast,
        memory: Memory,
        client: ClientContext,
    ) -> tuple[Update, Memory]:
        assert client.facts is not None
        assert torch.equal(state["taken"].double(), client.facts.steps)
        assert state["same"] is state["params"]
        factor = state["shrinks"] / state["taken"].unsqueeze(1)
        return {"delta": vector((state["params"] - broadcast.params) * factor)}, memory


@dataclass(frozen=True)
class Overlapping(LocalSGD):
    """Has a part of its parameters under another name."""

    def start(
        self, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> dict[str, Tensor]:
        state = super().start(broadcast, memory, client)
        return {**state, "head": state["params"][:, -3:]}

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        super().step(state, gradient, pass_number)
        state["head"].mul_(0.5)


@dataclass(frozen=True)
class Clipped(LocalSGD):
    """Reads a number in each step, as a device should not have to."""

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        change = gradient(state["params"])
        if float(change.norm(dim=1).max()) > 0.0:
            state["params"].sub_(change * state["rate"])


@dataclass(frozen=True)
class Assigning(LocalSGD):
    """Puts something into its state, which would be lost."""

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        state["params"] = state["params"] - gradient(state["params"])  # type: ignore[index]


def trains_as_before(local: LocalSGD, execution: Execution) -> None:
    strategy = Strategy(local)
    small = world(participation=Full())
    found = device_run(small, strategy, execution, 3)
    expected = small.run(strategy, execution, 3)
    assert largest_difference(snapshot(found), snapshot(expected)) < EXACT


two_paths = pytest.mark.parametrize("execution", [Execution("vmap", 4), Execution("dense", 16)])


@two_paths
@pytest.mark.parametrize("local", [Remembered(), Twins(SGD(0.1), Epochs(2))])
def test_tensors_may_be_remembered_or_have_two_names(local: LocalSGD, execution: Execution) -> None:
    trains_as_before(local, execution)


@two_paths
@pytest.mark.parametrize(
    ("local", "why"), [(Overlapping(), "shares its memory"), (Clipped(), "_local_scalar_dense")]
)
def test_what_cannot_be_recorded_is_computed_anew_and_said_once(
    local: LocalSGD, why: str, execution: Execution
) -> None:
    with pytest.warns(RuntimeWarning, match=f"{type(local).__name__}.*{why}") as said:
        trains_as_before(local, execution)
    assert len(said) == 1


def test_a_number_read_in_a_step_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="waits"):
        device_run(
            world(), reads_nothing(Strategy(Clipped())), Execution("dense", 4), place=Place(CPU)
        )


def test_an_error_in_a_step_is_the_users_own() -> None:
    warnings.simplefilter("ignore", RuntimeWarning)  # pytest restores it
    with pytest.raises(TypeError, match="item assignment"):
        device_run(world(), Strategy(Assigning()), Execution("dense", 4), 1)


def test_models_with_statistics_and_dropout_train_by_the_module() -> None:
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Dropout(0.3), torch.nn.Linear(6, 3)
    ).double()
    small = world(module, sizes=(10, 15, 5, 20), participation=Full())
    assert isinstance(small.task, Task)
    strategy, execution = fedavg(batch_size=5), Execution("module", 3)
    found = device_run(small, reads_nothing(strategy), execution, place=Place(CPU))
    expected = small.run(strategy, execution)
    assert largest_difference(snapshot(found), snapshot(expected)) < EXACT
