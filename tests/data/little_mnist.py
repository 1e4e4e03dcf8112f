"""A little data set in the form of MNIST, for tests of what reads and fetches it."""

from __future__ import annotations

import io
import struct
import tarfile
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array: np.ndarray) -> bytes:
    kind = array.dtype.str[1:]
    header = bytes([0, 0, CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(f">{kind}").tobytes()


def made_up() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    contents = {}
    for prefix, n in (("train", 40), ("t10k", 12)):
        pixels = rng.integers(0, 256, (n, 4, 3), dtype=np.uint8)
        contents[f"{prefix}-images-idx3-ubyte"] = idx(pixels)
        contents[f"{prefix}-labels-idx1-ubyte"] = idx((np.arange(n) % 10).astype(np.uint8))
    return contents


CONTENTS = made_up()


def tarball(path: Path, contents: dict[str, bytes], prefix: str = "package/data/") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def folder(path: Path, contents: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return path
