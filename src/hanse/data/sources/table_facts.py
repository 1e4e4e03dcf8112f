"""What the columns of a table look like, for a first guess of what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hanse.data.sources.arrow import Kind, numbers
from hanse.data.sources.extras import needed
from hanse.data.sources.table_files import open_table, table_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MANY = 100
"""Different values that are counted; beyond, there are many."""

_ROWS = 20  # a batch must have, for its numbers to be taken for those of the rows


@dataclass(frozen=True)
class ColumnFacts:
    """What a column looks like.

    Attributes:
        kind: what it holds, in the first file.
        missing: how many rows lack a value.
        values: its different values as texts, sorted, if they are at most `MANY`.
        whole: whether all its numbers are whole.
        numbering: whether it has a different whole number in every row, as far as one looked.
    """

    kind: Kind
    missing: int
    values: tuple[str, ...] | None
    whole: bool
    numbering: bool


def table_facts(
    path: str | Path | Sequence[str | Path], delimiter: str | None = None, decimal: str = "."
) -> dict[str, ColumnFacts]:
    """Look at all columns of a table, a batch of rows after another.

    Args:
        path: as of `hanse.data.from_table`.
        delimiter: as of `hanse.data.from_table`.
        decimal: as of `hanse.data.from_table`.

    Raises:
        DataError: pyarrow is not installed, or a file is damaged.
    """
    pa = needed("pyarrow", "tabular", "a table")
    compute = needed("pyarrow.compute", "tabular", "a table")
    files = [open_table(file, delimiter, decimal) for file in table_files(path)]
    seen = {name: _Seen(kind) for name, kind in files[0].kinds.items()}
    for file in files:
        here = {name: kind for name, kind in file.kinds.items() if name in seen}
        for batch in file.batches(here):
            for name in here:
                seen[name].add(pa, compute, batch[name])
    return {name: one.facts() for name, one in seen.items()}


class _Seen:
    """A column, chunk by chunk."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.missing = 0
        self.values: set[Any] | None = set()
        self.whole = self.numbering = kind in ("number", "whole number")

    def add(self, pa: Any, compute: Any, chunk: Any) -> None:  # noqa: ANN401 - pyarrow is optional
        if self.kind in ("list", "other"):
            self.values = None
            return
        if self.kind in ("number", "whole number", "boolean", "missing"):
            self._add_numbers(numbers(pa, chunk))
            return
        if pa.types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_decode()
        texts = chunk.cast(pa.large_string())
        different = compute.unique(texts)
        self.missing += len(texts) - int(compute.sum(compute.not_equal(texts, "")).as_py() or 0)
        if self.values is not None and len(different) <= MANY + 2:
            self.values |= {value for value in different.to_pylist() if value}
        else:
            self.values = None

    def _add_numbers(self, values: Any) -> None:  # noqa: ANN401 - an array
        known = values[~np.isnan(values)]
        self.missing += len(values) - len(known)
        different = np.unique(known)
        self.whole = self.whole and bool(np.all(different == np.round(different)))
        self.numbering = self.numbering and self.whole and len(different) == len(values)
        self.numbering = self.numbering and len(values) >= _ROWS
        if self.values is not None and len(different) <= MANY + 1:
            self.values |= set(different.tolist())
        else:
            self.values = None

    def facts(self) -> ColumnFacts:
        values = self.values
        if values is not None and len(values) > MANY:
            values = None
        texts = None if values is None else tuple(_said(value) for value in sorted(values))
        return ColumnFacts(self.kind, self.missing, texts, self.whole, self.numbering)


def _said(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole and isinstance(value, float) else str(value)
