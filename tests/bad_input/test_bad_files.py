"""What is wrong with somebody's own files: each is refused by name, with a remedy that works."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import datasets
import pyarrow as pa
import pytest
import torch
from PIL import Image
from tests.bad_input.test_bad_input import Bad
from tests.data.own_files import csv, image, leaf, parquet, picture
from torch.utils.data import IterableDataset

from hanse import ConfigError, DataError, HanseError
from hanse.cli.beginning import begin
from hanse.data import (
    from_huggingface,
    from_image_folder,
    from_leaf,
    from_table,
    from_torch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILES = Path("..") / "in"  # beside the current folder, which must stay empty

GOOD: dict[str, Any] = {
    "hospital": ["a", "b", "a", "b", "a", "b"],
    "age": [1, 2, 3, 4, 5, 6],
    "weight": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5],
    "outcome": ["no", "yes", "yes", "no", "yes", "no"],
}


# ------------------------------------------------------------------- ways to say something
def table(columns: dict[str, Any] | None = None, **options: Any) -> Callable[[], object]:  # noqa: ANN401
    """A Parquet file of good columns, some of them changed, read as a table."""

    def read() -> object:
        content = {k: v for k, v in {**GOOD, **(columns or {})}.items() if v is not None}
        parquet(FILES / "t.parquet", content)
        return from_table(
            FILES / "t.parquet", **{"client": "hospital", "target": "outcome", **options}
        )

    return read


def text(content: bytes | str, name: str = "t.csv", **options: Any) -> Callable[[], object]:  # noqa: ANN401
    """A file of these bytes, read as a table."""

    def read() -> object:
        data = content.encode() if isinstance(content, str) else content
        (FILES / name).write_bytes(data)
        return from_table(FILES / name, **{"client": "hospital", "target": "outcome", **options})

    return read


def rows(*lines: str) -> str:
    return "\n".join(["hospital,age,outcome", *lines, ""])


def truncated() -> object:
    whole = parquet(FILES / "t.parquet", GOOD).read_bytes()
    (FILES / "t.parquet").write_bytes(whole[: len(whole) // 2])
    return from_table(FILES / "t.parquet", client="hospital", target="outcome")


def damaged() -> object:
    """The pages of the column of weights are overwritten, the footer is whole."""
    file = parquet(FILES / "t.parquet", GOOD, compression="gzip", use_dictionary=False)
    chunk = pa.parquet.read_metadata(file).row_group(0).column(2)
    content = bytearray(file.read_bytes())
    start = chunk.data_page_offset
    content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    file.write_bytes(content)
    return from_table(file, client="hospital", target="outcome")


def two_files(other: dict[str, Any], **options: Any) -> Callable[[], object]:  # noqa: ANN401
    def read() -> object:
        parquet(FILES / "one.parquet", GOOD)
        content = {k: v for k, v in {**GOOD, **other}.items() if v is not None}
        parquet(FILES / "two.parquet", content)
        return from_table(
            [FILES / "one.parquet", FILES / "two.parquet"],
            **{"client": "hospital", "target": "outcome", **options},
        )

    return read


def duplicated() -> object:
    names = ["hospital", "age", "age", "outcome"]
    arrays = [pa.array(GOOD["hospital" if n == "hospital" else n]) for n in names]
    pa.parquet.write_table(pa.Table.from_arrays(arrays, names), FILES / "t.parquet")
    return from_table(FILES / "t.parquet", client="hospital", target="outcome")


def both_kinds() -> object:
    (FILES / "mixed").mkdir()
    parquet(FILES / "mixed" / "a.parquet", GOOD)
    csv(FILES / "mixed" / "b.csv", GOOD)
    return from_table(FILES / "mixed", client="hospital", target="outcome")


def without(module: str, do: Callable[[], object]) -> Callable[[], object]:
    """As if a package were not installed."""

    def missing() -> object:
        hidden = {m: None for m in sys.modules if m.partition(".")[0] == module}
        with mock.patch.dict(sys.modules, {module: None, **hidden}):
            return do()

    return missing


def photos(
    *shapes: tuple[int, ...],
    then: Callable[[Path], object] = lambda _: None,
    **options: Any,  # noqa: ANN401
) -> Callable[[], object]:
    """A folder of images of these shapes, of one client and two classes, spoilt, and read."""

    def read() -> object:
        folder = FILES / "photos"
        for number, shape in enumerate(shapes or ((4, 4), (4, 4))):
            label = "cat" if number % 2 else "dog"
            image(folder / "anna" / label / f"{number}.png", picture(number, *shape))
        then(folder)
        return from_image_folder(folder, **options)

    return read


def corrupt(folder: Path) -> None:
    file = folder / "anna" / "dog" / "0.png"
    file.write_bytes(file.read_bytes()[:50])


def palette(folder: Path) -> None:
    Image.fromarray(picture(0, 4, 4)).convert("P").save(folder / "anna" / "dog" / "0.png")


def users(
    spoil: Callable[[dict[str, Any]], object] = lambda _: None,
    **options: Any,  # noqa: ANN401
) -> Callable[[], object]:
    """A file of LEAF, spoilt, and read."""

    def read() -> object:
        leaf(FILES / "leaf" / "train", {"anna": ([[1.0], [2.0]], [0, 1]), "ben": ([[3.0]], [1])})
        file = FILES / "leaf" / "train" / "a.json"
        content = json.loads(file.read_text())
        spoil(content)
        file.write_text(json.dumps(content))
        return from_leaf(FILES / "leaf", **options)

    return read


def anna(**lists: Any) -> Callable[[], object]:  # noqa: ANN401 - whatever JSON can hold
    return users(lambda content: content["user_data"]["anna"].update(lists))


def faces(columns: dict[str, Any] | None = None, **options: Any) -> Callable[[], object]:  # noqa: ANN401
    """A data set of Hugging Face's library."""

    def read() -> object:
        content = {k: v for k, v in {**GOOD, **(columns or {})}.items() if v is not None}
        dataset = datasets.Dataset.from_dict(content)
        return from_huggingface(dataset, **{"client": "hospital", "target": "outcome", **options})

    return read


