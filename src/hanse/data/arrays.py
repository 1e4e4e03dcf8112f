"""Federations from per-client arrays, in memory or in a folder of `.npz` files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch

from hanse.core.errors import DataError
from hanse.data.clients import PackedClients
from hanse.data.federation import Federation
from hanse.data.packing import Array, Examples, as_tensors

ClientArrays = Mapping[str, tuple[Array, Array] | Examples]

_TRAIN = frozenset({"x", "y"})
_TEST = frozenset({"x_test", "y_test"})


def federation_from_arrays(
    train: ClientArrays,
    test: ClientArrays | None = None,
    unseen: ClientArrays | None = None,
    classes: Sequence[str] | None = None,
    name: str = "federation",
    *,
    attribution: str = "",
    dtype: torch.dtype | None = torch.float32,
) -> Federation:
    """Make a federation from each client's own arrays.

    Args:
        train: by client name, a pair (x, y) or a mapping with the arrays "x" and "y", whose first
            dimension counts the client's examples.
        test: the same clients' other examples.
        unseen: clients that never train.
        classes: the labels' names if `y` holds labels 0 to C - 1, else None.
        name: what to call the federation.
        attribution: whom the data comes from.
        dtype: the type of all floats; None: as they are. Integers stay integers.

    Raises:
        DataError: naming the client, if examples cannot be used (see `Federation`).
    """

    def clients(arrays: ClientArrays | None) -> PackedClients | None:
        if arrays is None:
            return None
        if not isinstance(arrays, Mapping):
            raise DataError(
                f"clients in a {type(arrays).__name__}",
                why="each client has a name",
                instead="{'anna': (x, y), …}",
            )
        return PackedClients.from_arrays(
            {
                client: _one_type(_named(given, client), client, dtype)
                for client, given in arrays.items()
            }
        )

    if classes is not None and not isinstance(classes, Sequence):
        raise DataError(
            f"classes={classes!r}",
            why="reports call each class by its name",
            instead="the names of the classes, such as classes=('sitting', 'walking')",
        )
    trained = clients(train)
    assert trained is not None  # noqa: S101 - for the type checker: train is not None
    return Federation(
        train=trained,
        test=clients(test),
        unseen=clients(unseen),
        classes=None if classes is None else tuple(classes),
        name=name,
        attribution=attribution,
    )


def from_npz_folder(
    path: str | Path,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    *,
    attribution: str = "",
    dtype: torch.dtype | None = torch.float32,
) -> Federation:
    """Read a folder with one `.npz` file for each client.

    A file `anna.npz` holds client "anna": the arrays `x` and `y` and, if clients have test
    examples, `x_test` and `y_test` (`numpy.savez("anna.npz", x=x, y=y)` writes one).

    Args:
        path: the folder; clients are in the order of their files' names.
        classes: the labels' names if `y` holds labels 0 to C - 1, else None.
        name: what to call the federation; None: as the folder.
        attribution: whom the data comes from.
        dtype: the type of all floats; None: as they are.

    Raises:
        DataError: naming the file, if it cannot be read or lacks an array.
    """
    folder = Path(path)
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise DataError(
            f"{folder} has no .npz files" if folder.is_dir() else f"{folder} is not a folder",
            why="each client's examples are read from its own .npz file",
            instead="write one file a client with numpy.savez('anna.npz', x=x, y=y)",
        )
    read = {file.stem: _read(file) for file in files}
    tested = [client for client, arrays in read.items() if set(arrays) >= _TEST]
    if tested and len(tested) < len(read):
        without = next(client for client in read if client not in tested)
        raise DataError(
            f"{tested[0]}.npz has x_test and y_test, {without}.npz does not",
            why="the clients that are tested are the clients that train",
            instead="give every file test arrays, or none",
        )
    return federation_from_arrays(
        {client: (arrays["x"], arrays["y"]) for client, arrays in read.items()},
        test={client: (read[client]["x_test"], read[client]["y_test"]) for client in tested}
        or None,
        classes=classes,
        name=folder.resolve().name if name is None else name,
        attribution=attribution,
        dtype=dtype,
    )


def _named(given: tuple[Array, Array] | Examples, client: object) -> Examples:
    if not isinstance(client, str):
        raise DataError(
            f"client {client!r} of type {type(client).__name__}",
            why="clients are named in messages and reports",
            instead=f"a text as its name: {{'client {client}': (x, y), …}}",
        )
    if isinstance(given, Mapping):
        return given
    if not isinstance(given, tuple | list) or len(given) != len(_TRAIN):
        size = f" of {len(given)}" if isinstance(given, tuple | list) else ""
        raise DataError(
            f"client {client!r} has a {type(given).__name__}{size}",
            why="an example is an input and a target",
            instead=f"{{'{client}': (x, y)}}, or {{'{client}': {{'x': x, 'y': y}}}}",
        )
    return {"x": given[0], "y": given[1]}


def _one_type(examples: Examples, client: str, dtype: torch.dtype | None) -> Examples:
    tensors = as_tensors(examples, client)
    if dtype is None:
        return tensors
    return {f: t.to(dtype) if t.dtype.is_floating_point else t for f, t in tensors.items()}


def _read(file: Path) -> dict[str, Array]:
    try:
        with file.open("rb") as raw, np.load(_zip(raw), allow_pickle=False) as stored:
            arrays: dict[str, Array] = {key: stored[key] for key in stored.files}
    # NumPy raises these for a damaged file, and ValueError for an array of Python objects.
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"{file} cannot be read: {error}",
            why="a client's file is a .npz archive of plain number arrays",
            instead="write it with numpy.savez(file, x=x, y=y), x and y of numbers",
        ) from error
    if set(arrays) not in (_TRAIN, _TRAIN | _TEST):
        raise DataError(
            f"{file} holds the arrays {sorted(arrays)}",
            why="a client has x and y and, where clients are tested, x_test and y_test",
            instead="name its arrays so: numpy.savez(file, x=x, y=y)",
        )
    return arrays


def _zip(raw: IO[bytes]) -> IO[bytes]:
    # NumPy would take other bytes for an array or a pickle.
    if not zipfile.is_zipfile(raw):
        raise zipfile.BadZipFile("it is no .npz archive")
    raw.seek(0)
    return raw
