"""The path and the size of a block on a graphics card, by measuring the real thing there.

A card is fast when it has much to do at once: blocks are as large as the memory allows. How much a
client takes is what two blocks of different sizes differ by.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Protocol

import torch

from hanse.engines.capture import CudaCapture
from hanse.engines.on_device import Place
from hanse.engines.span import Assignment, Trainer
from hanse.models import Execution
from hanse.models.execution import probe, why_not
from hanse.round import initial_state, publish
from hanse.tuning.remembered import key_of, recall, remember
from hanse.tuning.trial import SAMPLE, Few, first_round, in_words, nothing_remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from hanse.models import Task
    from hanse.models.execution import PathName
    from hanse.strategy import Strategy

_TRIED = (2, 4)  # clients in the blocks whose memory is compared
_SHARE = 2  # blocks take so much of the free memory at most: one part of so many
_REPEATS = 3
_BETTER = 0.97  # of the time of the path before: less is not worth another one


class Meter(Protocol):
    """What is measured of a device."""

    @property
    def place(self) -> Place:
        """The device, and how steps are recorded there."""

    @property
    def name(self) -> str:
        """What tells it from devices that are faster or larger."""

    def free(self) -> int:
        """The bytes that new tensors may take."""

    def peak(self, run: Callable[[], None]) -> int:
        """The bytes that `run` takes at most."""

    def seconds(self, run: Callable[[], None]) -> float:
        """The time that `run` takes, with all that it has the device do."""


class Card:
    """A graphics card."""

    def __init__(self, device: torch.device) -> None:
        """The card of a CUDA device."""
        self._device = device

    @property
    def place(self) -> Place:
        """The card, with graphs of its own."""
        return Place(self._device, CudaCapture(self._device))

    @property
    def name(self) -> str:
        """Its product name and memory."""
        about = torch.cuda.get_device_properties(self._device)
        return f"{about.name}, {about.total_memory}"

    def free(self) -> int:
        """What the driver has, and what torch has kept without using it."""
        free, _ = torch.cuda.mem_get_info(self._device)
        kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return free + kept

    def peak(self, run: Callable[[], None]) -> int:
        """As torch's allocator counts them."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        run()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before

    def seconds(self, run: Callable[[], None]) -> float:
        """From an idle card to an idle card."""
        torch.cuda.synchronize(self._device)
        began = time.perf_counter()
        run()
        torch.cuda.synchronize(self._device)
        return time.perf_counter() - began


def choose_on_card(
    strategy: Strategy, task: Task, x: Tensor, y: Tensor, expected: float, meter: Meter
) -> Execution:
    """Choose the path and the block size, or recall what was chosen before.

    Convolutions are candidates for blocks, other than on a processor.

    Args:
        strategy: what clients do, which decides how much memory they take.
        task: the model, on the device.
        x: examples `[n, ...]` of a client, likewise.
        y: their targets `[n, ...]`.
        expected: how many clients take part in a round.
        meter: of the device.

    Raises:
        ModelError: the model or the loss cannot be used on these examples.
    """
    few = x[:SAMPLE], y[:SAMPLE]
    probe(task, *few)
    clients = max(round(expected), 1)
    work = strategy.local.passes[0]
    key = key_of(work, task, x, y, clients, meter.name, repr(strategy.local))
    known = recall(key, task, x, y)
    if known is not None:
        return known
    found: dict[Execution, float] = {}
    for path in _candidates(task, *few):
        data = Few({"x": x, "y": y}, len(x), max(clients, *_TRIED))
        trial = _Trial(strategy, task, data, meter, path)
        seconds, block = trial.seconds(1 if path == "module" else trial.largest(clients))
        found[Execution(path, block)] = seconds
    chosen = _best(found)
    remember(key, chosen)
    return chosen


def _candidates(task: Task, x: Tensor, y: Tensor) -> Iterator[PathName]:
    """The path in blocks, if there is one, and the one that there always is."""
    blocks: tuple[PathName, ...] = ("dense", "vmap")  # the same, the first without autograd
    yield from [path for path in blocks if why_not(path, task, x, y) is None][:1]
    yield "module"


def _best(found: dict[Execution, float]) -> Execution:
    chosen = min(found, key=lambda execution: found[execution])
    alone = Execution("module", 1)
    if chosen != alone and found[chosen] > _BETTER * found[alone]:
        chosen = alone
    words = in_words(found[chosen], None if chosen == alone else found[alone])
    return Execution(chosen.path, chosen.block, words)


class _Trial:
    """Blocks of clients that train as in a first round, by one path."""

    def __init__(
        self, strategy: Strategy, task: Task, data: Few, meter: Meter, path: PathName
    ) -> None:
        self._strategy, self._task, self._data = strategy, task, data
        self._meter, self._path = meter, path

    def largest(self, clients: int) -> int:
        """The largest block that fits and divides so many clients evenly."""
        fewer, more = _TRIED
        if clients <= fewer:
            return clients
        low, high = (self._meter.peak(self._run(size)) for size in _TRIED)
        each = max((high - low) // (more - fewer), 1)
        fixed = max(low - fewer * each, 0)
        fits = max(min((self._meter.free() // _SHARE - fixed) // each, clients), 1)
        return math.ceil(clients / math.ceil(clients / fits))

    def seconds(self, block: int) -> tuple[float, int]:
        """The time of a client in a block; half the block where memory does not suffice."""
        while True:
            try:
                run = self._run(block)
                run()  # what is recorded, and set up, once
                taken = min(self._meter.seconds(run) for _ in range(_REPEATS))
            except torch.cuda.OutOfMemoryError:
                if block == 1:
                    raise
                block //= 2
            else:
                return taken / block, block

    def _run(self, block: int) -> Callable[[], None]:
        """Trains a block, each time anew."""
        place = self._meter.place
        state = initial_state(self._strategy, self._task, place.device)
        broadcast = publish(state, self._strategy, first_round(block, self._task.layout))
        assignment = Assignment(broadcast, self._data.cohort(block), None)
        trainer = Trainer(
            self._task, self._data, Execution(self._path, block), self._strategy, place
        )
        slots = nothing_remembered(trainer, broadcast, block)
        return lambda: _ignore(trainer.train(assignment, 0, lambda _places: slots))


def _ignore(_result: object) -> None:
    return
