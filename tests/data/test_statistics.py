"""Federated means and deviations, against NumPy on the pooled rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hanse.data.clients import LazyClients, PackedClients
from hanse.data.federation import Federation, pooled
from hanse.data.partition import iid
from hanse.data.partitioned import partitioned
from hanse.data.sources.watch import watch
from hanse.data.statistics import client_statistics, federated_statistics, standardise


def clients(x: np.ndarray, count: int) -> PackedClients:
    data = partitioned(x, np.zeros(len(x), int), iid(len(x), count, 0)).train
    assert isinstance(data, PackedClients)
    return data


@given(st.integers(1, 8), st.integers(0, 10**6), st.floats(-1e3, 1e3), st.floats(1e-2, 1e3))
def test_they_equal_the_pooled_statistics(
    count: int, seed: int, shift: float, scale: float
) -> None:
    x = np.random.default_rng(seed).normal(shift, scale, (30, 2, 3))
    found = federated_statistics(clients(x, count))
    assert found.count == 30
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose(found.std, x.std(0), rtol=1e-5)


def test_a_channel_pools_all_but_the_second_dimension() -> None:
    x = np.random.default_rng(0).normal(3, 2, (30, 4, 5))
    found = federated_statistics(clients(x, 3), per_channel=True)
    assert found.count == 150
    np.testing.assert_allclose(found.mean, x.mean((0, 2)))
    np.testing.assert_allclose(found.std, x.std((0, 2)))


def test_only_the_clients_asked_for_count() -> None:
    asked: list[int] = []

    def load(k: int) -> dict[str, np.ndarray]:
        asked.append(k)
        return {"x": np.full((1, 1), float(k)), "y": np.zeros(1, int)}

    found = federated_statistics(LazyClients(1000, load), np.array([2, 4]))
    assert asked == [2, 4]
    assert (found.count, found.mean.tolist(), found.std.tolist()) == (2, [3.0], [1.0])


def test_a_client_reveals_three_things() -> None:
    found = client_statistics(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    assert found.count == 2
    assert found.total.tolist() == [4.0, 7.0]
    assert found.squares.tolist() == [10.0, 29.0]
    assert found.total.dtype == np.float64


def test_standardising_uses_the_training_clients_only() -> None:
    rng = np.random.default_rng(0)
    train = clients(rng.normal(5, 3, (60, 4)), 3)
    test = clients(rng.normal(-5, 1, (60, 4)), 3)
    unseen = PackedClients.from_arrays(
        {"new": {"x": rng.normal(100, 1, (9, 4)), "y": np.zeros(9, int)}}
    )
    result = standardise(Federation(train, test, unseen))
    x = pooled(train).fields["x"]
    for before, after in ((train, result.train), (test, result.test), (unseen, result.unseen)):
        assert isinstance(after, PackedClients)
        expected = (before.fields["x"] - x.mean(0)) / x.std(0, correction=0)
        torch.testing.assert_close(after.fields["x"], expected)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 / 3, -7e-9])
def test_a_constant_feature_becomes_zero(value: float) -> None:
    x = np.full((50, 2), value)
    x[:, 1] = np.arange(50)
    result = standardise(Federation(clients(x, 7)))
    assert isinstance(result.train, PackedClients)
    columns = result.train.fields["x"]
    assert float(columns[:, 0].abs().max()) <= abs(value) * 1e-12
    assert float(columns[:, 1].std(correction=0)) == pytest.approx(1.0)


def test_standardising_lazy_clients_and_whole_numbers() -> None:
    def load(k: int) -> dict[str, np.ndarray]:
        return {"x": np.array([[k], [k + 2]], np.uint8), "y": np.zeros(2, int)}

    result = standardise(Federation(LazyClients(3, load)))
    x = torch.cat([result.train.block(np.array([k])).fields["x"] for k in range(3)])
    assert x.dtype == torch.float32
    assert float(x.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(x.std(correction=0)) == pytest.approx(1.0)


def test_watch_standardised_by_channel() -> None:
    result = standardise(watch(features="raw"), per_channel=True)
    x = pooled(result.train).fields["x"]
    torch.testing.assert_close(x.mean((0, 2)), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std((0, 2), correction=0), torch.ones(6), atol=1e-4, rtol=0)
    assert result.input_shape == (6, 50)
