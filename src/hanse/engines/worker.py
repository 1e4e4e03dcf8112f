"""What a worker process does: it trains the spans that it is sent, until nobody sends any more."""

from __future__ import annotations

import functools
import gc
import io
import os
import queue
import signal
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import torch

from hanse.core.errors import ConfigError, StrategyError
from hanse.engines import failures
from hanse.engines.ahead import Ahead
from hanse.engines.messages import Place, read, write
from hanse.engines.span import Assignment, Ids, SpanResult, Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from hanse.data.federation import ClientData
    from hanse.engines.arena import Arena
    from hanse.memory import Slots
    from hanse.models.execution import Execution
    from hanse.models.task import Task
    from hanse.strategy import Strategy

ROUND, SPAN, DONE, FAILED = range(4)
SLOTS = 2  # a span that trains, and one that waits
_NOTICE = struct.Struct("<iiiqq")
_LOOKS = 0.5  # seconds


class Notice(NamedTuple):
    """All that goes through a pipe: what it is about, and where in shared memory the rest lies.

    A pipe holds many of them, so that neither side ever waits for the other to read.
    """

    kind: int
    span: int
    slot: int
    place: Place

    def packed(self) -> bytes:
        """As bytes."""
        return _NOTICE.pack(self.kind, self.span, self.slot, *self.place)

    @classmethod
    def unpacked(cls, data: bytes) -> Notice:
        """From bytes."""
        kind, span, slot, at, length = _NOTICE.unpack(data)
        return cls(kind, span, slot, Place(at, length))


class Round(NamedTuple):
    """What a worker is told of a round.

    Attributes:
        assignment: what its spans have in common.
        initial: what a client remembers before its first round.
    """

    assignment: Assignment
    initial: Slots


class Job(NamedTuple):
    """What workers do, as they find it in their own copy of the parent's memory."""

    task: Task
    data: ClientData
    execution: Execution
    strategy: Strategy


class Seat(NamedTuple):
    """Where a worker sits: what stays when it is replaced.

    Attributes:
        number: from 0.
        published: read only: what a round is about, the same for all workers.
        slots: for each span under way: its clients' memories, and behind them its result.
    """

    number: int
    published: Arena
    slots: Sequence[Arena]


def main(job: Job, seat: Seat, pipe: Connection, parent: int) -> None:
    """Work until the pipe's other end is closed.

    Args:
        job: what to do.
        seat: the memory shared with the parent.
        pipe: for notices.
        parent: the process to work for.
    """
    _settle()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    data = Ahead(job.data)
    worker = _Worker(job, seat, data)
    letters = _letters(pipe, seat, data)
    for letter in _meanwhile(letters) if data.able else letters:
        try:
            pipe.send_bytes(worker.answer(*letter).packed())
        except OSError:  # nobody waits for it any more
            return


def _settle() -> None:
    """Become a process of its own: a fork starts with its parent's signals, files and garbage."""
    torch.set_num_threads(1)  # at once: the threads of the parent's pools do not exist here
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends its workers
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # New ones: the parent's may hold what it has still to write, and locks that nobody will open.
    sys.stdout, sys.stderr = _stream(1), _stream(2)
    gc.freeze()  # what the parent left behind is its own to finalise


def _stream(file: int) -> io.TextIOWrapper:
    try:
        os.fstat(file)
    except OSError:
        file = os.open(os.devnull, os.O_WRONLY)
    buffered = io.BufferedWriter(io.FileIO(file, "w", closefd=False))
    return io.TextIOWrapper(buffered, "utf-8", "backslashreplace", line_buffering=True)


def _end_with(parent: int) -> None:
    """End when the parent has ended, also in the middle of a span that takes hours."""
    while os.getppid() == parent:
        time.sleep(_LOOKS)
    os._exit(1)


class _Letter(NamedTuple):
    """A notice of a span, with the round it belongs to, or with what kept that from being read."""

    notice: Notice
    about: Round | BaseException


