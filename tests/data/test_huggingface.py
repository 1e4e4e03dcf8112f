"""Data sets of Hugging Face's library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.own_files import IN_ORDER, assert_same, parquet, patients, picture
from tests.data.test_image_folder import same_lazily

from hanse.config import ExperimentFile
from hanse.data import PackedClients, from_huggingface, from_table, iid

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def fields(clients: object) -> dict[str, torch.Tensor]:
    assert isinstance(clients, PackedClients)
    return dict(clients.fields)


def test_a_data_set_of_columns_is_the_table_of_them(tmp_path: Path) -> None:
    columns = patients()
    table = from_table(
        parquet(tmp_path / "p.parquet", columns),
        client="hospital",
        target="outcome",
        test_fraction=0.3,
        unseen=["northside"],
    )
    dataset = datasets.Dataset.from_dict(columns)
    options: dict[str, Any] = {
        "client": "hospital",
        "target": "outcome",
        "test_fraction": 0.3,
        "unseen": ["northside"],
    }
    assert_same(from_huggingface(dataset, **options), table)
    dataset.save_to_disk(tmp_path / "saved")
    content = {"data": {"source": "huggingface", "dataset": "saved", **options}}
    assert_same(ExperimentFile(content, tmp_path).federation(), table)


def test_rows_that_were_chosen_and_shuffled_are_respected() -> None:
    columns = patients()
    order = np.random.default_rng(1).permutation(60)[:50]
    chosen = {name: [values[k] for k in order] for name, values in columns.items()}
    options: dict[str, Any] = {"client": "hospital", "target": "outcome"}
    assert_same(
        from_huggingface(datasets.Dataset.from_dict(columns).select(order), **options),
        from_huggingface(datasets.Dataset.from_dict(chosen), **options),
    )


def images(n: int, mode: str = "RGB") -> Any:  # noqa: ANN401 - a datasets.Dataset
    shape = (4, 5, 3) if mode == "RGB" else (4, 5)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog", "owl"]),
            "writer": datasets.Value("string"),
        }
    )
    content = {
        "image": [Image.fromarray(picture(k, *shape)) for k in range(n)],
        "label": [k % 2 for k in range(n)],
        "writer": [f"w{k % 3}" for k in range(n)],
    }
    return datasets.Dataset.from_dict(content, features=features)


def test_images_come_with_the_names_of_their_classes(tmp_path: Path) -> None:
    images(9).save_to_disk(tmp_path / "saved")
    options: dict[str, Any] = {"client": "writer", "target": "label"}
    found = from_huggingface(images(9), **options)
    assert found.classes == ("cat", "dog", "owl")
    assert found.input_shape == (3, 4, 5)
    expected = picture(3, 4, 5, 3).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    assert torch.equal(fields(found.train)["x"][1], torch.from_numpy(expected))
    assert_same(found, from_huggingface(tmp_path / "saved", **options))
    same_lazily(found, from_huggingface(tmp_path / "saved", lazy=True, **options))
    small = from_huggingface(images(9), color="gray", size=[2, 2], **options)
    assert small.input_shape == (1, 2, 2)
    gray = from_huggingface(images(9, "L"), **options)
    assert gray.input_shape == (1, 4, 5)


def test_without_clients_rows_are_split_and_the_test_part_is_unseen() -> None:
    parts = datasets.DatasetDict({"train": images(20), "test": images(6), "more": images(3)})
    found = from_huggingface(parts, target="label", inputs="image", clients=4, seed=2)
    assert isinstance(found.train, PackedClients)
    assert found.train.names == ("client 0", "client 1", "client 2", "client 3")
    assert isinstance(found.unseen, PackedClients)
    assert found.unseen.names == ("test set",)
    assert len(found.unseen.fields["x"]) == 6
    y = np.arange(20) % 2
    expected = np.concatenate(iid(20, 4, 2))
    assert fields(found.train)["y"].tolist() == y[expected].tolist()
    other = from_huggingface(
        parts, target="label", inputs="image", clients=4, test="more", partition="shards"
    )
    assert isinstance(other.unseen, PackedClients)
    assert len(other.unseen.fields["x"]) == 3


def test_with_clients_the_test_part_is_theirs() -> None:
    parts = datasets.DatasetDict({"train": images(9), "test": images(6)})
    found = from_huggingface(parts, target="label", client="writer")
    assert isinstance(found.test, PackedClients)
    assert found.test.names == ("w0", "w1", "w2")
    assert len(found.test.fields["x"]) == 6


def test_lists_are_inputs_as_they_are() -> None:
    tokens = [[k, k + 1, k + 2] for k in range(6)]
    who = ["a", "b"] * 3
    found = from_huggingface(
        datasets.Dataset.from_dict({"tokens": tokens, "y": [0, 1] * 3, "who": who}),
        target="y",
        client="who",
    )
    assert fields(found.train)["x"].dtype == torch.int64
    assert fields(found.train)["x"].tolist() == [tokens[k] for k in (0, 2, 4, 1, 3, 5)]
    waves = np.random.default_rng(0).normal(size=(6, 2, 3))
    features = datasets.Features(
        {
            "wave": datasets.Array2D((2, 3), "float32"),
            "y": datasets.Value("float32"),
            "who": datasets.Value("int32"),
        }
    )
    content = {"wave": waves, "y": np.arange(6) / 2, "who": [1, 2] * 3}
    waved = from_huggingface(
        datasets.Dataset.from_dict(content, features=features), target="y", client="who"
    )
    assert waved.classes is None
    expected = torch.from_numpy(waves.astype(np.float32))[[0, 2, 4, 1, 3, 5]]
    assert torch.equal(fields(waved.train)["x"], expected)
    lazy = from_huggingface(
        datasets.Dataset.from_dict(content, features=features), target="y", client="who", lazy=True
    )
    same_lazily(waved, lazy)


def test_clients_may_be_classes_of_the_library() -> None:
    dataset = datasets.Dataset.from_dict(patients()).class_encode_column("hospital")
    found = from_huggingface(dataset, target="outcome", client="hospital")
    assert isinstance(found.train, PackedClients)
    assert found.train.names == IN_ORDER
