"""What a private step costs beside a plain one, with Hanse and with Opacus.

    python -m benchmarks.privacy.example_dp

One client, one thread, batches of 64, McMahan et al.'s CNN and MLP. All ways take a step in turns,
in one process, so that what else the machine does meets them alike; then each runs alone in a
process of its own, whose peak of memory is read. Times are of the processor, and medians.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hanse.core.heap import keep_freed_memory
from hanse.engines.private import PrivateExecutor
from hanse.models import Execution, Task, cnn, mlp
from hanse.models.executors import EXECUTORS
from hanse.models.gradient import Batch
from hanse.privacy import ExampleDP

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hanse.models.gradient import Executor

    Step = Callable[[int], None]

BATCH, RATE, CLIP = 64, 0.01, 1.0
MODELS = {"cnn": (cnn, (1, 28, 28), "module"), "mlp": (lambda n: mlp(784, n), (784,), "dense")}
WAYS = (
    "Hanse, plain",
    "PyTorch, plain",
    "Hanse, private",
    "Hanse, private, noise from the system",
    "Hanse, private, exact",
    "Opacus, ghost clipping",
    "Opacus, hooks",
)


def made(model: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A model and a batch."""
    torch.default_generator.manual_seed(0)
    make, shape, _ = MODELS[model]
    return make(10), torch.randn(BATCH, *shape), torch.randint(10, (BATCH,))


def of_hanse(model: str, privacy: ExampleDP | None) -> Step:
    """A step of SGD along what an executor computes."""
    module, x, y = made(model)
    task, path = Task.of(module), MODELS[model][2]
    executor: Executor = EXECUTORS[path](task)
    if privacy is not None:
        executor = PrivateExecutor(task, Execution(path, 1), privacy)  # type: ignore[arg-type]
    params = task.initial()[0].unsqueeze(0)
    weights, counts = torch.full((1, BATCH), 1 / BATCH), torch.full((1,), BATCH)
    keys, buffers = np.zeros(1, np.uint64), torch.zeros(1, 0)

    def step(number: int) -> None:
        batch = Batch(x[None], y[None], weights, counts, buffers, keys, 0, number)
        executor.add_to(batch, params, params, -RATE, 1.0)

    return step


def of_torch(model: str) -> Step:
    """A step as PyTorch's own optimiser takes it."""
    module, x, y = made(model)
    optimizer, loss = torch.optim.SGD(module.parameters(), RATE), nn.CrossEntropyLoss()

    def step(number: int) -> None:
        del number
        optimizer.zero_grad()
        loss(module(x), y).backward()
        optimizer.step()

    return step


def of_opacus(model: str, *, ghost: bool) -> Step:
    """A step of Opacus's, with its own noise."""
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer
    from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    module, x, y = made(model)
    inner = torch.optim.SGD(module.parameters(), RATE)
    options = {"noise_multiplier": 1.0, "max_grad_norm": CLIP, "expected_batch_size": BATCH}
    loss: Any = nn.CrossEntropyLoss()
    optimizer: Any
    if ghost:
        sampled: Any = GradSampleModuleFastGradientClipping(
            module, max_grad_norm=CLIP, use_ghost_clipping=True
        )
        optimizer = DPOptimizerFastGradientClipping(inner, **options)
        loss = DPLossFastGradientClipping(sampled, optimizer, loss)
    else:
        sampled, optimizer = GradSampleModule(module), DPOptimizer(inner, **options)

    def step(number: int) -> None:
        del number
        optimizer.zero_grad()
        loss(sampled(x), y).backward()
        optimizer.step()

    return step


def step_of(way: str, model: str) -> Step:
    """A step by a way."""
    if way.startswith("Opacus"):
        return of_opacus(model, ghost="ghost" in way)
    if way == "PyTorch, plain":
        return of_torch(model)
    if way == "Hanse, plain":
        return of_hanse(model, None)
    privacy = ExampleDP(CLIP, 1.0, BATCH, "os" if "system" in way else "seeded", "exact" in way)
    return of_hanse(model, privacy)


def timed(model: str, turns: int, seldom: int) -> dict[str, float]:
    """The median of each way's processor time, in ms; slow ways take `seldom` turns only."""
    steps = {way: step_of(way, model) for way in WAYS}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(-1, turns):  # the first turn does not count: libraries set themselves up
        for way, step in steps.items():
            slow = "exact" in way or "system" in way or "hooks" in way
            if slow and number >= seldom:
                continue
            began = time.process_time()
            step(number + 1)
            if number >= 0:
                times[way].append(1e3 * (time.process_time() - began))
    return {way: median(found) for way, found in times.items()}


def memory_of(way: str, model: str) -> float:
    """The most memory that a process has needed for a few steps, in MB, above making the model."""
    command = [sys.executable, "-m", "benchmarks.privacy.example_dp", "--alone", way, model]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def alone(way: str, model: str) -> None:
    """Print how much memory a few steps need."""
    step = step_of(way, model)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for number in range(3):
        step(number)
    print(json.dumps((_status("VmHWM") - before) / 1024))


def _status(name: str) -> int:
    """A line of the process's status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=31)
    parser.add_argument("--seldom", type=int, default=5)
    parser.add_argument("--alone", nargs=2, metavar=("WAY", "MODEL"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    warnings.simplefilter("ignore")
    if given.alone:
        alone(*given.alone)
        return
    load = os.getloadavg()[0]
    print(f"PyTorch {torch.__version__}, one thread; load before: {load:.1f}\n")
    print("| way | CNN: ms a step | ratio | MB | MLP: ms a step | ratio | MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    found = {model: timed(model, given.turns, given.seldom) for model in MODELS}
    for way in WAYS:
        cells = []
        for model, times in found.items():
            ratio = times[way] / times["Hanse, plain"]
            cells += [f"{times[way]:.3g}", f"{ratio:.2f}", f"{memory_of(way, model):.0f}"]
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
