"""A step of a block recorded once, and repeated without Python.

A CUDA graph holds the kernels of a step and the addresses that they read and write; to repeat it
is one call. What is recorded must therefore read and write the same memory each time, and must
not look at a number on the card, for which the processor would wait.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TRIES = 2  # before it is recorded: libraries set themselves up at their first call


class Uncapturable(Exception):  # noqa: N818 - it is an answer, not an error
    """Why a step cannot be recorded, in words."""


class Capture(Protocol):
    """Records what a function does."""

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        """A function that does what `run` does, on the same memory.

        `run` is called to warm up, so what it writes to is changed by this, too.

        Raises:
            Uncapturable: `run` cannot be recorded.
        """


class DirectCapture:
    """Calls the function each time, after the same warming up: to test what captures without."""

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        """As `Capture`."""
        try:
            for _ in range(_TRIES):
                run()
        except Exception as error:
            raise Uncapturable(words(error)) from error
        return run


class CudaCapture:
    """Records CUDA graphs, which share the memory that they use in between.

    They may: nothing that lies in it is read after the graph has ended, since steps write their
    results into memory of the caller's.
    """

    def __init__(self, device: torch.device) -> None:
        """Graphs of one card; nothing is recorded yet."""
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._pool: torch.cuda._POOL_HANDLE | None = None

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        """As `Capture`."""
        # A recording that fails leaves its stream the current one; the one before comes back here.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream()):
            if self._stream is None:
                self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            try:
                self._warm_up(run, self._stream)
                # In the mode of one thread: others may load examples meanwhile.
                with torch.cuda.graph(
                    graph,
                    pool=self._pool,
                    stream=self._stream,
                    capture_error_mode="thread_local",
                ):
                    run()
            except Exception as error:
                torch.cuda.synchronize()
                raise Uncapturable(words(error)) from error
        return graph.replay

    def _warm_up(self, run: Callable[[], None], stream: torch.cuda.Stream) -> None:
        """Run it beside the main stream; what would wait for the card fails here, unrecorded."""
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), unwaiting():
            for _ in range(_TRIES):
                run()
        torch.cuda.current_stream().wait_stream(stream)


@contextlib.contextmanager
def unwaiting() -> Iterator[None]:
    """What makes the processor wait for the card is an error inside, as far as torch notices."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def words(error: Exception) -> str:
    """What an error says, on a line."""
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text:.200}"
