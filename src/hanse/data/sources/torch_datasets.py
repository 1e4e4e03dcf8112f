"""Clients that are torch data sets: anything with a length and items (x, y)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from hanse.core.errors import DataError
from hanse.data.clients import LazyClients, PackedClients
from hanse.data.federation import Federation
from hanse.data.packing import empty_client

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Datasets = Mapping[str, Dataset[Any] | Sequence[Any]]


def from_torch(
    train: Datasets,
    test: Datasets | None = None,
    unseen: Datasets | None = None,
    classes: Sequence[str] | None = None,
    *,
    lazy: bool = False,
    name: str = "federation",
    attribution: str = "",
) -> Federation:
    """Make a federation of torch data sets, one for each client.

    Items are read once, in order, and kept in memory. Where they do not fit, `lazy` reads a
    client's items whenever the client trains or is tested, and forgets them; with `workers`, in
    several processes.

    A transform that is random is no augmentation then: what is read is what a client trains on. In
    memory it was drawn once; with `lazy` it would be drawn again at every reading, so that a run
    could not be repeated. Draw it in the model's `forward`, which sees each batch.

    Args:
        train: by client name, a map-style data set (`torch.utils.data.Dataset`, or anything with
            `__len__` and `__getitem__`) whose items are pairs: an input, a tensor or an array of
            the same shape in all of them, and a target, a number or a tensor.
        test: the same clients' other examples.
        unseen: clients that never train.
        classes: the labels' names if targets are 0 to C - 1, else None.
        lazy: whether clients are read when they are needed, instead of now.
        name: what to call the federation.
        attribution: whom the data comes from.

    Returns:
        x and y as the data sets give them; double precision becomes single, labels become int64.

    Raises:
        DataError: naming the client, if its data set has no length or no items, or an item cannot
            be used. With `lazy`, items are checked when they are read.
    """

    def clients(given: Datasets | None, group: str) -> PackedClients | LazyClients | None:
        if given is None:
            return None
        sizes = _sizes(given, group)
        names, datasets = tuple(given), tuple(given.values())
        if lazy:
            return LazyClients(
                count=len(names),
                load=lambda k: _read(datasets[k], names[k]),
                size=sizes,
                namer=lambda k: names[k],
            )
        return PackedClients.from_arrays(
            {client: _read(dataset, client) for client, dataset in given.items()}
        )

    trained = clients(train, "train")
    if trained is None:
        raise _no_mapping(train, "train")
    if classes is not None and not isinstance(classes, list | tuple):
        raise DataError(
            f"classes={classes!r}",
            why="reports call each class by its name",
            instead="the names of the classes, such as classes=('cat', 'dog')",
        )
    return Federation(
        trained,
        clients(test, "test"),
        clients(unseen, "unseen"),
        None if classes is None else tuple(classes),
        name,
        attribution,
    )


def _sizes(given: object, group: str) -> NDArray[np.int64]:
    """How many items each client has; refuses what has no number of them."""
    if not isinstance(given, Mapping) or not given:
        raise _no_mapping(given, group)
    for client, dataset in given.items():
        if not isinstance(client, str):
            raise DataError(
                f"client {client!r} of type {type(client).__name__}",
                why="clients are named in messages and reports",
                instead=f"a text as its name: {{'client {client}': dataset, …}}",
            )
        sized = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        if isinstance(dataset, IterableDataset) or not sized:
            raise DataError(
                f"client {client!r} has a {type(dataset).__name__}, which has no length or no "
                "items",
                why="clients are weighed by how many examples they have, and draw batches of them",
                instead="a map-style data set; list(dataset) makes one of a stream that ends",
            )
        if not len(dataset):
            raise empty_client(client)
    return np.array([len(dataset) for dataset in given.values()], np.int64)


def _read(dataset: Any, client: str) -> dict[str, Tensor]:  # noqa: ANN401 - whatever has items
    """All items of a client, as two tensors."""
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        x, y = dataset.tensors
    else:
        pairs = [_item(dataset, client, n) for n in range(len(dataset))]
        x = _stack([pair[0] for pair in pairs], client, "input")
        y = _stack([pair[1] for pair in pairs], client, "target")
    return {"x": _single(x), "y": _single(y)}


def _item(dataset: Any, client: str, number: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    try:
        item = dataset[number]
    except Exception as error:
        error.add_note(f"while item {number} of client {client!r} was read")
        raise
    if not isinstance(item, tuple | list) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, tuple | list | dict) else ""
        raise DataError(
            f"item {number} of client {client!r} is a {type(item).__name__}{size}",
            why="an example is an input and a target",
            instead="a data set whose items are pairs (x, y)",
        )
    return _tensor(item[0], client, number), _tensor(item[1], client, number)


def _tensor(value: object, client: str, number: int) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    array = np.asarray(value) if isinstance(value, np.ndarray | np.generic | int | float) else None
    if array is None or array.dtype.kind not in "biuf":
        raise DataError(
            f"item {number} of client {client!r} has a {type(value).__name__} in it",
            why="inputs and targets are tensors, arrays or numbers",
            instead="a transform that makes a tensor of it (for images, "
            "torchvision.transforms.ToTensor())",
        )
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def _stack(values: Sequence[Tensor], client: str, what: str) -> Tensor:
    first = values[0]
    for number, value in enumerate(values):
        if value.shape != first.shape or value.dtype != first.dtype:
            raise DataError(
                f"the {what} of item {number} of client {client!r} is {_said(value)}, that of item "
                f"0 is {_said(first)}",
                why="a batch is one tensor",
                instead="a transform that gives all items the same shape and type",
            )
    return torch.stack(list(values))


def _single(values: Tensor) -> Tensor:
    return values.float() if values.dtype == torch.float64 else values


def _said(value: Tensor) -> str:
    return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _no_mapping(given: object, group: str) -> DataError:
    return DataError(
        f"{group} is a {type(given).__name__}" + ("" if given else " without clients"),
        why="each client has a name, and a data set",
        instead="{'hospital a': dataset, …}",
    )
