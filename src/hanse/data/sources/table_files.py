"""Parquet and CSV files, read a batch of rows at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from hanse.core.errors import DataError
from hanse.data.sources.arrow import NUMERIC, Kind, kind_of
from hanse.data.sources.extras import needed

if TYPE_CHECKING:
    from types import ModuleType

SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "tsv",
    ".tsv.gz": "tsv",
}
_BLOCK = 1 << 21  # bytes of a CSV file read at once; types are guessed from the first
_BUFFER = 1 << 18  # bytes of each column of a Parquet file read at once
_LARGEST_BATCH = 1 << 14  # rows
_CELLS = 1 << 22  # of a batch

Batch = Mapping[str, Any]
"""Chunks of columns, each a `pyarrow.Array` of the same length, by name."""


@dataclass(frozen=True, eq=False)
class TableFile:
    """A file of a table.

    Attributes:
        path: where it is.
        columns: the names of its columns, in order; after those, of the folders `name=value`
            above it.
        kinds: what each holds; in a CSV file, by its first megabytes.
        batches: reads some columns, a batch of rows after another. Columns come as the kinds say
            that they are wanted as: texts as texts, numbers and booleans as they are.
    """

    path: Path
    columns: tuple[str, ...]
    kinds: Mapping[str, Kind]
    batches: Callable[[Mapping[str, Kind]], Iterator[Batch]]


def table_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that `path` stands for: one, several, or all tables in a folder.

    Raises:
        DataError: there is no such file, it is no table, or a folder has no or several kinds.
    """
    if isinstance(path, list | tuple):
        found = [file for one in path for file in table_files(one)]
        if not found:
            raise _no_path(path)
        return found
    if not isinstance(path, str | Path):
        raise _no_path(path)
    place = Path(path)
    if place.is_dir():
        return _in_folder(place)
    if kind_of_file(place) is None:
        raise DataError(
            f"{place} is of an unknown kind: {place.suffix or 'no suffix'}",
            why=f"tables are read from files that end in {', '.join(SUFFIXES)}",
            instead="save it as Parquet, with pandas data.to_parquet('data.parquet')",
        )
    if not place.is_file():
        raise DataError(
            f"there is no file {place}",
            why="the table is read from there",
            instead="the path of a Parquet or CSV file; in an experiment file, relative to it",
        )
    return [place]


def kind_of_file(path: Path) -> str | None:
    """Of what kind a file is by its name: parquet, csv or tsv; None: no table."""
    name = path.name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def open_table(path: Path, delimiter: str | None, decimal: str = ".") -> TableFile:
    """Look at a file of a table: its columns, but not yet its rows.

    Args:
        path: a Parquet or CSV file.
        delimiter: what separates the columns of a CSV file; None: a comma, in `.tsv` files a tab.
        decimal: what begins the fraction of a number in a CSV file.

    Raises:
        DataError: pyarrow is not installed, or the file is damaged.
    """
    pa = needed("pyarrow", "tabular", f"reading {path.name}")
    kind = kind_of_file(path)
    with _reading(pa, path):
        if kind == "parquet":
            return _with_folders(pa, _parquet(pa, path))
        separator = delimiter if delimiter is not None else {"tsv": "\t"}.get(str(kind), ",")
        return _with_folders(pa, _csv(pa, path, separator, decimal))


def _in_folder(folder: Path) -> list[Path]:
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and kind_of_file(file) is not None
        and not any(p.startswith((".", "_")) for p in file.relative_to(folder).parts)
    ]
    if not found:
        raise DataError(
            f"{folder} has no tables",
            why=f"tables are files that end in {', '.join(SUFFIXES)}",
            instead="a folder with Parquet or CSV files, or the path of one of them",
        )
    kinds = {str(kind_of_file(file)): file for file in found}
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise DataError(
            f"{folder} has tables of several kinds: {one.name}, {other.name}",
            why="the same rows may be in both",
            instead="list the files that are meant: path = ['a.csv', 'b.csv']",
        )
    return found


