"""FedDyn against Acar et al. (ICLR 2021), algorithm 1, written out with autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch
from tests.engine.small import MODULE, VMAP, World, mlp, same_bits, snapshot, world
from tests.strategies.oracle import gradient, vector

from hanse.core.types import RoundContext
from hanse.data.batching import Epochs, Steps
from hanse.layers import Weighted
from hanse.local import SGD, CosineDecay, DynamicSGD
from hanse.server import ServerAdam, ServerSGD
from hanse.strategies import fedavg, feddyn
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.data.batching import Pass
    from hanse.round import FederationState


class Dynamic(NamedTuple):
    """What algorithm 1 keeps."""

    x: Tensor
    h: Tensor
    clients: dict[int, Tensor]
    heads: dict[int, Tensor]


def algorithm_1(
    small: World,
    work: Pass,
    *,
    lr: float,
    alpha: float,
    server: float = 1.0,
    rounds: int = 4,
    shared: int | None = None,
) -> Dynamic:
    """Algorithm 1; columns from `shared` on stay with their client, and have no `g_k`."""
    module, loss = mlp(), small.task.loss
    x = vector(module)
    S, m = len(x) if shared is None else shared, len(small.data)
    h = torch.zeros(S).double()
    clients: dict[int, Tensor] = {}
    heads: dict[int, Tensor] = {}
    for number in range(1, rounds + 1):
        models = []
        for k in small.cohort(number):
            g_k = clients.get(k, torch.zeros(S).double())
            received = torch.cat([x[:S], heads.get(k, x[S:])])
            w = received.clone()
            for batch in small.batches(work, number, k):
                slope = gradient(module, loss, w, *batch) + alpha * (w - received)
                slope[:S] -= g_k
                w = w - lr * slope
            clients[k], heads[k] = g_k - alpha * (w[:S] - x[:S]), w[S:]
            models.append(w[:S])
        h = h - alpha * sum((w - x[:S] for w in models), torch.zeros(S).double()) / m
        new = torch.stack(models).mean(0) - h / alpha
        x = torch.cat([x[:S] + server * (new - x[:S]), x[S:]])
    return Dynamic(x, h, clients, heads)


def assert_is(found: FederationState, expected: Dynamic) -> None:
    assert float((found.params - expected.x).abs().max()) < 1e-12
    assert float((found.layers[0]["h"] - expected.h).abs().max()) < 1e-12
    assert found.clients.rows.keys() == expected.clients.keys()
    for k, slots in found.clients.rows.items():
        assert float((slots[1]["slope"] - expected.clients[k]).abs().max()) < 1e-12


@pytest.mark.parametrize("work", [Epochs(2, 10), Epochs(3, None), Steps(5, 4)], ids=repr)
def test_feddyn_is_algorithm_1_where_a_part_takes_part(work: Pass) -> None:
    small = world()
    strategy = Strategy(
        DynamicSGD(SGD(0.1), work, alpha=0.3), (Weighted("uniform"),), server=ServerSGD(0.8)
    )
    expected = algorithm_1(small, work, lr=0.1, alpha=0.3, server=0.8)
    assert len(expected.clients) > 7  # clients of several cohorts
    for execution in (MODULE, VMAP):
        assert_is(small.run(strategy, execution, rounds=4), expected)


def test_a_head_that_stays_with_its_client_has_no_slope() -> None:
    small = world(local=("2.*",))
    shared = small.task.layout.shared
    expected = algorithm_1(small, Epochs(2, 10), lr=0.1, alpha=0.3, shared=shared)
    found = small.run(feddyn(alpha=0.3, local_epochs=2), VMAP, rounds=4)
    assert_is(found, expected)
    for k, (own, memory, _) in found.clients.rows.items():
        assert memory["slope"].shape == (shared,)
        assert float((own["params"] - expected.heads[k]).abs().max()) < 1e-12


@pytest.mark.parametrize("alpha", [0.05, 1.0])
def test_h_is_the_mean_of_what_clients_remember(alpha: float) -> None:
    small, strategy = world(), feddyn(alpha=alpha, momentum=0.5)
    state = small.start(strategy)
    for _ in range(4):
        state, _ = small.step(state, strategy, VMAP)
        total = sum(slots[1]["slope"] for slots in state.clients.rows.values())
        assert float((state.layers[0]["h"] - total / len(small.data)).abs().max()) < 1e-13


def test_without_alpha_it_is_fedavg_to_the_bit() -> None:
    plain = world().run(fedavg(weighting="uniform", momentum=0.9, weight_decay=0.01))
    free = world().run(feddyn(alpha=0, momentum=0.9, weight_decay=0.01))
    assert same_bits(snapshot(plain), snapshot(free))


def test_a_server_optimizer_gets_the_corrected_mean() -> None:
    small, server = world(), ServerAdam(0.05)
    plain, adam = feddyn(alpha=0.3), feddyn(alpha=0.3, server=server)
    start = small.start(plain)
    one, _ = small.step(start, plain)
    other, _ = small.step(small.start(adam), adam)
    zero = server.init(len(start.params), torch.float64)
    layout = small.task.layout
    context = RoundContext(1, np.uint64(0), 11, 7.0, 7, "cross-silo", layout)
    expected, _ = server.step(start.params, one.params - start.params, zero, context)
    assert float((other.params - expected).abs().max()) < 1e-10


def test_a_rate_that_has_ended_ends_the_walk_of_the_server_too() -> None:
    strategy, small = feddyn(lr=CosineDecay(0.1, rounds=3), alpha=0.1), world()
    state = small.start(strategy)
    for _ in range(4):
        state, _ = small.step(state, strategy)
    after, _ = small.step(state, strategy)
    assert torch.equal(after.params, state.params)
