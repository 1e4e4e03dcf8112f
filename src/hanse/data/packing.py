"""From clients' arrays to packed tensors, refusing by name what cannot be packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanse.core.errors import DataError

Array = NDArray[Any] | Tensor
Examples = Mapping[str, Array]


def offsets_of(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each client's rows start, and after the last where they end: [K] to [K + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def rows_of(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of K clients, one client after another: [sum of sizes]."""
    offsets = offsets_of(sizes)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)


def concatenate(
    clients: Sequence[Examples], names: Sequence[str]
) -> tuple[dict[str, Tensor], NDArray[np.int64]]:
    """Put clients' arrays one after another.

    Args:
        clients: K clients' arrays by field name.
        names: their names, for messages.

    Returns:
        The fields, each [N, ...], and the clients' sizes [K].

    Raises:
        DataError: if there is no client, a client has no examples, or clients do not match.
    """
    if not clients:
        raise DataError(
            "no clients",
            why="a federation has at least one client",
            instead="give each client's examples: {'anna': {'x': ..., 'y': ...}, ...}",
        )
    tensors = [as_tensors(client, name) for client, name in zip(clients, names, strict=True)]
    sizes = [count_rows(client, name) for client, name in zip(tensors, names, strict=True)]
    for client, name in zip(tensors[1:], names[1:], strict=True):
        check_alike(signature(tensors[0]), names[0], signature(client), name)
    fields = {field: torch.cat([client[field] for client in tensors]) for field in tensors[0]}
    return fields, np.array(sizes, dtype=np.int64)


def as_tensors(examples: Examples, name: str) -> dict[str, Tensor]:
    """One client's arrays as tensors; integer labels become int64.

    Raises:
        DataError: if an array does not hold numbers, or has no dimension.
    """
    return {field: _as_tensor(value, field, name) for field, value in examples.items()}


def count_rows(fields: Mapping[str, Tensor], name: str) -> int:
    """The number of examples that every field of one client agrees on.

    Raises:
        DataError: if fields have different lengths, or no rows.
    """
    rows = {field: len(value) for field, value in fields.items()}
    if len(set(rows.values())) != 1:
        raise DataError(
            f"client {name!r} has fields of different lengths: {rows}",
            why="row i of every field belongs to example i",
            instead="give every field the same first dimension",
        )
    count = next(iter(rows.values()))
    if count == 0:
        raise empty_client(name)
    return count


def signature(fields: Mapping[str, Tensor]) -> dict[str, str]:
    """What must agree between clients: each field's example shape and type, readable."""
    return {
        name: f"{list(field.shape[1:])} {str(field.dtype).removeprefix('torch.')}"
        for name, field in sorted(fields.items())
    }


def check_alike(first: dict[str, str], first_name: str, other: dict[str, str], name: str) -> None:
    """Refuse clients with other fields, shapes or types, naming both.

    Raises:
        DataError: if the signatures differ.
    """
    if first != other:
        raise DataError(
            f"client {name!r} has {other}, client {first_name!r} has {first}",
            why="one model trains on all clients, so their examples have one shape and one type",
            instead="give every client the same fields, example shapes and types",
        )


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that is empty, or that two clients share.

    Raises:
        DataError: if a name is empty or appears twice.
    """
    if "" in names:
        raise DataError(
            "a client whose name is empty",
            why="clients are named in messages and reports",
            instead="give every client a name of its own",
        )
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(
            f"two clients named {twice!r}",
            why="reports and a run's seeds tell clients apart by their names",
            instead="give every client its own name",
        )


def check_finite(
    fields: Mapping[str, Tensor], offsets: NDArray[np.int64], names: Sequence[str]
) -> None:
    """Refuse NaN and infinite values, naming the client.

    Args:
        fields: each [N, ...].
        offsets: [K + 1], covering all N rows.
        names: K names.

    Raises:
        DataError: if a float field holds NaN or an infinity.
    """
    for field, values in fields.items():
        if not values.dtype.is_floating_point or not values.numel():
            continue
        # NaN passes through a minimum; a mask of all values would need as much memory as they do.
        if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(values)):
            row = first_row(~torch.isfinite(values))
            client = owner(offsets, row)
            raise DataError(
                f"client {names[client]!r} has NaN or an infinity in {field!r}, "
                f"first in its example {row - offsets[client]}",
                why="one such value makes every model it touches NaN",
                instead="drop the example, or fill the gap before building the federation",
            )


def first_row(marked: Tensor) -> int:
    """The first row of a boolean [N, ...] with a true entry; there must be one."""
    return int(marked.reshape(len(marked), -1).any(dim=1).nonzero()[0])


def owner(offsets: NDArray[np.int64], row: int) -> int:
    """The client a row belongs to."""
    return int(np.searchsorted(offsets, row, side="right")) - 1


def empty_client(name: str) -> DataError:
    """The refusal of a client without examples."""
    return DataError(
        f"client {name!r} has no examples",
        why="it can neither train nor be averaged by its number of examples",
        instead="leave this client out",
    )


def _as_tensor(value: Array, field: str, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise DataError(
                f"client {name!r} has {field!r} of type {array.dtype}",
                why="examples and labels are numbers",
                instead="number the labels 0, 1, ... and give their names as `classes`",
            )
        # torch wants native bytes in an array it may write to; that copies only where it must.
        value = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    if value.ndim == 0:
        raise DataError(
            f"client {name!r} has a single number as {field!r}",
            why="a field holds one row for each example",
            instead="give an array whose first dimension counts the examples",
        )
    is_label = field == "y" and not value.dtype.is_floating_point
    return value.to(torch.int64) if is_label else value
