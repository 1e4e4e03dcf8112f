"""The choice of how gradients are computed, by a short measurement of the real thing.

Which path and which block size are fastest depends on the model, the batches and the machine. So
the blocks of a first round are tried, on a few examples, for a fraction of a second. What was
chosen is remembered for the model and the machine: the next run takes the same, and so gives the
same bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.core.errors import HanseError
from hanse.core.threads import one_thread
from hanse.core.types import Broadcast, RoundContext
from hanse.data import Block
from hanse.data.batching import FullGradient
from hanse.engines.cohort import Cohort
from hanse.engines.span import Assignment, Trainer
from hanse.local import SGD, FullGradientStep, LocalSGD
from hanse.models import Execution
from hanse.models.execution import probe, why_not, why_slower_in_blocks
from hanse.storage.files import write_atomically
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.types import LocalTraining
    from hanse.data.batching import Pass
    from hanse.models import Task
    from hanse.models.execution import PathName

_STEPS = 3  # of each client in a trial
_WHOLE = 64  # examples in a trial of batches that are all a client has
_SAMPLE = 4  # examples that a model is tried on
_RATE = 1e-3  # small: a trial that diverges would time NaN
_LARGEST = 128  # clients in a block
_BYTES = 64 * 2**20  # of a block's parameters at most
_SECONDS = 0.3  # for all trials together
_LONG = 0.05  # seconds of a client without overhead to save; and of a trial that is not repeated
_REPEATS = 3
_WORSE = 1.2  # times the block before: the end of the search
_BETTER = 0.9  # of the time before: less is not worth blocks that are fewer, for workers to share
_REMEMBERED = 500


@dataclass(frozen=True, eq=False)
class Few:
    """Clients that all have the same few examples: what a trial needs of data."""

    fields: dict[str, Tensor]
    size: int

    def __len__(self) -> int:
        """As many as any trial needs."""
        return _LARGEST

    def name(self, client: int) -> str:
        """A name."""
        return f"client {client}"

    def sizes(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for all, [K]."""
        return np.full(len(ids), self.size, np.int64)

    def block(self, ids: NDArray[np.int64]) -> Block:
        """The same examples for all."""
        return Block(self.fields, np.zeros(len(ids), np.int64), self.sizes(ids))


def choose_execution(work: Pass, task: Task, x: Tensor, y: Tensor, expected: float) -> Execution:
    """Choose the path and the block size, or recall what was chosen before.

    Trials train by plain SGD: what a strategy adds to a step costs the same on every path.

    Args:
        work: how clients walk through their data.
        task: the model.
        x: examples `[n, ...]` of a client, `examples_for` of them if there are as many.
        y: their targets `[n, ...]`.
        expected: how many clients take part in a round.

    Raises:
        ModelError: the model or the loss cannot be used on these examples.
    """
    probe(task, x[:_SAMPLE], y[:_SAMPLE])
    clients = max(round(min(expected, 2 * _LARGEST)), 1)
    key = key_of(work, task, x, y, clients, _processor())
    known = recalled(key, task, x, y)
    if known is not None:
        return known
    with one_thread():
        chosen = _measure(work, task, x, y, clients)
    remember(key, chosen)
    return chosen


def examples_for(work: Pass) -> int:
    """How many examples a trial wants."""
    batch = getattr(work, "batch_size", None)
    return _STEPS * batch if isinstance(batch, int) else _WHOLE


