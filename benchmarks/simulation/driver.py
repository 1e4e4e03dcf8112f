"""The driver's side: engines as processes that are asked for rounds in turn."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from benchmarks.simulation.environments import ROOT, python_of
from benchmarks.simulation.processes import peak_rss, tree_pss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.simulation.workloads import Workload

_SAMPLED_EVERY = 0.5  # seconds
_PATIENCE = 60.0  # seconds for a process to end by itself
_THREADED = {"floor", "pfl", "fluke"}  # PyTorch's threads, one for each core
_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
    "JAX_PLATFORMS": "cpu",
    "WANDB_MODE": "disabled",
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class EngineError(Exception):
    """An engine ended before its time; the message is the end of what it said."""


@dataclass(frozen=True)
class Launch:
    """How an engine is started.

    Attributes:
        engine: its name, which is its module's too.
        cores: the numbers of the cores that it may use, a thread or a worker for each.
        workers: worker processes, for Hanse.
        plan: whose batches to take, for the floor: in the data's order, or Hanse's.
        exact: whether it will compute in float64.
    """

    engine: str
    cores: tuple[int, ...]
    workers: int = 1
    plan: str = "order"
    exact: bool = False

    @property
    def is_threaded(self) -> bool:
        """Whether PyTorch's threads share the cores, for which there may be too few operations."""
        return self.engine in _THREADED and len(self.cores) > 1

    def start(self, workload: Workload, initial: Path) -> Engine:
        """Start it on a workload, from the weights of a file and in their type."""
        module = f"benchmarks.simulation.engines.{self.engine}"
        # PyTorch's threads are tried later: on a busy machine two can take many times as long.
        threads = 1 if self.is_threaded else len(self.cores)
        command = [
            *(str(python_of(self.engine)), "-m", module, workload.name, str(initial)),
            *("--threads", str(threads), "--workers", str(self.workers)),
            *("--plan", self.plan),
        ]
        return Engine(
            command,
            self.cores,
            threads=len(self.cores) if self.engine in _THREADED else 1,
            is_tree=self.engine == "flower" or self.workers > 1,
            environment={"JAX_ENABLE_X64": str(self.exact)},
        )


class Engine:
    """A running process that speaks the protocol. Use it in a `with` block, which ends it.

    Attributes:
        memory: the peak in MB so far.
    """

    def __init__(
        self,
        command: Sequence[str],
        cores: Sequence[int],
        *,
        threads: int = 1,
        is_tree: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process; `prepare` waits for it.

        Args:
            command: what to start.
            cores: the numbers of the cores that it may use.
            threads: of its linear algebra.
            is_tree: whether it starts processes of its own, whose memory counts.
            environment: further variables.
        """
        self.memory = 0.0
        self._is_tree = is_tree
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), *command],
            cwd=ROOT,
            env={**os.environ, **_ENVIRONMENT, **(environment or {})}
            | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def prepare(self) -> list[float]:
        """Wait for the first rounds; their seconds, the first one with all that it took before."""
        return list(map(float, self._answer()["seconds"]))

    def rounds(self, count: int) -> tuple[list[float], list[float]]:
        """The seconds and the CPU seconds of some more rounds."""
        answer = self._ask({"rounds": count})
        return answer["seconds"], answer["cpu"]

    def choose_threads(self, most: int) -> int:
        """Try numbers of threads for two rounds each; go on with the fastest one, and say which."""
        fastest, least = most, float("inf")
        for count in range(1, most + 1):
            self._ask({"threads": count})
            needed = min(self.rounds(2)[0])
            if needed < least:
                fastest, least = count, needed
        self._ask({"threads": fastest})
        return fastest

    def write_weights(self, path: Path) -> None:
        """Write the weights that the first rounds led to."""
        self._ask({"weights": str(path)})

    def close(self) -> None:
        """Ask the process to end, and end it if it does not."""
        try:
            self._send({"quit": True})
            self._process.wait(_PATIENCE)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        try:
            self._send(request)
        except OSError as error:
            raise EngineError(self._said()) from error
        return self._answer()

    def _send(self, request: Mapping[str, object]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        while not select.select([self._process.stdout], [], [], _SAMPLED_EVERY)[0]:
            self._look_at_memory()
        self._look_at_memory()
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise EngineError(self._said())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _look_at_memory(self) -> None:
        if self._process.poll() is not None:
            return
        pid = self._process.pid
        self.memory = max(self.memory, tree_pss(pid)) if self._is_tree else peak_rss(pid)

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:].strip() or "it said nothing"


def chosen_cores(count: int) -> tuple[int, ...]:
    """The first cores that this process may use: `taskset` in front of the driver moves them."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < count:
        raise SystemExit(f"{count} cores are wanted, and this process may use {allowed} alone")
    return tuple(allowed[:count])


def launches(engines: Sequence[str], cores: int, workers: int | None) -> list[Launch]:
    """How the engines are started, in their order."""
    these = chosen_cores(cores)
    return [Launch(name, these, (workers or cores) if name == "hanse" else 1) for name in engines]