def broken_picture() -> object:
    features = datasets.Features(
        {"image": datasets.Image(), "y": datasets.Value("int64"), "who": datasets.Value("string")}
    )
    content = {"image": [{"bytes": b"no image", "path": None}] * 2, "y": [0, 1], "who": ["a", "b"]}
    dataset = datasets.Dataset.from_dict(content, features=features)
    return from_huggingface(dataset, target="y", client="who")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(1.0, 0)])


def torches(*items: Any, **options: Any) -> Callable[[], object]:  # noqa: ANN401 - whatever is wrong
    return lambda: from_torch({"anna": list(items)}, **options)


def init(
    data: Path,
    client: str | None = None,
    target: str | None = None,
    out: Path | None = None,
    before: Callable[[], object] = lambda: None,
) -> Callable[[], object]:
    """`hanse init`, with a table and what `before` makes."""

    def do() -> None:
        parquet(FILES / "t.parquet", GOOD)
        before()
        begin(data, client, target, out)

    return do


# ----------------------------------------------------------------------------- the table
TABLES: dict[str, Bad] = {
    "a file that there is not": Bad(
        DataError,
        "nix.parquet",
        "relative to it",
        lambda: from_table("nix.parquet", "y", "c"),
    ),
    "a workbook": Bad(DataError, ".xlsx", "to_parquet", text(b"PK", "t.xlsx")),
    "a file without a suffix": Bad(DataError, "no suffix", "to_parquet", text(b"x", "t")),
    "a number as a path": Bad(
        DataError,
        "path = 3",
        "patients.parquet",
        lambda: from_table(3, "y", "c"),  # type: ignore[arg-type]
    ),
    "no paths": Bad(DataError, "path = []", "patients.parquet", lambda: from_table([], "y", "c")),
    "a folder without tables": Bad(
        DataError,
        "in/empty has no tables",
        "Parquet or CSV",
        lambda: from_table(FILES / "empty", "y", "c"),
    ),
    "a folder with the same table twice": Bad(
        DataError, "a.parquet, b.csv", "path = [", both_kinds
    ),
    "an empty Parquet file": Bad(
        DataError, "t.parquet is empty", "to_parquet", text(b"", "t.parquet")
    ),
    "an empty CSV file": Bad(DataError, "t.csv is empty", "to_parquet", text(b"")),
    "a CSV file of one row": Bad(DataError, "has no rows", "row for each example", text(rows())),
    "a Parquet file without rows": Bad(
        DataError,
        "has no rows",
        "row for each example",
        table(
            {
                k: pa.array([], pa.string() if k in ("hospital", "outcome") else pa.int64())
                for k in GOOD
            }
        ),
    ),
    "half a Parquet file": Bad(DataError, "t.parquet cannot be read", "to_parquet", truncated),
    "a Parquet file with damaged pages": Bad(
        DataError, "t.parquet cannot be read", "to_parquet", damaged
    ),
    "prose as a Parquet file": Bad(
        DataError, "t.parquet cannot be read", "to_parquet", text("Dear Sir or Madam", "t.parquet")
    ),
    "a CSV file in Latin-1": Bad(
        DataError,
        "t.csv cannot be read",
        "iconv -f latin1",
        text(rows("Köln,1,no", "Bonn,2,yes").encode("latin1")),
        text(rows("Köln,1,no", "Bonn,2,yes").encode()),
    ),
    "a CSV file with a short row": Bad(
        DataError, "t.csv cannot be read", "correct that row", text(rows("a,1,no", "b,2"))
    ),
    "a CSV file with semicolons": Bad(
        DataError,
        "no column 'outcome'",
        "delimiter = ';'",
        text(rows("a,1,no", "b,2,yes").replace(",", ";")),
        text(rows("a,1,no", "b,2,yes").replace(",", ";"), delimiter=";"),
    ),
    "a delimiter of two characters": Bad(
        DataError, "delimiter = '||'", 'delimiter = ";"', text(rows("a,1,no"), delimiter="||")
    ),
    "a client's column that there is not": Bad(
        DataError,
        "no column 'hospitl' (client)",
        "did you mean 'hospital'?",
        table(client="hospitl"),
        table(client="hospital"),
    ),
    "a target that there is not": Bad(DataError, "'y' (target)", "one of", table(target="y")),
    "a feature that there is not": Bad(
        DataError,
        "'wieght'",
        "did you mean 'weight'?",
        table(features=["wieght"]),
        table(features=["weight"]),
    ),
    "an ignored column that there is not": Bad(
        DataError, "'x' (ignore)", "one of", table(ignore=["x"])
    ),
    "a split that there is not": Bad(DataError, "'part' (split)", "one of", table(split="part")),
    "no column of clients": Bad(
        DataError, "without the column of the clients", "client = 'hospital'", table(client=None)
    ),
    "two columns of one name": Bad(DataError, "two columns called 'age'", "rename", duplicated),
    "a feature twice": Bad(DataError, "'age' twice", "'age' once", table(features=["age", "age"])),
    "no feature": Bad(DataError, "features = []", "features = ['age'", table(features=[])),
    "no column left as a feature": Bad(
        DataError, "no column is left", "features", table(ignore=["age", "weight"])
    ),
    "a text as features": Bad(
        DataError,
        "features = 'age'",
        "features = ['age']",
        table(features="age"),
        table(features=["age"]),
    ),
    "the target as a feature": Bad(
        DataError,
        "'outcome', which is the target",
        "without 'outcome'",
        table(features=["age", "outcome"]),
    ),
    "the client as a feature": Bad(
        DataError, "which is the client", "without", table(features=["age", "hospital"])
    ),
    "the target as the client": Bad(
        DataError, "client = 'outcome'", "another column", table(client="outcome")
    ),
    "texts as a feature": Bad(
        DataError,
        "'ward' (a text)",
        "categorical = ['ward']",
        table({"ward": list("xyzxyz")}),
        table({"ward": list("xyzxyz")}, categorical=["ward"]),
    ),
    "dates as a feature": Bad(
        DataError,
        "'when' (a date)",
        "ignore = ['when']",
        table({"when": pa.array([0] * 6, pa.timestamp("s"))}),
        table({"when": pa.array([0] * 6, pa.timestamp("s"))}, ignore=["when"]),
    ),
    "lists as a feature": Bad(DataError, "'scan' (a list)", "ignore", table({"scan": [[1]] * 6})),
    "a category that is no feature": Bad(
        DataError, "'ward', which is no feature", "age, weight", table(categorical=["ward"])
    ),
    "fractions as categories": Bad(
        DataError, "'weight' holds a number", "without 'weight'", table(categorical=["weight"])
    ),
    "more categories than one can count": Bad(
        DataError,
        "1,001 different values in 'zip'",
        "ignore = ['zip']",
        lambda: from_table(
            parquet(
                FILES / "t.parquet",
                {"c": ["a"] * 1001, "zip": [str(k) for k in range(1001)], "y": [0, 1] * 500 + [0]},
            ),
            client="c",
            target="y",
            categorical=["zip"],
        ),
    ),
    "pandas' row numbers in a CSV file": Bad(
        DataError,
        "a column called ''",
        "index=False",
        text(",hospital,age,outcome\n0,a,1,no\n1,b,2,yes\n"),
        text(",hospital,age,outcome\n0,a,1,no\n1,b,2,yes\n", ignore=[""]),
    ),
    "pandas' row numbers in a Parquet file": Bad(
        DataError, "'__index_level_0__'", "index=False", table({"__index_level_0__": range(6)})
    ),
    "missing numbers": Bad(
        DataError,
        "'weight' in 2 of 6 rows",
        "ignore = ['weight']",
        table({"weight": [1.0, None, float("nan"), 1.0, 1.0, 1.0]}),
        table({"weight": [1.0, None, float("nan"), 1.0, 1.0, 1.0]}, ignore=["weight"]),
    ),
    "missing numbers in two columns": Bad(
        DataError,
        "'age' in 1, 'weight' in 3",
        "dropna",
        table({"age": [None, 1, 2, 3, 4, 5], "weight": [None, None, None, 1, 2, 3]}),
    ),
    "a column of nothing": Bad(
        DataError, "'weight' in 6 of 6", "ignore", table({"weight": pa.nulls(6)})
    ),
    "missing numbers in a CSV file": Bad(
        DataError, "'age' in 2 of 3", "fillna", text(rows("a,,no", "b,NA,yes", "b,3,no"))
    ),
    "missing categories": Bad(
        DataError,
        "'ward' in 1",
        "ignore = ['ward']",
        table({"ward": ["x", None, "x", "y", "y", "y"]}, categorical=["ward"]),
    ),
    "missing labels": Bad(
        DataError,
        "'outcome' in 1 of 6",
        "dropna",
        table({"outcome": ["no", None, "no", "yes", "no", "no"]}),
    ),
    "NaN as a quantity": Bad(
        DataError,
        "'outcome' in 1 of 6",
        "dropna",
        table({"outcome": [0.5, float("nan"), 1.0, 2.0, 3.0, 4.0]}),
    ),
    "a row of nobody": Bad(
        DataError,
        "'hospital' in 2 of 6",
        "dropna",
        table({"hospital": ["a", None, "", "b", "b", "b"]}),
    ),
    "an infinite number": Bad(
        DataError,
        "inf as 'weight', in row 2",
        "ignore = ['weight']",
        table({"weight": [1.0, 2.0, float("inf"), 1.0, 1.0, 1.0]}),
    ),
    "a number beyond single precision": Bad(
        DataError,
        "1e+300 as 'weight'",
        "another unit",
        table({"weight": [1.0, 2.0, 1e300, 1.0, 1.0, 1.0]}),
    ),
    "a quantity beyond single precision": Bad(
        DataError, "1e+300", "logarithm", table({"outcome": [0.5, 1e300, 1.0, 2.0, 3.0, 4.0]})
    ),
    "fractions as clients": Bad(
        DataError, "a number in each row of 'weight', the client", "astype", table(client="weight")
    ),
    "dates as a target": Bad(
        DataError,
        "a date in each row of 'outcome'",
        "another column",
        table({"outcome": pa.array([0] * 6, pa.date32())}),
    ),
    "one class": Bad(
        DataError, "'no' in every row", "another column", table({"outcome": ["no"] * 6})
    ),
    "a label that is no class": Bad(
        DataError, "'yes'", "leave `classes` out", table(classes=["no", "perhaps"]), table()
    ),
    "a text as classes": Bad(DataError, "classes = 'no'", "['no', 'yes']", table(classes="no")),
    "labels beyond the classes": Bad(
        DataError,
        "labels 0 to 2, with 2 classes",
        "name all classes",
        table({"outcome": [0, 1, 2, 0, 1, 2]}, classes=["no", "yes"]),
        table({"outcome": [0, 1, 2, 0, 1, 2]}, classes=["no", "yes", "perhaps"]),
    ),
    "fractions to be classified": Bad(
        DataError,
        "0.5 in a row",
        "task = 'regression'",
        table({"outcome": [0.5, 1, 1, 0, 1, 0]}, task="classification"),
        table({"outcome": [0.5, 1, 1, 0, 1, 0]}, task="regression"),
    ),
    "texts as a quantity": Bad(
        DataError,
        "'no', with task = 'regression'",
        "task = 'classification'",
        table(task="regression"),
        table(task="classification"),
    ),
    "whole numbers that may be anything": Bad(
        DataError,
        "101 different whole numbers",
        "task = 'regression'",
        lambda: from_table(
            parquet(FILES / "t.parquet", {"c": ["a"] * 101, "x": range(101), "y": range(101)}),
            client="c",
            target="y",
        ),
    ),
    "a task that there is not": Bad(
        DataError, "task = 'ranking'", "task = 'classification'", table(task="ranking")
    ),
    "classes of a quantity": Bad(
        DataError,
        "task = 'regression' with the classes",
        "one of the two",
        table(task="regression", classes=["a", "b"]),
    ),
    "a column of numbers in one file and of texts in another": Bad(
        DataError, "holds a text in ", "the same type", two_files({"age": list("abcdef")})
    ),
    "a file without a column": Bad(
        DataError, "two.parquet has no column 'age'", "one of", two_files({"age": None})
    ),
    "a file with a column more": Bad(
        DataError,
        "two.parquet has a column 'more'",
        "ignore = ['more']",
        two_files({"more": range(6)}),
        two_files({"more": range(6)}, features=["age"]),
    ),
}

