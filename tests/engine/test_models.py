"""Every kind of module trains as it would in a plain loop, and the user's own is left alone."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest
import torch
from tests.engine.small import (
    CLASSES,
    FEATURES,
    MODULE,
    VMAP,
    World,
    clients,
    largest_difference,
    mlp,
    same_bits,
    seeded,
    snapshot,
    world,
)
from tests.strategies.oracle import federated_averaging, mean_state, trained, vector, weights
from torch import Tensor, nn

from hanse.core.errors import ModelError
from hanse.core.types import Layer
from hanse.data import Federation, PackedClients
from hanse.data.batching import Epochs
from hanse.experiment import Experiment, prepare
from hanse.models import Execution, cross_entropy, squared_error
from hanse.selection import Full, Uniform
from hanse.server import ServerAdam
from hanse.strategies import fedavg, scaffold
from hanse.training import rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.core.types import Broadcast, ClientContext, Memory, Update
    from hanse.strategy import Strategy

EVEN = (10, 15, 5, 20, 12, 8, 30)  # with batches of 5, no batch holds a single example
WORDS = 6


class Tied(nn.Module):
    """A next-word model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 5)
        self.out = nn.Linear(5, WORDS)
        self.out.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        out: Tensor = self.out(self.embedding(words).mean(1))
        return out


class Recurrent(nn.Module):
    """An LSTM over the features as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 5, batch_first=True)
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.lstm(x.unsqueeze(-1))[0][:, -1])
        return out


class Centred(nn.Module):
    """Looks at all examples of a batch at once."""

    def __init__(self, *, zero: bool = False) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)
        if zero:
            nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x - x.mean(0))
        return out


class Tempered(nn.Module):
    """Scales its outputs by a parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x) / self.temperature
        return out


def convolution() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)),
        nn.Conv2d(1, 3, 2, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3, CLASSES),
    )


def frozen() -> nn.Module:
    module = mlp()
    for parameter in module[0].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    return module


def batch_norm(**options: bool) -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 6), nn.BatchNorm1d(6, **options), nn.ReLU(), nn.Linear(6, CLASSES)
    )


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, CLASSES))


def instance_norm() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, FEATURES)), nn.InstanceNorm1d(1), nn.Flatten(), nn.Linear(4, CLASSES)
    )


def group_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 6), nn.GroupNorm(2, 6), nn.ReLU(), nn.Linear(6, CLASSES)
    )


def words() -> PackedClients:
    random = torch.Generator().manual_seed(0)
    return PackedClients.from_arrays(
        [
            {
                "x": torch.randint(WORDS, (n, 3), generator=random),
                "y": torch.randint(WORDS, (n,), generator=random),
            }
            for n in EVEN
        ]
    )


# name: (module, whether it can be vmapped)
MODULES: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "convolution": (convolution, True),
    "lstm": (Recurrent, True),
    "tied weights": (Tied, True),
    "frozen parameters": (frozen, True),
    "group norm": (group_norm, True),
    "scalar parameter": (Tempered, True),
    "batch norm": (batch_norm, False),
    "batch norm without statistics": (lambda: batch_norm(track_running_stats=False), False),
    "centred on its batch": (Centred, False),
    "centred, starting at zero": (lambda: Centred(zero=True), False),
    "instance norm": (instance_norm, True),
}
STRATEGY, WORK = fedavg(lr=0.2, batch_size=5, momentum=0.5), Epochs(1, 5)


def case(name: str, participation: Uniform | Full = Uniform(count=5)) -> tuple[nn.Module, World]:
    module = seeded(MODULES[name][0])
    data = words() if name == "tied weights" else clients(EVEN)
    return module, world(module, data=data, participation=participation)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_trains_as_in_a_loop_over_copies(name: str) -> None:
    module, small = case(name)
    expected = federated_averaging(small, module, WORK, rate=lambda _: 0.2, momentum=0.5)
    for execution in (MODULE, Execution("module", 4), VMAP):
        if execution.path == "vmap" and not MODULES[name][1]:
            continue
        found = small.run(STRATEGY, execution)
        model = small.task.with_values(found.params, found.buffers).state_dict()
        assert float((found.params - vector(expected)).abs().max()) < 1e-12, execution
        for tensor, value in expected.state_dict().items():
            if value.is_floating_point():  # counters of batches are not averaged
                assert float((model[tensor] - value).abs().max()) < 1e-12, (execution, tensor)


