"""FedNova against Wang et al. (NeurIPS 2020), equation 12, over copies of the module."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as draw
from tests.engine.small import (
    FEATURES,
    MODULE,
    VMAP,
    World,
    mlp,
    same_bits,
    seeded,
    snapshot,
    world,
)
from tests.strategies.oracle import trained, vector, weights
from torch import Tensor, nn

from hanse.core.errors import StrategyError
from hanse.core.types import RoundContext
from hanse.data.batching import Epochs, Steps
from hanse.layers import Normalized, Weighted
from hanse.local import SGD, ExponentialDecay, LocalSGD, ProximalSGD
from hanse.selection import Stragglers
from hanse.server import ServerAdam, ServerSGD
from hanse.strategies import fedavg, fednova, scaffold
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.core.types import LocalTraining, Scalar
    from hanse.data.batching import Pass

ROUNDS = 3


def impulse_responses(steps: int, lr: float, momentum: float, pull: float) -> list[float]:
    """a_1, a_2, …: what a gradient of one, met j steps before the end, has moved by then, / -lr.

    A step maps (distance from the start, velocity) linearly, so these are entries of matrix powers.
    """
    step = np.array([[1 - lr * pull, -lr * momentum], [pull, momentum]])
    entry = np.array([-lr, 1.0])
    return [
        float((np.linalg.matrix_power(step, j) @ entry)[0] / -lr) for j in reversed(range(steps))
    ]


def equation_12(
    small: World,
    work: Pass,
    *,
    rate: Callable[[int], float],
    by: str = "examples",
    server: float = 1.0,
    **local: float,
) -> nn.Module:
    """`x + tau_eff * sum_k p_k * delta_k / ||a_k||_1`, with torch's SGD and its number of steps."""
    model = copy.deepcopy(mlp())
    pull = local.get("weight_decay", 0.0) + local.get("mu", 0.0)
    for number in range(1, ROUNDS + 1):
        cohort, x = small.cohort(number), vector(model)
        norms, directions = [], []
        for k in cohort:
            taken = len(small.batches(work, number, k))
            a = impulse_responses(taken, rate(number), local.get("momentum", 0.0), pull)
            walked = vector(trained(small, model, number, k, work, lr=rate(number), **local)) - x
            norms.append(sum(a))
            directions.append(walked / sum(a))
        parts = weights(small, cohort, by)
        assert len({round(n, 6) for n in norms}) > 2  # clients take different numbers of steps
        tau = sum(p * n for p, n in zip(parts, norms, strict=True))
        mean = torch.stack([p * d for p, d in zip(parts, directions, strict=True)]).sum(0)
        nn.utils.vector_to_parameters(x + server * tau * mean, model.parameters())
    return model


