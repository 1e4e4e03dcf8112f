"""Federations of benchmarks: IDX folders, fetched data sets, scikit-learn's digits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.data.little_mnist import CONTENTS, folder, idx

from hanse.core.errors import DataError
from hanse.data.clients import PackedClients
from hanse.data.sources.benchmarks import idx_federation
from hanse.data.sources.catalogue import FILES
from hanse.data.sources.digits import digits
from hanse.data.sources.fetch import fetch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "shards"])
def test_a_folder_of_idx_files_is_split_over_clients(tmp_path: Path, partition: str) -> None:
    source = folder(tmp_path / "little", CONTENTS)
    federation = idx_federation(source, 4, partition, test_fraction=0.25, alpha=5.0, min_size=2)  # type: ignore[arg-type]
    assert federation.input_shape == (1, 4, 3)
    assert federation.dtype == torch.float32
    assert federation.name == "little"
    assert federation.classes == tuple("0123456789")
    assert isinstance(federation.train, PackedClients)
    assert isinstance(federation.test, PackedClients)
    assert isinstance(federation.unseen, PackedClients)
    assert len(federation.train.fields["x"]) + len(federation.test.fields["x"]) == 40
    assert federation.unseen.names == ("test set",)
    expected = np.frombuffer(CONTENTS["t10k-images-idx3-ubyte"][16:], np.uint8) / 255
    np.testing.assert_allclose(federation.unseen.fields["x"].flatten(), expected, rtol=1e-6)
    assert federation.unseen.fields["y"].tolist() == [k % 10 for k in range(12)]


@pytest.mark.usefixtures("mnist")
def test_a_fetched_benchmark_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANSE_DATA", str(tmp_path))
    fetch("mnist", source=folder(tmp_path / "source", CONTENTS))
    federation = idx_federation("mnist", 3)
    assert federation.name == "mnist"
    assert "LeCun" in federation.attribution


def test_what_is_not_fetched_is_answered_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="instead: hanse data fetch mnist"):
        idx_federation("mnist", 3, directory=tmp_path)
    three = folder(tmp_path / "three", {name: CONTENTS[name] for name in FILES[:3]})
    with pytest.raises(DataError, match="lacks t10k-labels"):
        idx_federation(three, 3)
    with pytest.raises(DataError, match="there is no data set in"):
        idx_federation(tmp_path / "nowhere", 3)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    mixed = {**CONTENTS, FILES[1]: CONTENTS[FILES[3]]}
    with pytest.raises(DataError, match="belong together"):
        idx_federation(folder(tmp_path / "mixed", mixed), 3)


def test_digits() -> None:
    pytest.importorskip("sklearn")
    federation = digits(5, seed=3, test_fraction=0.2)
    assert federation.input_shape == (64,)
    assert digits(5, "iid", images=True).input_shape == (1, 8, 8)
    assert isinstance(federation.train, PackedClients)
    assert isinstance(federation.test, PackedClients)
    assert isinstance(federation.unseen, PackedClients)
    rows = [len(g.fields["x"]) for g in (federation.train, federation.test, federation.unseen)]
    assert sum(rows) == 1797
    assert rows[2] == 359
    assert float(federation.train.fields["x"].max()) == 1.0
    again = digits(5, seed=3, test_fraction=0.2)
    assert isinstance(again.train, PackedClients)
    assert torch.equal(again.train.fields["x"], federation.train.fields["x"])
    with pytest.raises(DataError, match="unseen_fraction"):
        digits(unseen_fraction=0.0)


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'hanse\[sklearn\]'"):
        digits()


def test_images_that_are_not_bytes_are_not_scaled(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    floats = {name: CONTENTS[name] for name in FILES}
    for prefix in ("train", "t10k"):
        floats[f"{prefix}-images-idx3-ubyte"] = idx(images)
        floats[f"{prefix}-labels-idx1-ubyte"] = idx(np.array([0, 1], np.uint8))
    federation = idx_federation(folder(tmp_path / "floats", floats), 1)
    assert federation.classes == ("0", "1")
    assert isinstance(federation.train, PackedClients)
    assert sorted(federation.train.fields["x"].flatten().tolist()) == list(range(24))
