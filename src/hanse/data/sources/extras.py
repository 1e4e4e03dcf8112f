"""Packages that only some sources need, imported when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from hanse.core.errors import DataError

if TYPE_CHECKING:
    from types import ModuleType


def needed(module: str, extra: str, what: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        module: its name, such as "pyarrow.parquet".
        extra: Hanse's extra that installs it.
        what: what needs it, for the message.

    Raises:
        DataError: it cannot be imported.
    """
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, extra, what, str(error)) from error
    if found.__spec__ is None or found.__spec__.origin is None:
        raise _missing(module, extra, what, "a folder beside your script has its name")
    return found


def _missing(module: str, extra: str, what: str, said: str) -> DataError:
    return DataError(
        f"{what} needs {module.partition('.')[0]}, which cannot be imported: {said}",
        why="it is an optional dependency",
        instead=f"pip install 'hanse[{extra}]'",
    )
