"""Modules of every kind: what is frozen stays so, what draws draws for each client, what cannot be
trained is named."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import numpy as np
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
from tests.strategies.oracle import federated_averaging, mean_state, vector, weights
from torch import Tensor, nn
from torch.nn import functional as F

from hanse.core.errors import ModelError
from hanse.core.rng import derive, seed_for
from hanse.data import Federation
from hanse.data.batching import Epochs
from hanse.experiment import Experiment, prepare
from hanse.models import Execution, Task, batch_norm
from hanse.models.execution import probe
from hanse.models.kinds import training_copy
from hanse.records import about
from hanse.selection import Full, Uniform
from hanse.strategies import fedavg
from hanse.training import rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.models.execution import PathName

EVEN = (10, 15, 5, 20, 12, 8, 30)
STRATEGY, WORK = fedavg(lr=0.2, batch_size=5, momentum=0.5), Epochs(1, 5)


def case(make: Callable[[], nn.Module]) -> tuple[nn.Module, World]:
    module = seeded(make)
    return module, world(module, sizes=EVEN, participation=Uniform(count=5))


def assert_as_in_a_loop(
    module: nn.Module, small: World, execution: Execution, momentum: float = 0.5
) -> None:
    strategy = fedavg(lr=0.2, batch_size=5, momentum=momentum)
    expected = federated_averaging(small, module, WORK, rate=lambda _: 0.2, momentum=momentum)
    found = small.run(strategy, execution)
    model = small.task.with_values(found.params, found.buffers).state_dict()
    assert float((found.params - vector(expected)).abs().max()) < 1e-12, execution
    for name, value in expected.state_dict().items():
        if value.is_floating_point():
            assert float((model[name] - value).abs().max()) < 1e-12, (execution, name)


# ------------------------------------------------------------------------ parts that are frozen
def normed() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, CLASSES)
    )


def frozen_norm() -> nn.Module:
    module = normed()
    torch.nn.init.uniform_(module[1].running_var, 0.5, 2.0)  # type: ignore[index]
    module[1].eval()  # type: ignore[index]
    return module


def frozen_backbone() -> nn.Module:
    """As in transfer: what is behind the last layer is frozen, its statistics too."""
    module = nn.Sequential(normed(), nn.Tanh(), nn.Linear(CLASSES, CLASSES))
    module[0].eval().requires_grad_(False)
    return module


def frozen_dropout() -> nn.Module:
    module = nn.Sequential(
        nn.Linear(FEATURES, 8), nn.Tanh(), nn.Dropout(0.9), nn.Linear(8, CLASSES)
    )
    module[2].eval()
    return module


@pytest.mark.parametrize("make", [frozen_norm, frozen_backbone, frozen_dropout])
def test_a_part_in_evaluation_mode_stays_in_it(make: Callable[[], nn.Module]) -> None:
    module, small = case(make)
    for execution in (MODULE, Execution("module", 4)):
        assert_as_in_a_loop(module, small, execution)


def test_frozen_statistics_keep_their_values_and_others_do_not() -> None:
    frozen, small = case(frozen_norm)
    found = small.run(STRATEGY)
    assert torch.equal(found.buffers, small.start(STRATEGY).buffers)
    assert torch.equal(found.buffers[6:], frozen.get_buffer("1.running_var"))
    moving, small = case(normed)
    assert not torch.equal(small.run(STRATEGY).buffers, small.start(STRATEGY).buffers)
    assert moving.training


@pytest.mark.parametrize("path", ["vmap", "dense"])
def test_a_frozen_dropout_may_be_trained_in_blocks(path: PathName) -> None:
    module, small = case(frozen_dropout)
    assert_as_in_a_loop(module, small, Execution(path, 4))
    data = Federation(small.data)
    prepared = prepare(Experiment(STRATEGY, data, module, execution=Execution(path, 4)))
    assert prepared.engine.execution.path == path


def test_a_frozen_batch_norm_may_meet_a_single_example() -> None:
    module = seeded(frozen_norm)
    small = world(module, sizes=(11, 6, 1), participation=Full())
    small.run(fedavg(batch_size=5), rounds=1)
    small = world(seeded(normed), sizes=(11, 6, 1), participation=Full())
    with pytest.raises(ModelError, match="GroupNorm"):
        small.run(fedavg(batch_size=5), rounds=1)


@pytest.mark.parametrize("make", [normed, frozen_dropout, mlp])
def test_a_model_that_was_merely_evaluated_trains_as_a_whole(
    make: Callable[[], nn.Module],
) -> None:
    trained, evaluated = (
        world(mode(seeded(make)), sizes=EVEN, participation=Uniform(count=5)).run(STRATEGY)
        for mode in (nn.Module.train, nn.Module.eval)
    )
    assert same_bits(snapshot(trained), snapshot(evaluated))


def test_the_mode_of_each_part_is_the_users() -> None:
    module = frozen_norm()
    assert [part.training for part in training_copy(module).modules()] == [
        part.training for part in module.modules()
    ]
    assert not module.get_submodule("1").training
    assert all(part.training for part in training_copy(module.eval()).modules())
    assert not any(part.training for part in module.modules())


def test_the_model_of_a_round_has_the_users_modes() -> None:
    module = seeded(frozen_norm)
    *_, last = rounds(Experiment(STRATEGY, Federation(clients(EVEN)), module, rounds=1))
    assert [p.training for p in last.model().modules()] == [p.training for p in module.modules()]


# ----------------------------------------------------------------------- random numbers within
class Sequence(nn.Module):
    """The features as a sequence, through two recurrent layers with dropout between."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.body = kind(1, 5, num_layers=2, dropout=0.5, batch_first=True)
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.body(x.unsqueeze(-1))[0][:, -1])
        return out