def _parquet(pa: ModuleType, path: Path) -> TableFile:
    parquet = needed("pyarrow.parquet", "tabular", f"reading {path.name}")
    schema = parquet.read_schema(path)

    def batches(wanted: Mapping[str, Kind]) -> Iterator[Batch]:
        size = max(min(_LARGEST_BATCH, _CELLS // max(len(wanted), 1)), 1)
        options = {
            "pre_buffer": False,  # else a row group is read whole
            "buffer_size": _BUFFER,
            "page_checksum_verification": True,
        }
        with _reading(pa, path), parquet.ParquetFile(path, **options) as file:
            if not wanted:  # only their number counts
                for start in range(0, file.metadata.num_rows, size):
                    yield {"": pa.nulls(min(size, file.metadata.num_rows - start))}
                return
            for batch in file.iter_batches(
                batch_size=size, columns=list(wanted), use_threads=False
            ):
                yield {name: batch.column(name) for name in wanted}

    kinds = {field.name: kind_of(pa, field.type) for field in schema}
    return TableFile(path, tuple(schema.names), kinds, batches)


def _csv(pa: ModuleType, path: Path, delimiter: str, decimal: str) -> TableFile:
    csv = needed("pyarrow.csv", "tabular", f"reading {path.name}")
    if len(delimiter) != 1 or len(decimal) != 1 or delimiter == decimal:
        raise DataError(
            f"delimiter = {delimiter!r}, decimal = {decimal!r}",
            why="one character is between two columns, and another one within a number",
            instead='delimiter = ";", decimal = ","',
        )
    reading = csv.ReadOptions(use_threads=False, block_size=_BLOCK)
    parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)

    def opened(**converting: Any) -> Any:  # noqa: ANN401 - pyarrow is optional
        options = csv.ConvertOptions(strings_can_be_null=True, decimal_point=decimal, **converting)
        return csv.open_csv(path, reading, parsing, options)

    with opened() as stream:
        schema = stream.schema
    for field in schema:
        if pa.types.is_binary(field.type):
            raise pa.ArrowInvalid(f"column {field.name!r} is not in UTF8")
    kinds = {field.name: kind_of(pa, field.type) for field in schema}
    numeric = dict.fromkeys(NUMERIC, pa.float64()) | {"boolean": pa.bool_()}

    def batches(wanted: Mapping[str, Kind]) -> Iterator[Batch]:
        types = {name: numeric.get(kind, pa.large_string()) for name, kind in wanted.items()}
        names = list(wanted) or [schema.names[0]]
        with (
            _reading(pa, path),
            opened(include_columns=names, column_types=types) as stream,
        ):
            for batch in stream:
                yield {name: batch.column(name) for name in names}

    return TableFile(path, tuple(schema.names), kinds, batches)


def _with_folders(pa: ModuleType, file: TableFile) -> TableFile:
    """The file with a column for each folder `name=value` right above it.

    So do Spark, Hive and pandas (`partition_cols`) write a table whose rows are apart by a column.
    """
    folders: dict[str, str] = {}
    for folder in file.path.parents:
        name, equals, value = folder.name.partition("=")
        if not (name and equals and value):
            break
        folders = {name: unquote(value), **folders}
    if not folders:
        return file

    def batches(wanted: Mapping[str, Kind]) -> Iterator[Batch]:
        inside = {name: kind for name, kind in wanted.items() if name not in folders}
        for batch in file.batches(inside):
            rows = len(next(iter(batch.values())))
            indices = pa.nulls(rows, pa.int32()).fill_null(0)
            above = {
                name: pa.DictionaryArray.from_arrays(indices, pa.array([folders[name]]))
                for name in wanted
                if name in folders
            }
            yield {**batch, **above}

    kinds: dict[str, Kind] = {**file.kinds, **dict.fromkeys(folders, "text")}
    return TableFile(file.path, (*file.columns, *folders), kinds, batches)


@contextlib.contextmanager
def _reading(pa: ModuleType, path: Path) -> Iterator[None]:
    """What pyarrow raises as an error that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).strip().partition("\n")[0]
        empty = path.is_file() and path.stat().st_size == 0
        raise DataError(
            f"{path} is empty" if empty else f"{path} cannot be read: {said}",
            why="it is not a whole Parquet file"
            if kind_of_file(path) == "parquet"
            else "it is not a CSV file in UTF-8 whose first row has the columns' names, and whose "
            "columns hold values of one type",
            instead=_remedy(path, said),
        ) from error


def _remedy(path: Path, said: str) -> str:
    if "UTF8" in said or "utf-8" in said:
        return f"save it in UTF-8: iconv -f latin1 -t utf-8 {path.name} > utf8.csv"
    if "conversion error" in said:
        return "correct the value; or take a column of texts as such: categorical = ['…']"
    if "parse error" in said:
        return "correct that row; or name another delimiter, such as delimiter = ';'"
    return "write it again, with pandas data.to_parquet('data.parquet')"


def _no_path(path: object) -> DataError:
    return DataError(
        f"path = {path!r}",
        why="it says where the table is",
        instead="path = 'patients.parquet', a list of such files, or a folder of them",
    )
