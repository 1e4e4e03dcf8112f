"""Clients' examples: packed in memory, or loaded a few clients at a time.

Whoever trains asks a `ClientData` for a `Block`: the examples of some clients as packed rows. The
shape is the same whether ten clients lie in memory or a million are made when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hanse.core.errors import DataError
from hanse.core.rng import derive, hash_grid
from hanse.data.packing import (
    Examples,
    as_tensors,
    check_alike,
    check_finite,
    check_names,
    concatenate,
    count_rows,
    empty_client,
    offsets_of,
    rows_of,
    signature,
)

if TYPE_CHECKING:
    from torch import Tensor

Ids = NDArray[np.int64]


class Block(NamedTuple):
    """The examples of K clients, as packed rows.

    Attributes:
        fields: tensors by field name (`"x"`, `"y"`, ...), each [N, ...]. N may exceed the sum of
            `sizes`: rows that belong to none of the K clients are to be left alone.
        starts: [K]; client k's examples are the rows `starts[k] : starts[k] + sizes[k]`.
        sizes: [K]; how many examples each client has.
    """

    fields: Mapping[str, Tensor]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


class ClientData(Protocol):
    """What Hanse asks of a set of clients' data; clients are numbered from 0."""

    def __len__(self) -> int:
        """How many clients there are."""
        ...

    def name(self, client: int) -> str:
        """The name of one client, for messages and reports."""
        ...

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each of these clients has, [K]."""
        ...

    def block(self, ids: Ids) -> Block:
        """The examples of these clients, in this order."""
        ...


@dataclass(frozen=True, eq=False)
class PackedClients:
    """Clients whose examples lie in memory, one after another.

    Attributes:
        fields: tensors by field name, each [N, ...].
        offsets: [K + 1]; client k's examples are the rows `offsets[k] : offsets[k + 1]`.
        names: K distinct names.
        may_be_empty: whether some clients may have no examples, as partitions with `min_size=0`
            make them. Such a client counts in the population and is drawn like any other; it then
            takes no step, sends nothing, and is not evaluated.

    Raises:
        DataError: if fields, offsets and names do not fit together, if two clients have the same
            name, or if a client has no examples and may not be empty, or none has any.
    """

    fields: Mapping[str, Tensor]
    offsets: NDArray[np.int64]
    names: tuple[str, ...]
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        """Check that fields, offsets and names describe the same clients."""
        check_names(self.names)
        rows = {name: len(field) for name, field in self.fields.items()}
        ends = self.offsets[[0, -1]].tolist() if len(self.offsets) else []
        if any(ends != [0, n] for n in rows.values()) or len(self.offsets) != len(self.names) + 1:
            raise DataError(
                f"fields with {rows} rows, {len(self.offsets)} offsets, {len(self.names)} names",
                why="K clients need K names, and K + 1 offsets from 0 to every field's rows",
                instead="build it with PackedClients.from_arrays, which counts for you",
            )
        empty = np.flatnonzero(np.diff(self.offsets) <= 0)
        if len(empty) and not (self.may_be_empty and self.offsets[-1]):
            raise empty_client(self.names[empty[0]])

    @classmethod
    def from_arrays(cls, clients: Mapping[str, Examples] | Sequence[Examples]) -> PackedClients:
        """Pack one dictionary of arrays for each client.

        Args:
            clients: each client's arrays by field name (`{"x": [n, ...], "y": [n, ...]}`), by the
                clients' names or, in a sequence, named "client 0", "client 1", ... Floats keep
                their precision; integer labels `"y"` become int64.

        Returns:
            The clients, in the given order.

        Raises:
            DataError: if there is no client, if a client has no examples, or if fields, shapes or
                types differ within or between clients.
        """
        if isinstance(clients, Mapping):
            names, examples = tuple(clients), list(clients.values())
        else:
            names, examples = tuple(f"client {k}" for k in range(len(clients))), list(clients)
        fields, sizes = concatenate(examples, names)
        return cls(fields, offsets_of(sizes), names)

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self.names)

    def name(self, client: int) -> str:
        """The name of one client."""
        return self.names[client]

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each of these clients has, [K]."""
        return self.offsets[ids + 1] - self.offsets[ids]

    def block(self, ids: Ids) -> Block:
        """The examples of these clients, without copying: the whole fields and where to look."""
        return Block(self.fields, self.offsets[ids], self.sizes(ids))