class Transformer(nn.Module):
    """The features as a sequence, through a transformer's layer."""

    def __init__(self, p: float = 0.3) -> None:
        super().__init__()
        self.into = nn.Linear(1, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=p, batch_first=True)
        self.out = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.layer(self.into(x.unsqueeze(-1))).mean(1))
        return out


class Functional(nn.Module):
    """Dropout that no layer tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(F.dropout(x, 0.5, self.training))
        return out


DRAWING: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Sequence(nn.LSTM),
    "gru": lambda: Sequence(nn.GRU),
    "transformer": Transformer,
    "functional": Functional,
    "layer": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(FEATURES, CLASSES)),
}


def drawn_loop(module: nn.Module, small: World) -> nn.Module:
    """FedAvg over copies, whose generator is seeded for each client and step."""
    model = copy.deepcopy(module)
    for number in (1, 2):
        cohort, models = small.cohort(number), []
        for k in cohort:
            own = copy.deepcopy(model)
            optimizer = torch.optim.SGD(own.parameters(), 0.2, 0.5)
            round_key = derive(derive(small.seed, "round", number), "clients")
            key = int(derive(round_key, np.array([k]))[0])
            for step, (x, y) in enumerate(small.batches(WORK, number, k)):
                torch.default_generator.manual_seed(seed_for(key, "module", 0, step))
                optimizer.zero_grad()
                small.task.loss(own(x), y).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            models.append(own)
        model.load_state_dict(mean_state(models, weights(small, cohort, "examples")))
    return model


@pytest.mark.parametrize("name", DRAWING)
def test_what_draws_is_trained_one_by_one_with_numbers_of_its_own(name: str) -> None:
    module, small = case(DRAWING[name])
    with torch.random.fork_rng(devices=[]):
        expected = vector(drawn_loop(module, small))
    prepared = prepare(Experiment(STRATEGY, Federation(small.data), module))
    assert prepared.engine.execution.path == "module"
    for block in (1, 3):
        found = small.run(STRATEGY, Execution("module", block), rounds=2)
        assert float((found.params - expected).abs().max()) < 1e-12, block


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("path", ["vmap", "dense"])
def test_what_draws_is_refused_in_blocks(name: str, path: PathName) -> None:
    module, small = case(DRAWING[name])
    with pytest.raises(ModelError, match="path 'module'"):
        prepare(Experiment(STRATEGY, Federation(small.data), module, execution=Execution(path, 4)))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("execution", [MODULE, VMAP], ids=["module", "vmap"])
def test_a_transformer_without_dropout_trains_as_in_a_loop(execution: Execution) -> None:
    module, small = case(lambda: Transformer(0.0))
    assert_as_in_a_loop(module, small, execution)


class Branching(nn.Module):
    """Another layer where the inputs are positive."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.one(x) if float(x.sum()) > 0 else self.other(x)
        return out


