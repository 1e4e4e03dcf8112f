"""How CUDA graphs are recorded: the order of the calls, by a CUDA that only notes them."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING

import pytest
import torch

from hanse.engines.capture import CudaCapture, DirectCapture, Uncapturable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAIN = "main stream"


class Noted:
    """Streams and graphs that note what is done with them.

    Attributes:
        log: what happened, in words.
        waiting: what PyTorch does about an operation that waits: nothing, or an error.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = MAIN
        self.waiting: str | int = 0
        self.fails = False

    def Stream(self) -> Noted.Side:  # noqa: N802 - torch's name
        return Noted.Side(self)

    class Side:
        """A stream."""

        def __init__(self, cuda: Noted) -> None:
            self._cuda = cuda

        def wait_stream(self, other: object) -> None:
            self._cuda.log.append(f"side waits for {other}")

    class Main:
        """The stream that all else is done on."""

        def __init__(self, cuda: Noted) -> None:
            self._cuda = cuda

        def wait_stream(self, other: object) -> None:
            self._cuda.log.append(f"{MAIN} waits for side")

        def __str__(self) -> str:
            return MAIN

    @contextlib.contextmanager
    def stream(self, stream: object) -> Iterator[None]:
        before, self.current = self.current, "side" if isinstance(stream, Noted.Side) else MAIN
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def graph(self, graph: object, **options: object) -> Iterator[None]:
        # As torch's own: what it is given must be what that takes.
        inspect.signature(torch_graph).bind(None, graph, **options)
        self.log.append(f"record {options['capture_error_mode']} into pool {options['pool']}")
        self.current = "recording"
        yield  # after an error, torch leaves the stream as it is
        if self.fails:
            message = "operation failed due to a previous error during capture"
            raise RuntimeError(message)
        self.current = MAIN

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in the place of torch's CUDA."""
        replaced: dict[str, object] = {
            "Stream": self.Stream,
            "stream": self.stream,
            "graph": self.graph,
            "current_stream": lambda: Noted.Main(self),
            "device": lambda _: contextlib.nullcontext(),
            "graph_pool_handle": lambda: len(self.log),
            "CUDAGraph": Graph,
            "synchronize": lambda: self.log.append("wait for all"),
            "get_sync_debug_mode": lambda: self.waiting,
            "set_sync_debug_mode": lambda mode: setattr(self, "waiting", mode),
        }
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)


class Graph:
    """A graph that cannot do anything."""

    def replay(self) -> None:
        raise AssertionError


torch_graph = torch.cuda.graph.__init__


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Noted:
    noted = Noted()
    noted.install(monkeypatch)
    return noted


def test_a_step_warms_up_beside_the_main_stream_and_is_recorded_once(cuda: Noted) -> None:
    capture = CudaCapture(torch.device("cuda", 0))

    def run() -> None:
        cuda.log.append(f"run, {cuda.current}, {cuda.waiting}")

    replay = capture(run)
    assert cuda.log == [
        f"side waits for {MAIN}",
        "run, side, error",
        "run, side, error",
        f"{MAIN} waits for side",
        "record thread_local into pool 0",
        "run, recording, 0",
    ]
    assert getattr(replay, "__name__", "") == "replay"
    assert isinstance(getattr(replay, "__self__", None), Graph)
    capture(run)
    assert cuda.log[-2] == "record thread_local into pool 0"  # the same for all graphs


@pytest.mark.parametrize("place", ["side", "recording"])
def test_a_step_that_fails_leaves_everything_as_it_was(cuda: Noted, place: str) -> None:
    capture = CudaCapture(torch.device("cuda", 0))

    def run() -> None:
        if cuda.current == place:
            message = "called a synchronizing CUDA operation"
            raise RuntimeError(message)

    with pytest.raises(Uncapturable, match="RuntimeError: called a synchronizing"):
        capture(run)
    assert cuda.log[-1] == "wait for all"
    assert cuda.waiting == 0
    assert cuda.current == MAIN


def test_a_recording_that_torch_cannot_end_is_an_answer_too(cuda: Noted) -> None:
    cuda.fails = True
    with pytest.raises(Uncapturable, match="previous error"):
        CudaCapture(torch.device("cuda", 0))(lambda: None)
    assert cuda.current == MAIN


@pytest.mark.parametrize("error", [RuntimeError("no"), TypeError("why"), ZeroDivisionError()])
def test_what_is_called_each_time_answers_alike(error: Exception) -> None:
    def run() -> None:
        raise error

    with pytest.raises(Uncapturable, match=type(error).__name__):
        DirectCapture()(run)


def test_what_is_called_each_time_is_warmed_up_as_well() -> None:
    calls: list[int] = []
    run: Callable[[], None] = DirectCapture()(lambda: calls.append(1))
    assert len(calls) == 2
    run()
    assert len(calls) == 3
