"""What one client sends, as a message, and the bytes that each client of a block sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeGuard

import numpy as np
import torch

from hanse.core.errors import StrategyError, WireError
from hanse.core.types import Space, Vector
from hanse.wire.codec import START
from hanse.wire.message import Array, Entry, Kind, Message, Part, Spec, Tag, padded, spec
from hanse.wire.packing import Packed
from hanse.wire.table import EntrySpec, PartSpec, damaged, table_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.types import Update


class Size(NamedTuple):
    """How long an array is that is sent for each client of a block.

    Attributes:
        dimensions: how many it has, the same for all clients.
        nbytes: of its numbers; `[K]` where clients differ.
    """

    dimensions: int
    nbytes: int | NDArray[np.int64]


class Form(Protocol):
    """What a space has besides, so that it can travel: what the server must be told of it.

    A space that is `common` need not have it, if the server can make it without being told. One
    whose values stand for another number of values has that as `size`: readers are told by it how
    many values there are in the space around.
    """

    @property
    def tag(self) -> int:
        """Its number in `hanse.wire.Tag`, or one of your own from `Tag.OWN` on."""

    @property
    def keeps(self) -> bool:
        """Values in it are some of those around it, unchanged, so they may be packed like those."""

    def arrays(self, row: int) -> tuple[Array, ...]:
        """What is sent of it by the client of a row."""

    def sizes(self) -> tuple[Size, ...]:
        """Of these arrays, without making them; `alike` where all clients' have one shape."""


class Packing(Form, Protocol):
    """The form of a space whose values travel in another shape than floats of full precision.

    It counts for the spaces around it that are entered later, too, as long as they keep values.
    """

    def pack(self, values: Tensor) -> Array:
        """The values `[m]` of one client, for the way."""

    def packed_size(self, columns: int) -> Size:
        """Of what `pack` makes of so many values."""

    def unpack(self, packed: Array) -> Tensor:
        """The values again, `[m]`; `WireError` for what `pack` never makes."""


Reader = Callable[[tuple[Array, ...], int], Space]
"""From what was sent of a space, and the number of values in it, to the space of one client.

The arrays are somebody else's: a reader raises `WireError` for what cannot be meant, such as an
index out of range, or a space of another number of values.
"""


def alike(*arrays: Array) -> tuple[Size, ...]:
    """The sizes of arrays that have one shape for all clients, from those of any client."""
    return tuple(Size(len(found.shape), found.nbytes) for found in map(spec, arrays))


# ------------------------------------------------------------------------------------- writing
def update_message(update: Update, row: int = 0) -> Message:
    """What the client of a row sends.

    Raises:
        StrategyError: a space of its own has no form.
    """
    entries = (Entry(name, tuple(vector_parts(sent, row))) for name, sent in update.items())
    return Message(Kind.UPDATE, tuple(entries))


def vector_parts(sent: Vector, row: int) -> Iterator[Part]:
    """What is sent of a row: its values and scale, then each of its spaces.

    Raises:
        StrategyError: a space of its own has no form.
    """
    packing, values = _packing(sent.space), sent.values[row]
    yield Part(Tag.VECTOR, (values if packing is None else packing.pack(values), sent.scale[row]))
    for space in sent.space:
        form = _form(space)
        yield Part(Tag.KNOWN, ()) if form is None else Part(form.tag, form.arrays(row))


def update_lengths(update: Update) -> NDArray[np.int64]:
    """The bytes of each client's message `[K]`, without making one.

    Raises:
        StrategyError: a space of its own has no form.
    """
    clients = len(next(iter(update.values())).scale)
    table, numbers = [], np.zeros(clients, np.int64)
    for name, sent in update.items():
        parts = []
        for tag, sizes in _sizes(sent):
            # Of an array, the table's length depends on the number of dimensions only.
            parts.append(PartSpec(tag, tuple(Spec(0, (0,) * s.dimensions) for s in sizes)))
            for size in sizes:
                numbers += padded(np.asarray(size.nbytes, np.int64))
        table.append(EntrySpec(name, tuple(parts)))
    return numbers + (START + padded(table_length(tuple(table))))


def vector_bytes(sent: Vector) -> NDArray[np.int64]:
    """The bytes of the numbers that are sent of a vector `[K]`: without names, shapes and padding.

    Raises:
        StrategyError: a space of its own has no form.
    """
    total = np.zeros(len(sent.scale), np.int64)
    for _, sizes in _sizes(sent):
        for size in sizes:
            total += size.nbytes
    return total