DIVISIONS: dict[str, Bad] = {
    "an unseen client that there is not": Bad(
        DataError, "no client 'c'", "one of 'a', 'b'", table(unseen=["c"]), table(unseen=["b"])
    ),
    "a text as unseen": Bad(DataError, "unseen = 'b'", "unseen = ['b']", table(unseen="b")),
    "everybody unseen": Bad(
        DataError, "no client is left", "fewer clients out", table(unseen=["a", "b"])
    ),
    "a client with one row to be tested": Bad(
        DataError,
        "client 'c' has a single example",
        "min_examples = 2",
        table({"hospital": ["a", "b", "a", "b", "a", "c"]}, test_fraction=0.2),
        table({"hospital": ["a", "b", "a", "b", "a", "c"]}, test_fraction=0.2, min_examples=2),
    ),
    "all of them for testing": Bad(
        DataError,
        "test_fraction = 1.0",
        "test_fraction = 0.2",
        table(test_fraction=1.0),
        table(test_fraction=0.2),
    ),
    "no examples at least": Bad(
        DataError, "min_examples = 0", "min_examples = 2", table(min_examples=0)
    ),
    "more examples than anybody has": Bad(
        DataError,
        "min_examples = 4",
        "min_examples = 3",
        table(min_examples=4),
        table(min_examples=3),
    ),
    "a part that there is not": Bad(
        DataError,
        "'valid' in 'part'",
        "'train', 'test', 'unseen'",
        table({"part": ["train", "train", "test", "test", "valid", "train"]}, split="part"),
    ),
    "a split and a fraction": Bad(
        DataError,
        "test_fraction = 0.2, and rows",
        "one of the two",
        table(
            {"part": ["train", "train", "test", "test", "train", "train"]},
            split="part",
            test_fraction=0.2,
        ),
    ),
    "a client tested only": Bad(
        DataError,
        "client 'c' has rows to test on and none",
        "unseen = ['c']",
        table(
            {
                "hospital": list("ababcc"),
                "part": ["train", "train", "test", "test", "test", "test"],
            },
            split="part",
        ),
        table(
            {
                "hospital": list("ababcc"),
                "part": ["train", "train", "test", "test", "test", "test"],
            },
            split="part",
            unseen=["c"],
        ),
    ),
    "a client not tested": Bad(
        DataError,
        "client 'b' has rows to train on and none",
        "test_fraction",
        table({"part": ["train", "train", "test", "train", "train", "train"]}, split="part"),
    ),
    "a client trained and unseen": Bad(
        DataError,
        "client 'b'",
        "unseen = ['b']",
        table({"part": ["train", "train", "train", "unseen", "train", "train"]}, split="part"),
    ),
}

