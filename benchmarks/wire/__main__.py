"""The codec on an update of ten million parameters, against memory and zstd, by turns.

    python -m benchmarks.wire [--parameters 10000000] [--times 9]

All ways take turns, so that what else the machine does meets all of them; what counts is the median
of each, and the median of its ratio to the copy of its own turn. zstd (requirements.txt here) is
left out where it is not installed.
"""

from __future__ import annotations

import argparse
import statistics
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from hanse.core.types import vector
from hanse.wire import Kind, decode, encode, length, pack, read_update, unpack, update_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


class Way(NamedTuple):
    """Something to be timed, and the bytes that come of it."""

    name: str
    run: Callable[[], object]
    nbytes: int


def ways(parameters: int) -> list[Way]:
    """The copy first: everything else is compared with it."""
    random = np.random.default_rng(0)
    # An update as it is after a round: small, and larger in some layers than in others.
    layers = np.repeat(10.0 ** random.uniform(-4, -2, 100), -(-parameters // 100))[:parameters]
    numbers = (random.standard_normal(parameters) * layers).astype(np.float32)
    raw, target = numbers.view(np.uint8), np.empty(numbers.nbytes, np.uint8)
    message = update_message({"delta": vector(torch.from_numpy(numbers).unsqueeze(0))})
    written = encode(message)
    found = [
        Way("copy into memory that is there", lambda: np.copyto(target, raw), raw.nbytes),
        Way("copy into new memory", raw.tobytes, raw.nbytes),
        Way("CRC-32 alone", lambda: zlib.crc32(raw), raw.nbytes),
        Way("encode", lambda: encode(message), len(written)),
        Way("decode", lambda: read_update(decode(written, kind=Kind.UPDATE), {}), len(written)),
        Way("length, without encoding", lambda: length(message), len(written)),
    ]
    for bits in (1, 4, 8, 12):
        whole = torch.from_numpy(random.integers(0, 2**bits, parameters, dtype=np.int32))
        packed = pack(whole, bits)
        found += [_packing(whole, bits), Way(f"unpack {bits} bits", _unpacking(packed), 0)]
    return found + _zstd(raw)


def _packing(whole: torch.Tensor, bits: int) -> Way:
    return Way(f"pack {bits} bits", lambda: pack(whole, bits), len(pack(whole, bits).data))


def _unpacking(packed: object) -> Callable[[], object]:
    return lambda: unpack(packed)  # type: ignore[arg-type]


def _zstd(raw: NDArray[np.uint8]) -> list[Way]:
    try:
        import zstandard
    except ImportError:
        print("zstandard is not installed: without zstd")
        return []
    found = []
    for level in (1, 3):
        compressor, reader = zstandard.ZstdCompressor(level), zstandard.ZstdDecompressor()
        small = compressor.compress(raw.data)
        found += [
            Way(f"zstd {level}, write", lambda c=compressor: c.compress(raw.data), len(small)),
            Way(f"zstd {level}, read", lambda r=reader, s=small: r.decompress(s), len(small)),
        ]
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wire", description=__doc__)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--times", type=int, default=9)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = ways(chosen.parameters)
    took: list[list[float]] = [[] for _ in found]
    for turn in range(chosen.times + 1):
        for way, seconds in zip(found, took, strict=True):
            began = time.perf_counter()
            way.run()
            if turn:  # the first one warms up
                seconds.append(time.perf_counter() - began)
    raw = found[0].nbytes
    print(f"{chosen.parameters:,} parameters of single precision, medians of {chosen.times}\n")
    print("| | ms | GB/s of the parameters | times a copy | bytes of the parameters' |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for way, seconds in zip(found, took, strict=True):
        middle = statistics.median(seconds)
        times = statistics.median(a / b for a, b in zip(seconds, took[0], strict=True))
        cells = (
            way.name,
            f"{1e3 * middle:.3g}",
            f"{raw / middle / 1e9:.3g}",
            f"{times:.2g}",
            f"{way.nbytes / raw:.1%}" if way.nbytes else "",
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
