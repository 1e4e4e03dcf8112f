"""What a device can do at most, measured: bytes copied and products computed in a second."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_REPEATS = 7


@dataclass(frozen=True)
class Ceilings:
    """Of one device.

    Attributes:
        copy: bytes read and written in a second by a copy within the device's memory.
        float32: operations a second of a large product in single precision.
        tf32: likewise with TensorFloat-32; the same as `float32` where there is none.
        bfloat16: likewise in bfloat16.
    """

    copy: float
    float32: float
    tf32: float
    bfloat16: float


def measure(device: torch.device, *, quick: bool) -> Ceilings:
    """Medians of some repetitions."""
    copy = _copied(1 << (20 if quick else 28), device)
    side = 256 if quick else 8192
    before = torch.backends.cuda.matmul.allow_tf32
    rates = []
    for dtype, allowed in (
        (torch.float32, False),
        (torch.float32, True),
        (torch.bfloat16, False),
    ):
        a, b = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
        out = torch.empty_like(a)
        torch.backends.cuda.matmul.allow_tf32 = allowed
        rates.append(2 * side**3 / _product_seconds(a, b, out, device))
    torch.backends.cuda.matmul.allow_tf32 = before
    return Ceilings(copy, *rates)


def _copied(numbers: int, device: torch.device) -> float:
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _product_seconds(
    a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, device: torch.device
) -> float:
    return _seconds(lambda: torch.mm(a, b, out=out), device)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    taken = []
    for _ in range(_REPEATS):
        synchronise(device)
        began = time.perf_counter()
        run()
        synchronise(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])  # the first one also warms up
