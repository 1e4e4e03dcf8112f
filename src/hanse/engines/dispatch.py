"""Which worker trains which span of a round, and what becomes of the spans of one that dies."""

from __future__ import annotations

import signal
from collections import Counter, deque
from typing import TYPE_CHECKING

from hanse.core.errors import WorkerError
from hanse.data import PackedClients
from hanse.engines import failures
from hanse.engines.messages import Place, read, write
from hanse.engines.worker import FAILED, SLOTS, SPAN, Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hanse.data.federation import ClientData
    from hanse.engines.cohort import Cohort
    from hanse.engines.pool import Worker
    from hanse.engines.span import SpanResult
    from hanse.memory import Slots

    Memories = Callable[[int], Mapping[int, Slots] | None]

_DEATHS = 3  # of its processes, after which a span is given up
_NAMED = 8  # clients in a message


class Dispatch:
    """The spans of a round that are still to be trained.

    A worker is given a span, and another to go on with; longest first, so that they end at about
    the same time. For the same reason the last spans wait for whoever is free first, unless it
    takes time to load them. A span whose worker died is given out alone: should it kill the next
    one too, then it was this span and no other.
    """

    def __init__(self, cohort: Cohort, data: ClientData, memories: Memories) -> None:
        """All are to be trained."""
        self.left = cohort.spans
        self._cohort, self._name, self._memories = cohort, data.name, memories
        self._loads = not isinstance(data, PackedClients)
        self._waiting = deque(range(cohort.spans))
        self._deaths: Counter[int] = Counter()
        self._suspects: set[int] = set()

    def hand_out(self, workers: Sequence[Worker]) -> None:
        """Give every worker what it can take."""
        for held in range(SLOTS):
            for worker in workers:
                if self._waiting and len(worker.spans) == held and self._fits(worker, workers):
                    self._give(worker, self._waiting.popleft())

    def _fits(self, worker: Worker, workers: Sequence[Worker]) -> bool:
        """Whether the next span may go to this worker now."""
        if not worker.spans:
            return True
        if self._suspects.intersection([self._waiting[0], worker.spans[0].span]):
            return False
        return self._loads or len(self._waiting) >= len(workers)

    def _give(self, worker: Worker, span: int) -> None:
        slot = worker.free_slot()
        memories = self._memories(span)
        place = Place(0, 0)
        if memories is not None:
            place = write(memories, worker.seat.slots[slot])
        notice = Notice(SPAN, span, slot, place)
        worker.spans.append(notice)
        worker.tell(notice)

    def result(self, worker: Worker, notice: Notice) -> SpanResult:
        """The result that a worker tells of, copied: its memory is used again.

        Raises:
            Exception: what the worker has raised.
        """
        slot = worker.seat.slots[notice.slot]
        found = read(slot, notice.place, copy=True)
        worker.spans.popleft()
        if notice.kind == FAILED:
            error = failures.received(found)
            who = self.clients(notice.span)
            error.add_note(f"In the worker process that trained {who}:\n\n{found.trace}")
            raise error
        self.left -= 1
        result: SpanResult = found
        return result

    def died(self, worker: Worker) -> None:
        """Have the spans of a process that has ended trained by others.

        Raises:
            WorkerError: one of them has ended its process several times.
        """
        lost = [notice.span for notice in worker.spans]
        if not lost:
            return
        self._waiting.extendleft(reversed(lost))
        self._suspects.update(lost)
        self._deaths[lost[0]] += 1
        if self._deaths[lost[0]] >= _DEATHS:
            raise WorkerError(
                f"{_DEATHS} worker processes {_how(worker.exit_code)} while they trained "
                f"{self.clients(lost[0])}",
                why="what a process leaves undone is done by another, but this would end them all",
                instead="workers = 1, to see it happen in the main process; if it is memory that "
                "runs out, fewer workers",
            )

    def clients(self, span: int) -> str:
        """Who a span is, in words."""
        ids = self._cohort.members(span)
        names = [repr(self._name(int(client))) for client in ids[:_NAMED]]
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        return f"client{'s' * (len(ids) > 1)} {', '.join(names)}{more}"


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    memory = " (as by Linux where memory runs out)" if name == "SIGKILL" else ""
    return f"were ended by {name}{memory}"
