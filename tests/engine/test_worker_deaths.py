"""Worker processes that are killed, at whatever moment: what they were doing is done again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.engine.forked import forked, here, is_gone, pids, run, wait_until
from tests.engine.small import MODULE, VMAP, World, clients, world

from hanse.core.errors import WorkerError
from hanse.core.types import Layer
from hanse.models import Execution
from hanse.selection import Full
from hanse.strategies import fedavg, scaffold

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hanse.core.types import Broadcast, ClientContext, Memory, Update

executions = pytest.mark.parametrize("execution", [MODULE, Execution("vmap", 2)], ids=repr)


def everyone() -> World:
    return world(sizes=[3 + k % 11 for k in range(40)], participation=Full())


@dataclass(frozen=True)
class Deadly(Layer):
    """Ends the process that trains some client, the first few times."""

    folder: Path
    client: int
    times: int
    number: int = signal.SIGKILL
    exit_code: int | None = None

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        if self.client in client.id and os.getpid() != int(self.folder.name):
            for death in range(self.times):
                try:
                    (self.folder / str(death)).touch(exist_ok=False)
                except FileExistsError:
                    continue
                if self.exit_code is not None:
                    os._exit(self.exit_code)
                os.kill(os.getpid(), self.number)
        return update, memory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Named by this process, which is not to die."""
    path = tmp_path / str(os.getpid())
    path.mkdir()
    return path


@executions
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_worker_that_dies_in_a_span_is_replaced(
    workers: int, execution: Execution, folder: Path
) -> None:
    one = everyone()
    strategy = scaffold().then(Deadly(folder, client=17, times=2))
    expected = here(one, strategy, execution)
    with forked(one, strategy, execution, workers) as engine:
        assert run(engine, one) == expected
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("deadly", "words"),
    [
        ({"number": signal.SIGKILL}, "were ended by SIGKILL (as by Linux where memory runs out)"),
        ({"number": signal.SIGXCPU}, "were ended by SIGXCPU"),
        ({"exit_code": 7}, "ended with exit code 7"),
        ({"exit_code": 0}, "ended with exit code 0"),
    ],
    ids=["SIGKILL", "SIGXCPU", "7", "0"],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_span_that_kills_three_workers_stops_the_run(
    workers: int, deadly: dict[str, int], words: str, folder: Path
) -> None:
    one = everyone()
    strategy = fedavg().then(Deadly(folder, client=17, times=99, **deadly))
    with (
        forked(one, strategy, MODULE, workers) as engine,
        pytest.raises(WorkerError) as caught,
    ):
        run(engine, one)
    assert words in caught.value.found
    assert caught.value.found.startswith("3 worker processes")
    assert repr(one.data.name(17)) in caught.value.found
    assert "workers = 1" in caught.value.instead
    assert "fewer workers" in caught.value.instead
    assert len(list(folder.iterdir())) == 3
    assert not pids()


def test_two_deadly_spans_are_told_apart(folder: Path) -> None:
    """Each kills twice, one behind the other: no span is blamed for another that waits."""
    (folder / "a" / folder.name).mkdir(parents=True)
    (folder / "b" / folder.name).mkdir(parents=True)
    one = everyone()
    strategy = fedavg().then(
        Deadly(folder / "a" / folder.name, client=10, times=2),
        Deadly(folder / "b" / folder.name, client=1, times=2),
    )
    expected = here(one, strategy, MODULE)
    with forked(one, strategy, MODULE, 1) as engine:
        assert run(engine, one) == expected


@executions
def test_workers_killed_between_rounds_are_replaced(execution: Execution) -> None:
    one, draw, killed = everyone(), random.Random(1), list[int]()  # noqa: S311 - no secrets

    def kill(number: int) -> None:
        some = pids()[: draw.choice([1, 3])] if number > 1 else []
        for pid in some:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        if number % 2:  # every other time the news comes while the next round has begun
            wait_until(lambda: all(map(is_gone, some)))

    expected = here(one, scaffold(), execution, 8)
    with forked(one, scaffold(), execution, 3) as engine:
        assert run(engine, one, 8, kill) == expected
    assert len(set(killed)) == len(killed) > 8


def killing(
    victims: Callable[[list[int]], list[int]], seed: int, seconds: float
) -> threading.Thread:
    """Kill some workers twice, at random moments of the round that begins now.

    Three times could be the same span's, which then would be given up.
    """
    draw = random.Random(seed)  # noqa: S311 - moments, no secrets

    def kill() -> None:
        for _ in range(2):
            time.sleep(draw.uniform(0, seconds))
            for pid in victims(pids()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@executions
@pytest.mark.parametrize("whom", ["one", "several", "all"])
def test_workers_killed_at_random_moments(whom: str, execution: Execution) -> None:
    one, threads, seen = everyone(), list[threading.Thread](), set[int]()
    take = {"one": 1, "several": 2, "all": 3}[whom]

    def begin(number: int) -> None:
        if threads:
            threads[-1].join()
        seen.update(pids())
        threads.append(killing(lambda found: found[:take], number, 0.03))

    expected = here(one, scaffold(), execution, 6)
    with forked(one, scaffold(), execution, 3) as engine:
        assert run(engine, one, 6, begin) == expected
        threads[-1].join()
    assert len(seen) > 3


def test_a_worker_stopped_while_it_says_something_is_no_harm() -> None:
    """Killed hundreds of times at moments close to the end of a span."""
    one = world(data=clients([4] * 24), participation=Full())
    expected = here(one, fedavg(), VMAP, 40)
    threads = list[threading.Thread]()

    def begin(number: int) -> None:
        if threads:
            threads[-1].join()
        threads.append(killing(lambda found: found[:1], number, 0.008))

    with forked(one, fedavg(), VMAP, 2) as engine:
        assert run(engine, one, 40, begin) == expected
        threads[-1].join()


def test_without_files_for_processes_deaths_are_noticed_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.pidfd_open")
    one = everyone()
    strategy = fedavg().then(Deadly(folder, client=17, times=2))
    with forked(one, strategy, MODULE, 2) as engine:
        assert run(engine, one) == here(one, strategy, MODULE)
    assert len(list(folder.iterdir())) == 2


@dataclass(frozen=True)
class Lingering(Layer):
    """Starts a thread that a process waits for before it ends."""

    parent: int

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        if os.getpid() != self.parent:
            threading.Thread(target=time.sleep, args=(1000,)).start()
        return update, memory


def test_a_worker_that_does_not_want_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.engines.pool._PATIENCE", 0.1)
    one = world()
    with forked(one, fedavg().then(Lingering(os.getpid())), MODULE, 2) as engine:
        run(engine, one)
        assert len(pids()) == 2


def test_a_fork_of_the_users_own_leaves_the_workers_alone_and_starts_its_own() -> None:
    one = world()
    expected = here(one, scaffold(), MODULE)
    with forked(one, scaffold(), MODULE, 2) as engine:
        run(engine, one)
        workers = pids()
        child = os.fork()
        if not child:
            code = 1
            try:
                engine.close()
                code = 0 if run(engine, one) == expected else 2
                engine.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pids() == workers
        assert run(engine, one) == expected
        assert pids() == workers
