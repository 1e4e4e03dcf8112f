"""The choice of how gradients are computed, by a short measurement of the real thing.

Which path and which block size are fastest depends on the model, the batches and the machine. So
the blocks of a first round are tried, on a few examples, for a fraction of a second. What was
chosen is remembered for the model and the machine: the next run takes the same, and so gives the
same bits.
"""

from __future__ import annotations

import contextlib
import pathlib
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.threads import one_thread
from hanse.core.types import Broadcast
from hanse.data.batching import FullGradient
from hanse.engines.span import Assignment, Trainer
from hanse.local import SGD, FullGradientStep, LocalSGD
from hanse.models import Execution
from hanse.models.execution import probe, why_not, why_slower_in_blocks
from hanse.strategy import Strategy
from hanse.tuning.remembered import key_of, recall, remember
from hanse.tuning.trial import SAMPLE, Few, first_round, in_words, nothing_remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from hanse.core.types import LocalTraining
    from hanse.data.batching import Pass
    from hanse.models import Task
    from hanse.models.execution import PathName

_STEPS = 3  # of each client in a trial
_WHOLE = 64  # examples in a trial of batches that are all a client has
_ALONE = Execution("module", 1)
_RATE = 1e-3  # small: a trial that diverges would time NaN
_LARGEST = 128  # clients in a block
_BYTES = 64 * 2**20  # of a block's parameters at most
_SECONDS = 0.3  # for all trials together
_TURNS = 5
_BETTER = 0.9  # of the time before: less is not worth blocks that are fewer, for workers to share


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
    probe(task, x[:SAMPLE], y[:SAMPLE])
    clients = max(round(min(expected, 2 * _LARGEST)), 1)
    key = key_of(work, task, x, y, clients, _processor())
    known = recall(key, task, x, y)
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
    few = x[:SAMPLE], y[:SAMPLE]
    reason = why_slower_in_blocks(task) or ("there is one client" if clients == 1 else None)
    dense = why_not("dense", task, *few) is None
    if reason is None and not dense:
        reason = why_not("vmap", task, *few)
    if reason is not None and not dense:
        return Execution("module", 1, reason)
    room = max(_BYTES // (task.layout.size * task.dtype.itemsize), 1)
    half = -(-clients // 2)  # one block for all would leave a second worker nothing to do
    candidates = [_ALONE, *_candidates(dense=dense, limit=min(half, room, _LARGEST))]
    return _best(_in_turns(candidates, _Trial.of(work, task, x, y)))


def _in_turns(candidates: list[Execution], trial: _Trial) -> dict[Execution, float]:
    """The least time of a client by each way that there was time to try.

    In turns, and the least: what else the machine does makes any one of them seem slow for a while.
    """
    # What costs no more than one client is tried in any case, and the first time does not count:
    # a process then also imports and allocates.
    runs = {each: trial.runs(each) for each in candidates if each.block == 1}
    least = {each: run() for each, run in runs.items()}
    if sum(least.values()) < _SECONDS:
        least = {each: run() for each, run in runs.items()}
    began = time.perf_counter()
    for _ in range(_TURNS):
        for execution in candidates:
            expected = least.get(execution, min(least.values()))
            if time.perf_counter() - began + execution.block * expected > _SECONDS:
                continue  # where a client takes long there is little overhead to save
            if execution not in runs:
                runs[execution] = trial.runs(execution)
            least[execution] = min(runs[execution](), least.get(execution, float("inf")))
    return least


def _candidates(*, dense: bool, limit: int) -> Iterator[Execution]:
    """Blocks, smallest first: the limit, halved again and again."""
    path: PathName = "dense" if dense else "vmap"
    sizes, size = [], limit
    while size > 1:
        sizes.append(size)
        size = -(-size // 2)
    yield from (Execution(path, size) for size in ([1] if dense else []) + sizes[::-1])


def _best(found: dict[Execution, float]) -> Execution:
    (chosen, seconds), *others = found.items()
    alone = seconds
    for execution, now in others:
        if now < _BETTER * seconds:
            chosen, seconds = execution, now
    words = in_words(seconds, None if chosen.path == "module" else alone)
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
        return cls(Strategy(local), task, Few({"x": x, "y": y}, len(x), _LARGEST))

    def runs(self, execution: Execution) -> Callable[[], float]:
        """Trains a block whenever it is called, and returns the seconds of a client in it."""
        block = execution.block
        broadcast = Broadcast(*self.task.initial(), {}, first_round(block, self.task.layout))
        assignment = Assignment(broadcast, self.data.cohort(block), None)
        trainer = Trainer(self.task, self.data, execution, self.strategy)
        slots = nothing_remembered(trainer, broadcast, block)

        def once() -> float:
            began = time.perf_counter()
            trainer.train(assignment, 0, lambda _places: slots)
            return (time.perf_counter() - began) / block

        return once


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line
    return platform.processor() or platform.machine()
