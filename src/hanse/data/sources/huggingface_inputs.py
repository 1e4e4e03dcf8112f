"""The inputs of a Hugging Face data set: images, lists of numbers, or columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hanse.core.errors import DataError
from hanse.data.sources.arrow import check_missing, numbers
from hanse.data.sources.extras import needed
from hanse.data.sources.images import form_of, pixels, upright

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

Rows = Any
"""A `datasets.Dataset`."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """How the inputs of a data set are read.

    Attributes:
        shape: of one example's input.
        dtype: float32, or int64 for lists of whole numbers.
        read: the inputs of some rows, [N, ...].
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[NDArray[np.int64]], NDArray[Any]]

    @property
    def bytes(self) -> int:
        """Of one example's input."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def inputs_of(
    library: ModuleType,
    rows: Rows,
    columns: Sequence[str],
    where: str,
    color: Literal["gray", "rgb"] | None,
    size: Sequence[int] | None,
) -> Inputs:
    """How the inputs in these columns are read.

    Args:
        library: the module `datasets`.
        rows: a `datasets.Dataset` without a format.
        columns: one column of images or lists, or several of numbers.
        where: what has the columns, for messages.
        color: of images; see `hanse.data.sources.images.form_of`.
        size: of images.

    Raises:
        DataError: a column holds something else, or several columns are no numbers.
    """
    features = rows.features
    kinds = {column: _kind(library, features[column]) for column in columns}
    if "image" not in kinds.values() and (color is not None or size is not None):
        raise DataError(
            f"color = {color!r}, size = {size!r}, and no column of images",
            why="these convert images",
            instead="leave them out, or name the column of images: inputs = 'image'",
        )
    strange = [column for column, kind in kinds.items() if kind == "other"]
    if strange:
        raise DataError(
            f"{where} has {features[strange[0]]} in its column {strange[0]!r}, an input",
            why="inputs are images, lists of numbers, or numbers",
            instead="turn it into numbers with dataset.map(…), a tokenizer for texts; or name the "
            "columns that are inputs: inputs = ['…']",
        )
    if len(columns) > 1 and set(kinds.values()) != {"number"}:
        raise DataError(
            f"{where} has several inputs: {', '.join(f'{c!r} ({k})' for c, k in kinds.items())}",
            why="an input is one image, one list of numbers, or several columns of numbers",
            instead=f"inputs = {next(c for c, k in kinds.items() if k != 'number')!r}",
        )
    kind = kinds[columns[0]]
    if kind == "image":
        return _images(rows.select_columns(list(columns)), columns[0], where, color, size)
    if kind == "list":
        return _lists(rows.select_columns(list(columns)), columns[0], where)
    return _numbers(rows.select_columns(list(columns)), columns, where)


def _kind(library: ModuleType, feature: Any) -> Literal["image", "list", "number", "other"]:  # noqa: ANN401
    """What a column holds."""
    if isinstance(feature, library.Image):
        return "image"
    arrays = (library.Array2D, library.Array3D, library.Array4D, library.Array5D)
    if isinstance(feature, arrays):
        return "list"
    inner = feature
    while isinstance(inner, library.Sequence | library.LargeList | list) or (
        type(inner).__name__ == "List"
    ):
        inner = inner[0] if isinstance(inner, list) else inner.feature
    number = isinstance(inner, library.Value) and inner.dtype.startswith(
        ("int", "uint", "float", "bool", "double", "decimal")
    )
    if not number and not isinstance(inner, library.ClassLabel):
        return "other"
    return "number" if inner is feature else "list"


def _images(
    rows: Rows,
    column: str,
    where: str,
    color: Literal["gray", "rgb"] | None,
    size: Sequence[int] | None,
) -> Inputs:
    module = needed("PIL.Image", "huggingface", "an image")
    rows = rows.cast_column(column, rows.features[column].__class__(decode=True))

    def decoded(number: int) -> Any:  # noqa: ANN401 - Pillow is optional
        try:
            image = rows[number][column]
            found = None if image is None else upright(image)
        # Pillow raises these, and others of its own, for what is damaged.
        except (OSError, SyntaxError, ValueError, module.DecompressionBombError) as error:
            raise DataError(
                f"{where} has an image in row {number} that cannot be read: {error}",
                why="it is damaged, or in a format that Pillow does not know",
                instead="drop the row: dataset.select(…), dataset.filter(…)",
            ) from error
        if found is None:
            check_missing({column: 1}, len(rows), where, features=True)
        return found

    form = form_of(decoded(0), f"row 0 of {where}", color, size)

    def read(chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.stack([pixels(decoded(int(n)), form, f"row {n} of {where}") for n in chosen])

    return Inputs(form.shape, np.dtype(np.float32), read)


def _lists(rows: Rows, column: str, where: str) -> Inputs:
    arrays = rows.with_format("numpy")

    def array(number: int) -> NDArray[Any]:
        found = np.asarray(arrays[number][column])
        if found.dtype.kind not in "biuf":
            raise DataError(
                f"{where} has in row {number} of {column!r} {found!r:.60}",
                why="an input is a list of numbers, as long in all its parts",
                instead="cut and pad the lists to one length, with dataset.map(…)",
            )
        return found

    first = array(0)

    def read(chosen: NDArray[np.int64]) -> NDArray[Any]:
        together = arrays[chosen][column]
        usable = isinstance(together, np.ndarray) and together.dtype.kind in "biuf"
        if usable and together.shape[1:] == first.shape:
            return _finite(together, chosen, column, where)
        for number in chosen:  # one of them is another, and is to be named
            if array(int(number)).shape != first.shape:
                raise DataError(
                    f"{where} has in row {number} of {column!r} a list of shape "
                    f"{list(array(int(number)).shape)}, in row 0 one of {list(first.shape)}",
                    why="all inputs have one shape",
                    instead="cut and pad the lists to one length, with dataset.map(…)",
                )
        return np.stack([_finite(array(int(n))[None], [n], column, where)[0] for n in chosen])

    whole = first.dtype.kind in "biu"
    return Inputs(first.shape, np.dtype(np.int64 if whole else np.float32), read)


def _numbers(rows: Rows, columns: Sequence[str], where: str) -> Inputs:
    pa = needed("pyarrow", "huggingface", "a Hugging Face data set")
    table = rows.with_format("arrow")

    def read(chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        found = table[chosen]
        part = np.stack([numbers(pa, found.column(c).combine_chunks()) for c in columns], axis=1)
        lacking = np.isnan(part).sum(axis=0)
        check_missing(
            {c: int(n) for c, n in zip(columns, lacking, strict=True)},
            len(chosen),
            where,
            features=True,
        )
        return _finite(part, chosen, columns[0], where)

    return Inputs((len(columns),), np.dtype(np.float32), read)


def _finite(
    values: NDArray[Any], rows: Sequence[int] | NDArray[np.int64], column: str, where: str
) -> NDArray[Any]:
    """Inputs [N, ...] in single precision, or as they are where they are whole numbers."""
    if values.dtype.kind != "f":
        return values
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    fine = np.isfinite(single).reshape(len(rows), -1).all(axis=1)
    if not fine.all():
        raise DataError(
            f"{where} has NaN or an infinity in row {rows[int(np.argmin(fine))]} of {column!r}",
            why="one such value makes every model it touches NaN",
            instead="drop the row, or fill the gap, with dataset.filter(…) or dataset.map(…)",
        )
    return single