MODULES: dict[str, Bad] = {
    "a table without pyarrow": Bad(
        DataError, "needs pyarrow", "pip install 'hanse[tabular]'", without("pyarrow", table())
    ),
    "images without Pillow": Bad(
        DataError,
        "needs PIL",
        "pip install 'hanse[images]'",
        lambda: (photos()(), without("PIL", lambda: from_image_folder(FILES / "photos"))()),
    ),
    "a data set without datasets": Bad(
        DataError,
        "needs datasets",
        "pip install 'hanse[huggingface]'",
        without("datasets", lambda: from_huggingface("folder", "y")),
    ),
}

IMAGES: dict[str, Bad] = {
    "a folder that there is not": Bad(
        DataError, "nix", "client/class", lambda: from_image_folder("nix")
    ),
    "an empty folder": Bad(
        DataError,
        "no folders of clients",
        "client/class",
        lambda: from_image_folder(FILES / "empty"),
    ),
    "an image without a class": Bad(
        DataError,
        "x.png",
        "client/class",
        photos(then=lambda f: image(f / "anna" / "x.png", picture(0, 4, 4))),
    ),
    "an image without a client": Bad(
        DataError,
        "x.png",
        "client/class",
        photos(then=lambda f: image(f / "x.png", picture(0, 4, 4))),
    ),
    "a client without images": Bad(
        DataError,
        "ben has no images",
        "client/class",
        photos(then=lambda f: (f / "ben" / "cat").mkdir(parents=True)),
    ),
    "notes among images": Bad(
        DataError,
        "notes.txt is no image",
        "take it out",
        photos(then=lambda f: (f / "anna" / "cat" / "notes.txt").write_text("n")),
    ),
    "a damaged image": Bad(
        DataError, "0.png cannot be read", "replace the file", photos(then=corrupt)
    ),
    "prose as an image": Bad(
        DataError,
        "0.png cannot be read",
        "replace",
        photos(then=lambda f: (f / "anna" / "dog" / "0.png").write_text("Dear Sir or Madam")),
    ),
    "images of several sizes": Bad(
        DataError,
        "has 4 × 4 pixels, the first image has 5 × 5",
        "size = [5, 5]",
        photos((4, 4), (5, 5)),
        photos((4, 4), (5, 5), size=[5, 5]),
    ),
    "images of several colours": Bad(
        DataError,
        "is gray, the first image is rgb",
        "color = 'gray'",
        photos((4, 4), (4, 4, 3)),
        photos((4, 4), (4, 4, 3), color="gray"),
    ),
    "an image with a palette": Bad(
        DataError,
        "the mode 'P'",
        "color = 'rgb'",
        photos(then=palette),
        photos(then=palette, color="rgb"),
    ),
    "a colour that there is not": Bad(DataError, "color = 'red'", "'rgb'", photos(color="red")),
    "a number as a size": Bad(DataError, "size = 32", "size = [32, 32]", photos(size=32)),
    "one class of images": Bad(DataError, "'dog' in every row", "two classes", photos((4, 4))),
    "a class without its name": Bad(
        DataError, "'dog'", "leave `classes` out", photos(classes=["cat", "cow"])
    ),
}