def _sizes(sent: Vector) -> Iterator[tuple[int, tuple[Size, ...]]]:
    packing, columns = _packing(sent.space), sent.values.shape[1]
    plain = Size(1, columns * sent.values.element_size())
    values = plain if packing is None else packing.packed_size(columns)
    yield Tag.VECTOR, (values, Size(0, sent.scale.element_size()))
    for space in sent.space:
        form = _form(space)
        yield (Tag.KNOWN, ()) if form is None else (form.tag, form.sizes())


def _form(space: Space) -> Form | None:
    """A space's form; `None` for one that the server knows."""
    if _travels(space):
        return space
    if space.common:
        return None
    raise StrategyError(
        f"a vector in {space!r:.80}, a space of each client's own",
        why="nothing says what the server is told of it, so it could not tell what values mean",
        instead="what hanse.wire.Form asks for: tag, keeps, arrays(row) and sizes(); or "
        "common = True, where the server can make the space from what it knows",
    )


def _packing(spaces: tuple[Space, ...]) -> Packing | None:
    """How values are packed: as the last space says, or the last one before those that keep."""
    for space in reversed(spaces):
        if _packs(space):
            return space
        if not (_travels(space) and space.keeps):
            return None
    return None


def _travels(space: object) -> TypeGuard[Form]:
    return all(hasattr(space, name) for name in ("tag", "keeps", "arrays", "sizes"))


def _packs(space: object) -> TypeGuard[Packing]:
    return _travels(space) and all(
        hasattr(space, name) for name in ("pack", "packed_size", "unpack")
    )


# ------------------------------------------------------------------------------------- reading
def read_update(message: Message, readers: Mapping[int, Reader]) -> Update:
    """The update of the one client that a message comes from, its tensors views of the bytes.

    Args:
        message: as `decode` found it.
        readers: of the spaces that the strategy sends, by tag.

    Raises:
        WireError: it is no update, or has a part that nobody reads.
    """
    if message.kind != Kind.UPDATE:
        raise WireError(
            f"a message of kind {message.kind.name}",
            why="an update was expected",
            instead="decode(…, kind=Kind.UPDATE)",
        )
    return {entry.name: read_vector(entry, readers) for entry in message.entries}


def read_vector(entry: Entry, readers: Mapping[int, Reader]) -> Vector:
    """The vector of one row that an entry holds.

    Raises:
        WireError: it holds none, or a part that nobody reads.
    """
    first, *rest = entry.parts or (Part(Tag.TENSOR, ()),)
    values, scale = first.arrays if len(first.arrays) == 2 else (None, None)
    if first.tag != Tag.VECTOR or not _is_scale(scale) or values is None or len(values.shape) != 1:
        raise damaged(
            f"an update in which {entry.name!r} is no vector",
            "a vector has values [m], and one number that scales them",
        )
    spaces = _spaces(entry.name, rest, values.shape[0], readers)
    packing = _packing(spaces)
    if packing is not None:
        values = packing.unpack(values).to(scale.dtype)
    if isinstance(values, Packed) or values.dtype != scale.dtype:
        raise damaged(f"{entry.name!r} as other numbers than its scale", "no space of it says why")
    return Vector(values.unsqueeze(0), scale.unsqueeze(0), spaces)


def _spaces(
    name: str, parts: list[Part], columns: int, readers: Mapping[int, Reader]
) -> tuple[Space, ...]:
    found: list[Space] = []
    for part in reversed(parts):  # the last one holds the values that were sent
        found.insert(0, _space(name, part, columns, readers))
        columns = numbers_around(found[0], columns)
    return tuple(found)


def numbers_around(space: Space, columns: int) -> int:
    """How many values so many in a space stand for."""
    return int(getattr(space, "size", columns))


def _space(name: str, part: Part, columns: int, readers: Mapping[int, Reader]) -> Space:
    if part.tag not in readers:
        raise WireError(
            f"{name!r} with a part of tag {part.tag}",
            why="nothing here says what it means",
            instead="a reader for each space that the strategy sends",
        )
    return readers[part.tag](part.arrays, columns)


def _is_scale(scale: Array | None) -> TypeGuard[Tensor]:
    return isinstance(scale, torch.Tensor) and not scale.dim() and scale.is_floating_point()
