"""Masks: keystreams that are added to words, block by block.

A block of a keystream is made and added before the next one is made, so it never leaves the
processor's cache: summing is three times as fast as with whole streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hanse.secagg.primitives import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hanse.secagg.ring import Words

_BLOCK = 1 << 16  # words
_STREAMS = 256  # open at a time: each has a state of its own
_ROOM = 15  # bytes beyond the end that the cipher asks for


class Mask(NamedTuple):
    """A mask to add, or to take away."""

    seed: bytes  # 32 bytes
    adds: bool


def apply(words: Words, masks: Sequence[Mask]) -> None:
    """Add masks to words, in place, modulo their width.

    Args:
        words: `[m]`, contiguous.
        masks: in any order; the result does not depend on it.
    """
    size = words.itemsize
    plain = bytes(min(_BLOCK, len(words)) * size)  # zeros: what is encrypted is the keystream
    room = bytearray(len(plain) + _ROOM)
    whole = np.frombuffer(room, words.dtype, len(plain) // size)
    for first in range(0, len(masks), _STREAMS):
        some = [(stream(mask.seed), mask.adds) for mask in masks[first : first + _STREAMS]]
        for start in range(0, len(words), _BLOCK):
            block = words[start : start + _BLOCK]
            key, zeros = whole[: len(block)], plain[: len(block) * size]
            for encryptor, adds in some:
                encryptor.update_into(zeros, room)
                (np.add if adds else np.subtract)(block, key, out=block)
    room[:] = bytes(len(room))
