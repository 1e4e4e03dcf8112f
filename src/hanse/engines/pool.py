"""Worker processes as their parent sees them: started, given spans, replaced when they die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from multiprocessing import connection
from typing import TYPE_CHECKING

from hanse.core.errors import WorkerError
from hanse.engines.arena import Arena
from hanse.engines.dispatch import Dispatch
from hanse.engines.messages import write
from hanse.engines.worker import ROUND, SLOTS, Job, Notice, Round, Seat, main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

    from hanse.engines.dispatch import Memories
    from hanse.engines.span import SpanResult

_PATIENCE = 5.0  # seconds for an idle worker to end by itself
_SILENCE = 600.0  # seconds without a word of any worker, after which it is said whom they train
_LOOKS = 1000  # at whether it is known to have ended
_fork = multiprocessing.get_context("fork")

_ours: set[Connection] = set()
"""This process's ends of all pipes to workers, of whatever pool.

A fork must close those of others: while it held one, that worker would not see its parent end.
"""


class Worker:
    """A process, at a seat that stays when the process is replaced."""

    def __init__(self, seat: Seat, job: Job) -> None:
        """Nothing is started yet."""
        self.seat = seat
        self.spans: deque[Notice] = deque()  # given to it; it trains the first
        self.ended = -1  # a file that can be read once it has ended
        self.over = False
        self.exit_code: int | None = None
        self.pipe, self._theirs = _fork.Pipe()
        self.process: ForkProcess = _fork.Process(
            target=_child, args=(job, seat, self._theirs, os.getpid()), name=f"hanse-{seat.number}"
        )

    def start(self) -> None:
        """Fork."""
        _ours.add(self.pipe)
        # An interrupt before the child has said that it ignores them would be printed by it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with warnings.catch_warnings():
                # Of threads in this process: the child uses none of them, nor locks they may hold.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.process.start()
            self._theirs.close()
            self.ended = _when_it_ends(self.process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def tell(self, notice: Notice) -> None:
        """Send a notice; a process that has died gets it no more, and is noticed elsewhere."""
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(notice.packed())

    def heard(self) -> Notice | None:
        """A notice that has come, if one has."""
        try:
            return Notice.unpacked(self.pipe.recv_bytes()) if self.pipe.poll() else None
        except (EOFError, OSError):
            self.process.kill()  # it has died, or can be of no more use
            return None

    def free_slot(self) -> int:
        """The slot that none of its spans uses; there must be one."""
        used = {notice.slot for notice in self.spans}
        return next(slot for slot in range(SLOTS) if slot not in used)

    def end(self) -> None:
        """End the process, if it has not ended: at once if it trains, for nobody is interested."""
        _ours.discard(self.pipe)
        self.pipe.close()
        if self.over or self.process.pid is None:  # an interrupt may have come before it started
            return
        if self.spans:
            self.process.kill()
        self.process.join(_PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        # It has ended. Another thread that asked for its children may have been told so in our
        # place, and not have written it down yet.
        for _ in range(_LOOKS):
            if self.process.exitcode is not None:
                break
            time.sleep(_PATIENCE / _LOOKS)
        self.over, self.exit_code = True, self.process.exitcode
        if self.ended not in {-1, self.process.sentinel}:
            os.close(self.ended)
        with contextlib.suppress(ValueError):  # that thread has died: nobody will ever know
            self.process.close()


def _child(job: Job, seat: Seat, pipe: Connection, parent: int) -> None:
    for other in _ours:
        other.close()
    _ours.clear()
    main(job, seat, pipe, parent)


def _when_it_ends(process: ForkProcess) -> int:
    """A file that can be read once the process has ended, whatever it has started itself."""
    try:
        assert process.pid is not None  # noqa: S101 - it was started, for the type checker
        return os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return process.sentinel  # a pipe, which a child of the child's may hold open


class Pool:
    """Some workers, kept from round to round."""

    def __init__(self, job: Job, size: int) -> None:
        """None is started yet."""
        self._job, self._size, self._owner = job, size, os.getpid()
        self._published: Arena | None = None
        self._workers: list[Worker] = []

    def train(self, about: Round, memories: Memories) -> Iterator[tuple[int, SpanResult]]:
        """Train all spans of a round; yields numbers and results in whatever order they come.

        Args:
            about: what the spans have in common.
            memories: from a span to what its clients remember, by the first place of each block.

        Raises:
            WorkerError: a span has ended its process several times.
            Exception: what a worker has raised.
        """
        published = self._shared()
        notice = Notice(ROUND, 0, 0, write(about, published))
        dispatch = Dispatch(about.assignment.cohort, self._job.data, memories)
        needed = min(self._size, dispatch.left)
        while len(self._workers) < needed:
            with _started(len(self._workers)):
                seat = Seat(len(self._workers), published, [Arena() for _ in range(SLOTS)])
                self._workers.append(Worker(seat, self._job))
                self._workers[-1].start()
        for worker in self._workers[:needed]:
            worker.tell(notice)
        while dispatch.left:
            dispatch.hand_out(self._workers[:needed])
            ready = _something(dispatch, self._workers[:needed])
            for number, worker in enumerate(self._workers[:needed]):
                if worker.pipe in ready or worker.ended in ready:
                    while (heard := worker.heard()) is not None:
                        yield heard.span, dispatch.result(worker, heard)
                if worker.ended in ready:  # and all that it has said is heard
                    worker.end()
                    dispatch.died(worker)
                    self._workers[number] = Worker(worker.seat, self._job)
                    with _started(number):
                        self._workers[number].start()
                    self._workers[number].tell(notice)

    def _shared(self) -> Arena:
        """What is published to all workers; made anew in a fork, whose parent has the workers."""
        if os.getpid() != self._owner:
            self._workers, self._published, self._owner = [], None, os.getpid()
        if self._published is None:
            self._published = Arena()
        return self._published

    def close(self) -> None:
        """End all workers; a fork of this process that calls it ends nobody."""
        if os.getpid() != self._owner:
            return
        while self._workers:
            worker = self._workers.pop()
            worker.end()
            for slot in worker.seat.slots:
                slot.close()
        if self._published is not None:
            self._published.close()
            self._published = None


@contextlib.contextmanager
def _started(before: int) -> Iterator[None]:
    """Say what can be done where the system has no room for another process."""
    try:
        yield
    except OSError as error:
        raise WorkerError(
            f"a worker process beside {before} others cannot be started: {error}",
            why="each takes a process, a few open files and some memory (ulimit -a shows limits)",
            instead="fewer workers; workers = 1 needs none of these",
        ) from error


def _something(dispatch: Dispatch, workers: list[Worker]) -> list[object]:
    """The files of workers that have something to say or have ended; waits for the first.

    After a long silence it says for whom: a fork may hang in a lock that no thread is left to open.
    """
    waiting = [x for w in workers for x in (w.pipe, w.ended)]
    while not (ready := connection.wait(waiting, _SILENCE)):
        held = [dispatch.clients(w.spans[0].span) for w in workers if w.spans]
        warnings.warn(
            f"no worker process has finished anything for {_SILENCE:g} seconds; they train "
            f"{'; '.join(held)}. If that cannot take so long, a lock of a library may have been "
            "held when they were forked: stop, and go on with workers = 1",
            RuntimeWarning,
            stacklevel=2,
        )
    return list(ready)
