"""Values between a run and its own forks: tensors by shared memory, what holds them pickled.

This is the only place that pickles. What is read here was written by a process that was forked
from this one, into memory that only the two of them can reach: who could forge it could change the
process itself. A codec without pickle would not do, since partial totals and spaces are whatever
the author of an aggregation or a layer makes of them. Nothing that comes from a file or over a
network may ever be read by this module.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251 - see above
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from hanse.engines.arena import ArrayPlace, TensorPlace

if TYPE_CHECKING:
    from hanse.engines.arena import Arena

_PROTOCOL = 5


class Place(NamedTuple):
    """Where a value begins in an arena, and how long its pickled part is."""

    at: int
    length: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.at + self.length


def write(value: object, arena: Arena, at: int = 0) -> Place:
    """Write a value into an arena, behind `at`.

    Raises:
        Exception: something in it cannot be pickled.
    """
    target = io.BytesIO()
    pickler = _Pickler(target, arena, at)
    pickler.dump(value)
    head = pickle.dumps(pickler.places, _PROTOCOL) + target.getvalue()
    arena.put_bytes(head, pickler.end)
    return Place(pickler.end, len(head))


def read(arena: Arena, place: Place, *, copy: bool) -> Any:  # noqa: ANN401 - whatever was written
    """Read a value; unless it is copied, its tensors are views that the next writing changes."""
    source = io.BytesIO(arena.bytes(*place))
    places = pickle.load(source)  # noqa: S301 - see above
    return _Unpickler(source, arena, places, copy=copy).load()


class _Pickler(pickle.Pickler):
    """Puts tensors and arrays into an arena, each once however often it is met.

    In their stead the pickle holds numbers of their places, which are pickled apart: this class is
    asked about every object that is pickled, and each part of a place would be one.
    """

    def __init__(self, target: io.BytesIO, arena: Arena, at: int) -> None:
        super().__init__(target, _PROTOCOL)
        self.end = at
        self.places: list[TensorPlace | ArrayPlace] = []
        self._arena = arena
        self._known: dict[int, tuple[object, int]] = {}

    def persistent_id(self, obj: object) -> int | None:
        kind = type(obj)
        if kind is not torch.Tensor and kind is not np.ndarray:
            return None
        known = self._known.get(id(obj))
        if known is not None:
            return known[1]
        place = self._put(obj)
        if place is None:
            return None
        self._known[id(obj)] = obj, len(self.places)  # kept, so that no other gets its id
        self.places.append(place)
        return len(self.places) - 1

    def _put(self, obj: object) -> TensorPlace | ArrayPlace | None:
        place: TensorPlace | ArrayPlace
        if isinstance(obj, torch.Tensor):
            if obj.layout is not torch.strided or not obj.is_cpu:
                return None
            place, self.end = self._arena.put_tensor(obj, self.end)
            return place
        if not isinstance(obj, np.ndarray) or obj.dtype.hasobject:
            return None
        place, self.end = self._arena.put_array(obj, self.end)
        return place


class _Unpickler(pickle.Unpickler):
    """Takes tensors and arrays from an arena."""

    def __init__(
        self,
        source: io.BytesIO,
        arena: Arena,
        places: list[TensorPlace | ArrayPlace],
        *,
        copy: bool,
    ) -> None:
        super().__init__(source)
        self._arena, self._places, self._copy = arena, places, copy

    def persistent_load(self, pid: int) -> object:
        place = self._places[pid]
        if isinstance(place, TensorPlace):
            tensor = self._arena.tensor(place)
            return tensor.clone() if self._copy else tensor
        array = self._arena.array(place)
        return array.copy() if self._copy else array
