"""Public examples: every client's own draw of them, mixed into its own, and copied for nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.little_mnist import CONTENTS, folder
from tests.engine.small import MODULE, VMAP, mlp, seeded
from torch import nn

from hanse.core.errors import DataError, ModelError
from hanse.data import (
    Federation,
    LazyClients,
    PackedClients,
    SharedClients,
    federation_from_arrays,
    idx_federation,
    label_counts,
    map_inputs,
    pooled,
    set_aside,
    share,
    to_dtype,
)
from hanse.experiment import Experiment, prepare
from hanse.records import fingerprint
from hanse.strategies import fedavg
from hanse.training import rounds

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.data.clients import ClientData

CLASSES = ("a", "b", "c")


def arrays(sizes: tuple[int, ...], first: int = 0) -> dict[str, dict[str, Any]]:
    """Each example's first feature is a number of its own."""
    found, number = {}, first
    for k, n in enumerate(sizes):
        x = np.zeros((n, 4), np.float32)
        x[:, 0] = np.arange(number, number + n)
        found[f"person {k}"] = {"x": x, "y": np.arange(n) % 3}
        number += n
    return found


def owned() -> PackedClients:
    return PackedClients.from_arrays(arrays((5, 2, 9)))


def lazily(packed: PackedClients) -> LazyClients:
    def load(k: int) -> dict[str, Any]:
        rows = slice(int(packed.offsets[k]), int(packed.offsets[k + 1]))
        return {name: field[rows] for name, field in packed.fields.items()}

    return LazyClients(len(packed), load, namer=packed.name)


PUBLIC = arrays((10,), first=1000)["person 0"]


def numbers(data: ClientData, client: int) -> list[float]:
    fields, starts, sizes = data.block(np.array([client]))
    rows = slice(int(starts[0]), int(starts[0] + sizes[0]))
    return [float(x) for x in fields["x"][rows, 0]]


@pytest.mark.parametrize("make", [lambda own: own, lazily], ids=["packed", "lazy"])
def test_each_client_has_its_own_examples_and_then_the_public_ones(make: Any) -> None:  # noqa: ANN401 - of the test
    shared = share(Federation(make(owned())), PUBLIC).train
    for k in range(3):
        assert numbers(shared, k) == [*numbers(owned(), k), *range(1000, 1010)]
        assert shared.name(k) == f"person {k}"
    assert shared.sizes(np.array([2, 0])).tolist() == [19, 15]


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
    st.floats(0.01, 1.0),
    st.integers(0, 99),
)
def test_a_draw_is_the_same_alone_and_beside_others(
    ids: list[int], portion: float, seed: int
) -> None:
    shared = share(Federation(owned()), PUBLIC, portion=portion, seed=seed).train
    assert isinstance(shared, SharedClients)
    assert shared.count == max(int(portion * 10 + 0.5), 1)
    fields, starts, sizes = shared.block(np.array(ids))
    for k, start, size in zip(ids, starts, sizes, strict=True):
        mine = fields["x"][start : start + size, 0].tolist()
        assert mine == numbers(shared, k)
        drawn = mine[len(numbers(owned(), k)) :]
        assert len(set(drawn)) == len(drawn) == shared.count
        assert set(drawn) <= set(range(1000, 1010))


def test_clients_draw_each_for_itself_and_every_example_as_often() -> None:
    many = PackedClients.from_arrays(arrays((1,) * 2000))
    shared = share(Federation(many), PUBLIC, portion=0.3).train
    assert isinstance(shared, SharedClients)
    drawn = shared.drawn(np.arange(2000))
    assert len({tuple(row) for row in drawn.tolist()}) == 120  # all of the 10 over 3
    counts = np.bincount(drawn.ravel(), minlength=10)
    assert (np.abs(counts - 600) < 5 * np.sqrt(2000 * 0.3 * 0.7)).all()
    other = share(Federation(many), PUBLIC, portion=0.3, seed=1).train
    assert isinstance(other, SharedClients)
    assert not np.array_equal(other.drawn(np.arange(2000)), drawn)


def test_public_examples_lie_in_memory_once_and_go_through_every_transformation() -> None:
    shared = share(Federation(owned()), PUBLIC, portion=0.5)
    doubled = to_dtype(map_inputs(shared, lambda x: 2 * x), torch.float64).train
    assert isinstance(doubled, SharedClients)
    assert len(doubled.public.fields["x"]) == 10
    assert doubled.block(np.array([0])).fields["x"].dtype == torch.float64
    assert numbers(doubled, 1) == [2 * value for value in numbers(shared.train, 1)]


def test_public_examples_may_be_clients() -> None:
    public = PackedClients.from_arrays(arrays((4, 6), first=1000))
    shared = share(Federation(owned()), public)
    assert numbers(shared.train, 0)[5:] == list(range(1000, 1010))


def test_pooled_data_have_the_public_examples_once() -> None:
    shared = share(Federation(owned()), PUBLIC, portion=0.2)
    together = pooled(shared.train)
    assert sorted(together.fields["x"][:, 0].tolist()) == [*range(16), *range(1000, 1010)]
    assert together.offsets.tolist() == [0, 26]