LEAF: dict[str, Bad] = {
    "no folder": Bad(DataError, "nix is not a folder", "preprocess.sh", lambda: from_leaf("nix")),
    "no folder 'train'": Bad(
        DataError, "no folder 'train'", "preprocess.sh", lambda: from_leaf(FILES / "empty")
    ),
    "no files": Bad(
        DataError,
        "no .json files",
        "preprocess.sh",
        lambda: (image(FILES / "l" / "train" / "a.png", picture(0, 4, 4)), from_leaf(FILES / "l")),
    ),
    "no JSON": Bad(
        DataError,
        "cannot be read as JSON",
        "preprocess.sh",
        lambda: (
            leaf(FILES / "l" / "train", {}),
            (FILES / "l/train/a.json").write_text("{"),
            from_leaf(FILES / "l"),
        ),
    ),
    "a list": Bad(
        DataError,
        "is a list",
        "preprocess.sh",
        lambda: (
            leaf(FILES / "l" / "train", {}),
            (FILES / "l/train/a.json").write_text("[]"),
            from_leaf(FILES / "l"),
        ),
    ),
    "users missing": Bad(
        DataError, "no list 'users'", "preprocess.sh", users(lambda c: c.pop("users"))
    ),
    "no users": Bad(
        DataError,
        "0 users",
        "preprocess.sh",
        lambda: (leaf(FILES / "l" / "train", {}), from_leaf(FILES / "l")),
    ),
    "a number of samples missing": Bad(
        DataError,
        "2 users and 1 num_samples",
        "preprocess.sh",
        users(lambda c: c["num_samples"].pop()),
    ),
    "another number of samples": Bad(
        DataError,
        "num_samples 3 for user 'anna', who has 2 x",
        "correct",
        users(lambda c: c.update(num_samples=[3, 1])),
    ),
    "more inputs than targets": Bad(DataError, "2 x and 1 y", "correct", anna(y=[0])),
    "a user without data": Bad(
        DataError, "'ben', and no user_data", "correct", users(lambda c: c["user_data"].pop("ben"))
    ),
    "a user without targets": Bad(
        DataError,
        "'anna' without lists",
        "correct",
        users(lambda c: c["user_data"]["anna"].pop("y")),
    ),
    "data of no user": Bad(
        DataError,
        "'carl', who is not among the users",
        "correct",
        users(lambda c: c["user_data"].update(carl={"x": [], "y": []})),
    ),
    "a user with no examples": Bad(
        DataError,
        "'ben' with no examples",
        "correct",
        users(
            lambda c: (c.update(num_samples=[2, 0]), c["user_data"].update(ben={"x": [], "y": []}))
        ),
    ),
    "a user twice": Bad(
        DataError,
        "'anna' is in",
        "one entry",
        lambda: (
            leaf(FILES / "leaf" / "train", {"anna": ([[1.0]], [1])}, "b"),
            users()(),
        ),
    ),
    "texts without a vocabulary": Bad(
        DataError, "texts as inputs: 'to be'", "text = 'characters'", anna(x=["to be", "or no"])
    ),
    "numbers as characters": Bad(
        DataError, "'characters'", "leave `text` out", users(text="characters")
    ),
    "ragged inputs": Bad(DataError, "'anna'", "pad or cut", anna(x=[[1.0], [1.0, 2.0]])),
    "inputs of another shape": Bad(
        DataError,
        "'ben'",
        "pad or cut",
        users(lambda c: c["user_data"]["ben"].update(x=[[1.0, 2.0]])),
    ),
    "objects as inputs": Bad(
        DataError, "no numbers", "lists of numbers", anna(x=[{"a": 1}, {"a": 2}])
    ),
    "labels of several types": Bad(
        DataError, "of the types int, str", "one label", anna(y=[0, "yes"])
    ),
    "NaN as a target": Bad(DataError, "NaN", "one label", anna(y=[0.0, float("nan")])),
    "some users with texts as targets": Bad(
        DataError, "some have numbers", "as texts", anna(y=["no", "yes"])
    ),
    "texts of several lengths": Bad(
        DataError,
        "texts of 2 to 5 characters",
        "pad or cut",
        users(
            lambda c: c["user_data"]["anna"].update(x=["to be", "or"], y=["a", "b"]),
            text="characters",
        ),
    ),
    "a character that is not in the vocabulary": Bad(
        DataError,
        "without 'b'",
        "leave `vocabulary` out",
        users(
            lambda c: (
                c.update(users=["anna"], num_samples=[2]),
                c.update(user_data={"anna": {"x": ["aa", "ab"], "y": ["a", "a"]}}),
            ),
            text="characters",
            vocabulary="ac",
        ),
    ),
    "a way to read texts that there is not": Bad(
        DataError, "text = 'words'", "'characters'", users(text="words")
    ),
    "users that are not all tested": Bad(
        DataError,
        "'ben' is only in train",
        "-t sample",
        lambda: (leaf(FILES / "leaf" / "test", {"anna": ([[1.0]], [1])}), users()()),
    ),
}

