"""Rounds in worker processes, compared with rounds in this one."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.engine.small import snapshot

from hanse.engines import InProcess, Processes
from hanse.engines.make import make_engine
from hanse.round import run_round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engine.small import World
    from torch import Tensor

    from hanse.models import Execution
    from hanse.strategy import Strategy

PATIENCE = 60.0  # seconds that a loaded machine may take for what takes a moment


class Outcome(NamedTuple):
    """All that rounds lead to, with the bits of every number."""

    state: dict[str, bytes]
    rounds: list[tuple[Any, ...]]


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {k: f"{v.dtype} {v.shape}".encode() + v.numpy().tobytes() for k, v in tensors.items()}


def run(
    engine: InProcess | Processes,
    small: World,
    rounds: int = 2,
    between: Callable[[int], None] = lambda number: None,
) -> Outcome:
    """Some rounds; `between` is called before each of them with its number."""
    state, seen = small.start(engine.strategy), list[tuple[Any, ...]]()
    for number in range(1, rounds + 1):
        between(number)
        state, result = run_round(state, engine, small.population, small.task.layout)
        facts = tuple(column.tobytes() for column in result.facts)
        seen.append((result.cohort, result.dropped, facts, repr(result.pairwise_cosine)))
    return Outcome(bits(snapshot(state)), seen)


def here(small: World, strategy: Strategy, execution: Execution, rounds: int = 2) -> Outcome:
    """The outcome of the in-process engine."""
    return run(make_engine(1, strategy, small.task, small.data, execution), small, rounds)


@contextlib.contextmanager
def forked(
    small: World, strategy: Strategy, execution: Execution, workers: int
) -> Iterator[Processes]:
    """An engine of worker processes, which end with the context and leave nothing behind."""
    shared = sorted(p.name for p in Path("/dev/shm").iterdir())  # noqa: S108 - it is looked at only
    files = open_files()
    engine = Processes(strategy, small.task, small.data, execution, workers)
    try:
        yield engine
    finally:
        engine.close()
    assert not multiprocessing.active_children()
    assert sorted(p.name for p in Path("/dev/shm").iterdir()) == shared  # noqa: S108 - as above
    assert open_files() == files


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def pids() -> list[int]:
    """This process's workers."""
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def wait_until(condition: Callable[[], bool], words: str = "it never came to this") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, words
        time.sleep(0.001)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
