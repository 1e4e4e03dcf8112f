"""Files in the format of LEAF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from tests.data.own_files import leaf

from hanse.config import ExperimentFile
from hanse.data import Federation, PackedClients, from_leaf

if TYPE_CHECKING:
    from pathlib import Path

ANNA = ([[0.5, 1.0], [1.5, 2.0]], [3, 1])
BEN = ([[2.5, 3.0]], [7])


def clients(group: object) -> PackedClients:
    assert isinstance(group, PackedClients)
    return group


def test_users_of_all_files_train_and_are_tested(tmp_path: Path) -> None:
    leaf(tmp_path / "data" / "train", {"ben": BEN}, "0")
    leaf(tmp_path / "data" / "train", {"anna": ANNA}, "1")
    leaf(tmp_path / "data" / "test", {"anna": ([[9.0, 9.0]], [1]), "ben": ([[8.0, 8.0]], [5])})
    content = {"data": {"source": "leaf", "path": "."}}
    for found in (from_leaf(tmp_path / "data"), ExperimentFile(content, tmp_path).federation()):
        assert clients(found.train).names == ("ben", "anna")
        assert clients(found.train).fields["x"].tolist() == [[2.5, 3.0], [0.5, 1.0], [1.5, 2.0]]
        assert found.classes == ("1", "3", "5", "7")
        assert clients(found.train).fields["y"].tolist() == [3, 1, 0]
        assert clients(found.test).names == ("ben", "anna")
        assert clients(found.test).fields["y"].tolist() == [2, 0]
        assert found.unseen is None


def test_other_users_for_testing_are_unseen(tmp_path: Path) -> None:
    leaf(tmp_path / "train", {"anna": ANNA})
    leaf(tmp_path / "test", {"ben": BEN})
    found = from_leaf(tmp_path, name="pair")
    assert found.test is None
    assert clients(found.unseen).names == ("ben",)
    assert found.name == "pair"


def test_quantities_and_texts_as_targets(tmp_path: Path) -> None:
    leaf(tmp_path / "train", {"anna": ([[1], [2]], [0.5, 1])})
    quantity = from_leaf(tmp_path)
    assert quantity.classes is None
    assert clients(quantity.train).fields["y"].tolist() == [0.5, 1.0]
    leaf(tmp_path / "train", {"anna": ([[1], [2]], ["yes", "no"])})
    assert from_leaf(tmp_path).classes == ("no", "yes")
    leaf(tmp_path / "train", {"anna": ([1, 2], [5, 6])})
    assert from_leaf(tmp_path, task="regression").classes is None


def decoded(federation: Federation, vocabulary: str) -> dict[str, list[Any]]:
    fields = clients(federation.train).fields
    assert fields["x"].dtype == fields["y"].dtype == torch.int64
    return {
        "x": ["".join(vocabulary[k] for k in row) for row in fields["x"].tolist()],
        "y": [vocabulary[k] for k in fields["y"].tolist()],
    }


def test_characters_become_numbers_of_a_vocabulary(tmp_path: Path) -> None:
    x, y = ["to be ", "o be é", "or not"], ["o", "\n", " "]
    leaf(tmp_path / "train", {"HAMLET": (x[:2], y[:2]), "OTHER": (x[2:], y[2:])})
    leaf(tmp_path / "test", {"HAMLET": (["zz zzz"], ["q"]), "OTHER": (x[2:], y[2:])})
    letters = "".join(sorted(set("".join(x + y) + "zz zzzq")))
    found = from_leaf(tmp_path, text="characters")
    assert decoded(found, letters) == {"x": x, "y": y}
    assert found.classes is not None
    assert found.classes[:2] == ("newline", "space")
    own = letters[::-1] + "XYZ"
    assert decoded(from_leaf(tmp_path, text="characters", vocabulary=own), own) == {"x": x, "y": y}
