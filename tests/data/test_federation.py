"""Clients and federations: packing, laziness, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hanse.core.errors import DataError
from hanse.data.clients import ClientData, LazyClients, PackedClients
from hanse.data.federation import Federation, map_inputs, pooled, select_clients, to_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray


def client(n: int, first: float = 0.0, classes: int = 3) -> dict[str, NDArray[Any]]:
    x = (first + np.arange(2 * n)).reshape(n, 2).astype(np.float32)
    return {"x": x, "y": np.arange(n, dtype=np.int32) % classes}


def three() -> PackedClients:
    return PackedClients.from_arrays(
        {"anna": client(3), "bert": client(1, 10), "cleo": client(4, 20)}
    )


def examples(data: ClientData, k: int) -> dict[str, list[Any]]:
    fields, starts, sizes = data.block(np.array([k]))
    rows = slice(int(starts[0]), int(starts[0] + sizes[0]))
    return {name: field[rows].tolist() for name, field in fields.items()}


def test_packing_keeps_every_client_and_makes_labels_int64() -> None:
    data = three()
    assert len(data) == 3
    assert data.names == ("anna", "bert", "cleo")
    assert data.sizes(np.array([2, 0])).tolist() == [4, 3]
    assert data.fields["y"].dtype == torch.int64
    assert data.fields["x"].dtype == torch.float32
    assert examples(data, 1) == {"x": [[10.0, 11.0]], "y": [0]}
    assert examples(data, 2)["x"] == client(4, 20)["x"].tolist()


def test_a_packed_block_copies_nothing() -> None:
    data = three()
    block = data.block(np.array([2, 0]))
    assert block.fields["x"] is data.fields["x"]
    assert block.starts.tolist() == [4, 0]
    assert block.sizes.tolist() == [4, 3]


def test_a_sequence_of_clients_is_numbered() -> None:
    data = PackedClients.from_arrays([client(1), client(2)])
    assert data.names == ("client 0", "client 1")


def test_selecting_clients_copies_them_in_order() -> None:
    chosen = select_clients(three(), np.array([2, 0]))
    assert chosen.names == ("cleo", "anna")
    assert examples(chosen, 0) == examples(three(), 2)
    assert examples(chosen, 1) == examples(three(), 0)


def test_pooling_makes_one_client_of_all() -> None:
    pool = pooled(three())
    assert pool.names == ("pooled",)
    assert examples(pool, 0)["x"] == three().fields["x"].tolist()


def test_lazy_clients_load_only_those_asked_for() -> None:
    loaded: list[int] = []

    def load(k: int) -> dict[str, NDArray[Any]]:
        loaded.append(k)
        return client(1 + k % 3, k)

    data = LazyClients(1_000_000, load, size=lambda k: 1 + k % 3)
    federation = Federation(data, test=data, classes=("a", "b", "c"))
    assert len(federation.train) == 1_000_000
    ids = np.array([999_999, 4])
    assert data.sizes(ids).tolist() == [1, 2]
    assert loaded == []
    block = data.block(ids)
    assert loaded == [999_999, 4]
    assert block.starts.tolist() == [0, 1]
    assert block.sizes.tolist() == [1, 2]
    assert block.fields["x"].tolist() == [[999_999, 1_000_000], [4, 5], [6, 7]]
    assert data.name(17) == "client 17"
    assert federation.input_shape == (2,)


def test_lazy_sizes_without_a_size_load() -> None:
    data = LazyClients(5, lambda k: client(k + 1))
    assert data.sizes(np.arange(5)).tolist() == [1, 2, 3, 4, 5]
    sized = LazyClients(5, lambda k: client(k + 1), size=np.arange(1, 6), namer="abcde".__getitem__)
    assert sized.sizes(np.array([3])).tolist() == [4]
    assert sized.name(3) == "d"
    assert sized.block(np.array([3])).sizes.tolist() == [4]


def test_changing_the_type_leaves_labels_alone() -> None:
    lazy = LazyClients(3, lambda k: client(k + 1))
    for data in (three(), lazy):
        double = to_dtype(Federation(data, test=data), torch.float64)
        assert double.dtype == torch.float64
        assert double.example["y"].dtype == torch.int64
        assert double.test is not None
        assert examples(double.test, 2)["x"] == examples(data, 2)["x"]


def test_mapping_inputs_reaches_packed_and_lazy_clients() -> None:
    lazy = LazyClients(3, lambda k: client(k + 1))
    for data in (three(), lazy):
        mapped = map_inputs(Federation(data), lambda x: x.sum(1, keepdim=True))
        assert mapped.input_shape == (1,)
        for k in range(3):
            before, after = examples(data, k), examples(mapped.train, k)
            assert after["x"] == [[sum(row)] for row in before["x"]]
            assert after["y"] == before["y"]
            assert mapped.train.name(k) == data.name(k)
            assert mapped.train.sizes(np.array([k])).tolist() == [len(after["y"])]
        with pytest.raises(DataError, match="rows"):
            map_inputs(Federation(data), lambda x: x[:1]).train.block(np.array([2]))


def test_what_a_federation_says_about_itself() -> None:
    federation = Federation(three(), name="friends", attribution="us")
    assert federation.input_shape == (2,)
    assert federation.dtype == torch.float32
    assert federation.example["y"].item() == 0
    assert (federation.name, federation.attribution) == ("friends", "us")


BAD_CLIENTS: dict[str, tuple[dict[str, NDArray[Any]], list[str]]] = {
    "no examples": (client(0), ["'bad' has no examples"]),
    "other length": ({"x": client(3)["x"], "y": client(2)["y"]}, ["'bad'", "lengths"]),
    "other shape": (
        {"x": np.zeros((1, 5), np.float32), "y": np.zeros(1, int)},
        ["'bad'", "'good'"],
    ),
    "other type": ({"x": np.zeros((1, 2)), "y": np.zeros(1, int)}, ["'bad'", "'good'", "float64"]),
    "other fields": ({"x": client(1)["x"]}, ["'bad'", "'good'"]),
    "words": ({"x": client(1)["x"], "y": np.array(["cat"])}, ["'bad'", "numbers"]),
    "objects": ({"x": np.array([[None, 1]]), "y": np.zeros(1, int)}, ["'bad'", "object"]),
    "scalar": ({"x": client(1)["x"], "y": np.array(1)}, ["'bad'", "single number"]),
}


@pytest.mark.parametrize("wrong", BAD_CLIENTS)
def test_a_client_that_cannot_be_packed_is_refused_by_name(wrong: str) -> None:
    bad, said = BAD_CLIENTS[wrong]
    with pytest.raises(DataError) as packed:
        PackedClients.from_arrays({"good": client(2), "bad": bad})
    lazy = LazyClients(2, [client(2), bad].__getitem__, namer=["good", "bad"].__getitem__)
    with pytest.raises(DataError) as loaded:
        lazy.block(np.array([0, 1]))
    for error in (packed, loaded):
        assert all(word in str(error.value) for word in said), str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["x", "y"])
def test_nan_and_infinity_are_refused_by_name(value: float, field: str) -> None:
    bad = {"x": client(3)["x"], "y": np.zeros(3, np.float32)}
    good = {name: array.copy() for name, array in bad.items()}
    bad[field][1] = value
    data = PackedClients.from_arrays({"good": good, "bad": bad, "later": good})
    with pytest.raises(DataError, match=rf"'bad' has NaN .* in '{field}', first in its example 1"):
        Federation(data)
    with pytest.raises(DataError, match=r"'client 1' has NaN"):
        LazyClients(2, [good, bad].__getitem__).block(np.array([0, 1]))


@pytest.mark.parametrize("example", [0, 1])
@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused_by_name(label: int, example: int) -> None:
    bad = client(2)
    bad["y"][example] = label
    data = PackedClients.from_arrays({"good": client(3), "bad": bad, "later": client(3)})
    with pytest.raises(DataError, match=f"'bad' has the label {label}"):
        Federation(data, classes=("a", "b", "c"))
    Federation(data)  # without classes a target is a quantity


def test_float_labels_of_classes_are_refused() -> None:
    data = PackedClients.from_arrays([{"x": client(2)["x"], "y": np.zeros(2)}])
    with pytest.raises(DataError, match="integer labels"):
        Federation(data, classes=("a",))


def test_fields_x_and_y_are_required() -> None:
    with pytest.raises(DataError, match=r"without \['y'\]"):
        Federation(PackedClients.from_arrays([{"x": np.zeros((2, 2))}]))


def test_test_must_have_the_clients_of_train() -> None:
    train = three()
    with pytest.raises(DataError, match="3 clients in train, 2 in test"):
        Federation(train, test=select_clients(train, np.array([0, 1])))
    with pytest.raises(DataError, match="'bert' in train and 'cleo' in test"):
        Federation(train, test=select_clients(train, np.array([0, 2, 1])))
    lazy = LazyClients(3, lambda k: client(1), namer=["anna", "x", "cleo"].__getitem__)
    with pytest.raises(DataError, match="number 1 is 'bert' in train and 'x' in test"):
        Federation(train, test=lazy)


def test_an_unseen_client_must_not_train() -> None:
    train = three()
    with pytest.raises(DataError, match="'cleo' is in train and in unseen"):
        Federation(train, unseen=select_clients(train, np.array([2])))


def test_groups_must_have_one_shape() -> None:
    other = PackedClients.from_arrays({"dora": {"x": np.zeros((1, 7)), "y": np.zeros(1, int)}})
    with pytest.raises(DataError, match="'dora'"):
        Federation(three(), unseen=other)


def test_two_clients_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="two clients named 'a'"):
        replace(three(), names=("a", "b", "a"))
    with pytest.raises(DataError, match="two clients named 'cleo'"):
        select_clients(three(), np.array([2, 2]))


def test_offsets_must_cover_the_fields() -> None:
    for offsets in ([0, 3, 4], [0, 3, 4, 7], [1, 3, 4, 8]):
        with pytest.raises(DataError, match="offsets"):
            replace(three(), offsets=np.array(offsets))
    with pytest.raises(DataError, match="'bert' has no examples"):
        replace(three(), offsets=np.array([0, 3, 3, 8]))


def test_no_clients_are_refused() -> None:
    with pytest.raises(DataError, match="no clients"):
        PackedClients.from_arrays({})
    with pytest.raises(DataError, match="at least one client"):
        LazyClients(0, lambda k: client(1))


def test_lazy_sizes_must_be_true() -> None:
    liar = LazyClients(3, lambda k: client(2), size=lambda k: 2 + k)
    with pytest.raises(DataError, match="'client 1' has 2 examples, `size` says 3"):
        liar.block(np.array([0, 1]))
    with pytest.raises(DataError, match=r"of shape \(2,\) for 3 clients"):
        LazyClients(3, lambda k: client(2), size=np.array([1, 1]))
    with pytest.raises(DataError, match="'client 2' has no examples"):
        LazyClients(3, lambda k: client(2), size=np.array([1, 1, 0]))
    with pytest.raises(DataError, match="'client 0' has no examples"):
        LazyClients(3, lambda k: client(2), size=lambda k: k).sizes(np.arange(3))