def test_labels_and_sizes_count_the_mixture() -> None:
    shared = share(Federation(owned(), classes=CLASSES), PUBLIC)
    assert np.array_equal(
        label_counts(shared.train, 3), label_counts(owned(), 3) + np.array([4, 3, 3])
    )


def test_training_is_that_on_clients_who_have_the_examples_as_their_own() -> None:
    mixed = {
        name: {field: np.concatenate([own[field], PUBLIC[field]]) for field in own}
        for name, own in arrays((5, 2, 9)).items()
    }
    copied = to_dtype(Federation(PackedClients.from_arrays(mixed)), torch.float64)
    shared = to_dtype(share(Federation(owned()), PUBLIC), torch.float64)
    scale = [map_inputs(each, lambda x: x / 1000) for each in (shared, copied)]
    for execution in (MODULE, VMAP):
        found, expected = (
            list(rounds(Experiment(fedavg(), each, mlp(), rounds=2, execution=execution)))[-1]
            for each in scale
        )
        assert torch.equal(found.state.params, expected.state.params)
        assert found.train_loss == expected.train_loss


def test_workers_compute_the_same_bits() -> None:
    shared = share(Federation(owned()), PUBLIC, portion=0.5)
    small = map_inputs(to_dtype(shared, torch.float64), lambda x: x / 1000)
    one, two = (
        list(
            rounds(Experiment(fedavg(), small, mlp(), rounds=2, execution=MODULE, workers=workers))
        )[-1].state.params
        for workers in (1, 2)
    )
    assert torch.equal(one, two)


def test_a_run_is_not_resumed_with_other_public_examples() -> None:
    def data(**options: Any) -> object:  # noqa: ANN401 - of share
        module = seeded(lambda: nn.Linear(4, 3))
        shared = share(Federation(owned()), **{"public": PUBLIC, **options})
        experiment = Experiment(fedavg(), shared, module, execution=MODULE)
        return fingerprint(prepare(experiment))["training data"]

    other = {"x": PUBLIC["x"] + 1, "y": PUBLIC["y"]}
    options: list[dict[str, Any]] = [{}, {"portion": 0.5}, {"seed": 1}, {"public": other}]
    assert len({str(data(**each)) for each in options}) == 4
    assert data() == data()


def test_a_label_that_the_model_lacks_is_still_found() -> None:
    late: dict[str, dict[str, Any]] = {
        "person 0": {"x": np.zeros((9, 4), np.float32), "y": np.arange(9) // 2 % 4}
    }
    shared = share(Federation(PackedClients.from_arrays(late)), PUBLIC)
    with pytest.raises(ModelError, match="label 3"):
        prepare(Experiment(fedavg(), shared, nn.Linear(4, 3)))


# ------------------------------------------------------------------------- images set aside
@given(st.integers(0, 50), st.integers(1, 5), st.integers(0, 9))
def test_as_many_of_each_label_are_set_aside(extra: int, each: int, seed: int) -> None:
    labels = np.concatenate([np.repeat(np.arange(4), 12), np.zeros(extra, np.int64)])
    fraction = each * 4 / len(labels)
    public, rest = set_aside(labels, fraction, seed)
    assert np.bincount(labels[public], minlength=4).tolist() == [each] * 4
    assert sorted([*public, *rest]) == list(range(len(labels)))


def test_another_seed_sets_others_aside() -> None:
    labels = np.arange(1000) % 10
    assert not np.array_equal(set_aside(labels, 0.1, 0)[0], set_aside(labels, 0.1, 1)[0])


def test_a_benchmark_with_public_images(tmp_path: Path) -> None:
    source = folder(tmp_path / "little", CONTENTS)
    shared = idx_federation(source, 3, "shards", public=0.25, public_portion=0.5, seed=2)
    train = shared.train
    assert isinstance(train, SharedClients)
    assert isinstance(train.own, PackedClients)
    assert train.public.fields["y"].bincount().tolist() == [1] * 10
    assert (len(train.own.fields["y"]), train.count) == (30, 5)
    assert train.public.fields["x"].dtype == torch.float32
    assert float(train.public.fields["x"].max()) <= 1
    whole = idx_federation(source, 3, "shards", seed=2).train
    assert isinstance(whole, PackedClients)
    images = [clients.fields["x"].flatten(1) for clients in (train.own, train.public)]
    assert sorted(torch.cat(images).tolist()) == sorted(whole.fields["x"].flatten(1).tolist())


def test_what_cannot_be_shared_is_refused() -> None:
    federation = federation_from_arrays(
        {name: (own["x"], own["y"]) for name, own in arrays((5, 2)).items()}, classes=CLASSES
    )
    wrong: dict[str, Any] = {
        "shape": {"x": PUBLIC["x"][:, :3], "y": PUBLIC["y"]},
        "label": {"x": PUBLIC["x"], "y": PUBLIC["y"] + 2},
        "NaN": {"x": PUBLIC["x"] * np.nan, "y": PUBLIC["y"]},
    }
    for public in wrong.values():
        with pytest.raises(DataError, match="public"):
            share(federation, public)
    shared = share(federation, PUBLIC)
    assert replace(shared, test=None).train is shared.train
