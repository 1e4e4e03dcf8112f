"""The rows of a table: first whose they are, then their features into their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import DataError
from hanse.data.sources.arrow import Texts, check_missing, numbers
from hanse.data.sources.division import SPLITS, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from hanse.data.sources.table_columns import Columns
    from hanse.data.sources.table_files import TableFile

_MOST_CATEGORIES = 1000


@dataclass(frozen=True, eq=False)
class Keys:
    """What is known of every row before features are read.

    Attributes:
        owners: [N] the number of each row's client.
        clients: the clients' names.
        split: [N] what each row is for, a number of `SPLITS`, if a column says so.
        target: [N] what is to be predicted.
        categories: of each categorical feature [N] the number of each row's category, and the
            categories, sorted.
    """

    owners: NDArray[np.int64]
    clients: list[str]
    split: NDArray[np.int8] | None
    target: Texts | NDArray[np.float64]
    categories: Mapping[str, tuple[NDArray[np.int32], list[str]]]

    def width(self, columns: Columns) -> int:
        """How many inputs an example has."""
        return len(columns.numeric) + sum(len(values) for _, values in self.categories.values())


def read_keys(pa: ModuleType, files: Sequence[TableFile], columns: Columns, where: str) -> Keys:
    """Go through the files once, and read all but the features.

    Raises:
        DataError: there are no rows, a value is missing, or a split is of another name.
    """
    texts = {name: Texts() for name, kind in columns.keys.items() if kind in ("text", "boolean")}
    owners = texts[columns.client] if columns.client is not None else Texts()
    quantities: list[NDArray[np.float64]] = []
    for file in files:
        for batch in file.batches(columns.keys):
            for name, column in texts.items():
                column.add(pa, batch[name])
            if columns.target not in texts:
                quantities.append(numbers(pa, batch[columns.target]))
            if columns.client is None:
                name = file.path.name.partition(".")[0]
                owners.add_constant(name, len(batch[columns.target]))
    codes = owners.codes()
    if not len(codes):
        raise DataError(
            f"{where} has no rows",
            why="a federation has at least one client, and a client at least one example",
            instead="a table with a row for each example",
        )
    target = texts.get(columns.target)
    values = np.concatenate(quantities) if quantities else np.zeros(0)
    missing = {name: int((column.codes() < 0).sum()) for name, column in texts.items()}
    if target is None:
        missing[columns.target] = int(np.isnan(values).sum())
    inputs = {name: missing.pop(name) for name in columns.categorical}
    check_missing(missing, len(codes), where, features=False)
    check_missing(inputs, len(codes), where, features=True)
    return Keys(
        codes.astype(np.int64),
        owners.values,
        None if columns.split is None else _split(texts[columns.split], columns.split, where),
        values if target is None else target,
        {name: _categories(texts[name], name, where) for name in columns.categorical},
    )


def read_features(
    pa: ModuleType,
    files: Sequence[TableFile],
    columns: Columns,
    keys: Keys,
    order: NDArray[np.int64],
    where: str,
) -> NDArray[np.float32]:
    """Go through the files again, and put the features of each row into its place.

    Args:
        pa: the module pyarrow.
        files: of the table.
        columns: which columns are features.
        keys: what `read_keys` found.
        order: the rows that are used; row i of the result is row `order[i]` of the table.
        where: what is read, for messages.

    Returns:
        float32 [len(order), features].

    Raises:
        DataError: a value is missing or infinite.
    """
    place = np.full(len(keys.owners), -1, np.int64)
    place[order] = np.arange(len(order))
    x = np.empty((len(order), keys.width(columns)), np.float32)
    missing = dict.fromkeys(columns.numeric, 0)
    start = 0
    for file in files:
        for batch in file.batches({name: columns.kinds[name] for name in columns.numeric}):
            rows = len(next(iter(batch.values())))
            where_to = place[start : start + rows]
            part = np.zeros((rows, x.shape[1]), np.float32)
            column = 0
            for name in columns.features:
                if name in keys.categories:
                    codes, values = keys.categories[name]
                    part[np.arange(rows), column + codes[start : start + rows]] = 1
                    column += len(values)
                    continue
                part[:, column] = _single(numbers(pa, batch[name]), name, start, file)
                missing[name] += int(np.isnan(part[:, column]).sum())
                column += 1
            x[where_to[where_to >= 0]] = part[where_to >= 0]
            start += rows
    check_missing(missing, start, where, features=True)
    return x


def _single(
    values: NDArray[np.float64], name: str, start: int, file: TableFile
) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    infinite = np.flatnonzero(np.isinf(single))
    if len(infinite):
        raise DataError(
            f"{file.path} has {values[infinite[0]]:g} as {name!r}, in row {start + infinite[0]} of "
            "the table",
            why="one such value makes every model it touches NaN; single precision ends at 3.4e38",
            instead=f"correct or drop the row, use another unit, or ignore = [{name!r}]",
        )
    return single


def _split(texts: Texts, column: str, where: str) -> NDArray[np.int8]:
    strangers = [value for value in texts.values if value not in SPLITS]
    if strangers:
        raise DataError(
            f"{where} has {listed(strangers)} in {column!r}, the split",
            why="a row is there to train on, to test its client on, or of a client that never "
            "trains",
            instead=f"the texts {', '.join(map(repr, SPLITS))} in this column",
        )
    number = np.array([SPLITS.index(value) for value in texts.values], np.int8)
    return number[texts.codes()]


def _categories(texts: Texts, column: str, where: str) -> tuple[NDArray[np.int32], list[str]]:
    values = texts.values
    if len(values) > _MOST_CATEGORIES:
        raise DataError(
            f"{where} has {len(values):,} different values in {column!r}, categorical",
            why=f"each becomes a column of 0 and 1, and more than {_MOST_CATEGORIES:,} are rather "
            "names than categories",
            instead=f"ignore = [{column!r}], or fewer, coarser categories",
        )
    order = sorted(range(len(values)), key=values.__getitem__)
    rank = np.empty(len(values), np.int32)
    rank[order] = np.arange(len(values))
    return rank[texts.codes()], [values[number] for number in order]
