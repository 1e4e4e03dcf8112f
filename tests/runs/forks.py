"""Runs of the command line in real processes that can be killed, and what they leave behind."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable

_SERVER = Path(__file__).with_name("fork_server.py")
_PATIENCE = 120.0  # seconds that a loaded machine may take for what takes one


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit status (minus the signal), and what it printed."""

    status: int
    printed: str


class Running:
    """A command that was started."""

    def __init__(self, server: ForkServer, pid: int, log: Path) -> None:
        self.pid, self._server, self._log = pid, server, log

    def kill(self, signal: int) -> Ended:
        os.kill(self.pid, signal)
        return self.wait()

    def wait(self) -> Ended:
        status = int(self._server.ask({"do": "wait", "pid": self.pid})["status"])
        return Ended(status, self._log.read_text("utf-8") if self._log.is_file() else "")


class ForkServer:
    """A process that has imported torch and forks another for each command."""

    def __init__(self) -> None:
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **one, "TERM": "xterm-256color", "COLUMNS": "80"},
        )
        assert self._answer() == {"threads": 1}  # a fork copies only the thread that forks

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(_PATIENCE)

    def ask(self, job: dict[str, Any]) -> dict[str, int]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def start(self, cwd: Path, *argv: str, **options: object) -> Running:
        """Start `hanse argv` in `cwd`.

        Options: `watch` (a folder), `kill_at` (die before so many changes in it), `trace` (a file
        for the changes), `file_size` (the largest size of a file), `environment`, and `log` (where
        it prints, a terminal perhaps).
        """
        log = Path(str(options.pop("log", cwd / "printed.txt")))
        job: dict[str, Any] = {"do": "start", "argv": argv, "cwd": str(cwd), "log": str(log)}
        job |= {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
        return Running(self, self.ask(job)["pid"], log)

    def hanse(self, cwd: Path, *argv: str, **options: object) -> Ended:
        return self.start(cwd, *argv, **options).wait()

    def _answer(self) -> dict[str, int]:
        assert self._process.stdout is not None
        found: dict[str, int] = json.loads(self._process.stdout.readline())
        return found


@functools.cache
def shared() -> ForkServer:
    """One for all tests of this process; it ends with it."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition about files, thousands of times a second."""
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to this"
        time.sleep(0.0002)


def recorded(run: Path) -> int:
    """How many rounds `metrics.jsonl` holds."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_rounds(run: Path, rounds: int) -> None:
    """Until so many more are recorded than when they were fewest: a resumed run drops some."""
    fewest = recorded(run)

    def gone_on() -> bool:
        nonlocal fewest
        now = recorded(run)
        fewest = min(fewest, now)
        return now >= fewest + rounds

    wait_until(gone_on)


def digest(path: Path) -> str:
    """A hash of the names, types, shapes and bits of a file's tensors."""
    found = hashlib.sha256()
    with safe_open(path, framework="np") as opened:
        for name in sorted(opened.keys()):
            tensor = opened.get_tensor(name)
            found.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            found.update(tensor.tobytes())
    return found.hexdigest()


def bits(run: Path) -> dict[str, object]:
    """All of a run that must not depend on when it was interrupted."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    checkpoints = sorted((run / "checkpoints").iterdir())
    about = json.loads((run / "run.json").read_text("utf-8"))
    return {
        "model": digest(run / "model.safetensors"),
        "checkpoints": {path.name: digest(path / "state.safetensors") for path in checkpoints},
        "metrics": [{**line, "seconds": None} for line in lines],
        "clients": (run / "clients.jsonl").read_text("utf-8"),
        "run": {**about, "seconds": None, "started": None},
        "files": sorted(p.name for p in run.iterdir()),
    }
