"""Data sets of Hugging Face's library `datasets`, in memory or saved on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hanse.core.errors import DataError
from hanse.data.partition import Scheme
from hanse.data.partition import split as partition_of
from hanse.data.sources.arrow import SAID, Texts, check_column, check_missing, kind_of, numbers
from hanse.data.sources.division import TEST, TRAIN, UNSEEN, divide
from hanse.data.sources.extras import needed
from hanse.data.sources.huggingface_inputs import Inputs, inputs_of
from hanse.data.sources.image_folder import LARGEST
from hanse.data.sources.table_columns import KEYS
from hanse.data.sources.targets import labels_of_numbers, labels_of_texts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from hanse.data.federation import Federation

_AT_ONCE = 1000  # rows

Rows = Any
"""A `datasets.Dataset`."""


def from_huggingface(
    dataset: str | Path | object,
    target: str,
    client: str | None = None,
    inputs: str | Sequence[str] | None = None,
    *,
    train: str = "train",
    test: str | None = None,
    clients: int | None = None,
    partition: Scheme = "iid",
    alpha: float = 0.5,
    min_size: int = 1,
    shards_per_client: int = 2,
    test_fraction: float = 0.0,
    unseen: Sequence[str] = (),
    min_examples: int = 1,
    classes: Sequence[str] | None = None,
    task: Literal["classification", "regression"] | None = None,
    seed: int = 0,
    color: Literal["gray", "rgb"] | None = None,
    size: Sequence[int] | None = None,
    lazy: bool | None = None,
    name: str | None = None,
    attribution: str = "",
) -> Federation:
    """Take a data set of Hugging Face's library `datasets`.

    Nothing is downloaded: `datasets.load_dataset` and `save_to_disk` do that, in a script of yours.

    Args:
        dataset: a `datasets.Dataset` or `DatasetDict`, or the folder that `save_to_disk` wrote.
        target: the column to predict. `ClassLabel`, texts, booleans and whole numbers are labels;
            other numbers are a quantity. `task` says otherwise.
        client: the column with each row's client; None: rows are split over `clients`.
        inputs: one column of images or of lists of numbers, all of one length; or columns with a
            number in each row; None: all but `target` and `client`.
        train: of a `DatasetDict`, the part to train on.
        test: of a `DatasetDict`, the part to test on; None: "test", if there is one. With `client`,
            its rows are `test` and belong to the clients that train (hold others out by `unseen`).
            Without, they are `unseen`, as those of one client "test set".
        clients: without `client`: how many clients to split `train` over.
        partition: how, "iid", "dirichlet" or "shards"; see `hanse.data.partition`.
        alpha: of "dirichlet".
        min_size: of "dirichlet".
        shards_per_client: of "shards".
        test_fraction: the part of each client's rows that it keeps as `test`, chosen at random; 0:
            none.
        unseen: clients that never train.
        min_examples: training clients with fewer rows are left out.
        classes: the labels' names in the order of their numbers; None: those of `ClassLabel`, or
            the labels, sorted.
        task: what the target is, where its type does not say it.
        seed: another seed, another partition, and other rows in `test`.
        color: of images, "gray" or "rgb", to convert all; None: as the first, and all must be so.
        size: height and width, to resize all images; None: as the first, and all must be so.
        lazy: whether a client's inputs are read whenever they are needed; None: only if all
            together would take more than 1 GiB.
        name: what to call the federation; None: as the folder, or "federation".
        attribution: whom the data comes from.

    Returns:
        x: images as float32 [channels, height, width] in 0 to 1; lists as they are, whole numbers
        as int64 and others as float32; numbers as float32 [columns]. y: int64 labels, or float32.

    Raises:
        DataError: `datasets` is not installed, the folder is none of its, a column is not there or
            cannot be used, a value is missing, or rows cannot be divided so.
    """
    library = needed("datasets", "huggingface", "a Hugging Face data set")
    pa = needed("pyarrow", "huggingface", "a Hugging Face data set")
    where = f"the data set in {dataset}" if isinstance(dataset, str | Path) else "the data set"
    rows, trained = _one(library, _loaded(library, dataset), train, test, where)
    columns = _columns(rows, where, target, client, inputs)
    y, named = _targets(pa, rows, target, where, classes, task)
    if client is None:
        owners, names, split = _partitioned(
            y, trained, clients, partition,
            seed=seed, alpha=alpha, min_size=min_size, shards_per_client=shards_per_client,
        )  # fmt: skip
    else:
        if clients is not None:
            raise DataError(
                f"client = {client!r} and clients = {clients}",
                why="either a column says whose a row is, or rows are split over so many clients",
                instead="one of the two",
            )
        owners, names = _owners(pa, rows, client, where)
        split = np.where(np.arange(len(rows)) < trained, TRAIN, TEST).astype(np.int8)
    division = divide(
        owners,
        names,
        split=split,
        unseen=unseen,
        test_fraction=test_fraction,
        min_examples=min_examples,
        seed=seed,
    )
    source = inputs_of(library, rows, columns, where, color, size)

    def load(chosen: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {"x": _read(source, chosen), "y": y[chosen]}

    called = Path(dataset).resolve().name if isinstance(dataset, str | Path) else "federation"
    about = (named, called if name is None else name, attribution)
    order = division.order
    if lazy or (lazy is None and len(order) * source.bytes > LARGEST):
        return division.lazy(load, *about)
    return division.packed({k: torch.from_numpy(v) for k, v in load(order).items()}, *about)


def _loaded(library: ModuleType, dataset: object) -> object:
    if not isinstance(dataset, str | Path):
        return dataset
    folder = Path(dataset)
    try:
        return library.load_from_disk(str(folder))
    # What the library raises for a folder that is none of its, or damaged.
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = str(error).partition("\n")[0]
        raise DataError(
            f"{folder} is no data set saved by `datasets`: {said}",
            why="it is read with datasets.load_from_disk",
            instead="the folder that dataset.save_to_disk(…) wrote; for a folder of Parquet or CSV "
            "files, source = 'table'",
        ) from error


def _one(
    library: ModuleType, dataset: object, train: str, test: str | None, where: str
) -> tuple[Rows, int]:
    """The rows to train on and, after those, the rows to test on; how many the former are."""
    if isinstance(dataset, library.Dataset):
        if train != "train" or test is not None:
            raise DataError(
                f"train = {train!r}, test = {test!r}, and a data set that has no such parts",
                why="these name the parts of a DatasetDict",
                instead="leave them out; test_fraction = 0.2 keeps rows for testing",
            )
        parts = [dataset]
    elif isinstance(dataset, library.DatasetDict):
        wanted = [train, *([test] if test is not None else ["test"] * ("test" in dataset))]
        for part in wanted:
            if part not in dataset:
                raise DataError(
                    f"{where} has no part {part!r}",
                    why="it is to be trained or tested on",
                    instead=f"train = '…', test = '…' of: {', '.join(dataset)}",
                )
        parts = [dataset[part] for part in wanted]
    else:
        raise DataError(
            f"a {type(dataset).__name__} as a data set",
            why="it is a datasets.Dataset or DatasetDict, or the folder of one",
            instead="datasets.Dataset.from_dict({'x': …, 'y': …}), or datasets.load_from_disk(…)",
        )
    if not len(parts[0]):
        raise DataError(
            f"{where} has no rows to train on",
            why="a federation has at least one client, and a client at least one example",
            instead="a data set with a row for each example",
        )
    if len(parts) > 1 and parts[0].features != parts[1].features:
        raise DataError(
            f"{where} has other columns to test on than to train on",
            why="a model is tested on what it is trained for",
            instead="give both parts the same columns and types, with dataset.cast(features)",
        )
    whole = library.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    return whole.with_format(None), len(parts[0])


def _columns(
    rows: Rows, where: str, target: str, client: str | None, inputs: str | Sequence[str] | None
) -> list[str]:
    known = rows.column_names
    check_column(target, known, "target", where)
    if client is not None:
        check_column(client, known, "client", where)
    if inputs is None:
        chosen = [column for column in known if column not in (target, client)]
    else:
        chosen = [inputs] if isinstance(inputs, str) else list(inputs)
    for column in chosen:
        check_column(column, known, "inputs", where)
        if column in (target, client):
            raise DataError(
                f"inputs with {column!r}, which is the "
                f"{'target' if column == target else 'client'}",
                why="the model would be given what it is to find out, or whose an example is",
                instead=f"inputs without {column!r}",
            )
    if not chosen:
        raise DataError(
            f"{where} has no column left as an input",
            why="a model computes with its inputs",
            instead="inputs = 'image', or a list of columns with a number in each row",
        )
    return chosen


def _chunks(rows: Rows, column: str) -> list[Any]:
    """A column as Arrow's arrays, without a Python object for each row."""
    table = rows.select_columns([column]).with_format("arrow")
    return [
        chunk
        for start in range(0, len(rows), _AT_ONCE)
        for chunk in table[start : start + _AT_ONCE].column(column).chunks
    ]


