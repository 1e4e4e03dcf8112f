"""What was chosen before, for a model and a machine: the next run takes the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from hanse.core.errors import HanseError
from hanse.models import Execution
from hanse.models.execution import why_not
from hanse.storage.files import write_atomically
from hanse.tuning.trial import SAMPLE

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.data.batching import Pass
    from hanse.models import Task

_KEPT = 500

_known: dict[str, dict[str, object]] = {}
"""What this process has chosen: where no file can be written, its runs still agree."""


def key_of(
    work: Pass, task: Task, x: Tensor, y: Tensor, clients: int, machine: str, *more: object
) -> str:
    """What the choice depends on: the model, the work, the machine, the versions."""
    parts = (
        version("hanse"),
        torch.__version__,
        machine,
        repr(task.module),
        task.layout.shapes,
        getattr(task.loss, "__qualname__", type(task.loss).__name__),
        repr(work),
        (x.shape, x.dtype, y.shape, y.dtype),
        clients,
        *more,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def recall(key: str, task: Task, x: Tensor, y: Tensor) -> Execution | None:
    """What was chosen before, if it was, and is still right.

    The key does not hold what the model's code does: that is tried on `x` and `y`.
    """
    file = _file()
    known = ({} if file is None else _read(file)).get(key, _known.get(key))
    if known is not None:
        with contextlib.suppress(HanseError, TypeError):
            execution = Execution(**known)  # type: ignore[arg-type]
            if why_not(execution.path, task, x[:SAMPLE], y[:SAMPLE]) is None:
                return execution
    return None


def remember(key: str, chosen: Execution) -> None:
    """Have the next run of the same kind choose the same, if there is a place to write it down."""
    _known[key] = asdict(chosen)
    file = _file()
    if file is None:
        return
    kept = dict(list({**_read(file), key: asdict(chosen)}.items())[-_KEPT:])
    with contextlib.suppress(OSError, HanseError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(kept, indent=1))


def _file() -> pathlib.Path | None:
    """`None`: there is no home to remember at."""
    with contextlib.suppress(RuntimeError):
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        return pathlib.Path(home) / "hanse" / "execution.json"
    return None


def _read(path: pathlib.Path) -> dict[str, dict[str, object]]:
    """What was written down; a file that is damaged or not there is an empty memory."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return {k: v for k, v in found.items() if isinstance(v, dict)}
    return {}
