"""Read IDX files, the format of MNIST and of the data sets made in its image."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from hanse.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_DIMENSIONS = 8
_LARGEST = 1 << 32  # bytes; a header that says more is taken for garbage
_CHUNK = 1 << 20


def read_idx(path: str | Path) -> NDArray[Any]:
    """Read an array from an IDX file, gzipped or not (told from its first bytes).

    The format: two zero bytes, a byte for the type, one for the number of dimensions, each
    dimension as a big-endian 32-bit integer, the numbers in row-major order, big-endian
    (Y. LeCun, http://yann.lecun.com/exdb/mnist, "The IDX file format").

    Memory is taken as bytes arrive, never on the word of the header.

    Returns:
        The array, in the machine's byte order.

    Raises:
        DataError: if the file cannot be opened, is no IDX file, or holds more or fewer bytes than
            its header says.
    """
    file = Path(path)
    try:
        with file.open("rb") as raw, decompressed(raw) as stream:
            dtype, shape = _header(stream, file)
            expected = math.prod(shape) * dtype.itemsize
            body = _read(stream, expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{file} cannot be read: {error}",
            why="it is missing, or its compressed bytes are damaged",
            instead="fetch it again: hanse data fetch",
        ) from error
    if len(body) != expected:
        found = f"{len(body)}" if len(body) < expected else f"more than {expected}"
        raise _garbage(file, f"its header promises {expected} bytes {shape}, it holds {found}")
    array = np.frombuffer(body, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def decompressed(stream: IO[bytes]) -> IO[bytes]:
    """The stream itself, or what it unzips to if it begins as gzip does.

    Args:
        stream: seekable, at its beginning.
    """
    magic = stream.read(2)
    stream.seek(0)
    return gzip.GzipFile(fileobj=stream) if magic == b"\x1f\x8b" else stream  # type: ignore[return-value]


def _header(stream: IO[bytes], file: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = _read(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise _garbage(file, f"it begins with the bytes {magic.hex(' ') or '(none)'}")
    dimensions = magic[3]
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise _garbage(file, f"its header declares {dimensions} dimensions")
    lengths = _read(stream, 4 * dimensions)
    if len(lengths) < 4 * dimensions:
        raise _garbage(file, "it ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(lengths, ">u4"))
    dtype = np.dtype(_TYPES[magic[2]])
    if math.prod(shape) * dtype.itemsize > _LARGEST:
        raise _garbage(file, f"its header declares the shape {shape}, over {_LARGEST} bytes")
    return dtype, shape


def _read(stream: IO[bytes], most: int) -> bytearray:
    body = bytearray()
    while len(body) < most and (chunk := stream.read(min(_CHUNK, most - len(body)))):
        body += chunk
    return body


def _garbage(file: Path, found: str) -> DataError:
    return DataError(
        f"{file} is no whole IDX file: {found}",
        why="the format is two zero bytes, type, dimensions, their lengths, then the numbers",
        instead="fetch it again, or check what the file really is",
    )
