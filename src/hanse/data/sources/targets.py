"""What a column to be predicted means: labels of classes, or a quantity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hanse.core.errors import DataError
from hanse.data.sources.division import listed, near

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["classification", "regression"]
Labels = NDArray[np.int64]

_MANY = 100  # different whole numbers that are hardly the labels of classes


def labels_of_texts(
    codes: NDArray[np.integer[Any]],
    values: Sequence[str],
    *,
    column: str,
    classes: Sequence[str] | None = None,
    task: Kind | None = None,
) -> tuple[Labels, tuple[str, ...]]:
    """Labels that are written as texts.

    Args:
        codes: [N] each row's number in `values`.
        values: the different texts, in any order.
        column: the column's name, for messages.
        classes: the classes in the order of their labels; None: `values`, sorted.
        task: what the user says it is.

    Returns:
        The labels [N], and the classes' names.

    Raises:
        DataError: a text is no class, there is one class only, or it is meant as a quantity.
    """
    check_task(task, classes)
    if task == "regression":
        raise DataError(
            f"target {column!r} holds texts such as {values[0]!r}, with task = 'regression'",
            why="a quantity is a number",
            instead="task = 'classification', or a column of numbers",
        )
    names = tuple(sorted(values)) if classes is None else tuple(classes)
    number = {name: label for label, name in enumerate(names)}
    strangers = [value for value in values if value not in number]
    if strangers:
        rows = int(np.isin(codes, [values.index(value) for value in strangers]).sum())
        raise DataError(
            f"target {column!r} is {strangers[0]!r}, which is none of the classes (in all, {rows} "
            f"rows have other labels)",
            why="a label is one of the classes",
            instead=f"{near(strangers[0], names)} Or leave `classes` out, to take those in the "
            "data",
        )
    _check_several(names, column)
    return np.array([number[value] for value in values], np.int64)[codes], names


def labels_of_numbers(
    values: NDArray[np.float64],
    *,
    whole: bool,
    column: str,
    classes: Sequence[str] | None = None,
    task: Kind | None = None,
) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Labels, or a quantity, written as numbers.

    Args:
        values: [N], finite.
        whole: whether the column is of a type of whole numbers; those are labels, others are a
            quantity, unless `task` or `classes` says otherwise.
        column: the column's name, for messages.
        classes: the classes in the order of their labels; None: the numbers, sorted.
        task: what the user says it is.

    Returns:
        The labels [N], int64, and the classes' names; or the quantity [N], float32, and None.

    Raises:
        DataError: a number is no class, or it cannot be told what the column means.
    """
    check_task(task, classes)
    if task == "regression" or (task is None and classes is None and not whole):
        return _quantity(values, column), None
    different = np.unique(values)
    broken = different[different != np.round(different)]
    if len(broken):
        raise DataError(
            f"target {column!r} is {broken[0]:g} in a row, and is to be classified",
            why="a label is a whole number or a text",
            instead="task = 'regression' to predict a quantity, and no `classes`",
        )
    if task is None and classes is None and len(different) > _MANY:
        raise DataError(
            f"target {column!r} has {len(different):,} different whole numbers",
            why="they may be labels of as many classes, or a quantity such as a count",
            instead="task = 'regression' or task = 'classification'",
        )
    texts = [str(int(value)) for value in different]
    place = np.searchsorted(different, values)
    if classes is not None and not set(texts) <= set(classes):
        low, high = int(different[0]), int(different[-1])
        if low < 0 or high >= len(classes):
            raise DataError(
                f"target {column!r} has the labels {low} to {high}, with {len(classes)} classes",
                why=f"labels are 0 to {len(classes) - 1}, or the names of the classes",
                instead="name all classes, or leave `classes` out",
            )
        _check_several(classes, column)
        return values.astype(np.int64), tuple(classes)
    names = tuple(texts) if classes is None else tuple(classes)
    _check_several(names, column)
    return np.array([names.index(text) for text in texts], np.int64)[place], names


def check_task(task: object, classes: Sequence[str] | None) -> None:
    """Refuse what is neither classification nor regression, and classes of a quantity.

    Raises:
        DataError: as the summary says.
    """
    if task not in (None, "classification", "regression"):
        raise DataError(
            f"task = {task!r}",
            why="a target is a label or a quantity",
            instead="task = 'classification' or task = 'regression'",
        )
    if isinstance(classes, str) or (classes is not None and not _texts(classes)):
        raise DataError(
            f"classes = {classes!r}",
            why="it lists the classes' names in the order of their labels",
            instead="classes = ['no', 'yes'], or leave it out",
        )
    if task == "regression" and classes is not None:
        raise DataError(
            f"task = 'regression' with the classes {listed(list(classes))}",
            why="a quantity has no classes",
            instead="one of the two",
        )


def _texts(classes: object) -> bool:
    return isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)


def _check_several(names: Sequence[str], column: str) -> None:
    if len(names) < 2:
        raise DataError(
            f"target {column!r} is {names[0]!r} in every row" if names else "classes = []",
            why="there is nothing to tell apart",
            instead="another column as the target, or data with at least two classes",
        )


def _quantity(values: NDArray[np.float64], column: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        row = int(np.flatnonzero(~np.isfinite(single))[0])
        raise DataError(
            f"target {column!r} is {values[row]:g} in row {row}",
            why="single precision ends at 3.4e38",
            instead="another unit, or the logarithm",
        )
    return single
