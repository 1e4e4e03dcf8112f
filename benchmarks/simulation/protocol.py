"""The engine's side of the conversation with the driver.

An engine is a process that starts training at once. After every round it calls `Session.done`,
which returns when another round is wanted: an engine that has a loop and one that has a callback
fit alike. The first `CHECKED` rounds warm up, and the weights after them are kept for comparison.
Requests come as JSON lines on the standard input, answers leave on the standard output:

    (start)                  {"seconds": [...], "cpu": [...]} of the first rounds
    {"rounds": N}            {"seconds": [...], "cpu": [...]} of the next N rounds
    {"weights": "FILE.npz"}  {"written": "FILE.npz"}, the weights after the first rounds
    {"threads": N}           {"threads": N}, with which it goes on
    {"quit": true}           nothing: the process ends

What libraries print goes to the standard error. Between rounds the process waits for a line and
burns no CPU. Needs NumPy alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.simulation.processes import cpu_of_descendants
from benchmarks.simulation.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from benchmarks.simulation.workloads import Workload

CHECKED = 2


class Conversation:
    """One engine's conversation with the driver."""

    def __init__(self) -> None:
        """Keep the standard output for answers; the first round begins now."""
        self._set_threads: Callable[[int], None] | None = None
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._weights: Mapping[str, NDArray[np.floating]] | None = None
        self._wanted = CHECKED
        self._seconds: list[float] = []
        self._cpu: list[float] = []
        self._begin()

    def threads_by(self, set_threads: Callable[[int], None]) -> None:
        """Say how the number of threads is set; the driver tries which one is fastest."""
        self._set_threads = set_threads

    def done(self, weights: Callable[[], Mapping[str, NDArray[np.floating]]]) -> None:
        """Say that a round has ended; return when the next one shall begin.

        Args:
            weights: gives a copy of the global model's weights, in PyTorch's layout.

        Raises:
            SystemExit: no more rounds are wanted.
        """
        self._seconds.append(time.perf_counter() - self._began)
        own = time.process_time()
        self._cpu.append(own + cpu_of_descendants(os.getpid()) - self._cpu_began)
        if len(self._seconds) == self._wanted:
            if self._weights is None:
                self._weights = weights()
            self._answer({"seconds": self._seconds, "cpu": self._cpu})
            self._listen()
        self._begin()

    def _begin(self) -> None:
        # What it takes to look at the descendants is no part of the round: before it, and above
        # after it.
        self._cpu_began = cpu_of_descendants(os.getpid()) + time.process_time()
        self._began = time.perf_counter()

    def _listen(self) -> None:
        for line in sys.stdin:
            request = json.loads(line)
            if "weights" in request and self._weights is not None:
                np.savez(request["weights"], **self._weights)
                self._answer({"written": request["weights"]})
            elif "threads" in request and self._set_threads is not None:
                self._set_threads(request["threads"])
                self._answer(request)
            elif "rounds" in request:
                self._wanted = request["rounds"]
                self._seconds, self._cpu = [], []
                return
            else:
                break
        raise SystemExit

    def _answer(self, answer: Mapping[str, object]) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)


class Session(Conversation):
    """The conversation of a simulator, which is told what to train.

    Attributes:
        workload: what to train.
        initial: the file with the weights to start from.
        dtype: their type, in which everything is to be computed.
        threads: threads, or actors, to use.
        workers: worker processes, for Hanse.
        plan: whose batches to take, for the floor: `"order"`, as the data lie, or `"hanse"`.
    """

    def __init__(self) -> None:
        """Read the command line."""
        super().__init__()
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("workload", choices=WORKLOADS)
        parser.add_argument("initial", type=Path)
        parser.add_argument("--threads", type=int, default=1)
        parser.add_argument("--workers", type=int, default=1)
        parser.add_argument("--plan", choices=["order", "hanse"], default="order")
        options = parser.parse_args()
        self.workload: Workload = WORKLOADS[options.workload]
        self.initial: Path = options.initial
        with np.load(self.initial) as file:
            self.dtype: np.dtype[np.floating] = file[file.files[0]].dtype
        self.threads: int = options.threads
        self.workers: int = options.workers
        self.plan: str = options.plan
