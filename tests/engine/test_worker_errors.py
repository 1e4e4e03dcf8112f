"""What goes wrong in a worker process arrives where the run goes on, and ends the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import torch
from tests.engine.forked import forked, here, pids, run
from tests.engine.small import CLASSES, FEATURES, MODULE, VMAP, seeded, world
from torch import Tensor, nn

from hanse.core.errors import ConfigError, DataError, ModelError, StrategyError
from hanse.core.types import Layer
from hanse.data import LazyClients
from hanse.engines import Processes, pool
from hanse.selection import Full
from hanse.strategies import fedavg

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hanse.core.types import Broadcast, ClientContext, Memory, Update

PARENT = os.getpid()


class PeculiarError(Exception):
    """Wants a keyword, and keeps something beside its arguments."""

    def __init__(self, text: str, *, number: int) -> None:
        super().__init__(text)
        self.number = number


class UnsendableError(ValueError):
    """Holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text, lambda: None)

    def __str__(self) -> str:
        return str(self.args[0])


def fail_with(error: Callable[[], BaseException]) -> NoReturn:
    raise error()


@dataclass(frozen=True)
class Failing(Layer):
    """Raises something in workers."""

    error: Callable[[], BaseException]

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        if os.getpid() != PARENT:
            fail_with(self.error)
        return update, memory


@dataclass(frozen=True)
class Slow(Layer):
    """Takes a while in workers."""

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        time.sleep(0.3)
        return update, memory


def caught(error: Callable[[], BaseException]) -> BaseException:
    """What arrives here of what is raised there."""
    one = world(participation=Full())
    strategy = fedavg().then(Failing(error))
    with (
        forked(one, strategy, MODULE, 2) as engine,
        pytest.raises(BaseException) as info,  # noqa: PT011 - what it is is looked at
    ):
        run(engine, one)
    assert not pids()
    (note,) = info.value.__notes__[-1:]
    assert note.startswith("In the worker process that trained client")
    assert "in fail_with\n    raise error()" in note
    return info.value


def test_an_error_of_hanses_own_arrives_as_it_was() -> None:
    error = caught(lambda: ModelError("found", why="why", instead="instead"))
    assert type(error) is ModelError
    assert (error.found, error.why, error.instead) == ("found", "why", "instead")
    assert str(error) == "found\n  why: why\n  instead: instead"


def test_an_error_of_the_users_own_arrives_with_its_attributes() -> None:
    error = caught(lambda: PeculiarError("text", number=7))
    assert type(error) is PeculiarError
    assert (error.args, error.number) == (("text",), 7)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        OSError(2, "no such", "file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        KeyboardInterrupt(),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_pythons_arrive(error: BaseException) -> None:
    found = caught(lambda: error)
    assert type(found) is type(error)
    assert (found.args, str(found)) == (error.args, str(error))
    if isinstance(found, OSError) and isinstance(error, OSError):
        assert (found.errno, found.filename) == (error.errno, error.filename)
    if isinstance(found, UnicodeDecodeError):
        assert (found.object, found.reason) == (b"\xff", "bad")


def test_notes_arrive() -> None:
    def noted() -> ValueError:
        error = ValueError("x")
        error.add_note("mine")
        return error

    assert caught(noted).__notes__[0] == "mine"


def test_an_error_that_cannot_be_sent_arrives_in_words() -> None:
    class LocalError(LookupError):
        pass

    found = caught(lambda: UnsendableError("text"))
    assert type(found) is UnsendableError
    assert str(found) == "UnsendableError: text"
    found = caught(lambda: LocalError("here"))
    assert type(found) is LookupError
    assert str(found) == "LocalError: here"


def test_errors_in_a_model_a_loss_and_a_data_source_arrive() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        raise ZeroDivisionError

    one = world(loss=loss)
    with forked(one, fedavg(), VMAP, 2) as engine, pytest.raises(ZeroDivisionError):
        run(engine, one)

    normed = seeded(lambda: nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, CLASSES)))
    one = world(normed, sizes=(5, 1), participation=Full())
    with forked(one, fedavg(), MODULE, 2) as engine, pytest.raises(ModelError, match="BatchNorm"):
        run(engine, one)

    def load(client: int) -> dict[str, Tensor]:
        x = torch.full((3, FEATURES), torch.nan if client == 2 else 1.0, dtype=torch.float64)
        return {"x": x, "y": torch.zeros(3, dtype=torch.int64)}

    lazy: Any = LazyClients(4, load, lambda client: 3)
    one = world(participation=Full(), data=lazy)
    with forked(one, fedavg(), MODULE, 2) as engine, pytest.raises(DataError, match="'client 2'"):
        run(engine, one)


@dataclass(frozen=True)
class Closure:
    """A space that holds a function of its own."""

    function: Callable[[Tensor], Tensor]
    linear = True
    isometric = True
    common = True

    def lift(self, values: Tensor) -> Tensor:
        return self.function(values)


@dataclass(frozen=True)
class Closing(Layer):
    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        delta = update["delta"]
        return {**update, "delta": delta._replace(space=(Closure(lambda v: v),))}, memory


