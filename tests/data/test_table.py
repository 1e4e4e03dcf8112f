"""Parquet and CSV files with a column that says whose a row is."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.data.own_files import IN_ORDER, assert_same, csv, parquet, patients

from hanse.config import ExperimentFile
from hanse.core.errors import DataError
from hanse.data import Federation, PackedClients, from_table, natural, partitioned
from hanse.data.sources import table_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FEATURES = ("age", "pressure", "smoker")


def packed(federation: Federation) -> PackedClients:
    assert isinstance(federation.train, PackedClients)
    return federation.train


def oracle(columns: dict[str, Any], **options: Any) -> Federation:  # noqa: ANN401 - as `partitioned`
    """The same table by way of arrays."""
    x = np.stack([np.asarray(columns[c], np.float64) for c in FEATURES], axis=1)
    classes = sorted(set(columns["outcome"]))
    y = np.array([classes.index(label) for label in columns["outcome"]])
    parts = natural(columns["hospital"])
    by_name = {name: parts[name] for name in IN_ORDER}
    return partitioned(x.astype(np.float32), y, by_name, classes=classes, **options)


@pytest.mark.parametrize("write", [parquet, csv])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_a_table_is_what_its_arrays_are(
    tmp_path: Path, write: Callable[..., Path], fraction: float
) -> None:
    columns = patients()
    file = write(tmp_path / f"patients.{write.__name__}", columns)
    found = from_table(file, client="hospital", target="outcome", test_fraction=fraction, seed=3)
    assert_same(found, oracle(columns, test_fraction=fraction, seed=3))
    assert found.name == "patients"
    assert found.dtype == torch.float32
    assert found.classes == ("better", "worse")


def test_files_are_read_batch_by_batch_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "_LARGEST_BATCH", 7)
    monkeypatch.setattr(table_files, "_BLOCK", 512)
    columns = patients()
    options = {"client": "hospital", "target": "outcome"}
    for write in (parquet, csv):
        file = write(tmp_path / f"patients.{write.__name__}", columns)
        assert_same(from_table(file, **options), oracle(columns))  # type: ignore[arg-type]


def test_several_files_are_one_table(tmp_path: Path) -> None:
    columns = patients()
    halves = [{c: v[part] for c, v in columns.items()} for part in (slice(0, 25), slice(25, None))]
    folder = tmp_path / "parts"
    (folder / "deep").mkdir(parents=True)
    files = [parquet(folder / "a.parquet", halves[0]), parquet(folder / "deep/b.pq", halves[1])]
    (folder / "_metadata.parquet").write_bytes(b"of another program")
    for path in (files, folder, [str(file) for file in files]):
        found = from_table(path, client="hospital", target="outcome")
        assert_same(found, oracle(columns))


def test_each_file_may_be_a_client(tmp_path: Path) -> None:
    columns = patients()
    for hospital in IN_ORDER:
        mine = [k for k, name in enumerate(columns["hospital"]) if name == hospital]
        own = {c: [v[k] for k in mine] for c, v in columns.items() if c != "hospital"}
        csv(tmp_path / f"{hospital}.csv", own)
    assert_same(from_table(tmp_path, target="outcome"), oracle(columns))


def test_folders_may_be_columns(tmp_path: Path) -> None:
    columns = patients()
    columns["hospital"] = [name.replace("st mary", "st/mary") for name in columns["hospital"]]
    pa.parquet.write_to_dataset(pa.table(columns), tmp_path / "all", partition_cols=["hospital"])
    found = from_table(tmp_path / "all", client="hospital", target="outcome")
    file = parquet(tmp_path / "one.parquet", columns)
    assert_same(found, from_table(file, client="hospital", target="outcome"))
    assert packed(found).names == ("clinic 2", "clinic 10", "northside", "st/mary")


def test_only_the_columns_that_are_needed_are_read(tmp_path: Path) -> None:
    columns = {**patients(), "notes": ["…"] * 60, "scan": [[1, 2]] * 60}
    file = parquet(tmp_path / "p.parquet", columns)
    asked: list[set[str]] = []
    real = table_files.open_table

    def spied(path: Path, delimiter: str | None, decimal: str) -> table_files.TableFile:
        opened = real(path, delimiter, decimal)

        def batches(wanted: Any) -> Any:  # noqa: ANN401 - passed on
            asked.append(set(wanted))
            return opened.batches(wanted)

        return table_files.TableFile(opened.path, opened.columns, opened.kinds, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hanse.data.sources.table.open_table", spied)
        from_table(file, client="hospital", target="outcome", features=["pressure"])
    assert asked == [{"hospital", "outcome"}, {"pressure"}]


def test_features_are_in_their_order_and_categories_are_columns(tmp_path: Path) -> None:
    columns = {
        "site": ["a", "a", "b"],
        "ward": pa.array(["x", "z", "x"]).dictionary_encode(),
        "floor": [10, 2, 10],
        "age": [1.5, 2.5, 3.5],
        "y": [0, 1, 0],
    }
    file = parquet(tmp_path / "t.parquet", columns)
    found = from_table(
        file,
        client="site",
        target="y",
        features=["age", "ward", "floor"],
        categorical=["ward", "floor"],
    )
    assert packed(found).fields["x"].tolist() == [
        [1.5, 1, 0, 1, 0],
        [2.5, 0, 1, 0, 1],
        [3.5, 1, 0, 1, 0],
    ]
    only = from_table(file, client="site", target="y", features=["ward"], categorical=["ward"])
    assert packed(only).fields["x"].tolist() == [[1, 0], [0, 1], [1, 0]]


def test_unseen_clients_and_clients_with_few_rows(tmp_path: Path) -> None:
    columns = patients()
    columns["hospital"][0] = "tiny"
    file = parquet(tmp_path / "p.parquet", columns)
    found = from_table(
        file,
        client="hospital",
        target="outcome",
        unseen=["northside"],
        test_fraction=0.2,
        min_examples=2,
    )
    assert packed(found).names == ("clinic 2", "clinic 10", "st mary")
    assert isinstance(found.unseen, PackedClients)
    assert found.unseen.names == ("northside",)
    assert found.unseen.offsets[-1] == columns["hospital"].count("northside")


def test_a_column_may_divide_the_rows(tmp_path: Path) -> None:
    columns = {
        "site": [1, 2, 1, 2, 3],
        "part": ["train", "test", "test", "train", "unseen"],
        "x": [1.0, 2.0, 3.0, 4.0, 5.0],
        "y": ["n", "y", "n", "y", "y"],
    }
    file = csv(tmp_path / "t.csv", columns)
    found = from_table(file, client="site", target="y", split="part")
    assert packed(found).fields["x"][:, 0].tolist() == [1.0, 4.0]
    assert isinstance(found.test, PackedClients)
    assert found.test.fields["x"][:, 0].tolist() == [3.0, 2.0]
    assert isinstance(found.unseen, PackedClients)
    assert found.unseen.names == ("3",)


def labels(path: Path, values: Any, **options: Any) -> Federation:  # noqa: ANN401 - whatever a column holds
    columns = {"site": ["a", "b"] * (len(values) // 2), "x": np.arange(len(values)), "y": values}
    return from_table(parquet(path / "t.parquet", columns), client="site", target="y", **options)


def test_what_a_target_means(tmp_path: Path) -> None:
    def y(federation: Federation) -> list[float]:
        return packed(federation).fields["y"].tolist()  # rows 0, 2 of a, then 1, 3 of b

    whole = labels(tmp_path, [10, 2, 10, 3])
    assert (whole.classes, y(whole)) == (("2", "3", "10"), [2, 2, 0, 1])
    boolean = labels(tmp_path, [True, False, False, True])
    assert (boolean.classes, y(boolean)) == (("false", "true"), [1, 0, 0, 1])
    quantity = labels(tmp_path, [0.5, 1.0, 2.0, 4.0])
    assert (quantity.classes, y(quantity)) == (None, [0.5, 2.0, 1.0, 4.0])
    counted = labels(tmp_path, [1, 2, 3, 4], task="regression")
    assert (counted.classes, y(counted)) == (None, [1.0, 3.0, 2.0, 4.0])
    floats = labels(tmp_path, [0.0, 1.0, 1.0, 0.0], task="classification")
    assert (floats.classes, y(floats)) == (("0", "1"), [0, 1, 1, 0])
    named = labels(tmp_path, [0, 1, 1, 0], classes=["no", "yes", "perhaps"])
    assert (named.classes, y(named)) == (("no", "yes", "perhaps"), [0, 1, 1, 0])
    texts = labels(tmp_path, ["no", "yes", "yes", "no"], classes=["yes", "no"])
    assert (texts.classes, y(texts)) == (("yes", "no"), [1, 0, 0, 1])
    numbers = labels(tmp_path, [1, 2, 2, 1], classes=["2", "1"])
    assert (numbers.classes, y(numbers)) == (("2", "1"), [1, 0, 0, 1])


def test_names_of_clients_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,x,y\n007,1,a\n8,2,b\n")
    assert packed(from_table(tmp_path / "t.csv", client="id", target="y")).names == ("007", "8")


def test_other_dialects_of_csv(tmp_path: Path) -> None:
    text = "id;x;y\na;1;2.5\nb;2;3.5\n"
    (tmp_path / "t.csv").write_text(text)
    found = from_table(tmp_path / "t.csv", client="id", target="y", delimiter=";")
    assert packed(found).fields["y"].tolist() == [2.5, 3.5]
    (tmp_path / "d.csv").write_text(text.replace(".", ","))
    options = {"delimiter": ";", "decimal": ","}
    assert_same(from_table(tmp_path / "d.csv", client="id", target="y", **options), found)  # type: ignore[arg-type]
    (tmp_path / "t.tsv").write_bytes(b"\xef\xbb\xbf" + text.replace(";", "\t").encode())
    assert_same(from_table(tmp_path / "t.tsv", client="id", target="y"), found)
    (tmp_path / "z.csv.gz").write_bytes(gzip.compress(text.replace(";", ",").encode()))
    assert_same(from_table(tmp_path / "z.csv.gz", client="id", target="y"), found)
    (tmp_path / "q.csv").write_text('id,x,y\n"a",1,2.5\n"b\n",2,3.5\n')
    assert packed(from_table(tmp_path / "q.csv", client="id", target="y")).names == ("a", "b\n")


def test_numbers_that_become_fractions_late_are_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "_BLOCK", 64)
    rows = "".join(f"a,{k},{k % 2}\n" for k in range(100))
    (tmp_path / "t.csv").write_text(f"id,x,y\n{rows}a,0.5,1\n")
    found = from_table(tmp_path / "t.csv", client="id", target="y")
    assert packed(found).fields["x"][-1].item() == 0.5
    (tmp_path / "t.csv").write_text(f"id,x,y\n{rows}a,oops,1\n")
    with pytest.raises(DataError, match=r"oops(.|\n)*categorical"):
        from_table(tmp_path / "t.csv", client="id", target="y")
    found = from_table(tmp_path / "t.csv", client="id", target="y", categorical=["x"])
    assert found.input_shape == (101,)


def test_an_experiment_file_has_paths_relative_to_it(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", patients())
    content = {
        "data": {
            "source": "table",
            "path": ["a.parquet"],
            "client": "hospital",
            "target": "outcome",
        },
        "model": {"name": "softmax_regression"},
        "strategy": {"name": "fedavg"},
    }
    file = ExperimentFile(content, tmp_path)
    assert_same(file.federation(), oracle(patients()))
    assert str(tmp_path / "a.parquet") in file.resolved()
