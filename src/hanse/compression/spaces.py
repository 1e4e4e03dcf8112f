"""The spaces that compressors enter: how what travels stands for what it was."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from hanse.compression.hadamard import hadamard
from hanse.compression.indices import encode_indices, index_bytes
from hanse.core.errors import WireError
from hanse.core.rng import generator
from hanse.core.types import Space
from hanse.wire import Packed, Size, Tag, alike, pack, packed_length, unpack

if TYPE_CHECKING:
    from hanse.core.rng import Key, Keys
    from hanse.wire import Array

HalfFormat = Literal["float16", "bfloat16"]


@dataclass(frozen=True, eq=False)
class Support(Space):
    """For each row its own coordinates of a longer vector; the others are zero.

    Attributes:
        chosen: `[K, m]` int64, ascending.
        size: of the longer vector.
    """

    chosen: Tensor
    size: int
    linear = True
    isometric = True
    common = False
    tag = Tag.SUPPORT
    keeps = True

    def lift(self, values: Tensor) -> Tensor:
        """`[K, m]` to `[K, size]`."""
        return values.new_zeros(len(values), self.size).scatter(1, self.chosen, values)

    def arrays(self, row: int) -> tuple[Array, ...]:
        """The indices in their code, and how many there are of how many."""
        coded = encode_indices(self.chosen[row].cpu().numpy(), self.size)
        return torch.from_numpy(np.frombuffer(coded, np.uint8).copy()), self._amounts

    def sizes(self) -> tuple[Size, ...]:
        """Of these."""
        coded = Size(1, index_bytes(self.chosen.cpu().numpy(), self.size))
        return (coded, *alike(self._amounts))

    @property
    def _amounts(self) -> Tensor:
        return torch.tensor([self.chosen.shape[1], self.size], device="cpu")


@dataclass(frozen=True)
class Coordinates(Space):
    """Coordinates of a longer vector that are drawn from a key: the same ones for every client.

    Attributes:
        key: what they are drawn from; it stands for them on the wire.
        count: how many.
        size: of the longer vector.
        factor: what lifted values are multiplied by: after a sum, and after noise on it.
    """

    key: int
    count: int
    size: int
    factor: float = 1.0
    linear = True
    common = True
    tag = Tag.COORDINATES
    keeps = True

    @property
    def isometric(self) -> bool:
        """Unless there is a factor."""
        return self.factor == 1

    @cached_property
    def chosen(self) -> Tensor:
        """`[m]` int64, ascending."""
        drawn = generator(np.uint64(self.key)).choice(
            self.size, self.count, replace=False, shuffle=False
        )
        return torch.from_numpy(np.sort(drawn).astype(np.int64))

    def lift(self, values: Tensor) -> Tensor:
        """`[..., m]` to `[..., size]`."""
        full = values.new_zeros(*values.shape[:-1], self.size)
        scaled = values if self.factor == 1 else values * self.factor
        return full.index_copy_(-1, self.chosen.to(values.device), scaled)

    def arrays(self, row: int) -> tuple[Array, ...]:
        """The key, how many are drawn of how many, and the factor: no indices."""
        amounts = torch.tensor([self.count, self.size], device="cpu")
        return _key(self.key), amounts, torch.tensor(self.factor, dtype=torch.float64, device="cpu")

    def sizes(self) -> tuple[Size, ...]:
        """Of these."""
        return alike(*self.arrays(0))


@dataclass(frozen=True, eq=False)
class Grid(Space):
    """Whole numbers that stand for multiples of a step.

    With `bits` >= 2 they are from -L to L, L = 2^(bits - 1) - 1, so that zero stays zero; one bit
    is -1 or 1.

    Attributes:
        bits: of a number on the wire, 1 to 16.
        step: `[K, g]` for g runs of each row; 0-d: a public one, for all rows.
        runs: the lengths of the runs that have a step each; none: there is one step for a row.
    """

    bits: int
    step: Tensor
    runs: tuple[int, ...] = ()
    linear = True
    isometric = False
    tag = Tag.GRID
    keeps = False

    @property
    def common(self) -> bool:
        """A public step is the same for all clients, and whole numbers may be summed."""
        return not self.step.dim()

    @property
    def most(self) -> int:
        """The largest number."""
        return levels(self.bits)

    def lift(self, values: Tensor) -> Tensor:
        """Numbers `[..., m]` times their steps."""
        return values * spread(self.step, self.runs)

    def arrays(self, row: int) -> tuple[Array, ...]:
        """The steps, the bits, and the lengths of runs where there are several."""
        step = self.step[row] if self.step.dim() else self.step
        runs = (torch.tensor(_in_short(self.runs), device="cpu"),) if self.runs else ()
        return (step, _whole(self.bits), *runs)

    def sizes(self) -> tuple[Size, ...]:
        """Of these."""
        return alike(*self.arrays(0))

    def pack(self, values: Tensor) -> Packed:
        """In `bits` bits each, the smallest number as zero."""
        whole = values.to(torch.int32)
        return pack((whole + 1) // 2 if self.bits == 1 else whole + self.most, self.bits)

    def packed_size(self, columns: int) -> Size:
        """Of `columns` numbers."""
        return Size(1, packed_length(columns, self.bits))

    def unpack(self, packed: Array) -> Tensor:
        """The numbers again.

        Raises:
            WireError: other numbers than `pack` makes.
        """
        if not isinstance(packed, Packed) or packed.bits != self.bits or len(packed.shape) != 1:
            raise _unlike(f"whole numbers of {self.bits} bits")
        whole = unpack(packed)
        if self.bits == 1:
            return whole * 2 - 1
        if len(whole) and int(whole.max()) > 2 * self.most:
            raise _unlike(f"numbers of {self.bits} bits up to {self.most}")
        return whole - self.most


@dataclass(frozen=True)
class Narrow(Space):
    """Values that a floating-point format of 16 bits holds exactly."""

    format: HalfFormat
    linear = True
    isometric = True
    common = True
    tag = Tag.NARROW
    keeps = False

    @property
    def dtype(self) -> torch.dtype:
        """The format, as torch calls it."""
        return torch.float16 if self.format == "float16" else torch.bfloat16

    def lift(self, values: Tensor) -> Tensor:
        """The values: they are kept in the model's precision, and are only sent in fewer bits."""
        return values

    def arrays(self, row: int) -> tuple[Array, ...]:
        """Nothing: the values are of this format."""
        return (torch.zeros(0, dtype=self.dtype),)

    def sizes(self) -> tuple[Size, ...]:
        """Of an array without numbers, whose type says the format."""
        return alike(*self.arrays(0))

    def pack(self, values: Tensor) -> Tensor:
        """In 16 bits each."""
        return values.to(self.dtype)

    def packed_size(self, columns: int) -> Size:
        """Of `columns` numbers."""
        return Size(1, 2 * columns)

    def unpack(self, packed: Array) -> Tensor:
        """The numbers as they are.

        Raises:
            WireError: numbers of another format.
        """
        if not isinstance(packed, Tensor) or packed.dtype is not self.dtype:
            raise _unlike(f"numbers in {self.format}")
        return packed