FACES: dict[str, Bad] = {
    "a list as a data set": Bad(
        DataError, "a list as a data set", "from_dict", lambda: from_huggingface([1], "y")
    ),
    "a folder that is no data set": Bad(
        DataError,
        "in/empty is no data set",
        "save_to_disk",
        lambda: from_huggingface(FILES / "empty", "y"),
    ),
    "a column that there is not": Bad(
        DataError, "'outcom'", "did you mean 'outcome'?", faces(target="outcom")
    ),
    "an input that there is not": Bad(DataError, "'x' (inputs)", "one of", faces(inputs="x")),
    "the target as an input": Bad(
        DataError, "which is the target", "without", faces(inputs=["age", "outcome"])
    ),
    "no input": Bad(
        DataError, "no column left", "inputs = 'image'", faces({"age": None, "weight": None})
    ),
    "texts as inputs": Bad(
        DataError, "'note', an input", "tokenizer", faces({"note": list("abcdef")})
    ),
    "a list among numbers": Bad(
        DataError,
        "several inputs",
        "inputs = 'scan'",
        faces({"scan": [[1, 2]] * 6}),
        faces({"scan": [[1, 2]] * 6}, inputs="scan"),
    ),
    "lists of several lengths": Bad(
        DataError, "in row 4", "pad", faces({"scan": [[1, 2]] * 3 + [[1]] * 3}, inputs="scan")
    ),
    "NaN in a list": Bad(
        DataError,
        "row 4 of 'scan'",
        "filter",
        faces({"scan": [[1.0]] * 4 + [[float("nan")]] * 2}, inputs="scan"),
    ),
    "missing numbers": Bad(
        DataError, "'age' in 1", "fillna", faces({"age": [1, None, 2, 3, 4, 5]})
    ),
    "missing labels": Bad(
        DataError, "'outcome' in 2 of 6", "dropna", faces({"outcome": [None, None, *"abab"]})
    ),
    "neither a client nor clients": Bad(
        DataError,
        "neither client nor clients",
        "clients = 10",
        faces(client=None, inputs="age"),
        faces(client=None, inputs="age", clients=2),
    ),
    "a client and clients": Bad(DataError, "and clients = 2", "one of the two", faces(clients=2)),
    "a part of a data set without parts": Bad(
        DataError, "test = 'valid'", "test_fraction", faces(test="valid")
    ),
    "a part that there is not": Bad(
        DataError,
        "no part 'train'",
        "test",
        lambda: from_huggingface(
            datasets.DatasetDict({"test": datasets.Dataset.from_dict(GOOD)}), "outcome", "hospital"
        ),
    ),
    "parts with other columns": Bad(
        DataError,
        "other columns to test on",
        "cast",
        lambda: from_huggingface(
            datasets.DatasetDict(
                {
                    "train": datasets.Dataset.from_dict(GOOD),
                    "test": datasets.Dataset.from_dict({"hospital": ["a"], "outcome": ["no"]}),
                }
            ),
            "outcome",
            "hospital",
        ),
    ),
    "no rows": Bad(
        DataError,
        "no rows to train on",
        "row for each example",
        lambda: from_huggingface(
            datasets.Dataset.from_dict(GOOD).select([]), "outcome", "hospital"
        ),
    ),
    "colours of no images": Bad(
        DataError, "no column of images", "leave them out", faces(color="rgb")
    ),
    "an image that is none": Bad(DataError, "image in row 0", "drop the row", broken_picture),
}