def _measure(work: Pass, task: Task, x: Tensor, y: Tensor, clients: int) -> Execution:
    few = x[:_SAMPLE], y[:_SAMPLE]
    reason = why_slower_in_blocks(task) or ("there is one client" if clients == 1 else None)
    dense = why_not("dense", task, *few) is None
    if reason is None and not dense:
        reason = why_not("vmap", task, *few)
    if reason is not None and not dense:
        return Execution("module", 1, reason)
    trial = _Trial.of(work, task, x, y)
    room = max(_BYTES // (task.layout.size * task.dtype.itemsize), 1)
    half = -(-clients // 2)  # one block for all would leave a second worker nothing to do
    best = trial.seconds("module", 1)
    found = {Execution("module", 1): best}
    began, before = time.perf_counter(), float("inf")
    for path, block in _candidates(dense=dense, limit=min(half, room, _LARGEST)):
        # Where a client takes long there is no overhead to save.
        if best > _LONG or time.perf_counter() - began + block * best > _SECONDS:
            break
        now = trial.seconds(path, block)
        found[Execution(path, block)] = now
        best = min(best, now)
        if now > _WORSE * before:  # larger blocks leave the cache
            break
        before = now
    return _best(found)


def _candidates(*, dense: bool, limit: int) -> Iterator[tuple[PathName, int]]:
    """Paths and block sizes, smallest first: the limit, halved again and again."""
    path: PathName = "dense" if dense else "vmap"
    sizes, size = [], limit
    while size > 1:
        sizes.append(size)
        size = -(-size // 2)
    yield from ((path, size) for size in ([1] if dense else []) + sizes[::-1])


def _best(found: dict[Execution, float]) -> Execution:
    (chosen, seconds), *others = found.items()
    alone = seconds
    for execution, now in others:
        if now < _BETTER * seconds:
            chosen, seconds = execution, now
    words = f"measured: {1e3 * seconds:.2g} ms a client"
    if chosen.path != "module":
        words += f", {1e3 * alone:.2g} ms one at a time through the module"
    return Execution(chosen.path, chosen.block, words)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Blocks of clients that train as in a first round."""

    strategy: Strategy
    task: Task
    data: Few

    @classmethod
    def of(cls, work: Pass, task: Task, x: Tensor, y: Tensor) -> _Trial:
        local: LocalTraining = LocalSGD(SGD(_RATE), work)
        if isinstance(work, FullGradient):
            local = FullGradientStep(work)
        return cls(Strategy(local), task, Few({"x": x, "y": y}, len(x)))

    def seconds(self, path: PathName, block: int) -> float:
        """The time of one client in a block of the given size."""
        ids = np.arange(block)
        context = RoundContext(
            number=1,
            key=np.uint64(0),
            population=block,
            expected=float(block),
            cohort=block,
            setting="cross-silo",
            layout=self.task.layout,
        )
        cohort = Cohort(ids, self.data.sizes(ids), block, level=0)
        assignment = Assignment(Broadcast(*self.task.initial(), {}, context), cohort, None)
        trainer = Trainer(self.task, self.data, Execution(path, block), self.strategy)
        initial = trainer.initial(assignment.broadcast)
        slots = tuple({k: v.expand(block, *v.shape) for k, v in one.items()} for one in initial)
        taken: list[float] = []
        while len(taken) < _REPEATS and sum(taken) < _LONG:  # the first one also warms up
            began = time.perf_counter()
            trainer.train(assignment, 0, lambda _places: slots)
            taken.append(time.perf_counter() - began)
        return min(taken) / block


# ------------------------------------------------------------------------------ remembering
_known: dict[str, dict[str, object]] = {}
"""What this process has chosen: where no file can be written, its runs still agree."""


def _memory_file() -> pathlib.Path | None:
    """`None`: there is no home to remember at."""
    with contextlib.suppress(RuntimeError):
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        return pathlib.Path(home) / "hanse" / "execution.json"
    return None


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


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line
    return platform.processor() or platform.machine()


def recalled(key: str, task: Task, x: Tensor, y: Tensor) -> Execution | None:
    """What was chosen before, if it was, and is still right.

    The key does not hold what the model's code does: that is tried on `x` and `y`.
    """
    file = _memory_file()
    known = ({} if file is None else _read(file)).get(key, _known.get(key))
    if known is not None:
        with contextlib.suppress(HanseError, TypeError):
            execution = Execution(**known)  # type: ignore[arg-type]
            if why_not(execution.path, task, x[:_SAMPLE], y[:_SAMPLE]) is None:
                return execution
    return None


def remember(key: str, chosen: Execution) -> None:
    """Have the next run of the same kind choose the same, if there is a place to write it down."""
    _known[key] = asdict(chosen)
    file = _memory_file()
    if file is None:
        return
    kept = dict(list({**_read(file), key: asdict(chosen)}.items())[-_REMEMBERED:])
    with contextlib.suppress(OSError, HanseError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(kept, indent=1))


def _read(path: pathlib.Path) -> dict[str, dict[str, object]]:
    """What was written down; a file that is damaged or not there is an empty memory."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return {k: v for k, v in found.items() if isinstance(v, dict)}
    return {}