@dataclass(frozen=True)
class Rotation(Space):
    """A vector of `size` numbers, rotated in blocks: random signs, then a Hadamard transform.

    The last block is filled with zeros. Signs are drawn from a key, which stands for them on the
    wire.

    Attributes:
        key: what signs are drawn from.
        size: of the vector.
        block: a power of two.
    """

    key: int
    size: int
    block: int
    linear = True
    common = True
    tag = Tag.ROTATION
    keeps = False

    @property
    def isometric(self) -> bool:
        """Where nothing is filled up: what was filled up is left out again."""
        return self.size % self.block == 0

    @property
    def padded(self) -> int:
        """How many numbers there are once the last block is full."""
        return -(-self.size // self.block) * self.block

    @cached_property
    def signs(self) -> Tensor:
        """`[size]` of -1 and 1, in single precision."""
        raw = generator(np.uint64(self.key)).bytes(-(-self.size // 8))
        bits = np.unpackbits(np.frombuffer(raw, np.uint8))[: self.size]
        return torch.from_numpy(bits.astype(np.float32) * 2 - 1)

    def rotated(self, values: Tensor) -> Tensor:
        """`[..., size]` to `[..., padded]`, as a new tensor, transformed in place."""
        full = values.new_zeros(*values.shape[:-1], self.padded)
        torch.mul(values, self.signs.to(values), out=full[..., : self.size])
        return hadamard(full, self.block)

    def lift(self, values: Tensor) -> Tensor:
        """`[..., padded]` to `[..., size]`."""
        back = hadamard(values.clone(), self.block)
        return back[..., : self.size].mul_(self.signs.to(values))

    def arrays(self, row: int) -> tuple[Array, ...]:
        """The key, the size and the block: no signs."""
        return _key(self.key), _whole(self.size), _whole(self.block)

    def sizes(self) -> tuple[Size, ...]:
        """Of these."""
        return alike(*self.arrays(0))


def levels(bits: int) -> int:
    """The largest whole number that `bits` bits hold here."""
    return 1 if bits == 1 else 2 ** (bits - 1) - 1


def spread(step: Tensor, runs: tuple[int, ...]) -> Tensor:
    """A number for each run, `[K, g]`, as one for each column, `[K, m]`; of one run, as it is."""
    if not runs:
        return step
    return step.repeat_interleave(torch.tensor(runs, device=step.device), dim=-1)


def as_key(key: Key | Keys) -> int:
    """A 0-d key as a number that compares and prints."""
    return int(key)


def _in_short(runs: tuple[int, ...]) -> tuple[int, ...]:
    """Equal runs, of which the last may be shorter, as zero, one of them, and their sum."""
    equal = all(run == runs[0] for run in runs[:-1]) and runs[-1] <= runs[0]
    return (0, runs[0], sum(runs)) if equal else runs


def _whole(number: int) -> Tensor:
    return torch.tensor(number, dtype=torch.int64, device="cpu")


def _key(key: int) -> Tensor:
    return torch.from_numpy(np.array(key, np.uint64))


def _unlike(what: str) -> WireError:
    return WireError(
        f"values that are not {what}",
        why="the space that was sent with them says that they are",
        instead="the message as it was encoded",
    )