TORCH: dict[str, Bad] = {
    "a stream": Bad(
        DataError, "'anna' has a Stream", "map-style", lambda: from_torch({"anna": Stream()})
    ),
    "no items": Bad(DataError, "'anna' has no examples", "leave this client out", torches()),
    "a list as clients": Bad(
        DataError,
        "train is a list",
        "{'hospital a'",
        lambda: from_torch([1]),  # type: ignore[arg-type]
    ),
    "nobody": Bad(DataError, "without clients", "{'hospital a'", lambda: from_torch({})),
    "nothing": Bad(
        DataError,
        "train is a NoneType",
        "{'hospital a'",
        lambda: from_torch(None),  # type: ignore[arg-type]
    ),
    "numbers as names": Bad(
        DataError,
        "client 0",
        "text as its name",
        lambda: from_torch({0: [(1.0, 0)]}),  # type: ignore[dict-item]
    ),
    "items without a target": Bad(
        DataError, "item 0 of client 'anna' is a tuple of 1", "pairs", torches((1.0,))
    ),
    "dictionaries as items": Bad(DataError, "is a dict of 2", "pairs", torches({"x": 1.0, "y": 0})),
    "pictures as items": Bad(
        DataError, "has a Image", "ToTensor", torches((Image.fromarray(picture(0, 2, 2)), 0))
    ),
    "items of several shapes": Bad(
        DataError,
        "the input of item 1",
        "same shape",
        torches((torch.zeros(2), 0), (torch.zeros(3), 0)),
    ),
    "labels of several types": Bad(
        DataError, "the target of item 1", "same shape", torches((1.0, 0), (1.0, 0.5))
    ),
    "NaN": Bad(DataError, "'anna' has NaN", "drop", torches((float("nan"), 0))),
    "a number as classes": Bad(DataError, "classes=2", "names", torches((1.0, 0), classes=2)),
}