def test_a_forward_that_depends_on_its_data_goes_through_the_module() -> None:
    module, small = case(Branching)
    # Without momentum: torch.optim skips a layer that was not called, and its velocity with it.
    assert_as_in_a_loop(module, small, MODULE, momentum=0.0)
    data = Federation(small.data)
    assert prepare(Experiment(STRATEGY, data, module)).engine.execution.path == "module"
    with pytest.raises(ModelError, match="path 'module'"):
        prepare(Experiment(STRATEGY, data, module, execution=VMAP))


# ----------------------------------------------------------------------------------- FedBN
class Deep(nn.Module):
    """BatchNorm at several depths, one without parameters, one without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.plain = nn.BatchNorm1d(6, affine=False)
        self.fresh = nn.BatchNorm1d(6, track_running_stats=False)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.fresh(self.plain(self.body(x))))
        return out


def test_all_of_batch_norm_is_found_and_nothing_else() -> None:
    assert set(batch_norm(Deep())) == {
        "body.1.weight",
        "body.1.bias",
        "body.1.running_mean",
        "body.1.running_var",
        "plain.running_mean",
        "plain.running_var",
        "fresh.weight",
        "fresh.bias",
    }
    named = nn.ModuleDict({"a[0]": nn.BatchNorm1d(3)})
    assert len(Task.of(nn.Sequential(named), local=batch_norm).layout.names) == 2


def test_fedbn_needs_no_globs() -> None:
    data = Federation(clients(EVEN), clients(EVEN))
    by_choice, by_globs = (
        list(
            rounds(
                Experiment(STRATEGY, data, seeded(normed), rounds=2, local=local, execution=MODULE)
            )
        )[-1]
        for local in (batch_norm, ("1.*",))
    )
    assert same_bits(snapshot(by_choice.state), snapshot(by_globs.state))
    layout = by_choice.prepared.task.layout
    assert layout.names[-2:] == ("1.weight", "1.bias")
    assert layout.local == 12
    assert by_choice.prepared.task.buffers.shared == 0
    assert about(by_choice.prepared)["local"] == list(batch_norm(normed()))


def test_without_a_choice_the_statistics_are_averaged() -> None:
    _, small = case(normed)
    assert small.task.buffers.shared == small.task.buffers.size == 12


@pytest.mark.parametrize("make", [mlp, lambda: nn.GroupNorm(1, FEATURES)])
def test_a_model_without_batch_norm_has_nothing_to_keep(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ModelError, match="without a BatchNorm"):
        Task.of(make(), local=batch_norm)


# ------------------------------------------------------------------------- what a forward keeps
class Counting(nn.Module):
    """Multiplies by how often it was called."""

    def __init__(self, kind: Literal["integer", "hidden", "shown"]) -> None:
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)
        start = torch.zeros((), dtype=torch.long if kind == "integer" else torch.double)
        self.register_buffer("calls", start, persistent=kind != "hidden")

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.get_buffer("calls").add_(1)
        out: Tensor = self.out(x) / (1 + self.get_buffer("calls"))
        return out


@pytest.mark.parametrize("kind", ["integer", "hidden"])
def test_what_would_pass_from_client_to_client_is_refused(
    kind: Literal["integer", "hidden"],
) -> None:
    x, y = clients(EVEN).fields["x"][:4], clients(EVEN).fields["y"][:4]
    with pytest.raises(ModelError, match="'calls' of a Counting"):
        probe(Task.of(seeded(lambda: Counting(kind))), x, y)


def test_a_buffer_of_ones_own_is_averaged_as_batch_norms_are() -> None:
    module, small = case(lambda: Counting("shown"))
    assert_as_in_a_loop(module, small, MODULE)
    assert_as_in_a_loop(module, small, Execution("module", 4))
    alone, block = (snapshot(small.run(STRATEGY, Execution("module", block))) for block in (1, 5))
    assert largest_difference(alone, block) < 1e-12


# PyTorch's own compiler imports what PyTorch has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_a_compiled_module_is_refused() -> None:
    with pytest.raises(ModelError, match="OptimizedModule"):
        Task.of(torch.compile(mlp()))  # type: ignore[arg-type]
