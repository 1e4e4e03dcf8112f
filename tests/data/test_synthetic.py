"""Synthetic(alpha, beta): its laws, held against the paper's description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hanse.data import Federation, PackedClients, synthetic


def packed(federation: Federation) -> PackedClients:
    assert isinstance(federation.train, PackedClients)
    return federation.train


def rows(clients: PackedClients, k: int) -> tuple[Tensor, Tensor]:
    mine = slice(int(clients.offsets[k]), int(clients.offsets[k + 1]))
    return clients.fields["x"][mine], clients.fields["y"][mine]


def test_a_client_does_not_depend_on_the_others() -> None:
    few, many = packed(synthetic(1, 1, clients=2)), packed(synthetic(1, 1, clients=4))
    for k in range(2):
        for one, other in zip(rows(few, k), rows(many, k), strict=True):
            assert torch.equal(one, other)
    other_seed = packed(synthetic(1, 1, clients=2, seed=1))
    assert not torch.equal(rows(few, 0)[0][:5], rows(other_seed, 0)[0][:5])


def test_alpha_changes_no_label() -> None:
    # u_k is added to all classes' scores: W + u and b + u label as W and b do.
    flat, steep = packed(synthetic(0, 1, clients=8)), packed(synthetic(3, 1, clients=8))
    assert torch.equal(flat.fields["x"], steep.fields["x"])
    assert torch.equal(flat.fields["y"], steep.fields["y"])


def test_a_tenth_of_each_client_is_held_out() -> None:
    federation = synthetic(1, 1, clients=5)
    ids = np.arange(5)
    assert federation.test is not None
    kept, held = federation.train.sizes(ids), federation.test.sizes(ids)
    assert (np.abs(held - (kept + held) / 10) <= 0.5).all()
    assert synthetic(1, 1, clients=5, test_fraction=0).test is None


def test_sizes_are_log_normal_above_fifty() -> None:
    clients = packed(synthetic(0, 0, clients=200, test_fraction=0))
    sizes = clients.sizes(np.arange(200))
    assert sizes.min() >= 50
    logs = np.log(np.maximum(sizes - 50, 1))
    # Quantiles of N(4, 2), four standard errors of 200 draws wide.
    assert abs(np.median(logs) - 4) < 4 * 2 * 1.2533 / np.sqrt(200)
    assert 1.2 < np.quantile(logs, 0.75) - 4 < 1.5 + 0.7


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_centres_are_as_far_apart_as_beta_says(beta: float) -> None:
    clients = packed(synthetic(1, beta, clients=100, test_fraction=0))
    centres = torch.stack([rows(clients, k)[0].mean(dim=0) for k in range(100)]).double().numpy()
    # The 60 numbers of a centre are N(B_k, 1), and B_k is N(0, beta).
    of_means = centres.mean(axis=1).var()
    assert of_means == pytest.approx(beta**2 + 1 / 60, rel=4 * np.sqrt(2 / 100))
    assert centres.var(axis=1, ddof=1).mean() == pytest.approx(1, rel=0.1)


def test_inputs_vary_by_a_power_of_their_number() -> None:
    clients = packed(synthetic(1, 1, clients=30, test_fraction=0))
    largest = int(clients.sizes(np.arange(30)).argmax())
    x, _ = rows(clients, largest)
    expected = np.arange(1, 61) ** -1.2
    np.testing.assert_allclose(x.double().var(dim=0), expected, rtol=6 * np.sqrt(2 / len(x)))
    correlation = torch.corrcoef(x.T.double()) - torch.eye(60)
    assert float(correlation.abs().max()) < 6 / np.sqrt(len(x))


def test_a_linear_model_explains_a_client_and_not_another() -> None:
    clients = packed(synthetic(1, 1, clients=30, test_fraction=0))
    # Of medium size, since 600 numbers learn a few examples by heart; and of many labels.
    medium = [k for k in range(30) if 300 <= clients.sizes(np.arange(30))[k] <= 3000]
    commonest = {k: int(rows(clients, k)[1].bincount().max()) for k in medium}
    first, second = sorted(medium, key=lambda k: commonest[k] / len(rows(clients, k)[1]))[:2]
    (x, y), (u, v) = rows(clients, first), rows(clients, second)
    x, u = x.double(), u.double()
    model = torch.nn.Linear(60, 10, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert float((model(x).argmax(dim=1) == y).float().mean()) > 0.98
    assert float((model(u).argmax(dim=1) == v).float().mean()) < 0.8
