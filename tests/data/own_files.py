"""Small data of several people's own, as tables, images and LEAF's files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hanse.data import Federation

Columns = dict[str, Any]

HOSPITALS = ("st mary", "northside", "clinic 10", "clinic 2")
IN_ORDER = ("clinic 2", "clinic 10", "northside", "st mary")


def patients(rows: int = 60, seed: int = 0) -> Columns:
    """A table of patients, the hospitals' rows mixed."""
    random = np.random.default_rng(seed)
    owners = np.concatenate([np.arange(8) % 4, random.integers(0, 4, rows - 8)])
    random.shuffle(owners)
    age = random.integers(20, 90, rows)
    pressure = random.normal(120, 15, rows)
    return {
        "hospital": [HOSPITALS[k] for k in owners],
        "age": age,
        "pressure": pressure,
        "smoker": random.random(rows) < 0.3,
        "outcome": [
            "worse" if a + p > 190 else "better" for a, p in zip(age, pressure, strict=True)
        ],
    }


def parquet(path: Path, columns: Columns, **options: Any) -> Path:  # noqa: ANN401 - of pyarrow
    """Write a Parquet file."""
    pa.parquet.write_table(pa.table(columns), path, **options)
    return path


def csv(path: Path, columns: Columns) -> Path:
    """Write a CSV file."""
    pa.csv.write_csv(pa.table(columns), path)
    return path


def image(path: Path, pixels: NDArray[Any]) -> Path:
    """Write an image of uint8 [height, width] or [height, width, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def picture(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def leaf(folder: Path, users: dict[str, tuple[list[Any], list[Any]]], name: str = "a") -> Path:
    """Write a file in the format of LEAF."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "users": list(users),
        "num_samples": [len(x) for x, _ in users.values()],
        "user_data": {user: {"x": x, "y": y} for user, (x, y) in users.items()},
    }
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def assert_same(one: Federation, other: Federation) -> None:
    """Two federations in memory have the same clients with the same examples."""
    assert one.classes == other.classes
    for group in ("train", "test", "unseen"):
        left, right = getattr(one, group), getattr(other, group)
        assert (left is None) == (right is None)
        if left is not None:
            assert left.names == right.names
            assert left.offsets.tolist() == right.offsets.tolist()
            for field in ("x", "y"):
                assert torch.equal(left.fields[field], right.fields[field])
