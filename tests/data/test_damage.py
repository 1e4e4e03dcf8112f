"""Files of which bytes are lost, changed or added: read, or refused, and nothing else."""

from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from tests.data.own_files import csv, image, leaf, parquet, patients, picture

from hanse.core.errors import DataError
from hanse.data import from_image_folder, from_leaf, from_table

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = ("png", "gif", "tiff", "jpg", "webp", "bmp")
TRIALS = 40


def damaged(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    match chance.randrange(3):
        case 0:
            del changed[chance.randrange(len(changed)) :]
        case 1:
            for _ in range(chance.choice([1, 4, 20])):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
        case _:
            place = chance.randrange(len(changed))
            changed[place:place] = chance.randbytes(chance.randrange(1, 8))
    return bytes(changed)


def read(file: Path) -> bool:
    """Whether what is left can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of metadata it cannot read
        try:
            if file.suffix in (".parquet", ".csv"):
                from_table(file, client="hospital", target="outcome")
            elif file.suffix == ".json":
                from_leaf(file.parents[1])
            else:
                from_image_folder(file.parents[2], size=[4, 4], color="gray")
        except DataError:
            return False
    return True


def a_table(folder: Path, kind: str) -> Path:
    return (parquet if kind == "parquet" else csv)(folder / f"t.{kind}", patients())


def an_image(folder: Path, kind: str) -> Path:
    image(folder / "anna" / "a" / "0.png", picture(0, 6, 6))
    file = folder / "anna" / "b" / f"1.{kind}"
    file.parent.mkdir(parents=True)
    Image.fromarray(picture(1, 6, 6)).save(file)
    return file


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", *SUFFIXES])
def test_damaged_files_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    if kind == "json":
        users: dict[str, tuple[list[object], list[object]]] = {"anna": ([[1.0], [2.0]], [0, 1])}
        file = leaf(tmp_path / "train", users) / "a.json"
    else:
        file = (an_image if kind in SUFFIXES else a_table)(tmp_path, kind)
    content, chance = file.read_bytes(), random.Random(kind)  # noqa: S311 - not for secrets
    assert read(file)
    outcomes = []
    for _ in range(TRIALS):
        file.write_bytes(damaged(content, chance))
        outcomes.append(read(file))
    assert not all(outcomes)