@pytest.mark.parametrize("name", MODULES)
def test_the_chosen_path_can_train_the_module(name: str) -> None:
    module, small = case(name)
    execution = prepare(Experiment(STRATEGY, Federation(small.data), module)).engine.execution
    assert execution.path == "module" or MODULES[name][1]
    chosen = snapshot(small.run(STRATEGY, execution, rounds=1))
    assert largest_difference(chosen, snapshot(small.run(STRATEGY, rounds=1))) < 1e-12


def test_frozen_parameters_are_no_columns_and_keep_their_values() -> None:
    module, small = case("frozen parameters")
    assert small.task.layout.names == ("2.weight", "2.bias")
    found = small.run(STRATEGY)
    model = small.task.with_values(found.params, found.buffers)
    assert torch.equal(model.get_parameter("0.weight"), module.get_parameter("0.weight"))
    assert not torch.equal(model.get_parameter("2.weight"), module.get_parameter("2.weight"))


def test_tied_weights_are_one_tensor_and_stay_tied() -> None:
    _, small = case("tied weights")
    assert small.task.layout.names == ("embedding.weight", "out.bias")
    model = small.task.with_values(small.run(STRATEGY).params, torch.zeros(0))
    assert model.get_parameter("out.weight") is model.get_parameter("embedding.weight")


def test_batch_norms_statistics_are_averaged_and_never_optimised() -> None:
    _, small = case("batch norm")
    plain = small.run(STRATEGY, rounds=1)
    adaptive = small.run(STRATEGY.replace(server=ServerAdam(0.5)), rounds=1)
    assert torch.equal(plain.buffers, adaptive.buffers)
    assert not torch.equal(plain.params, adaptive.params)


def test_a_second_pass_for_the_control_leaves_batch_norms_statistics_alone() -> None:
    # Option 1's full gradient is taken at the received model, not at the one that is sent.
    small = world(seeded(batch_norm), sizes=EVEN)
    one = small.run(scaffold(option=1, batch_size=5), rounds=1)
    two = small.run(scaffold(option=2, batch_size=5), rounds=1)
    assert torch.equal(one.buffers, two.buffers)


@pytest.mark.parametrize("make", [batch_norm, Centred, dropout])
def test_vmap_is_refused_where_it_cannot_be_exact(make: Callable[[], nn.Module]) -> None:
    # Padding would enter the statistics of a batch, and draws would be the same for all clients.
    with pytest.raises(ModelError, match="module"):
        prepare(Experiment(STRATEGY, Federation(clients(EVEN)), seeded(make), execution=VMAP))


# ------------------------------------------------------------------ what stays with its client
@dataclass(frozen=True, eq=False)
class Sniff(Layer):
    """Records what each client sends."""

    sent: list[dict[str, tuple[int, ...]]] = field(default_factory=list)

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        self.sent.append({k: tuple(v.values.shape[1:]) for k, v in update.items()})
        return update, memory


def fedbn(small: World, module: nn.Module) -> tuple[nn.Module, dict[int, dict[str, Tensor]]]:
    """FedBN (Li et al., ICLR 2021) over deep copies: each client keeps its normalisation."""
    model = copy.deepcopy(module)
    kept: dict[int, dict[str, Tensor]] = {}
    for number in range(1, 4):
        cohort, models = small.cohort(number), []
        for k in cohort:
            model.load_state_dict({**model.state_dict(), **kept.get(k, own(module))})
            models.append(trained(small, model, number, k, WORK, lr=0.2, momentum=0.5))
            kept[k] = own(models[-1])
        model.load_state_dict(mean_state(models, weights(small, cohort, "examples")))
    model.load_state_dict({**model.state_dict(), **own(module)})
    return model, kept