@dataclass(frozen=True, eq=False)
class LazyClients:
    """Clients whose examples are loaded when asked for, and not kept.

    Attributes:
        count: the number of clients.
        load: returns client k's arrays by field name, the same ones at every call.
        size: how many examples client k has, as a function or [count] integers; None: `sizes`
            loads the clients to count their examples.
        namer: the name of client k; None: "client k". Names must be distinct, which is not
            checked here: that would touch every client.
        ahead: whether `load` may be called in another thread while clients train. It is then still
            called by one thread at a time.

    Raises:
        DataError: if `count` is below 1, or if an array of sizes does not have `count` entries of
            at least 1.
    """

    count: int
    load: Callable[[int], Examples]
    size: Callable[[int], int] | NDArray[np.int64] | None = None
    namer: Callable[[int], str] | None = None
    ahead: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked without loading anyone."""
        if self.count < 1:
            raise DataError(
                f"LazyClients(count={self.count})",
                why="a federation has at least one client",
                instead="give the number of clients, 1 or more",
            )
        if isinstance(self.size, np.ndarray):
            if self.size.shape != (self.count,):
                raise DataError(
                    f"an array of sizes of shape {self.size.shape} for {self.count} clients",
                    why="every client has one size",
                    instead=f"give [{self.count}] integers, or size=None to count by loading",
                )
            if self.size.min() < 1:
                raise empty_client(self.name(int(self.size.argmin())))

    def __len__(self) -> int:
        """How many clients there are."""
        return self.count

    def name(self, client: int) -> str:
        """The name of one client."""
        return self.namer(client) if self.namer is not None else f"client {client}"

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each of these clients has, [K]; loads them if `size` is None.

        Raises:
            DataError: if a client has no examples, or cannot be loaded.
        """
        if isinstance(self.size, np.ndarray):
            return self.size[ids].astype(np.int64)
        if self.size is None:
            counts = [self._count(k) for k in _each(ids)]
        else:
            counts = [self.size(k) for k in _each(ids)]
        sizes = np.array(counts, dtype=np.int64)
        if len(sizes) and sizes.min() < 1:
            raise empty_client(self.name(int(ids[sizes.argmin()])))
        return sizes

    def block(self, ids: Ids) -> Block:
        """Load these clients, and no others, into one block.

        Raises:
            DataError: if a client has no examples, another number of examples than `size` says,
                NaN or infinite floats, or other fields, shapes or types than the client before it.
        """
        names = [self.name(k) for k in _each(ids)]
        fields, sizes = concatenate([self.load(k) for k in _each(ids)], names)
        if self.size is not None:
            promised = self.sizes(ids)
            wrong = np.flatnonzero(promised != sizes)
            if len(wrong):
                k = int(wrong[0])
                raise DataError(
                    f"client {names[k]!r} has {sizes[k]} examples, `size` says {promised[k]}",
                    why="clients are weighed and batched by their sizes before they are loaded",
                    instead="make `size` agree with `load`, or leave it None",
                )
        offsets = offsets_of(sizes)
        check_finite(fields, offsets, names)
        return Block(fields, offsets[:-1], sizes)

    def _count(self, client: int) -> int:
        name = self.name(client)
        return count_rows(as_tensors(self.load(client), name), name)


@dataclass(frozen=True, eq=False)
class MappedClients:
    """Clients whose fields pass through a function on the way out.

    Attributes:
        inner: the clients.
        transform: takes and returns fields [N, ...]; it works row by row and keeps N.
    """

    inner: ClientData
    transform: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

    @property
    def ahead(self) -> bool:
        """Whether a block may be loaded in another thread, as far as the inner clients say."""
        return bool(getattr(self.inner, "ahead", True))

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self.inner)

    def name(self, client: int) -> str:
        """The name of one client."""
        return self.inner.name(client)

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each of these clients has, [K]."""
        return self.inner.sizes(ids)

    def block(self, ids: Ids) -> Block:
        """The transformed examples of these clients."""
        fields, starts, sizes = self.inner.block(ids)
        return Block(self.transform(fields), starts, sizes)


def without_examples(data: ClientData) -> Ids:
    """The clients that have no examples, ascending; only packed ones may have none."""
    if not isinstance(data, PackedClients):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.diff(data.offsets) == 0)


@dataclass(frozen=True, eq=False)
class SharedClients:
    """Clients that train on public examples besides their own; made by `hanse.data.share`.

    The public examples lie in memory once. A block holds copies of those that its clients drew,
    for as long as it is used.

    Attributes:
        own: the clients.
        public: the public examples, as those of one client.
        count: how many of them each client has, its own draw.
        seed: of the draws.
    """

    own: ClientData
    public: PackedClients
    count: int
    seed: int

    @property
    def ahead(self) -> bool:
        """Whether a block may be made in another thread, as far as the clients themselves say."""
        return bool(getattr(self.own, "ahead", True))

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self.own)

    def name(self, client: int) -> str:
        """The name of one client."""
        return self.own.name(client)

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each of these clients has, the public ones among them, [K]."""
        return self.own.sizes(ids) + self.count

    def block(self, ids: Ids) -> Block:
        """The examples of these clients: each one's own, then the public ones that it drew."""
        fields, starts, sizes = self.own.block(ids)
        check_alike(
            signature(self.public.fields), "public", signature(fields), self.name(int(ids[0]))
        )
        offsets = offsets_of(sizes + self.count)
        own = torch.from_numpy(rows_of(starts, sizes))
        public = torch.from_numpy(self.drawn(ids).ravel())
        to_own = torch.from_numpy(rows_of(offsets[:-1], sizes))
        counts = np.full(len(sizes), self.count)
        to_public = torch.from_numpy(rows_of(offsets[:-1] + sizes, counts))
        mixed = {}
        for name, field in fields.items():
            mixed[name] = field.new_empty((int(offsets[-1]), *field.shape[1:]))
            mixed[name][to_own] = field[own]
            mixed[name][to_public] = self.public.fields[name][public]
        return Block(mixed, offsets[:-1], sizes + self.count)

    def drawn(self, ids: Ids) -> NDArray[np.int64]:
        """The rows of the public examples that each of these clients has, ascending, [K, count]."""
        rows = np.arange(int(self.public.offsets[-1]))
        if self.count == len(rows):
            return np.tile(rows, (len(ids), 1))
        keys = derive(self.seed, "public", ids)
        order = np.argsort(hash_grid(keys[:, None], rows.astype(np.uint64)), axis=1, kind="stable")
        return np.sort(order[:, : self.count], axis=1)


def _each(ids: Ids) -> list[int]:
    return [int(k) for k in ids]