def _texts(pa: ModuleType, rows: Rows, column: str, where: str) -> Texts:
    texts = Texts()
    for chunk in _chunks(rows, column):
        texts.add(pa, chunk)
    lacking = int((texts.codes() < 0).sum())
    check_missing({column: lacking}, len(rows), where, features=False)
    return texts


def _owners(
    pa: ModuleType, rows: Rows, client: str, where: str
) -> tuple[NDArray[np.int64], list[str]]:
    kind = kind_of(pa, rows.features.arrow_schema.field(client).type)
    if kind not in KEYS:
        raise DataError(
            f"{where} has {SAID[kind]} in each row of {client!r}, the client",
            why="clients are named by texts or whole numbers",
            instead="another column as the client",
        )
    texts = _texts(pa, rows, client, where)
    feature = rows.features[client]
    values = getattr(feature, "names", None)
    named = texts.values if values is None else [values[int(v)] for v in texts.values]
    return texts.codes().astype(np.int64), named


def _targets(
    pa: ModuleType,
    rows: Rows,
    target: str,
    where: str,
    classes: Sequence[str] | None,
    task: Literal["classification", "regression"] | None,
) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    kind = kind_of(pa, rows.features.arrow_schema.field(target).type)
    if kind in ("text", "boolean"):
        texts = _texts(pa, rows, target, where)
        return labels_of_texts(
            texts.codes(), texts.values, column=target, classes=classes, task=task
        )
    if kind not in ("number", "whole number"):
        raise DataError(
            f"{where} has {SAID[kind]} in each row of {target!r}, the target",
            why="a target is a label (a text or a whole number) or a quantity",
            instead="another column as the target",
        )
    values = np.concatenate([numbers(pa, chunk) for chunk in _chunks(rows, target)])
    check_missing({target: int(np.isnan(values).sum())}, len(rows), where, features=False)
    if classes is None and task != "regression":
        classes = getattr(rows.features[target], "names", None)
    return labels_of_numbers(
        values, whole=kind == "whole number", column=target, classes=classes, task=task
    )


