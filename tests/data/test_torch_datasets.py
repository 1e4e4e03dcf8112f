"""Clients that are torch data sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.data.test_image_folder import same_lazily
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from hanse.core.errors import DataError
from hanse.data import PackedClients, federation_from_arrays, from_torch


class Squares(Dataset[Any]):
    """Numbers, read one by one, and counted."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count, self.read = first, count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        self.read += 1
        value = float(self.first + item)
        return torch.tensor([value, value**2]), (self.first + item) % 2


def squares(lazy: bool) -> tuple[dict[str, Squares], dict[str, Any]]:
    train = {"anna": Squares(0, 3), "ben": Squares(3, 2)}
    rest = {
        "test": {"anna": Squares(5, 1), "ben": Squares(6, 2)},
        "unseen": {"carl": Squares(8, 2)},
        "classes": ["even", "odd"],
        "lazy": lazy,
    }
    return train, rest


def test_items_are_packed_in_order() -> None:
    train, rest = squares(lazy=False)
    found = from_torch(train, **rest)

    def arrays(first: int, count: int) -> tuple[Any, Any]:
        values = np.arange(first, first + count)
        return np.stack([values, values**2], axis=1).astype(float), values % 2

    expected = federation_from_arrays(
        {"anna": arrays(0, 3), "ben": arrays(3, 2)},
        test={"anna": arrays(5, 1), "ben": arrays(6, 2)},
        unseen={"carl": arrays(8, 2)},
        classes=["even", "odd"],
    )
    for group in ("train", "test", "unseen"):
        one, other = getattr(found, group), getattr(expected, group)
        assert one.names == other.names
        assert all(torch.equal(one.fields[f], other.fields[f]) for f in ("x", "y"))
    assert found.classes == ("even", "odd")
    assert [dataset.read for dataset in train.values()] == [3, 2]


def test_lazy_clients_are_read_when_they_are_needed() -> None:
    train, rest = squares(lazy=True)
    lazy = from_torch(train, **rest)
    assert lazy.train.sizes(np.arange(2)).tolist() == [3, 2]
    assert [dataset.read for dataset in train.values()] == [0, 0]
    lazy.train.block(np.array([1]))
    assert [dataset.read for dataset in train.values()] == [0, 2]
    again, rest = squares(lazy=False)
    same_lazily(from_torch(again, **rest), lazy)


def test_tensors_are_taken_whole_and_subsets_item_by_item() -> None:
    x, y = torch.arange(12.0, dtype=torch.float64).reshape(6, 2), torch.arange(6)
    whole = TensorDataset(x, y)
    found = from_torch({"a": whole, "b": Subset(whole, [5, 0])})
    assert isinstance(found.train, PackedClients)
    assert found.train.fields["x"].dtype == torch.float32
    assert found.train.fields["x"].tolist() == [*x.tolist(), *x[[5, 0]].tolist()]
    assert found.train.fields["y"].tolist() == [0, 1, 2, 3, 4, 5, 5, 0]


def test_arrays_and_numbers_are_items_too() -> None:
    items = [(np.array([1, 2], np.uint8), 0.5), (np.array([3, 4], np.uint8), 1.5)]
    found = from_torch({"a": items})
    assert isinstance(found.train, PackedClients)
    assert found.train.fields["x"].tolist() == [[1, 2], [3, 4]]
    assert found.train.fields["y"].dtype == torch.float32


def test_an_error_of_the_data_set_is_its_own() -> None:
    class Broken(Squares):
        def __getitem__(self, item: int) -> tuple[Tensor, int]:
            raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone") as caught:
        from_torch({"anna": Broken(0, 2)})
    assert "item 0 of client 'anna'" in caught.value.__notes__[0]


def test_what_is_wrong_with_a_lazy_item_is_said_when_it_is_read() -> None:
    found = from_torch({"a": [(1.0, 0)], "b": [(1.0,)]}, lazy=True)
    found.train.block(np.array([0]))
    with pytest.raises(DataError, match="item 0 of client 'b'"):
        found.train.block(np.array([1]))