def _letters(pipe: Connection, seat: Seat, data: Ahead) -> Iterator[_Letter]:
    """What comes through the pipe, until it is closed; the examples for it begin to load."""
    about: Round | BaseException = RuntimeError("a span before any round")
    while True:
        try:
            notice = Notice.unpacked(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        if notice.kind == ROUND:
            try:
                about = read(seat.published, notice.place, copy=False)
            except BaseException as error:  # noqa: BLE001 - a part of the user's own may raise anything
                about = error
            continue
        if isinstance(about, Round):
            data.start(functools.partial(about.assignment.cohort.members, notice.span))
        yield _Letter(notice, about)


def _meanwhile(letters: Iterator[_Letter]) -> Iterator[_Letter]:
    """The letters, taken in by a thread of their own while the last one is answered."""
    mail: queue.SimpleQueue[_Letter | None] = queue.SimpleQueue()

    def receive() -> None:
        for letter in letters:
            mail.put(letter)
        mail.put(None)

    threading.Thread(target=receive, daemon=True).start()
    while (letter := mail.get()) is not None:
        yield letter


class _Worker:
    """Trains spans, one after another."""

    def __init__(self, job: Job, seat: Seat, data: Ahead) -> None:
        self._job, self._seat, self._data = job, seat, data

    def answer(self, notice: Notice, about: Round | BaseException) -> Notice:
        """Train a span, whatever comes of it."""
        slot, behind = self._seat.slots[notice.slot], notice.place.end
        # Behind the memories: what is sent may be a view of them.
        try:
            place = _sent(self._train(notice, about), slot, behind)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the run goes on
            return notice._replace(kind=FAILED, place=failures.send(error, slot, behind))
        return notice._replace(kind=DONE, place=place)

    def _train(self, notice: Notice, about: Round | BaseException) -> SpanResult:
        if isinstance(about, BaseException):
            raise about
        cohort = about.assignment.cohort
        recall = _recalled(self._seat.slots[notice.slot], notice.place, about.initial)
        self._data.take(cohort.members(notice.span))
        return self._trainer.train(about.assignment, notice.span, recall)

    @functools.cached_property
    def _trainer(self) -> Trainer:
        _try_a_gradient()
        job = self._job
        return Trainer(job.task, self._data, job.execution, job.strategy)


def _sent(result: SpanResult, slot: Arena, behind: int) -> Place:
    # Memories of whatever kind of mapping, which may be one that cannot be pickled.
    memory: list[tuple[Ids, Slots]] = [
        (ids, tuple(dict(slot) for slot in slots)) for ids, slots in result.memory
    ]
    try:
        return write(result._replace(memory=memory), slot, behind)
    except Exception as error:
        raise StrategyError(
            f"what clients send or remember cannot go from one process to another: {error}",
            why="workers train the clients, and the run's own process adds up what they send",
            instead="classes and functions at the top level of a module or file, or workers = 1",
        ) from error


def _recalled(slot: Arena, place: Place, initial: Slots) -> Callable[[slice], Slots]:
    if not any(initial):
        return lambda _: initial
    memories: dict[int, Slots] = read(slot, place, copy=False)
    return lambda places: memories[places.start]


def _try_a_gradient() -> None:
    """See whether torch can differentiate in this fork.

    Raises:
        ConfigError: it cannot, since it has started threads for a GPU in the parent.
    """
    x = torch.ones(1, requires_grad=True)
    try:
        torch.autograd.grad(x.sum(), x)
    except RuntimeError as error:
        raise ConfigError(
            f"workers, after gradients were computed on a machine with a GPU: {error}",
            why="torch then keeps a thread for each GPU, which a forked process lacks",
            instead="CUDA_VISIBLE_DEVICES= in the environment (no GPU is used anyway), or "
            "workers = 1",
        ) from error
