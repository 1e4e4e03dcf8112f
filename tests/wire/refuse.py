"""Decodes hostile messages in a process that may have little memory; started by a test.

Prints a line of JSON: how many messages of each kind were refused, the longest time that one took,
and the most memory that Python objects had.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

from tests.wire.hostile import DRAFTS, LIMIT, hostile

from hanse.core.errors import WireError
from hanse.wire import decode

ROOM = 64 << 20  # bytes beyond what the process has before the first message
PATIENCE = 20.0  # seconds for one message: a hang ends by a signal


def main(count: int) -> None:
    for draft in DRAFTS:
        decode(draft.message())
    messages = [hostile(seed) for seed in range(29)]
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    tracemalloc.start()
    refused: Counter[str] = Counter()
    slowest, most = 0.0, 0
    for seed in range(count):
        what, message = messages[seed] if seed < len(messages) else hostile(seed)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        began = time.perf_counter()
        try:
            decode(message, limit=LIMIT)
        except WireError:
            refused[what] += 1
        slowest = max(slowest, time.perf_counter() - began)
        signal.setitimer(signal.ITIMER_REAL, 0)
        most = max(most, tracemalloc.get_traced_memory()[1] - before)
    print(json.dumps({"refused": refused, "slowest": slowest, "most": most}))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
