"""Arrow's columns as arrays: never a Python object for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hanse.core.errors import DataError
from hanse.data.sources.division import near

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Kind = Literal["number", "whole number", "boolean", "text", "missing", "date", "list", "other"]
"""What a column holds. "missing": nothing but missing values."""

_FILL = "data.dropna(subset=[…]) or data.fillna(…)"
NUMERIC: tuple[Kind, ...] = ("number", "whole number", "boolean", "missing")


SAID: Mapping[Kind, str] = {
    "number": "a number",
    "whole number": "a whole number",
    "boolean": "true or false",
    "text": "a text",
    "missing": "nothing",
    "date": "a date",
    "list": "a list",
    "other": "something else",
}
"""Kinds in words, for messages."""


def kind_of(pa: Any, dtype: Any) -> Kind:  # noqa: ANN401 - pyarrow is optional
    """What a column of an Arrow type holds.

    Args:
        pa: the module pyarrow.
        dtype: a `pyarrow.DataType`.
    """
    types = pa.types
    if types.is_dictionary(dtype):
        return kind_of(pa, dtype.value_type)
    if types.is_list(dtype) or types.is_large_list(dtype) or types.is_fixed_size_list(dtype):
        return "list"
    tests: dict[Kind, tuple[Any, ...]] = {
        "whole number": (types.is_integer,),
        "number": (types.is_floating, types.is_decimal),
        "boolean": (types.is_boolean,),
        "text": (types.is_string, types.is_large_string, types.is_string_view),
        "missing": (types.is_null,),
        "date": (types.is_temporal,),
    }
    return next((kind for kind, is_it in tests.items() if any(t(dtype) for t in is_it)), "other")


class Texts:
    """A column as numbers of its different texts, built chunk by chunk."""

    def __init__(self) -> None:
        """No chunk yet."""
        self._numbers: dict[str, int] = {}
        self._codes: list[NDArray[np.int32]] = []

    def add(self, pa: Any, chunk: Any) -> None:  # noqa: ANN401 - a pyarrow.Array
        """Append a `pyarrow.Array`; missing and empty texts get the number -1."""
        if pa.types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_decode()
        encoded = chunk.cast(pa.large_string()).dictionary_encode()
        known = self._numbers
        found = [
            known.setdefault(text, len(known)) if text else -1
            for text in encoded.dictionary.to_pylist()
        ]
        number = np.array([*found, -1], np.int32)  # the last one is for what is missing
        self._codes.append(number[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)])

    def add_constant(self, text: str, rows: int) -> None:
        """Append a text that so many rows have."""
        number = self._numbers.setdefault(text, len(self._numbers))
        self._codes.append(np.full(rows, number, np.int32))

    @property
    def values(self) -> list[str]:
        """The different texts, by number."""
        return list(self._numbers)

    def codes(self) -> NDArray[np.int32]:
        """[N] the number of each row's text; -1 where it is missing."""
        return np.concatenate(self._codes) if self._codes else np.zeros(0, np.int32)


def numbers(pa: Any, chunk: Any) -> NDArray[np.float64]:  # noqa: ANN401 - a pyarrow.Array
    """A chunk of a numeric column, NaN where it is missing; true is 1."""
    if pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_decode()
    if pa.types.is_boolean(chunk.type):
        chunk = chunk.cast(pa.int8())
    if pa.types.is_null(chunk.type):
        return np.full(len(chunk), np.nan)
    cast = chunk.cast(pa.float64(), safe=False)
    return np.asarray(cast.to_numpy(zero_copy_only=False), np.float64)


def check_column(name: object, known: Sequence[str], role: str, where: str) -> None:
    """Refuse a column that is not there, or twice.

    Args:
        name: the column.
        known: all columns there are.
        role: what names it, such as "client".
        where: what has the columns.

    Raises:
        DataError: as the summary says.
    """
    if name not in known:
        between = next((c for c in ";\t|" if len(known) == 1 and c in known[0]), None)
        raise DataError(
            f"{where} has no column {name!r} ({role})",
            why="its columns are read by their names",
            instead=near(str(name), known) if between is None else f"delimiter = {between!r}",
        )
    if list(known).count(str(name)) > 1:
        raise DataError(
            f"{where} has several columns {name!r}",
            why="it is not known which of them is meant",
            instead="rename all but one, or drop them from the file",
        )


def check_missing(missing: Mapping[str, int], rows: int, where: str, *, features: bool) -> None:
    """Refuse missing values.

    Args:
        missing: how many rows lack a value, by column.
        rows: how many there are.
        where: what has the columns.
        features: whether the columns are inputs, which may be left out.

    Raises:
        DataError: names the columns and how many of their rows lack a value.
    """
    lacking = {column: count for column, count in missing.items() if count}
    if lacking:
        found = ", ".join(f"{column!r} in {count:,}" for column, count in lacking.items())
        columns = ", ".join(repr(column) for column in lacking)
        leave_out = f", or leave the columns out: ignore = [{columns}]" if features else ""
        raise DataError(
            f"{where} has rows without a value: {found} of {rows:,} rows",
            why="a model cannot compute with what is missing, and how to fill it is for you to say"
            if features
            else "every row belongs to a client, and has a target",
            instead=f"fill the values or drop the rows first, with pandas {_FILL}{leave_out}",
        )
