"""IDX files: every type and shape, every truncation, and headers that lie."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.data.little_mnist import CODES, idx

from hanse.core.errors import DataError
from hanse.data.sources.idx import read_idx

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0,), (3, 0)])
def test_every_type_and_shape_is_read(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=kind).reshape(shape)
    for content in (idx(array), gzip.compress(idx(array))):
        (tmp_path / "file").write_bytes(content)
        found = read_idx(tmp_path / "file")
        assert found.dtype == np.dtype(kind)
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, array)


WHOLE = idx(np.arange(24, dtype=np.int32).reshape(2, 3, 4))


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_every_truncation_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "file").write_bytes(WHOLE[:length])
    with pytest.raises(DataError, match="no whole IDX file"):
        read_idx(tmp_path / "file")


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n",
        b"\0\0\x07\x01\0\0\0\0",  # no such type
        b"\0\0\x08\x00",  # no dimensions
        b"\0\0\x08\xff" + bytes(2000),  # 255 dimensions
        WHOLE + b"\0",
    ],
)
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    for stored in (content, gzip.compress(content)):
        (tmp_path / "file").write_bytes(stored)
        with pytest.raises(DataError, match="no whole IDX file"):
            read_idx(tmp_path / "file")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((0xFFFFFFFF,) * 3, "over 4294967296 bytes"),
        ((1 << 30, 2, 3), "over 4294967296 bytes"),
        ((1 << 30, 2, 1), "it holds 100"),
    ],
)
def test_a_huge_declared_size_takes_no_memory(
    tmp_path: Path, shape: tuple[int, ...], said: str
) -> None:
    header = b"\0\0\x08\x03" + struct.pack(">3I", *shape)
    for content in (header + bytes(100), gzip.compress(header + bytes(100))):
        (tmp_path / "file").write_bytes(content)
        tracemalloc.start()
        with pytest.raises(DataError, match=said):
            read_idx(tmp_path / "file")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()


def test_damaged_gzip_and_missing_files_are_refused(tmp_path: Path) -> None:
    squeezed = gzip.compress(WHOLE)
    flipped = bytearray(squeezed)
    flipped[-6] ^= 0xFF  # its checksum
    for content in (squeezed[:-12], squeezed[:9], bytes(flipped)):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_idx(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "nothing")
