"""A federation: who trains, on what, and on whom the result is judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hanse.core.errors import DataError
from hanse.data.clients import (
    Block,
    ClientData,
    Ids,
    LazyClients,
    MappedClients,
    PackedClients,
    SharedClients,
)
from hanse.data.packing import (
    check_alike,
    check_finite,
    first_row,
    offsets_of,
    owner,
    rows_of,
    signature,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Block",
    "ClientData",
    "Federation",
    "LazyClients",
    "MappedClients",
    "PackedClients",
    "SharedClients",
    "map_inputs",
    "pooled",
    "select_clients",
    "to_dtype",
]

_NAMES_COMPARED = 1000


@dataclass(frozen=True, eq=False)
class Federation:
    """Clients that train, the same clients' other examples, and clients never trained on.

    What lies in memory is checked here; what is loaded lazily is checked when it is loaded.

    Attributes:
        train: the clients that train; each example has a field `"x"` and a field `"y"`.
        test: the same clients in the same order, with examples they do not train on; None if
            there are none.
        unseen: clients that never train. A benchmark's global test set is one client here, named
            "test set".
        classes: the labels' names if this is classification (`"y"` holds 0 to C - 1), else None.
        name: what to call this federation in reports.
        attribution: whom the data comes from, and under which licence; empty if you need not say.

    Raises:
        DataError: if a field is missing, a float is NaN or infinite, a label is out of range,
            shapes or types differ, `test` does not have the clients of `train`, or an unseen
            client also trains.
    """

    train: ClientData
    test: ClientData | None = None
    unseen: ClientData | None = None
    classes: tuple[str, ...] | None = None
    name: str = "federation"
    attribution: str = ""

    def __post_init__(self) -> None:
        """Check the three groups of clients, and that they fit together."""
        groups = {"train": self.train, "test": self.test, "unseen": self.unseen}
        for name, group in groups.items():
            _check_is_data(name, group)
        _check_classes(self.classes)
        packed = {k: v for k, v in groups.items() if isinstance(v, PackedClients)}
        for clients in packed.values():
            _check_values(clients, self.classes)
            first = next(iter(packed.values()))
            check_alike(
                signature(first.fields), first.name(0), signature(clients.fields), clients.name(0)
            )
        if self.test is not None:
            _check_same_clients(self.train, self.test)
        if isinstance(self.train, PackedClients) and isinstance(self.unseen, PackedClients):
            both = sorted(set(self.train.names) & set(self.unseen.names))
            if both:
                raise DataError(
                    f"client {both[0]!r} is in train and in unseen",
                    why="a client that trains is not unseen, and its score would flatter",
                    instead="take it out of one of them; its other examples belong in `test`",
                )

    @property
    def example(self) -> dict[str, Tensor]:
        """The first example of the first client, by field name (loads that client)."""
        fields, starts, _ = self.train.block(np.zeros(1, np.int64))
        return {name: field[int(starts[0])] for name, field in fields.items()}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example's `"x"` (loads the first client)."""
        return tuple(self.example["x"].shape)

    @property
    def dtype(self) -> torch.dtype:
        """The type of `"x"` (loads the first client)."""
        return self.example["x"].dtype


def _check_classes(classes: tuple[str, ...] | None) -> None:
    if classes is not None and len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(
            f"two classes named {twice!r}",
            why="reports tell classes apart by their names",
            instead="give every class its own name",
        )


def _check_is_data(name: str, group: object) -> None:
    optional = name != "train" and group is None
    if not optional and not all(hasattr(group, method) for method in ("block", "sizes", "name")):
        what = "None" if group is None else f"a {type(group).__name__}: {group!r:.80}"
        raise DataError(
            f"{name} is {what}",
            why="clients are asked for their names, sizes and blocks of examples",
            instead="PackedClients.from_arrays(…), LazyClients(…), or federation_from_arrays(…) "
            "for the whole federation",
        )


def select_clients(data: ClientData, ids: Ids) -> PackedClients:
    """Copy some clients' examples, in the order of `ids`.

    Raises:
        DataError: if a client appears twice in `ids`, or cannot be loaded.
    """
    fields, starts, sizes = data.block(ids)
    rows = torch.from_numpy(rows_of(starts, sizes))
    gathered = {name: field[rows] for name, field in fields.items()}
    names = tuple(data.name(int(k)) for k in ids)
    return PackedClients(gathered, offsets_of(sizes), names, may_be_empty=not sizes.all())


