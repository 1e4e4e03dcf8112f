"""The heap of the C library: what a step frees is there for the next one."""

from __future__ import annotations

import torch

_LARGEST = (1 << 25) - (1 << 16)  # bytes; glibc learns from blocks up to 2 ** 25, its own included


def keep_freed_memory() -> None:
    """Have up to 64 MB of freed memory used again, not given back to the system after each step.

    What was given back is handed out anew page by page, each of them cleared: an eighth of the time
    of an LSTM's step. glibc learns from the largest block that has been freed what is worth
    keeping (mallopt(3), `M_MMAP_THRESHOLD`, "dynamic mmap threshold"), and it is chance how much a
    model's own tensors teach it. So it is shown the largest block that it learns from, which is
    never written to and thus costs nothing. Other C libraries, and limits that are set in the
    environment, stay as they are.
    """
    torch.empty(_LARGEST, dtype=torch.uint8, device="cpu")