def own(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {k: v.clone() for k, v in state.items() if k.startswith("1.") and v.dim()}


@pytest.mark.parametrize("block", [1, 4])
def test_fedbn_keeps_each_clients_normalisation(block: int) -> None:
    module = seeded(batch_norm)
    small = world(module, sizes=EVEN, local=("1.*",), participation=Uniform(count=5))
    model, kept = fedbn(small, module)
    sniff = Sniff()
    found = small.run(STRATEGY.then(sniff), Execution("module", block))

    shared = small.task.layout.shared
    assert small.task.buffers.shared == 0
    assert all(sent == {"delta": (shared,), "weight": (1,)} for sent in sniff.sent)
    expected = model.state_dict()
    for name, value in small.task.with_values(found.params, found.buffers).state_dict().items():
        if value.is_floating_point():  # the clients' own: as at the start
            assert float((value - expected[name]).abs().max()) < 1e-12, name
    assert found.clients.rows.keys() == kept.keys()
    for k, (slot, *_) in found.clients.rows.items():
        params = torch.cat([kept[k]["1.weight"], kept[k]["1.bias"]])
        buffers = torch.cat([kept[k]["1.running_mean"], kept[k]["1.running_var"]])
        assert float((slot["params"] - params).abs().max()) < 1e-12
        assert float((slot["buffers"] - buffers).abs().max()) < 1e-12


def test_local_statistics_and_shared_scales_go_separate_ways() -> None:
    module = seeded(batch_norm)
    small = world(module, sizes=EVEN, local=("*.running_*",))
    found = small.run(STRATEGY)
    assert small.task.layout.local == 0
    assert torch.equal(found.buffers, small.start(STRATEGY).buffers)
    assert all(set(slots[0]) == {"buffers"} for slots in found.clients.rows.values())


@pytest.mark.parametrize("execution", [MODULE, VMAP], ids=["module", "vmap"])
@pytest.mark.parametrize("strategy", [fedavg(), scaffold(option=1)], ids=["fedavg", "scaffold"])
def test_where_everything_is_local_each_client_trains_alone(
    strategy: Strategy, execution: Execution
) -> None:
    small = world(local=("*",))
    found = small.run(strategy, execution)
    assert torch.equal(found.params, small.start(strategy).params)
    own = {k: mlp() for k in range(len(small.data))}
    for number in range(1, 4):
        for k in small.cohort(number):
            own[k] = trained(small, own[k], number, k, Epochs(), lr=0.1)
    for k, (slot, *_) in found.clients.rows.items():
        assert float((slot["params"] - vector(own[k])).abs().max()) < 1e-12


# --------------------------------------------------------------------------------- randomness
@pytest.mark.parametrize("option", [0, 1, 2])
def test_dropout_is_the_same_in_every_block_size(option: Literal[0, 1, 2]) -> None:
    strategy = scaffold(option=option, local_epochs=2) if option else fedavg(local_epochs=2)
    small = world(seeded(dropout))
    alone = snapshot(small.run(strategy))
    for block in (2, 4, 7):
        found = snapshot(small.run(strategy, Execution("module", block)))
        assert largest_difference(found, alone) < 1e-13, block


class Noise(nn.Module):
    """One weight whose gradient is what dropout makes of one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(32))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.weight).sum() + 0 * x.sum(1, keepdim=True)
        return out


@dataclass(frozen=True)
class Only(Layer):
    """Doubles one of two equal clients and silences the other, so that the mean is the one's."""

    client: int

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        factor = torch.from_numpy(2.0 * (client.id == self.client))
        return {**update, "delta": update["delta"].scaled(factor)}, memory


def first_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs[:, 0]


def test_dropout_draws_anew_for_each_client_step_and_round() -> None:
    small = world(seeded(Noise), sizes=(4, 4), loss=first_output, participation=Full())

    def walked(client: int = 0, steps: int = 1, number: int = 1) -> Tensor:
        strategy = fedavg(lr=1.0, batch_size=None, local_epochs=steps).then(Only(client))
        state = dataclasses.replace(small.start(strategy), round=number - 1)
        return small.step(state, strategy)[0].params

    first = walked()
    assert torch.equal(first, walked())
    assert not torch.equal(first, walked(client=1))
    assert not torch.equal(first, walked(number=2))
    assert not torch.equal(first, walked(steps=2) - first)


def test_training_does_not_move_torchs_own_generator() -> None:
    experiment = Experiment(
        fedavg(), Federation(clients(EVEN), clients(EVEN)), lambda: dropout().double(), rounds=2
    )
    before = torch.get_rng_state()
    list(rounds(experiment))
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------- losses, and the user
def coupled(outputs: Tensor, targets: Tensor) -> Tensor:
    """Minds the worst example most."""
    errors = (outputs - targets).abs()
    return errors.mean() + errors.max()


def test_a_loss_that_couples_examples_sees_exact_batches() -> None:
    module = seeded(lambda: nn.Linear(FEATURES, 1))
    small = world(module, data=clients(EVEN, labels=False), loss=coupled)
    expected = federated_averaging(small, module, WORK, rate=lambda _: 0.2, momentum=0.5)
    found = small.run(STRATEGY, Execution("module", 4))
    assert float((found.params - vector(expected)).abs().max()) < 1e-12


def relative(outputs: Tensor, targets: Tensor) -> Tensor:
    """One loss per example, each in units of the batch's largest."""
    errors = squared_error(outputs, targets)
    return errors / errors.detach().max()


@pytest.mark.parametrize("loss", [coupled, relative])
def test_a_loss_that_couples_examples_is_never_vmapped(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    module = seeded(lambda: nn.Linear(FEATURES, 1))
    data = Federation(clients(EVEN, labels=False))
    prepared = prepare(Experiment(STRATEGY, data, module, loss=loss))
    assert prepared.engine.execution.path == "module"
    with pytest.raises(ModelError, match="'module'"):
        prepare(Experiment(STRATEGY, data, module, loss=loss, execution=VMAP))


def test_an_unprepared_run_refuses_to_vmap_a_single_loss() -> None:
    module = seeded(lambda: nn.Linear(FEATURES, 1))
    small = world(module, data=clients(EVEN, labels=False), loss=coupled)
    with pytest.raises(ModelError, match="path 'module'"):
        small.run(STRATEGY, VMAP)


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    return squared_error(outputs, targets).unsqueeze(0)


def by_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square()


def one_too_few(outputs: Tensor, targets: Tensor) -> Tensor:
    return squared_error(outputs, targets)[1:]


@pytest.mark.parametrize("loss", [summed, by_output, one_too_few])
def test_a_loss_that_is_not_per_example_is_refused_before_the_run(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    module = seeded(lambda: nn.Linear(FEATURES, 1))
    data = Federation(clients(EVEN, labels=False))
    for execution in (MODULE, VMAP, None):
        with pytest.raises(ModelError, match="one loss per example"):
            prepare(Experiment(fedavg(), data, module, loss=loss, execution=execution))


@pytest.mark.parametrize("execution", [MODULE, VMAP], ids=["module", "vmap"])
def test_an_unprepared_run_refuses_a_loss_with_two_dimensions(execution: Execution) -> None:
    module = seeded(lambda: nn.Linear(FEATURES, 1))
    small = world(module, data=clients(EVEN, labels=False), loss=by_output)
    with pytest.raises(ModelError, match="one loss per example"):
        small.run(STRATEGY, execution)


def test_a_model_that_does_not_fit_is_refused_with_its_shapes() -> None:
    data = Federation(clients(EVEN))
    for module, found in (
        (nn.Linear(FEATURES + 1, CLASSES), r"\[n, 4\]"),
        (nn.Linear(FEATURES, 1), "outputs"),
        (nn.LSTM(FEATURES, CLASSES), "returns a tuple"),
    ):
        with pytest.raises(ModelError, match=found):
            prepare(Experiment(fedavg(), data, module.double()))


def test_batch_norm_on_a_single_example_says_what_to_use() -> None:
    small = world(seeded(batch_norm), sizes=(11, 6), participation=Full())
    with pytest.raises(ModelError, match="GroupNorm"):
        small.run(fedavg(batch_size=5))


@pytest.mark.parametrize("execution", [None, MODULE], ids=["chosen", "module"])
@pytest.mark.parametrize("name", ["batch norm", "frozen parameters", "tied weights", "lstm"])
def test_the_users_module_is_never_edited(name: str, execution: Execution | None) -> None:
    module, small = case(name)
    module.eval()
    before = copy.deepcopy(module.state_dict())
    flags = [p.requires_grad for p in module.parameters()]
    data = Federation(small.data, small.data)
    for round_ in rounds(Experiment(STRATEGY, data, module, rounds=2, execution=execution)):
        assert round_.model() is not module
    assert same_bits(dict(module.state_dict()), before)
    assert [p.requires_grad for p in module.parameters()] == flags
    assert all(p.grad is None for p in module.parameters())
    assert not module.training


def test_a_run_does_not_see_what_becomes_of_the_users_module() -> None:
    module, other = seeded(frozen), seeded(frozen)
    run, untouched = (
        rounds(Experiment(fedavg(), Federation(clients(EVEN)), own, rounds=1))
        for own in (module, other)
    )
    next(run)
    with torch.no_grad():
        for parameter in module.parameters():  # the frozen ones, too, are no vector's columns
            parameter.zero_()
    assert torch.equal(next(run).state.params, list(untouched)[-1].state.params)


def test_the_model_of_a_round_is_a_new_one_each_time() -> None:
    first = next(iter(rounds(Experiment(fedavg(), Federation(clients(EVEN)), mlp()))))
    one, other = first.model(), first.model()
    with torch.no_grad():
        next(one.parameters()).zero_()
    assert torch.equal(vector(other), vector(mlp()))
    assert first.prepared.task.loss is cross_entropy