def pooled(data: ClientData) -> PackedClients:
    """All clients' examples as those of one client named "pooled", public ones once.

    For a simulation's baseline only: it is what training in one place would see, and exactly what
    a deployed federation cannot do.
    """
    if isinstance(data, SharedClients):
        own = pooled(data.own)
        fields = {k: torch.cat([v, data.public.fields[k]]) for k, v in own.fields.items()}
        return PackedClients(fields, own.offsets + data.public.offsets, own.names)
    everyone = select_clients(data, np.arange(len(data)))
    return replace(everyone, offsets=everyone.offsets[[0, -1]], names=("pooled",))


def to_dtype(federation: Federation, dtype: torch.dtype) -> Federation:
    """The federation with its floating-point fields in another precision; labels stay integers."""

    def cast(fields: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {
            name: field.to(dtype) if field.dtype.is_floating_point else field
            for name, field in fields.items()
        }

    return _transform(federation, cast)


def map_inputs(federation: Federation, fn: Callable[[Tensor], Tensor]) -> Federation:
    """The federation with `fn` applied to every `"x"`.

    Args:
        federation: what to transform; clients in memory at once, lazy ones when they are loaded.
        fn: takes [N, ...], returns [N, ...] (other trailing dimensions and types are welcome),
            working row by row: which rows come together is not defined.

    Raises:
        DataError: if `fn` changes the number of rows, or makes NaN or an infinity.
    """

    def apply(fields: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        inputs = fn(fields["x"])
        if len(inputs) != len(fields["x"]):
            raise DataError(
                f"a function that makes {len(inputs)} rows out of {len(fields['x'])}",
                why="every example keeps its label, so inputs keep their number of rows",
                instead="transform row by row; drop examples before building the federation",
            )
        return {**fields, "x": inputs}

    return _transform(federation, apply)


def _transform(
    federation: Federation, fn: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
) -> Federation:
    def packed(data: PackedClients) -> PackedClients:
        return replace(data, fields=fn(data.fields))

    def apply(data: ClientData) -> ClientData:
        if isinstance(data, PackedClients):
            return packed(data)
        if isinstance(data, SharedClients):
            return replace(data, own=apply(data.own), public=packed(data.public))
        return MappedClients(data, fn)

    test, unseen = federation.test, federation.unseen
    return replace(
        federation,
        train=apply(federation.train),
        test=None if test is None else apply(test),
        unseen=None if unseen is None else apply(unseen),
    )


def _check_values(clients: PackedClients, classes: tuple[str, ...] | None) -> None:
    missing = sorted({"x", "y"} - set(clients.fields))
    if missing:
        raise DataError(
            f"fields {sorted(clients.fields)} without {missing}",
            why="models read inputs from 'x', losses and metrics read targets from 'y'",
            instead="name the two arrays 'x' and 'y'; further fields may have any name",
        )
    check_finite(clients.fields, clients.offsets, clients.names)
    if classes is not None:
        _check_labels(clients, classes)


def _check_labels(clients: PackedClients, classes: tuple[str, ...]) -> None:
    labels = clients.fields["y"]
    if labels.dtype.is_floating_point:
        raise DataError(
            f"labels 'y' of type {str(labels.dtype).removeprefix('torch.')} with classes {classes}",
            why="a label is the integer number of a class",
            instead="give integer labels, or classes=None if 'y' is a quantity to predict",
        )
    wrong = (labels < 0) | (labels >= len(classes))
    if bool(wrong.any()):
        row = first_row(wrong)
        raise DataError(
            f"client {clients.name(owner(clients.offsets, row))!r} has the label "
            f"{int(labels[row][wrong[row]].flatten()[0])}",
            why=f"with {len(classes)} classes labels are 0 to {len(classes) - 1}",
            instead="number the labels from 0, or name all classes",
        )


def _check_same_clients(train: ClientData, test: ClientData) -> None:
    instead = "give both the same clients in the same order; others belong in `unseen`"
    if len(train) != len(test):
        raise DataError(
            f"{len(train)} clients in train, {len(test)} in test",
            why="test holds other examples of the clients that train",
            instead=instead,
        )
    # A million lazy names are not worth making: the first thousand tell a mix-up.
    both_packed = isinstance(train, PackedClients) and isinstance(test, PackedClients)
    for k in range(len(train) if both_packed else min(len(train), _NAMES_COMPARED)):
        if train.name(k) != test.name(k):
            raise DataError(
                f"client number {k} is {train.name(k)!r} in train and {test.name(k)!r} in test",
                why="test holds other examples of the clients that train",
                instead=instead,
            )
