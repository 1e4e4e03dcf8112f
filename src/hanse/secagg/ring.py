"""Real numbers as words of a ring, such that sums of words are sums of numbers.

A number x is sent as the whole number nearest to `x / step`, modulo 2^width. Negative numbers are
two's complements. The sum of all clients' words is the sum of their whole numbers as long as that
has less than `width` bits, which is checked when a `FixedPoint` is made.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hanse.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Width = Literal[32, 64]
Words = np.ndarray[tuple[Any, ...], np.dtype[np.unsignedinteger[Any]]]
"""Elements of the ring: uint32 or uint64, little-endian."""

_EXACT = 1 << 53  # whole numbers up to this one are exact in float64


def word_type(width: Width) -> np.dtype[np.unsignedinteger[Any]]:
    """The type of words of so many bits."""
    return np.dtype(f"<u{width // 8}")


@dataclass(frozen=True)
class FixedPoint:
    """How numbers are written as words. It is public, and the same for every client of a round.

    A step or a bound that depended on a client's numbers would make sums meaningless, and tell of
    its norm.

    Attributes:
        clip: the largest absolute value of a number; a larger one is sent as this. A whole number
            of steps, or it is rounded down to one.
        step: the distance of neighbouring numbers.
        clients: the most clients whose words are added.

    Raises:
        ConfigError: a clip, a step or a number of clients that cannot be meant, or sums that have
            more than 63 bits and a sign.
    """

    clip: float
    step: float
    clients: int

    def __post_init__(self) -> None:
        """Check that sums cannot overflow."""
        for name, value in (("clip", self.clip), ("step", self.step)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"FixedPoint with {name}={value!r}",
                    why="numbers are written as multiples of the step, up to the clip",
                    instead="a finite number above zero, clip=8.0 and step=2**-20 for example",
                )
        if isinstance(self.clients, bool) or self.clients != int(self.clients) or self.clients < 1:
            raise ConfigError(
                f"FixedPoint with clients={self.clients!r}",
                why="the width of the words depends on how many are added",
                instead="the number of clients selected, 1 or more",
            )
        if not 1 <= self.clip / self.step <= _EXACT or self.limit * self.clients >= 1 << 63:
            raise ConfigError(
                f"numbers up to {self.clip} in steps of {self.step}, summed over {self.clients}",
                why="there must be a step within the clip, 2^53 at most (what float64 tells "
                "apart), and a sum must have less than 64 bits",
                instead="a step between clip / 2^53 and clip, or fewer clients",
            )

    @property
    def limit(self) -> int:
        """The largest whole number that a client sends."""
        return math.floor(self.clip / self.step)

    @property
    def width(self) -> Width:
        """Bits of a word: the fewest of 32 and 64 that hold every sum."""
        return 32 if self.limit * self.clients < 1 << 31 else 64

    @property
    def context(self) -> bytes:
        """The parameters as bytes, for `Session.context`: who has others has another session."""
        return struct.pack("<ddQ", self.clip, self.step, self.clients)

    def encode(self, values: ArrayLike) -> Words:
        """Numbers `[m]` as words `[m]`, each off by at most half a step (and clipped).

        Raises:
            DataError: numbers that are not finite, or not numbers. A NaN would become a word like
                any other, and spoil the sum unnoticed.
        """
        numbers = np.asarray(values)
        if numbers.dtype.kind not in "fiu" or numbers.ndim != 1:
            raise DataError(
                f"an array {list(numbers.shape)} of {numbers.dtype} to be summed",
                why="what is summed securely is one vector of real numbers",
                instead="one axis, of a floating-point or integer type",
            )
        if not np.isfinite(numbers).all():
            raise DataError(
                f"{np.count_nonzero(~np.isfinite(numbers))} of {len(numbers)} numbers not finite",
                why="the ring has no word for them, and one client would spoil the sum for all",
                instead="leave this client out of the round",
            )
        scaled = np.rint(numbers.astype(np.float64) / self.step)
        whole = np.clip(scaled, -self.limit, self.limit).astype(np.int64)
        return whole.astype(word_type(self.width))

    def decode(self, words: Words) -> NDArray[np.float64]:
        """A sum of words `[m]` as numbers.

        Raises:
            DataError: words of another width, or a sum that so many clients cannot have.
        """
        if words.dtype != word_type(self.width) or words.ndim != 1:
            raise DataError(
                f"an array {list(words.shape)} of {words.dtype} as a sum",
                why=f"sums are of words of {self.width} bits",
                instead="the sum that `Server.result` has, with the FixedPoint of its clients",
            )
        whole = words.view(f"<i{self.width // 8}").astype(np.int64)
        most = self.limit * self.clients
        if whole.size and (whole.max() > most or whole.min() < -most):
            raise DataError(
                "a sum that is larger than all clients together can make it",
                why=f"{self.clients} clients send at most {self.limit} steps each, so somebody "
                "sent what `encode` does not make, or the sum is of another session",
                instead="discard the round",
            )
        numbers: NDArray[np.float64] = whole * np.float64(self.step)
        return numbers
