"""Parquet and CSV files with a row for each example and a column that says whose it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from hanse.data.sources.arrow import Texts
from hanse.data.sources.division import divide
from hanse.data.sources.extras import needed
from hanse.data.sources.table_columns import choose_columns
from hanse.data.sources.table_files import TableFile, open_table, table_files
from hanse.data.sources.table_rows import read_features, read_keys
from hanse.data.sources.targets import labels_of_numbers, labels_of_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hanse.data.federation import Federation


def from_table(
    path: str | Path | Sequence[str | Path],
    target: str,
    client: str | None = None,
    features: Sequence[str] | None = None,
    *,
    ignore: Sequence[str] = (),
    categorical: Sequence[str] = (),
    split: str | None = None,
    test_fraction: float = 0.0,
    unseen: Sequence[str] = (),
    min_examples: int = 1,
    classes: Sequence[str] | None = None,
    task: Literal["classification", "regression"] | None = None,
    seed: int = 0,
    delimiter: str | None = None,
    decimal: str = ".",
    name: str | None = None,
    attribution: str = "",
) -> Federation:
    """Read a table: a row for each example, and a column that says whose it is.

    The files are read twice, a batch of rows at a time, and only the columns that are needed: first
    who owns each row, then the features into their place. The memory is that of the features as
    float32, and of a few numbers for each row. Rows of a client may lie anywhere.

    Args:
        path: a Parquet file (`.parquet`, `.pq`) or a CSV file (`.csv`, `.tsv`, also `.gz`; UTF-8,
            with the columns' names in the first row), several of them, or a folder of them. A
            folder `hospital=altona` is a column "hospital" of the files in it.
        target: the column to predict. Texts, booleans and whole numbers are labels; other numbers
            are a quantity. `task` says otherwise.
        client: the column with each row's client, a text or a whole number; None: each file is a
            client, named as the file.
        features: the columns that are inputs, in this order; None: all but `target`, `client`,
            `split` and `ignore`.
        ignore: columns that are no inputs.
        categorical: features that become a column of 0 and 1 for each of their different values,
            sorted. The values of all clients count, so in a real federation they would have to
            agree on them.
        split: a column with "train", "test" or "unseen" in each row.
        test_fraction: the part of each client's rows that it keeps as `test`, chosen at random; 0:
            none.
        unseen: clients that never train.
        min_examples: training clients with fewer rows are left out.
        classes: the labels' names in the order of their numbers; None: the labels, sorted.
        task: what the target is, where its type does not say it.
        seed: another seed, other rows in `test`.
        delimiter: what separates the columns of a CSV file; None: a comma, in `.tsv` files a tab.
        decimal: what begins the fraction of a number in a CSV file.
        name: what to call the federation; None: as the file or folder.
        attribution: whom the data comes from.

    Returns:
        x: float32 [features]; y: int64 labels, or float32. Clients are in their natural order.

    Raises:
        DataError: pyarrow is not installed, a file is damaged, a column is not there or cannot be
            used, a value is missing, or rows cannot be divided so.
    """
    pa = needed("pyarrow", "tabular", "a table")
    files = [open_table(file, delimiter, decimal) for file in table_files(path)]
    where = str(path) if isinstance(path, str | Path) else f"{files[0].path} …"
    columns = choose_columns(files, where, target, client, split, features, ignore, categorical)
    keys = read_keys(pa, files, columns, where)
    division = divide(
        keys.owners,
        keys.clients,
        split=keys.split,
        unseen=unseen,
        test_fraction=test_fraction,
        min_examples=min_examples,
        seed=seed,
    )
    order = division.order
    given: dict[str, Any] = {"column": target, "classes": classes, "task": task}
    y: NDArray[Any]
    named: tuple[str, ...] | None
    if isinstance(keys.target, Texts):
        y, named = labels_of_texts(keys.target.codes(), keys.target.values, **given)
    else:
        whole = columns.kinds[target] == "whole number"
        y, named = labels_of_numbers(keys.target, whole=whole, **given)
    x = read_features(pa, files, columns, keys, order, where)
    return division.packed(
        {"x": torch.from_numpy(x), "y": torch.from_numpy(y[order])},
        named,
        _name_of(path, files) if name is None else name,
        attribution,
    )


def _name_of(path: str | Path | Sequence[str | Path], files: Sequence[TableFile]) -> str:
    place = Path(path).resolve() if isinstance(path, str | Path) else files[0].path
    return place.name.partition(".")[0] or place.name
