"""Partitions of chosen skew, and clients whose inputs differ: laws, and closed forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import DataError
from hanse.data import (
    Federation,
    LazyClients,
    PackedClients,
    dirichlet,
    federation_from_arrays,
    labels_per_client,
    lognormal,
    noise_by_client,
    partitioned,
    quantity,
    rotate_by_client,
    skew,
    split,
    standardise,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hanse.data.clients import ClientData, Ids
    from hanse.data.partition import Scheme

LABELS = np.random.default_rng(0).integers(0, 10, 2000)


def is_exact_cover(parts: Sequence[Ids], n: int) -> bool:
    ascending = all((np.diff(part) > 0).all() for part in parts)
    return ascending and sorted(np.concatenate(parts).tolist()) == list(range(n))


def same(a: Sequence[Ids], b: Sequence[Ids]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------- exactly c labels a client
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000), st.data())
def test_each_client_has_exactly_c_labels_in_equal_shares(
    kinds: int, clients: int, count: int, seed: int, data: st.DataObject
) -> None:
    totals = data.draw(st.lists(st.integers(12, 40), min_size=kinds, max_size=kinds))
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(kinds) * 3 - 5, totals))
    if count > kinds or clients * count < kinds:
        with pytest.raises(DataError, match="labels_per_client"):
            labels_per_client(labels, clients, count, seed=seed)
        return
    parts = labels_per_client(labels, clients, count, seed=seed)
    assert len(parts) == clients
    assert is_exact_cover(parts, len(labels))
    assert {len(np.unique(labels[part])) for part in parts} == {count}
    for label in np.unique(labels):
        shares = [n for part in parts if (n := int((labels[part] == label).sum()))]
        assert max(shares) - min(shares) <= 1


def test_first_labels_go_round_and_others_are_spread() -> None:
    # 1,000 clients of 2 out of 10 labels: a label has its 100 first clients, and of the 900 others
    # each with probability 1/9: 200 in the mean, with a deviation of sqrt(900 * 1/9 * 8/9) = 9.4.
    labels = np.repeat(np.arange(10), 500)
    parts = labels_per_client(labels, 1000, 2, seed=0)
    owners = np.array([np.isin(np.arange(10), labels[part]) for part in parts]).sum(axis=0)
    assert owners.sum() == 2000
    assert np.abs(owners - 200).max() < 5 * 9.4
    # Every pair of labels occurs: 45 pairs among 1,000 clients.
    assert len({tuple(np.unique(labels[part])) for part in parts}) == 45


def test_a_rare_label_is_refused_with_numbers_that_work() -> None:
    labels = np.repeat([7, 8, 9], [100, 100, 3])
    with pytest.raises(DataError, match="label 9 has 3 examples") as caught:
        labels_per_client(labels, 20, 2, seed=0)
    assert caught.value.instead.startswith("write clients=3,")
    assert is_exact_cover(labels_per_client(labels, 3, 2, seed=0), 203)
    rarer = np.repeat([7, 8, 9], [100, 100, 1])
    with pytest.raises(DataError, match="clients=1 and labels_per_client=3"):
        labels_per_client(rarer, 20, 2, seed=0)
    labels_per_client(rarer, 1, 3, seed=0)


# --------------------------------------------------------------------------------------- sizes
@given(
    st.integers(1, 300),
    st.integers(1, 30),
    st.floats(1e-3, 1e3),
    st.integers(0, 5),
    st.integers(0, 2**40),
    st.sampled_from([quantity, lognormal]),
)
def test_sizes_add_up_whatever_their_skew(
    n: int, clients: int, spread: float, least: int, seed: int, scheme: Callable[..., list[Ids]]
) -> None:
    if clients * least > n:
        with pytest.raises(DataError, match=f"of {n} examples for {clients} clients"):
            scheme(n, clients, spread, seed, least)
        return
    parts = scheme(n, clients, spread, seed, least)
    assert len(parts) == clients
    assert is_exact_cover(parts, n)
    assert min(len(part) for part in parts) >= least
    assert same(parts, scheme(n, clients, spread, seed, least))


def test_log_normal_sizes_have_the_deviation_that_was_asked_for() -> None:
    sizes = np.array([len(p) for p in lognormal(1_000_000, 2000, 0.7, seed=3)])
    # The deviation of 2,000 samples is off by about 0.7 / sqrt(4000) = 0.011.
    assert np.log(sizes).std() == pytest.approx(0.7, abs=0.05)
    equal = [len(p) for p in lognormal(103, 10, 0, seed=0)]
    assert max(equal) - min(equal) <= 1


def test_dirichlet_sizes_vary_as_the_distribution_says() -> None:
    # A share of a symmetric Dirichlet of K has the variance (K - 1) / (K^2 (K alpha + 1)).
    clients, alpha, n = 2000, 0.5, 1_000_000
    shares = np.array([len(p) for p in quantity(n, clients, alpha, seed=1, min_size=0)]) / n
    expected = (clients - 1) / (clients**2 * (clients * alpha + 1))
    assert shares.var() == pytest.approx(expected, rel=0.15)


def test_sizes_say_nothing_of_labels() -> None:
    parts = quantity(len(LABELS), 4, 5.0, seed=0, min_size=200)
    shares = [np.bincount(LABELS[part], minlength=10) / len(part) for part in parts]
    assert np.abs(np.array(shares) - 0.1).max() < 0.1


@pytest.mark.parametrize("scheme", ["labels", "quantity", "lognormal"])
def test_the_seed_determines_the_partition(scheme: Scheme) -> None:
    one = split(LABELS, 20, scheme, seed=1)
    assert same(one, split(LABELS, 20, scheme, seed=1))
    assert not same(one, split(LABELS, 20, scheme, seed=2))


def test_partitions_are_fixed_for_all_time() -> None:
    # A run's results depend on these: a change here breaks every recorded experiment.
    labels = np.arange(12) % 3
    found = {
        "labels": split(labels, 3, "labels", seed=0),
        "quantity": split(labels, 3, "quantity", seed=0),
        "lognormal": split(labels, 3, "lognormal", seed=0),
    }
    assert {name: [part.tolist() for part in parts] for name, parts in found.items()} == FIXED


FIXED: dict[str, list[list[int]]] = {
    "labels": [[0, 2, 3, 8], [1, 4, 6, 7, 10], [5, 9, 11]],
    "quantity": [[0, 2, 4, 6, 7], [3, 5, 8, 10, 11], [1, 9]],
    "lognormal": [[0, 3, 6, 11], [1, 4, 7, 8, 9], [2, 5, 10]],
}


# ------------------------------------------------------------------------------- empty clients
def with_empty(test_fraction: float = 0.0) -> Federation:
    parts = dirichlet(LABELS[:60], 20, 0.05, seed=0, min_size=0)
    assert min(map(len, parts)) == 0
    x = np.arange(60, dtype=np.float32)[:, None]
    return partitioned(
        x, LABELS[:60], parts, may_be_empty=True, test_fraction=test_fraction,
        classes=[str(k) for k in range(10)],
    )  # fmt: skip


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_clients_without_examples_keep_their_places(fraction: float) -> None:
    federation = with_empty(fraction)
    train, test = federation.train, federation.test
    sizes = train.sizes(np.arange(20))
    assert len(train) == 20
    assert sizes.min() == 0
    if test is not None:
        held = test.sizes(np.arange(20))
        assert int(sizes.sum() + held.sum()) == 60
        assert (held <= sizes).all()
        assert (held[sizes >= 2] >= 1).all()
    measured = skew(train, 10)
    assert measured.empty == int((sizes == 0).sum())
    assert measured.mean_entropy is not None
    assert np.isfinite(measured.mean_entropy)
    assert standardise(federation).train.sizes(np.arange(20)).tolist() == sizes.tolist()


def test_means_over_clients_leave_empty_ones_out() -> None:
    parts = [np.array([0, 1]), np.array([], np.int64), np.array([2, 3])]
    x, y = np.zeros((4, 1), np.float32), np.array([0, 0, 1, 1])
    found = skew(partitioned(x, y, parts, may_be_empty=True).train, 2)
    without = skew(partitioned(x, y, [parts[0], parts[2]]).train, 2)
    assert (found.clients, found.empty, found.smallest) == (3, 1, 0)
    assert found.mean_total_variation == without.mean_total_variation
    assert found.mean_jensen_shannon == without.mean_jensen_shannon


def test_nobody_is_empty_unless_asked_for() -> None:
    fields = {"x": torch.zeros(2, 1), "y": torch.zeros(2)}
    offsets = np.array([0, 2, 2])
    with pytest.raises(DataError, match="'b' has no examples"):
        PackedClients(fields, offsets, ("a", "b"))
    assert len(PackedClients(fields, offsets, ("a", "b"), may_be_empty=True)) == 2
    none = {name: field[:0] for name, field in fields.items()}
    with pytest.raises(DataError, match="'a' has no examples"):
        PackedClients(none, np.zeros(3, np.int64), ("a", "b"), may_be_empty=True)


# ------------------------------------------------------------------ inputs that differ by client
def images(clients: int, height: int = 4, width: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        f"client {k}": (rng.normal(size=(3 + k, 1, height, width)), np.zeros(3 + k, np.int64))
        for k in range(clients)
    }


def lazily(federation: Federation) -> Federation:
    """The same clients, loaded when asked for."""

    def of(data: ClientData) -> LazyClients:
        assert isinstance(data, PackedClients)

        def load(client: int) -> dict[str, torch.Tensor]:
            rows = slice(data.offsets[client], data.offsets[client + 1])
            return {name: field[rows] for name, field in data.fields.items()}

        return LazyClients(len(data), load)

    return Federation(
        of(federation.train), None if federation.test is None else of(federation.test)
    )


def inputs(data: ClientData | None, client: int) -> torch.Tensor:
    assert data is not None
    fields, starts, sizes = data.block(np.array([client]))
    found: torch.Tensor = fields["x"][int(starts[0]) : int(starts[0] + sizes[0])]
    return found


def test_noise_has_the_variance_of_its_client() -> None:
    zeros = {f"client {k}": (np.zeros((200, 50)), np.zeros(200)) for k in range(4)}
    federation = noise_by_client(federation_from_arrays(zeros, test=zeros), 0.8, seed=5)
    for k in range(4):
        trained, tested = inputs(federation.train, k), inputs(federation.test, k)
        for noise in (trained, tested):
            # 10,000 samples: the variance is off by a factor of about sqrt(2 / 10000) = 1.4 %.
            assert float(noise.var()) == pytest.approx(0.8 * (k + 1) / 4, rel=0.08)
        assert not torch.equal(trained, tested)
    assert not torch.equal(inputs(federation.train, 0), inputs(federation.train, 1) / 2**0.5)


def test_noise_is_the_same_however_clients_are_loaded() -> None:
    federation = federation_from_arrays(images(5), test=images(5))
    packed = noise_by_client(federation, 0.3, seed=1)
    lazy = noise_by_client(lazily(federation), 0.3, seed=1)
    fields, starts, sizes = lazy.train.block(np.array([4, 1]))
    for place, client in enumerate((4, 1)):
        rows = slice(int(starts[place]), int(starts[place] + sizes[place]))
        assert torch.equal(fields["x"][rows], inputs(packed.train, client))
        assert torch.equal(inputs(lazy.test, client), inputs(packed.test, client))
    assert not torch.equal(
        inputs(noise_by_client(federation, 0.3, seed=2).train, 0), inputs(packed.train, 0)
    )


@pytest.mark.parametrize(("rotations", "shape"), [(1, (4, 3)), (2, (4, 3)), (4, (4, 4))])
def test_images_turn_by_client(rotations: int, shape: tuple[int, int]) -> None:
    federation = federation_from_arrays(
        images(5, *shape), unseen={"new": images(1, *shape)["client 0"]}
    )
    for made in (federation, lazily(federation)):
        turned = rotate_by_client(made, rotations)
        for k in range(5):
            upright = inputs(federation.train, k).numpy()
            expected = np.rot90(upright, k % rotations * (4 // rotations), axes=(2, 3))
            np.testing.assert_array_equal(inputs(turned.train, k).numpy(), expected)
    kept = rotate_by_client(federation, rotations).unseen
    assert torch.equal(inputs(kept, 0), inputs(federation.unseen, 0))