def test_what_cannot_be_sent_is_refused() -> None:
    one, strategy = world(), fedavg().then(Closing())
    with (
        forked(one, strategy, MODULE, 2) as engine,
        pytest.raises(StrategyError, match="cannot go from one process to another"),
    ):
        run(engine, one)


def test_an_engine_works_again_after_an_error() -> None:
    one = world(participation=Full())
    strategy = fedavg().then(Failing(ValueError))
    with forked(one, strategy, MODULE, 2) as engine:
        for _ in range(3):
            with pytest.raises(ValueError):  # noqa: PT011 - it has no words
                run(engine, one)
            assert not pids()


def test_without_gradients_in_a_fork_workers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def grad(*arguments: object, **options: object) -> NoReturn:
        raise RuntimeError("Unable to handle autograd's threading")

    one = world()
    with forked(one, fedavg(), VMAP, 2) as engine:
        monkeypatch.setattr(torch.autograd, "grad", grad)
        with pytest.raises(ConfigError, match="on a machine with a GPU") as info:
            run(engine, one)
    assert "CUDA_VISIBLE_DEVICES=" in info.value.instead


def test_an_interrupt_ends_the_workers() -> None:
    """Ctrl-C reaches every process of the terminal; only this one is to notice."""
    one = world(sizes=[20] * 60, participation=Full())
    state = here(one, fedavg(), MODULE)

    def interrupt(number: int) -> None:
        if number == 3:
            for pid in pids():
                os.kill(pid, signal.SIGINT)
            threading.Timer(0.02, os.kill, (PARENT, signal.SIGINT)).start()

    # A shell that starts the tests in its background has them ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with forked(one, fedavg(), MODULE, 2) as engine:
            with pytest.raises(KeyboardInterrupt):
                run(engine, one, 1000, interrupt)
            assert not pids()
            assert run(engine, one) == state
    finally:
        signal.signal(signal.SIGINT, before)


PROGRAM = """
import atexit
import os
import signal
import sys

import torch
from torch import nn

import hanse
from hanse.data import Federation, PackedClients

sys.stdout.write("begun, ")  # stays in the buffer
log = open(sys.argv[1], "w")
log.write("once")
atexit.register(lambda: print("at exit in", os.getpid() == parent))
signal.signal(signal.SIGTERM, lambda *_: print("a signal"))
parent = os.getpid()
torch.set_num_threads(4)
torch.randn(300, 300) @ torch.randn(300, 300)


class Talking(nn.Linear):
    def forward(self, x):
        if os.getpid() != parent and not hasattr(self, "said"):
            self.said = print("from a worker")
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert torch.get_num_threads() == 1
        return super().forward(x)


data = PackedClients.from_arrays([{"x": torch.randn(9, 3), "y": torch.zeros(9).long()}] * 8)
one_by_one = hanse.Execution("module", 1)
experiment = hanse.Experiment(
    hanse.fedavg(), Federation(data), Talking(3, 2), workers=2, execution=one_by_one
)
going = hanse.rounds(experiment)
next(going), next(going)
pids = [child.pid for child in __import__("multiprocessing").active_children()]
print(torch.get_num_threads(), len(pids))
sys.stdout.flush()
end = sys.argv[2]
if end == "raise":
    raise ValueError("the end")
if end == "exit":
    sys.exit(5)
if end == "kill":
    os.kill(parent, signal.SIGKILL)
"""


@pytest.mark.parametrize(("end", "code"), [("fall", 0), ("raise", 1), ("exit", 5), ("kill", -9)])
def test_a_program_that_ends_without_ending_its_rounds(end: str, code: int, tmp_path: Path) -> None:
    """The generator is still there at exit; the pipe closes with the last process that has it."""
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, "program.py", "log.txt", end],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout.count("begun") == 1
    assert ended.stdout.count("from a worker") == 2
    assert "4 2\n" in ended.stdout
    assert ended.stdout.count("at exit in True") == (end != "kill")
    assert "False" not in ended.stdout
    assert (tmp_path / "log.txt").read_text() == ("once" if end != "kill" else "")
    assert "Traceback" not in ended.stderr or end == "raise"


def test_a_long_silence_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_SILENCE", 0.05)
    one = world()
    engine = Processes(fedavg().then(Slow()), one.task, one.data, MODULE, 2)
    with pytest.warns(RuntimeWarning, match="no worker process has finished") as caught:
        run(engine, one, 1)
    engine.close()
    assert "they train client 'client" in str(caught[0].message)


def test_processes_that_the_system_has_no_room_for() -> None:
    script = """
import os
import resource
from tests.engine.forked import run
from tests.engine.small import MODULE, world
from hanse.core.errors import WorkerError
from hanse.engines import Processes
from hanse.strategies import fedavg

one = world()
engine = Processes(fedavg(), one.task, one.data, MODULE, 2)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 4, 4096))
try:
    run(engine, one)
except WorkerError as error:
    print(error)
"""
    done = subprocess.run(  # a limit that is set cannot be lifted for the other tests
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "cannot be started: [Errno 24]" in done.stdout, done.stdout + done.stderr
    assert "instead: fewer workers" in done.stdout
