"""Partitions: exact covers, determined by their seed, and plain refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import DataError
from hanse.data.clients import PackedClients
from hanse.data.partition import Scheme, dirichlet, iid, natural, shards, split
from hanse.data.partitioned import partitioned
from hanse.data.skew import label_counts, skew

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hanse.data.clients import ClientData, Ids

LABELS = np.random.default_rng(0).integers(0, 10, 2000)


def is_exact_cover(parts: Sequence[Ids], n: int) -> bool:
    ascending = all((np.diff(part) > 0).all() for part in parts)
    return ascending and sorted(np.concatenate(parts).tolist()) == list(range(n))


def same(a: Sequence[Ids], b: Sequence[Ids]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**40))
def test_iid_covers_exactly_with_equal_sizes(n: int, clients: int, seed: int) -> None:
    clients = min(clients, n)
    parts = iid(n, clients, seed)
    sizes = [len(part) for part in parts]
    assert len(parts) == clients
    assert is_exact_cover(parts, n)
    assert max(sizes) - min(sizes) <= 1


@given(
    st.lists(st.integers(-3, 9), min_size=40, max_size=120),
    st.integers(1, 4),
    st.floats(0.5, 100.0),
    st.integers(0, 1000),
)
def test_dirichlet_covers_exactly(labels: list[int], clients: int, alpha: float, seed: int) -> None:
    parts = dirichlet(np.array(labels), clients, alpha, seed)
    assert len(parts) == clients
    assert is_exact_cover(parts, len(labels))
    assert min(len(part) for part in parts) >= 1


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=120),
    st.integers(1, 10),
    st.integers(1, 3),
    st.integers(0, 1000),
)
def test_shards_cover_exactly_with_equal_sizes(
    labels: list[int], clients: int, per_client: int, seed: int
) -> None:
    if clients * per_client > len(labels):
        return
    parts = shards(np.array(labels), clients, per_client, seed=seed)
    sizes = [len(part) for part in parts]
    assert len(parts) == clients
    assert is_exact_cover(parts, len(labels))
    assert max(sizes) - min(sizes) <= per_client


def test_two_shards_hold_two_labels() -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 60))
    parts = shards(labels, 30, 2, seed=0)  # shards of 10, none across a border
    kinds = [len(np.unique(labels[part])) for part in parts]
    assert max(kinds) == 2
    assert all(len(part) == 20 for part in parts)
    unequal = shards(LABELS, 100, 2, seed=0)
    assert max(len(np.unique(LABELS[part])) for part in unequal) <= 4


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "shards"])
def test_the_seed_determines_the_partition(scheme: Scheme) -> None:
    one = split(LABELS, 20, scheme, seed=1)
    assert same(one, split(LABELS, 20, scheme, seed=1))
    assert not all(
        np.array_equal(x, y) for x, y in zip(one, split(LABELS, 20, scheme, seed=2), strict=True)
    )


def test_partitions_are_fixed_for_all_time() -> None:
    # A run's results depend on these: a change here breaks every recorded experiment.
    labels = np.arange(12) % 3
    assert [part.tolist() for part in iid(7, 2, 0)] == FIXED["iid"]
    assert [part.tolist() for part in dirichlet(labels, 2, 1.0, 0)] == FIXED["dirichlet"]
    assert [part.tolist() for part in shards(labels, 2, 2, seed=0)] == FIXED["shards"]


FIXED: dict[str, list[list[int]]] = {
    "iid": [[0, 1, 2, 4], [3, 5, 6]],
    "dirichlet": [[1, 3, 9], [0, 2, 4, 5, 6, 7, 8, 10, 11]],
    "shards": [[0, 2, 3, 6, 7, 10], [1, 4, 5, 8, 9, 11]],
}


def test_a_smaller_alpha_is_more_skewed() -> None:
    def distance(alpha: float) -> float:
        parts = dirichlet(LABELS, 10, alpha, seed=0, min_size=1)
        data = partitioned(np.zeros((2000, 1)), LABELS, parts).train
        measured = skew(data, 10).mean_total_variation
        assert measured is not None
        return measured

    distances = [distance(alpha) for alpha in (0.1, 1.0, 10.0, 1000.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.5
    assert distances[-1] < 0.05


def test_dirichlet_draws_until_everyone_has_enough() -> None:
    sizes = [len(part) for part in dirichlet(LABELS, 20, 0.3, seed=0, min_size=25)]
    assert min(sizes) >= 25


def test_dirichlet_survives_a_tiny_alpha() -> None:
    parts = dirichlet(LABELS, 2, 1e-3, seed=0)
    assert is_exact_cover(parts, 2000)


def test_dirichlet_says_which_alpha_would_do() -> None:
    with pytest.raises(DataError, match=r"instead: write alpha=[\d.]+ or more") as caught:
        dirichlet(LABELS, 100, 0.01, seed=0, min_size=2)
    enough = float(caught.value.instead.split("alpha=")[1].split()[0])
    dirichlet(LABELS, 100, enough, seed=0, min_size=2)


def test_natural_groups_by_id_under_its_name() -> None:
    groups = natural(np.array(["eve", "adam", "eve", "adam", "cain"]))
    assert list(groups) == ["adam", "cain", "eve"]
    assert [part.tolist() for part in groups.values()] == [[1, 3], [4], [0, 2]]
    assert list(natural([10, 9, 10])) == ["9", "10"]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: iid(3, 5, 0), "clients=3 or fewer"),
        (lambda: iid(3, 0, 0), "1 or more"),
        (lambda: dirichlet(LABELS, 5, 0.0, 0), "positive"),
        (lambda: dirichlet(LABELS, 5, float("nan"), 0), "positive"),
        (lambda: dirichlet(LABELS, 5, 1.0, 0, min_size=500), "clients=4 or fewer"),
        (lambda: dirichlet(LABELS / 2, 5, 1.0, 0), "integer label"),  # type: ignore[arg-type]
        (lambda: dirichlet(LABELS, 5, 1.0, 0, min_size=-1), "0 or more"),
        (lambda: shards(LABELS[:10], 5, 3, seed=0), "between 1 and 2"),
        (lambda: shards(LABELS, 5, 0, seed=0), "between 1 and 400"),
        (lambda: shards(LABELS[:, None], 5, 2, seed=0), r"\[N\]"),
        (lambda: natural([]), "one id for each"),
        (lambda: split(LABELS, 5, "dirichlit", seed=0), "did you mean 'dirichlet'"),  # type: ignore[arg-type]
    ],
)
def test_the_impossible_is_refused_in_plain_words(build: object, said: str) -> None:
    assert callable(build)
    with pytest.raises(DataError, match=said):
        build()


def inputs(n: int) -> NDArray[np.float32]:
    return np.arange(n, dtype=np.float32)[:, None]


def examples(data: ClientData | None, k: int) -> list[int]:
    assert isinstance(data, PackedClients)
    return [int(v) for v in data.fields["x"][data.offsets[k] : data.offsets[k + 1], 0]]


@given(st.floats(0.01, 0.99), st.integers(0, 100))
def test_each_client_keeps_a_part_of_its_own_to_test_on(fraction: float, seed: int) -> None:
    parts = [np.arange(0, 2), np.arange(2, 30), np.arange(30, 40)]
    federation = partitioned(
        inputs(40), np.zeros(40, int), parts, test_fraction=fraction, seed=seed
    )
    for k, part in enumerate(parts):
        kept, tested = examples(federation.train, k), examples(federation.test, k)
        assert sorted(kept + tested) == part.tolist()
        assert len(tested) == min(max(round(fraction * len(part)), 1), len(part) - 1)


def test_another_seed_tests_on_other_examples() -> None:
    def tested(seed: int) -> list[int]:
        parts = [np.arange(40)]
        made = partitioned(inputs(40), np.zeros(40, int), parts, test_fraction=0.5, seed=seed)
        return examples(made.test, 0)

    assert tested(1) == tested(1) != tested(2)


def test_the_holdout_is_one_unseen_client() -> None:
    federation = partitioned(
        inputs(4),
        np.array([0, 1, 0, 1]),
        natural(["b", "a", "a", "b"]),
        holdout=(inputs(3), np.zeros(3, int)),
        classes=["no", "yes"],
        name="n",
        attribution="a",
    )
    assert isinstance(federation.train, PackedClients)
    assert federation.train.names == ("a", "b")
    assert [examples(federation.train, k) for k in range(2)] == [[1, 2], [0, 3]]
    assert federation.test is None
    assert isinstance(federation.unseen, PackedClients)
    assert federation.unseen.names == ("test set",)
    assert (federation.classes, federation.name) == (("no", "yes"), "n")


@pytest.mark.parametrize(
    ("parts", "fraction", "said"),
    [
        ([np.arange(3), np.array([2, 3])], 0.0, "'client 1' has an example twice"),
        ([np.array([1, 1])], 0.0, "'client 0' has an example twice"),
        ([np.array([0, 9])], 0.0, "'client 0' has examples 0 to 9 of 4"),
        ([np.array([0, -1])], 0.0, "-1 to 0 of 4"),
        ([np.arange(3), np.arange(0)], 0.0, "'client 1' has no examples"),
        ([np.arange(3), np.array([3])], 0.5, "'client 1' has 1 example"),
        ([np.arange(4)], 1.0, "between 0 and 1"),
    ],
)
def test_indices_that_cannot_be_meant_are_refused(
    parts: list[Ids], fraction: float, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        partitioned(inputs(4), np.zeros(4, int), parts, test_fraction=fraction)


def test_label_counts_are_counts() -> None:
    parts = [np.array([0, 1, 2]), np.array([3])]
    data = partitioned(inputs(4), np.array([2, 0, 2, 1]), parts).train
    assert label_counts(data, 3).tolist() == [[1, 0, 2], [0, 1, 0]]


def test_skew_of_clients_with_one_label_each() -> None:
    parts = [np.array([0, 1]), np.array([2, 3])]
    measured = skew(partitioned(inputs(4), np.array([0, 0, 1, 1]), parts).train, 2)
    assert (measured.clients, measured.examples) == (2, 4)
    assert (measured.smallest, measured.median, measured.largest) == (2, 2.0, 2)
    assert measured.global_entropy == pytest.approx(1.0)
    assert measured.mean_entropy == 0.0
    assert measured.mean_total_variation == pytest.approx(0.5)
    # The Jensen-Shannon divergence of (1, 0) and (1/2, 1/2), from its definition.
    expected = 0.5 * np.log2(1 / 0.75) + 0.5 * (0.5 * np.log2(0.5 / 0.75) + 0.5 * np.log2(2))
    assert measured.mean_jensen_shannon == pytest.approx(expected)


def test_skew_of_equal_clients_is_zero() -> None:
    parts = [np.array([0, 1]), np.array([2, 3])]
    data = partitioned(inputs(4), np.array([0, 1, 0, 1]), parts).train
    measured = skew(data, 2)
    assert measured.mean_total_variation == measured.mean_jensen_shannon == 0.0
    assert measured.mean_entropy == pytest.approx(1.0)
    assert skew(data).mean_entropy is None
