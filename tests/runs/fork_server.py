"""Starts the command line in processes of their own without importing torch in each.

A program: it imports Hanse once, then reads jobs as lines of JSON and forks a child for each. What
kills a child is a real SIGKILL, and the child is a real process.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import hanse.cli.comparing
import hanse.cli.listing
import hanse.cli.running  # noqa: F401 - children need not import it
from hanse.cli.app import main

if TYPE_CHECKING:
    from typing import NoReturn

_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def _watch(folder: str, kill_at: int | None, trace: str | None) -> None:
    """Count what is about to change below `folder`; die before change number `kill_at`."""
    seen = 0
    log = None if trace is None else os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in _CHANGES and not (event == "open" and arguments[2] & _WRITES):
            return
        if not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.path.abspath(arguments[0])  # noqa: PTH100 - inside an audit hook
        # What shutil.rmtree removes is named relative to its folder's handle.
        inside = path.startswith(folder) or event in {"os.remove", "os.rmdir"}
        if not inside:
            return
        seen += 1
        if log is not None:
            os.write(log, f"{event} {os.path.relpath(path, folder)}\n".encode())
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _child(job: dict[str, Any]) -> NoReturn:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the server
    # A shell's background job, as CI may be one, is started with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()  # a terminal's own signals, if the log is one, are this child's alone
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(job["cwd"])
    sys.argv = ["hanse", *job["argv"]]
    os.environ.update(job.get("environment", {}))
    if job.get("file_size") is not None:
        limit = int(job["file_size"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if job.get("watch") is not None:
        _watch(job["watch"], job.get("kill_at"), job.get("trace"))
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a child must never return into the server
        sys.excepthook(*sys.exc_info())
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _answer(value: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def serve() -> None:
    """Read jobs until the input ends."""
    torch.set_num_threads(1)
    # The first gradient imports modules for seconds; children inherit them.
    torch.func.vmap(torch.func.grad_and_value(lambda x: (x * x).sum()))(torch.ones(2, 1))
    _answer({"threads": len(list(Path("/proc/self/task").iterdir()))})
    for line in sys.stdin:
        job = json.loads(line)
        if job["do"] == "wait":
            _answer({"status": os.waitstatus_to_exitcode(os.waitpid(job["pid"], 0)[1])})
            continue
        pid = os.fork()
        if pid == 0:
            _child(job)
        _answer({"pid": pid})


if __name__ == "__main__":
    serve()