BEGINNINGS: dict[str, Bad] = {
    "no target": Bad(
        ConfigError,
        "without --target",
        "--client hospital --target COLUMN, one of: hospital, age",
        init(FILES / "t.parquet", "hospital"),
    ),
    "no client": Bad(
        ConfigError,
        "without --client",
        "--target outcome --client COLUMN",
        init(FILES / "t.parquet", None, "outcome"),
    ),
    "a target that there is not": Bad(
        DataError,
        "'outcom'",
        "did you mean 'outcome'?",
        init(FILES / "t.parquet", "hospital", "outcom"),
    ),
    "a file that is there": Bad(
        ConfigError,
        "experiment.toml exists already",
        "--out",
        init(
            FILES / "t.parquet",
            out=FILES / "experiment.toml",
            before=lambda: (FILES / "experiment.toml").write_text("mine"),
        ),
    ),
    "nothing": Bad(
        ConfigError,
        "there is no file or folder nix",
        "the path",
        init(Path("nix")),
    ),
    "a folder of nothing": Bad(
        ConfigError,
        "in/empty holds nothing",
        "the path",
        init(FILES / "empty"),
    ),
    "columns of images": Bad(
        ConfigError,
        "--client or --target with the source images",
        "hanse init",
        init(FILES / "photos", "who", before=photos()),
    ),
}

TABLE = {
    f"{kind}: {name}": bad
    for kind, rows_ in {
        "table": TABLES,
        "division": DIVISIONS,
        "module": MODULES,
        "images": IMAGES,
        "leaf": LEAF,
        "huggingface": FACES,
        "torch": TORCH,
        "init": BEGINNINGS,
    }.items()
    for name, bad in rows_.items()
}


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is empty; files to read lie in another beside it."""
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("name", TABLE)
def test_what_cannot_be_meant_is_refused_with_a_remedy(empty: Path, name: str) -> None:
    bad = TABLE[name]
    with pytest.raises(HanseError) as caught:
        bad.does()
    error = caught.value
    assert type(error) is bad.kind
    assert bad.says in error.found
    assert len(error.why) > 10
    assert bad.instead in error.instead
    assert not list(empty.iterdir())


@pytest.mark.parametrize("name", [name for name, bad in TABLE.items() if bad.works])
def test_the_remedy_works(name: str) -> None:
    remedy = TABLE[name].works
    assert remedy is not None
    remedy()
