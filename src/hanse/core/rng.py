"""Counter-based randomness: a stream is named, never advanced.

A key is a 64-bit number derived from (run seed, round, client id, purpose). Whoever knows the
parts draws the same numbers, so every engine, any number of workers and a resumed run agree.
The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014).

This is for experiments. Differential-privacy noise and keys in deployment come from the operating
system, never from a run's seed.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Key = np.uint64
Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_OFFSET = np.uint64(0x632BE59BD9B4E019)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ALL = 2**64 - 1


def mix(bits: Keys) -> Keys:
    """SplitMix64's finaliser, elementwise: a bijection that spreads every input bit."""
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


def derive(key: int | Key | Keys, *parts: int | str | NDArray[np.int64] | Keys) -> Keys:
    """Derive a key (or, from arrays of parts, an array of keys) by mixing in `parts` in order.

    Args:
        key: the parent key or keys.
        parts: round numbers, client ids, or the name of a purpose (`"shuffle"`).

    Returns:
        uint64 keys, of the broadcast shape of all parts (0-d when all are scalars).
    """
    state = np.asarray(key).astype(np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            number = zlib.crc32(part.encode()) if isinstance(part, str) else part
            bits = np.asarray(number).astype(np.uint64)
            state = mix(state + (bits + np.uint64(1)) * _GOLDEN + _OFFSET)
    return state


def seed_for(key: int, *parts: int | str) -> int:
    """`derive` of one key, by whole numbers: several times faster where there is no array."""
    state = key
    for part in parts:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        state = (state + (number + 1) * int(_GOLDEN) + int(_OFFSET)) & _ALL
        state = ((state ^ (state >> 30)) * int(_MIX_1)) & _ALL
        state = ((state ^ (state >> 27)) * int(_MIX_2)) & _ALL
        state ^= state >> 31
    return state


def hash_grid(keys: Keys, counters: Keys) -> Keys:
    """A 64-bit hash for each (key, counter) pair, broadcast: the raw bits of many streams."""
    with np.errstate(over="ignore"):
        return mix(keys + (counters + np.uint64(1)) * _GOLDEN)


def generator(key: Key | Keys) -> np.random.Generator:
    """A Philox generator for one key: the same numbers wherever it is made."""
    return np.random.Generator(np.random.Philox(key=int(key)))
