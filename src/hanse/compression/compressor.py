"""What all compressors have in common: a vector goes in, and comes out in one more space."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from hanse.core.rng import derive, generator

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.layout import ParameterLayout
    from hanse.core.rng import Key, Keys
    from hanse.core.types import Vector


class Source(NamedTuple):
    """What a compressor draws from, and what it may know of the vector.

    Attributes:
        shared: 0-d, a key that all clients of the round know, and the server.
        own: `[K]`, a key for each row.
        layout: the model's tensors.
    """

    shared: Key | Keys
    own: Keys
    layout: ParameterLayout

    def of(self, purpose: str | int) -> Source:
        """Other draws, for a part of the work."""
        return self._replace(shared=derive(self.shared, purpose), own=derive(self.own, purpose))


class Compressor(Protocol):
    """Makes a vector cheaper to send; it is a value without memory, and knows no round.

    `TopK(0.01) >> Quantize(8)` does one after the other. `Compress` and `ErrorFeedback` put a
    compressor around what clients send, `CompressedBroadcast` around what they are sent.
    """

    @property
    def contracts(self) -> bool:
        """What it leaves out is never longer than what it was given: error feedback needs that."""

    @property
    def shortens(self) -> bool:
        """It leaves out coordinates, which then count as zero."""
        return False

    def enter(self, sent: Vector, source: Source) -> Vector:
        """The same rows in one more space, `[K, m]`; only `values` are looked at, not `scale`.

        Args:
            sent: finite rows.
            source: what is drawn from.

        Raises:
            StrategyError: it cannot be applied to such a vector.
        """

    def __rshift__(self, after: Compressor) -> Compressor:
        """This one, and then another on what it leaves."""
        from hanse.compression.chain import Chain

        return Chain((*stages(self), *stages(after)))


def stages(compressor: Compressor) -> tuple[Compressor, ...]:
    """The compressors that a chain consists of."""
    found: tuple[Compressor, ...] = getattr(compressor, "stages", (compressor,))
    return found


def uniforms(keys: Keys, like: Tensor) -> Tensor:
    """Numbers from [0, 1), in the shape `[K, m]` of `like`: row k from `keys[k]` alone."""
    precise = like.dtype is torch.float64
    rows = [
        generator(key).random(like.shape[1], np.float64 if precise else np.float32)
        for key in np.atleast_1d(keys)
    ]
    return torch.from_numpy(np.stack(rows)).to(like)
