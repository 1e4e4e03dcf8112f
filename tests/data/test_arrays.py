"""Federations from arrays and from folders of .npz files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hanse.core.errors import DataError
from hanse.data.arrays import federation_from_arrays, from_npz_folder
from hanse.data.clients import PackedClients

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def pair(n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.arange(2.0 * n).reshape(n, 2), np.arange(n) % 2


def test_pairs_and_mappings_make_a_float32_federation() -> None:
    x, y = pair(3)
    federation = federation_from_arrays(
        {"anna": (x, y), "bert": {"x": x[:1], "y": y[:1]}},
        test={"anna": pair(1), "bert": pair(2)},
        unseen={"cleo": pair(4)},
        classes=["no", "yes"],
        name="friends",
        attribution="us",
    )
    assert federation.dtype == torch.float32
    assert (federation.name, federation.attribution) == ("friends", "us")
    assert federation.classes == ("no", "yes")
    assert federation.test is not None
    assert federation.unseen is not None
    assert federation.train.sizes(np.arange(2)).tolist() == [3, 1]
    assert federation.test.sizes(np.arange(2)).tolist() == [1, 2]
    assert federation.unseen.name(0) == "cleo"


def test_clients_may_mix_precisions_unless_told_to_keep_them() -> None:
    x, y = pair(2)
    mixed = {"anna": (x, y), "bert": (x.astype(np.float32), y)}
    assert federation_from_arrays(mixed).dtype == torch.float32
    assert federation_from_arrays(mixed, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(DataError, match="'bert'"):
        federation_from_arrays(mixed, dtype=None)


def test_read_only_and_foreign_bytes_are_read() -> None:
    x, y = pair(2)
    x = x.astype(">f4")
    x.flags.writeable = False
    federation = federation_from_arrays({"anna": (x, y.astype(">i2"))})
    assert federation.example["x"].tolist() == [0.0, 1.0]
    assert federation.example["y"].dtype == torch.int64


def test_a_federation_does_not_share_memory_with_its_arrays() -> None:
    x, y = pair(2)
    federation = federation_from_arrays({"anna": (x, y)}, dtype=None)
    x[:] = -1
    assert federation.example["x"].tolist() == [0.0, 1.0]


def test_a_folder_has_a_client_a_file(tmp_path: Path) -> None:
    for name, n in (("bert", 2), ("anna", 3)):
        x, y = pair(n)
        np.savez(tmp_path / f"{name}.npz", x=x, y=y, x_test=x[:1], y_test=y[:1])
    federation = from_npz_folder(tmp_path, classes=["no", "yes"])
    assert isinstance(federation.train, PackedClients)
    assert federation.train.names == ("anna", "bert")
    assert federation.train.sizes(np.arange(2)).tolist() == [3, 2]
    assert federation.test is not None
    assert federation.test.sizes(np.arange(2)).tolist() == [1, 1]
    assert federation.name == tmp_path.name


def test_test_arrays_are_optional_but_for_all(tmp_path: Path) -> None:
    x, y = pair(2)
    np.savez(tmp_path / "anna.npz", x=x, y=y)
    assert from_npz_folder(tmp_path).test is None
    np.savez(tmp_path / "bert.npz", x=x, y=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match=r"bert.npz has x_test and y_test, anna.npz does not"):
        from_npz_folder(tmp_path)


class Evil:
    """Were it unpickled, it would leave a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    np.savez(tmp_path / "anna.npz", x=np.array([Evil(str(trap))], object), y=np.zeros(1, int))
    with pytest.raises(DataError, match=r"anna.npz cannot be read"):
        from_npz_folder(tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04" + bytes(40)])
def test_damaged_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "anna.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"anna.npz cannot be read"):
        from_npz_folder(tmp_path)


def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    x, y = pair(100)
    file = tmp_path / "anna.npz"
    np.savez(file, x=x, y=y)
    whole = file.read_bytes()
    for part in (len(whole) // 2, len(whole) - 10):
        file.write_bytes(whole[:part])
        with pytest.raises(DataError, match=r"anna.npz cannot be read"):
            from_npz_folder(tmp_path)


def test_flipped_bits_are_refused_by_name(tmp_path: Path) -> None:
    x, y = pair(100)
    file = tmp_path / "anna.npz"
    np.savez_compressed(file, x=x, y=y)
    damaged = bytearray(file.read_bytes())
    damaged[200] ^= 0xFF
    file.write_bytes(damaged)
    with pytest.raises(DataError, match=r"anna.npz cannot be read"):
        from_npz_folder(tmp_path)


@pytest.mark.parametrize("names", [("x",), ("x", "labels"), ("x", "y", "x_test"), ("x", "y", "z")])
def test_other_arrays_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays: dict[str, Any] = dict.fromkeys(names, np.zeros(2))
    np.savez(tmp_path / "anna.npz", **arrays)
    with pytest.raises(DataError, match=r"anna.npz holds the arrays"):
        from_npz_folder(tmp_path)


def test_a_folder_without_clients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no \.npz files"):
        from_npz_folder(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        from_npz_folder(tmp_path / "nowhere")
