"""Folders of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.own_files import image, picture

import hanse
from hanse.core.errors import DataError
from hanse.data import Federation, LazyClients, PackedClients, from_image_folder
from hanse.data.sources import image_folder

if TYPE_CHECKING:
    from pathlib import Path


def folder(root: Path, *shape: int, people: int = 3, each: int = 4) -> Path:
    for person in range(people):
        for number in range(each):
            label = "cat" if (person + number) % 2 else "dog"
            image(root / f"person {person}" / label / f"{number}.png", picture(number, *shape))
    return root


def x_of(clients: object) -> torch.Tensor:
    assert isinstance(clients, PackedClients)
    return clients.fields["x"]


def test_images_are_numbers_from_0_to_1(tmp_path: Path) -> None:
    found = from_image_folder(folder(tmp_path, 5, 6))
    assert isinstance(found.train, PackedClients)
    assert found.train.names == ("person 0", "person 1", "person 2")
    assert found.classes == ("cat", "dog")
    # In each client's folder, cats come before dogs.
    assert found.train.fields["y"].tolist() == [0, 0, 1, 1] * 3
    expected = picture(1, 5, 6).astype(np.float32) / np.float32(255)
    assert torch.equal(x_of(found.train)[0], torch.from_numpy(expected)[None])


def test_colours_come_first(tmp_path: Path) -> None:
    found = from_image_folder(folder(tmp_path, 5, 6, 3))
    expected = torch.from_numpy(picture(1, 5, 6, 3).astype(np.float32) / np.float32(255))
    assert torch.equal(x_of(found.train)[0], expected.permute(2, 0, 1))


def test_parts_may_be_folders(tmp_path: Path) -> None:
    folder(tmp_path / "train", 4, 4)
    folder(tmp_path / "test", 4, 4, each=2)
    image(tmp_path / "unseen" / "stranger" / "dog" / "0.png", picture(0, 4, 4))
    (tmp_path / ".DS_Store").write_bytes(b"of a file manager")
    (tmp_path / "README.md").write_text("Pets.")
    found = from_image_folder(tmp_path)
    assert x_of(found.train).shape == (12, 1, 4, 4)
    assert x_of(found.test).shape == (6, 1, 4, 4)
    assert isinstance(found.unseen, PackedClients)
    assert found.unseen.names == ("stranger",)


def test_other_colours_and_sizes_are_converted_when_asked(tmp_path: Path) -> None:
    image(tmp_path / "anna" / "cat" / "0.png", picture(0, 8, 6))
    image(tmp_path / "anna" / "dog" / "1.png", picture(1, 4, 4, 3))
    image(tmp_path / "anna" / "dog" / "2.png", picture(2, 4, 4, 4))
    for color, channels in (("gray", 1), ("rgb", 3)):
        found = from_image_folder(tmp_path, color=color, size=[4, 3])  # type: ignore[arg-type]
        assert x_of(found.train).shape == (3, channels, 4, 3)
        assert 0 <= x_of(found.train).min() < x_of(found.train).max() <= 1
    # A constant stays the same when it is resized.
    image(tmp_path / "ben" / "cat" / "0.png", np.full((9, 9), 51, np.uint8))
    resized = from_image_folder(tmp_path, color="gray", size=[4, 3])
    assert torch.allclose(x_of(resized.train)[-1], torch.tensor(0.2))


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    deep = np.array([[0, 1000], [65535, 30000]], np.uint16)
    for label, pixels in (("a", deep), ("b", deep.T)):
        (tmp_path / "anna" / label).mkdir(parents=True)
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "anna" / label / "0.png")
    found = from_image_folder(tmp_path)
    expected = torch.from_numpy(deep.astype(np.float32) / np.float32(65535))
    assert torch.equal(x_of(found.train)[0, 0], expected)


def test_images_are_turned_as_they_were_taken(tmp_path: Path) -> None:
    pixels = picture(0, 4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # held so that it is to be turned by 90 degrees
    for label in "ab":
        (tmp_path / "anna" / label).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "anna" / label / "0.png", exif=exif)
    found = from_image_folder(tmp_path)
    turned = np.rot90(pixels, k=-1).astype(np.float32) / np.float32(255)
    assert torch.equal(x_of(found.train)[0, 0], torch.from_numpy(turned.copy()))


def same_lazily(packed: Federation, lazy: Federation) -> None:
    for group in ("train", "test", "unseen"):
        one, other = getattr(packed, group), getattr(lazy, group)
        assert (one is None) == (other is None)
        if one is not None:
            assert isinstance(other, LazyClients)
            everyone = np.arange(len(one))
            assert [one.name(k) for k in range(len(one))] == [
                other.name(k) for k in range(len(one))
            ]
            assert one.sizes(everyone).tolist() == other.sizes(everyone).tolist()
            left, right = one.block(everyone).fields, other.block(everyone).fields
            assert all(torch.equal(left[field], right[field]) for field in left)


def test_lazy_clients_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, 4, 4)
    options = {"test_fraction": 0.25, "unseen": ["person 1"]}
    packed = from_image_folder(tmp_path, **options)  # type: ignore[arg-type]
    same_lazily(packed, from_image_folder(tmp_path, lazy=True, **options))  # type: ignore[arg-type]
    monkeypatch.setattr(image_folder, "LARGEST", 12 * 16 * 4 - 1)
    same_lazily(packed, from_image_folder(tmp_path, **options))  # type: ignore[arg-type]
    assert isinstance(from_image_folder(tmp_path, lazy=False).train, PackedClients)


def test_lazy_clients_train_to_the_same_bits(tmp_path: Path) -> None:
    folder(tmp_path, 4, 4)
    ends = []
    for lazy in (False, True):
        experiment = hanse.Experiment(
            hanse.fedavg(batch_size=2),
            from_image_folder(tmp_path, lazy=lazy),
            lambda: hanse.models.softmax_regression(16, 2),
            rounds=2,
            execution=hanse.Execution("module", 1),
        )
        *_, last = hanse.rounds(experiment)
        ends.append(last.model().state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_what_is_wrong_with_a_lazy_image_is_said_when_it_is_read(tmp_path: Path) -> None:
    folder(tmp_path, 4, 4)
    image(tmp_path / "person 2" / "dog" / "9.png", picture(0, 5, 4))
    found = from_image_folder(tmp_path, lazy=True)
    found.train.block(np.array([0]))
    with pytest.raises(DataError, match=r"9\.png has 5 × 4 pixels"):
        found.train.block(np.array([2]))