CASES: dict[str, dict[str, float]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "proximal": {"mu": 1.5},
    "decay": {"weight_decay": 0.05},
    "all": {"momentum": 0.5, "mu": 1.0, "weight_decay": 0.05},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("by", ["examples", "uniform"])
def test_fednova_is_equation_12(case: str, by: Literal["examples", "uniform"]) -> None:
    small, schedule, local = world(), ExponentialDecay(0.1, 0.7), CASES[case]
    options: dict[str, Any] = {"local_epochs": 2, "batch_size": 4, "weighting": by, **local}
    strategy = fednova(lr=schedule, server=ServerSGD(0.8), **options)
    expected = equation_12(
        small, Epochs(2, 4), rate=lambda n: 0.1 * 0.7 ** (n - 1), by=by, server=0.8, **local
    )
    for execution in (MODULE, VMAP):
        found = small.run(strategy, execution).params
        assert float((found - vector(expected)).abs().max()) < 1e-12


@pytest.mark.parametrize("case", ["plain", "momentum", "all"])
def test_partial_work_is_divided_by_the_steps_that_were_taken(case: str) -> None:
    # A straggler's `batches` are those it gets to, so the loop above needs no change.
    small, local = world(stragglers=Stragglers(0.7)), CASES[case]
    strategy = fednova(local_epochs=2, batch_size=8, **local)  # type: ignore[arg-type]
    everyone = world().run(strategy).params
    assert float((small.run(strategy).params - everyone).abs().max()) > 1e-4
    expected = equation_12(small, Epochs(2, 8), by="examples", rate=lambda _: 0.1, **local)
    for execution in (MODULE, VMAP):
        found = small.run(strategy, execution).params
        assert float((found - vector(expected)).abs().max()) < 1e-12


def test_closed_forms_of_the_paper() -> None:
    taken = torch.arange(0, 40).double()
    plain = SGD(0.1).effective_steps(taken, 1)
    assert torch.equal(plain, taken)
    rho, mu, lr = 0.9, 0.7, 0.1
    momentum = SGD(lr, momentum=rho).effective_steps(taken, 1)
    assert torch.allclose(momentum, (taken - rho * (1 - rho**taken) / (1 - rho)) / (1 - rho))
    closed = (1 - (1 - lr * mu) ** taken) / (lr * mu)
    assert torch.allclose(SGD(lr).effective_steps(taken, 1, decay=mu), closed)
    assert torch.allclose(SGD(lr, weight_decay=mu).effective_steps(taken, 1), closed)
    split = SGD(lr, weight_decay=mu / 4).effective_steps(taken, 1, decay=3 * mu / 4)
    assert torch.allclose(split, closed)


class Constant:
    """A loss whose gradient is the same everywhere."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __call__(self, at: Tensor) -> Tensor:
        return self.value.expand_as(at)

    def add_to(
        self, target: Tensor, at: Tensor, *, scale: Scalar = 1.0, keep: Scalar = 1.0
    ) -> None:
        target.mul_(keep).add_(scale * self.value)


@given(
    steps=draw.integers(1, 40),
    lr=draw.floats(0.001, 0.3),
    momentum=draw.floats(0, 0.95),
    weight_decay=draw.floats(0, 0.5),
    mu=draw.floats(0, 2),
)
def test_constant_gradients_lead_as_far_as_the_effective_steps_say(
    steps: int, lr: float, momentum: float, weight_decay: float, mu: float
) -> None:
    optimizer = SGD(lr, momentum, weight_decay)
    start, g = torch.tensor([[2.0, -1.0]]).double(), torch.tensor([[0.3, 0.8]]).double()
    state = {"params": start.clone(), "rate": torch.tensor(lr, dtype=torch.float64)}
    if momentum:
        state["velocity"] = torch.zeros_like(start)
    for _ in range(steps):
        optimizer.step(state, Constant(g), decay=mu, constant=-mu * start)
    counted = float(optimizer.effective_steps(torch.tensor([float(steps)]).double(), 1, decay=mu))
    expected = start - lr * counted * (g + weight_decay * start)
    assert torch.allclose(state["params"], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_clients_that_take_as_many_steps_are_averaged_as_by_fedavg(case: str) -> None:
    options = dict(CASES[case])
    mu = options.pop("mu", 0.0)
    local: LocalTraining = ProximalSGD(SGD(0.1, **options), Steps(5, 4), mu)
    plain = Strategy(local)
    normalized = plain.replace(layers=(Normalized(), *plain.layers))
    one, other = world().run(plain, VMAP), world().run(normalized, VMAP)
    assert float((one.params - other.params).abs().max()) < 1e-13


def test_a_server_optimizer_sees_the_normalised_direction() -> None:
    small, server = world(), ServerAdam(0.05)
    plain, adam = fednova(batch_size=4), fednova(batch_size=4, server=server)
    start = small.start(plain)
    one, _ = small.step(start, plain)
    other, _ = small.step(small.start(adam), adam)
    zero = server.init(len(start.params), torch.float64)
    context = RoundContext(1, np.uint64(0), 11, 7.0, 7, "cross-silo", small.task.layout)
    expected, _ = server.step(start.params, one.params - start.params, zero, context)
    assert float((other.params - expected).abs().max()) < 1e-10


def _normed() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(FEATURES, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)))


def test_running_statistics_are_averaged_and_not_normalised() -> None:
    small = world(_normed(), sizes=(4, 8, 12, 16, 8, 4, 24, 8))
    one, _ = small.step(small.start(fedavg(batch_size=4)), fedavg(batch_size=4))
    other, _ = small.step(small.start(fednova(batch_size=4)), fednova(batch_size=4))
    assert torch.equal(one.buffers, other.buffers)
    assert float((one.params - other.params).abs().max()) > 1e-3


def test_what_stays_with_a_client_is_trained_as_ever() -> None:
    small = world(local=("2.*",))
    one, _ = small.step(small.start(fedavg()), fedavg())
    other, _ = small.step(small.start(fednova()), fednova())
    assert one.clients.rows.keys() == other.clients.rows.keys()
    for k, slots in one.clients.rows.items():
        assert torch.equal(slots[0]["params"], other.clients.rows[k][0]["params"])
    assert float((one.params - other.params).abs().max()) > 1e-4


def test_scaffolds_controls_are_its_own_whether_updates_are_normalised_or_not() -> None:
    small, plain = world(), scaffold(batch_size=4)
    normalized = plain.replace(layers=(Normalized(), *plain.layers))
    one, _ = small.step(small.start(plain), plain)
    other, _ = small.step(small.start(normalized), normalized)
    control = {k: v for k, v in snapshot(one).items() if "control" in k}
    assert same_bits(control, {k: v for k, v in snapshot(other).items() if "control" in k})


def test_a_walk_that_is_pulled_back_by_more_than_it_went_is_refused() -> None:
    optimizer = SGD(2.0, weight_decay=1.0)
    with pytest.raises(StrategyError, match="well below 1") as caught:
        optimizer.effective_steps(torch.tensor([4.0]), 1)
    assert "lr=0.1" in caught.value.instead
    assert bool((SGD(0.1, weight_decay=1.0).effective_steps(torch.tensor([4.0]), 1) > 0).all())


def test_a_client_that_took_no_step_does_not_pull() -> None:
    assert SGD(0.1, momentum=0.9).effective_steps(torch.tensor([0.0, 1.0]), 1).tolist() == [0, 1]
    custom = Strategy(LocalSGD(), (Normalized(), Weighted()), partial="keep")
    assert custom == fednova().replace(name="custom")