def _partitioned(
    y: NDArray[Any],
    trained: int,
    clients: int | None,
    partition: Scheme,
    **options: Any,  # noqa: ANN401 - those of `hanse.data.split`
) -> tuple[NDArray[np.int64], list[str], NDArray[np.int8]]:
    if clients is None:
        raise DataError(
            "neither client nor clients",
            why="either a column says whose a row is, or rows are split over so many clients",
            instead="client = 'writer', the name of a column; or clients = 10",
        )
    # Of a quantity only the number of rows counts; schemes by label refuse it by themselves.
    parts = partition_of(y[:trained], clients, partition, **options)
    names = [f"client {k}" for k in range(len(parts))]
    owners = np.full(len(y), len(parts), np.int64)
    for number, part in enumerate(parts):
        owners[part] = number
    split = np.full(len(y), UNSEEN, np.int8)
    split[:trained] = TRAIN
    return owners, [*names, *["test set"] * (len(y) > trained)], split


def _read(source: Inputs, rows: NDArray[np.int64]) -> NDArray[Any]:
    """The inputs of some rows, a thousand at a time."""
    x = np.empty((len(rows), *source.shape), source.dtype)
    for start in range(0, len(rows), _AT_ONCE):
        chosen = rows[start : start + _AT_ONCE]
        x[start : start + _AT_ONCE] = source.read(chosen)
    return x
