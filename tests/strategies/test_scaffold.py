"""SCAFFOLD against Karimireddy et al. (ICML 2020), algorithm 1, written out with autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import pytest
import torch
from tests.engine.small import MODULE, VMAP, World, mlp, world
from tests.strategies.oracle import gradient, vector, weights

from hanse.data.batching import Epochs, Steps
from hanse.layers import Weighted
from hanse.local import SGD, CosineDecay, ScaffoldSGD
from hanse.server import ServerSGD
from hanse.strategies import scaffold
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.data.batching import Pass
    from hanse.round import FederationState

both_options = pytest.mark.parametrize("option", [1, 2])


class Controlled(NamedTuple):
    """What algorithm 1 keeps."""

    x: Tensor
    c: Tensor
    clients: dict[int, Tensor]
    heads: dict[int, Tensor]


def algorithm_1(
    small: World,
    work: Pass,
    option: int,
    *,
    lr: float,
    server: float = 1.0,
    by: str = "uniform",
    rounds: int = 3,
    shared: int | None = None,
) -> Controlled:
    """Algorithm 1; columns from `shared` on stay with their client and are not corrected."""
    module, loss = mlp(), small.task.loss
    x = vector(module)
    S = len(x) if shared is None else shared
    c, N = torch.zeros(S).double(), len(small.data)
    clients: dict[int, Tensor] = {}
    heads: dict[int, Tensor] = {}
    for number in range(1, rounds + 1):
        cohort = small.cohort(number)
        dy, dc = [], []
        for k in cohort:
            c_k = clients.get(k, torch.zeros(S).double())
            received = torch.cat([x[:S], heads.get(k, x[S:])])
            y = received.clone()
            batches = small.batches(work, number, k)
            for batch in batches:
                g = gradient(module, loss, y, *batch)
                g[:S] += c - c_k
                y = y - lr * g
            if option == 1:
                new = gradient(module, loss, received, *small.examples(k))[:S]
            else:
                new = c_k - c + (x[:S] - y[:S]) / (len(batches) * lr)
            dy.append(y[:S] - x[:S])
            dc.append(new - c_k)
            clients[k], heads[k] = new, y[S:]
        parts = weights(small, cohort, by)
        mean = sum((p * d for p, d in zip(parts, dy, strict=True)), torch.zeros(S).double())
        x = torch.cat([x[:S] + server * mean, x[S:]])
        c = c + len(cohort) / N * torch.stack(dc).mean(0)
    return Controlled(x, c, clients, heads)


def assert_is(found: FederationState, expected: Controlled) -> None:
    assert float((found.params - expected.x).abs().max()) < 1e-12
    assert float((found.layers[0]["control"] - expected.c).abs().max()) < 1e-12
    assert found.clients.rows.keys() == expected.clients.keys()
    for k, slots in found.clients.rows.items():
        assert float((slots[1]["control"] - expected.clients[k]).abs().max()) < 1e-12


@both_options
@pytest.mark.parametrize("work", [Epochs(2, 10), Epochs(3, None), Steps(5, 4)], ids=repr)
def test_scaffold_is_algorithm_1(option: Literal[1, 2], work: Pass) -> None:
    small = world()
    strategy = Strategy(
        ScaffoldSGD(SGD(0.1), work, option, gradient_chunk=8),
        (Weighted("uniform"),),
        server=ServerSGD(0.8),
    )
    expected = algorithm_1(small, work, option, lr=0.1, server=0.8)
    for execution in (MODULE, VMAP):
        assert_is(small.run(strategy, execution), expected)


@both_options
def test_weighting_by_examples_weighs_models_and_not_controls(option: Literal[1, 2]) -> None:
    small = world()
    found = small.run(scaffold(option=option, weighting="examples"))
    assert_is(found, algorithm_1(small, Epochs(), option, lr=0.1, by="examples"))


@both_options
def test_a_head_that_stays_with_its_client_has_no_control(option: Literal[1, 2]) -> None:
    small = world(local=("2.*",))
    shared, head = small.task.layout.shared, small.task.layout.local
    expected = algorithm_1(small, Epochs(2, 10), option, lr=0.1, shared=shared)
    for execution in (MODULE, VMAP):
        found = small.run(scaffold(option=option, local_epochs=2), execution)
        assert_is(found, expected)
        assert found.layers[0]["control"].shape == (shared,)
        for k, (own, _control, _) in found.clients.rows.items():
            assert own["params"].shape == (head,)
            assert float((own["params"] - expected.heads[k]).abs().max()) < 1e-12


@both_options
@pytest.mark.parametrize("by", ["uniform", "examples"])
def test_the_servers_control_is_the_mean_of_the_clients(
    option: Literal[1, 2], by: Literal["uniform", "examples"]
) -> None:
    small = world()
    state = small.start(scaffold())
    for _ in range(5):
        state, _ = small.step(state, scaffold(option=option, weighting=by), VMAP)
        total = sum(slots[1]["control"] for slots in state.clients.rows.values())
        assert float((state.layers[0]["control"] - total / len(small.data)).abs().max()) < 1e-12
    assert len(state.clients.rows) > 7  # clients of several cohorts, and some never chosen


@both_options
def test_a_rate_that_ends_at_zero_ends_no_run(option: Literal[1, 2]) -> None:
    small, strategy = world(), scaffold(lr=CosineDecay(0.1, rounds=2), option=option)
    state = small.start(strategy)
    for _ in range(2):
        state, result = small.step(state, strategy)
        assert result.dropped == ()
    assert bool(state.layers[0]["control"].isfinite().all())
