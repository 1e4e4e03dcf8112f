"""The memory that recorded steps read and write: a block's state, batches and losses.

It stays where it is from block to block. A block's state is copied in before a pass; the rows of
a client are copied back when it has taken its last step, since its place goes on being computed
with until fewer places are.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hanse.models.gradient import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

Kind = Literal["number", "same", "rows"]


class Part(NamedTuple):
    """What is baked into a recorded step of one tensor of the state.

    Attributes:
        name: its name.
        kind: `"number"`, 0-d; `"same"`, one row seen as many, with a stride of zero; `"rows"`.
        shape: of a row.
        dtype: its type.
        twin: the first name of this very tensor.
        tied: whether another tensor of the state shares its memory in some other way.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: torch.dtype
    twin: str
    tied: bool


Spec = tuple[Part, ...]


def memory_of(tensor: Tensor) -> int:
    """Where the memory begins that a tensor is a view of."""
    return tensor.untyped_storage().data_ptr()


def spec_of(state: Mapping[str, Tensor]) -> Spec:
    """What is baked into a recorded step of a state whose tensors have the same number of rows."""
    seen: dict[tuple[object, ...], str] = {}
    twins: dict[str, str] = {}
    memories: Counter[int] = Counter()
    for name, value in state.items():
        look = value.data_ptr(), tuple(value.shape), value.stride(), value.dtype
        twins[name] = seen.setdefault(look, name) if value.numel() else name
        if value.numel() and twins[name] == name:
            memories[memory_of(value)] += 1
    parts = []
    for name, value in state.items():
        kind: Kind = "rows"
        if value.dim() == 0:
            kind = "number"
        elif len(value) > 1 and value.stride(0) == 0:
            kind = "same"
        tied = memories[memory_of(value)] > 1
        parts.append(Part(name, kind, tuple(value.shape[1:]), value.dtype, twins[name], tied))
    return tuple(parts)


class Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is written to inside, also by operations that move no version counter."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._memories: set[int] = set()

    def __contains__(self, tensor: Tensor) -> bool:
        """Whether the tensor's memory was written to."""
        return memory_of(tensor) in self._memories

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Look at the arguments that the operation says it writes to, and let it."""
        del types
        named = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):  # noqa: SLF001 - no public way to ask
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = named.get(argument.name, args[place] if place < len(args) else None)
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if isinstance(tensor, torch.Tensor):
                    self._memories.add(memory_of(tensor))
        return func(*args, **named)


class StageState:
    """The state of at most `rows` clients."""

    def __init__(self, spec: Spec, rows: int, device: torch.device) -> None:
        """Zeros."""
        self.rows = rows
        self.tensors: dict[str, Tensor] = {}
        self._parts = [part for part in spec if part.twin == part.name]
        for part in spec:
            if part.twin != part.name:
                self.tensors[part.name] = self.tensors[part.twin]
                continue
            shape = part.shape if part.kind == "number" else (rows, *part.shape)
            if part.kind == "same":
                one = torch.zeros((1, *part.shape), dtype=part.dtype, device=device)
                self.tensors[part.name] = one.expand(shape)
            else:
                self.tensors[part.name] = torch.zeros(shape, dtype=part.dtype, device=device)

    def written(self, writes: Writes) -> list[Part]:
        """What was written to."""
        return [part for part in self._parts if self.tensors[part.name] in writes]

    def put(self, state: Mapping[str, Tensor]) -> None:
        """Copy a block's state in."""
        for part in self._parts:
            value, target = state[part.name], self.tensors[part.name]
            if part.kind == "same":
                target[:1].copy_(value[:1])
            elif part.kind == "number":
                target.copy_(value)
            else:
                target[: len(value)].copy_(value)

    def take_rows(
        self, state: Mapping[str, Tensor], parts: list[Part], start: int, stop: int
    ) -> None:
        """Copy some clients' rows of some tensors back."""
        for part in parts:
            if part.kind != "number":
                state[part.name][start:stop].copy_(self.tensors[part.name][start:stop])

    def take_numbers(self, state: Mapping[str, Tensor], parts: list[Part]) -> None:
        """Copy back what is the same for all clients."""
        for part in parts:
            if part.kind == "number":
                state[part.name].copy_(self.tensors[part.name])


class Fields(NamedTuple):
    """What is baked into a recorded step of the examples."""

    x: tuple[int, ...]
    x_dtype: torch.dtype
    y: tuple[int, ...]
    y_dtype: torch.dtype
    weights: torch.dtype

    @classmethod
    def of(cls, x: Tensor, y: Tensor, weights: torch.dtype) -> Fields:
        """Of examples `[N, ...]`."""
        return cls(tuple(x.shape[1:]), x.dtype, tuple(y.shape[1:]), y.dtype, weights)


class StageBatch:
    """The batches of at most `rows` clients, W examples each, and their losses."""

    def __init__(self, fields: Fields, rows: int, width: int, device: torch.device) -> None:
        """Zeros: also as labels they are valid."""
        self.rows, self._width = rows, width
        self._x = torch.zeros((rows, width, *fields.x), dtype=fields.x_dtype, device=device)
        self._y = torch.zeros((rows, width, *fields.y), dtype=fields.y_dtype, device=device)
        self._weights = torch.zeros((rows, width), dtype=fields.weights, device=device)
        self.losses = torch.zeros(rows, dtype=fields.weights, device=device)

    def inputs(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where the first clients' examples `[rows * W, ...]` and weights `[rows, W]` belong."""
        x, y = self._x[:rows], self._y[:rows]
        return x.flatten(0, 1), y.flatten(0, 1), self._weights[:rows]

    def batch(self, rows: int, pass_number: int) -> Batch:
        """The first clients' batches; the clients' keys are not known, as no path needs them."""
        return Batch(
            x=self._x[:rows],
            y=self._y[:rows],
            weights=self._weights[:rows],
            counts=torch.full((rows,), self._width, device="cpu"),
            buffers=self.losses.new_zeros(rows, 0),
            keys=np.zeros(rows, np.uint64),
            pass_number=pass_number,
            step=0,
        )
