"""The engine for so many workers, and what keeps some from being used."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import torch

from hanse.core.device import CPU
from hanse.core.errors import ConfigError, DataError
from hanse.data import PackedClients
from hanse.engines.capture import CudaCapture
from hanse.engines.in_process import InProcess
from hanse.engines.on_device import TRAINED_ON, Place
from hanse.engines.processes import Processes

if TYPE_CHECKING:
    from hanse.data.federation import ClientData
    from hanse.models.execution import Execution
    from hanse.models.task import Task
    from hanse.strategy import Strategy


def check_workers(workers: object) -> None:
    """Refuse a number of workers that cannot be.

    Raises:
        ConfigError: no whole number of at least 1, or several where processes cannot fork.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(
            f"workers = {workers!r}",
            why="it is how many processes train clients",
            instead="a whole number of at least 1, such as the number of cores: workers = 2",
        )
    if workers > 1 and not (hasattr(os, "fork") and hasattr(os, "memfd_create")):
        raise ConfigError(
            f"workers = {workers} on {platform.system()}",
            why="workers are forks that share anonymous files in memory, which Linux has",
            instead="workers = 1",
        )


def check_room(data: ClientData, device: torch.device) -> None:
    """Refuse clients in memory whose examples do not fit on a card.

    Raises:
        DataError: there is less room than they take.
    """
    if device.type == "cpu" or not isinstance(data, PackedClients):
        return
    fields = [field for name, field in data.fields.items() if name in TRAINED_ON]
    needed = sum(field.numel() * field.element_size() for field in fields)
    free, _ = torch.cuda.mem_get_info(device)
    if needed > free:
        raise DataError(
            f"clients' examples of {_gigabytes(needed)}, for a card with {_gigabytes(free)} free",
            why="what clients train on stays on the card",
            instead="LazyClients, whose examples come block by block; a smaller type of numbers; "
            'or device = "cpu"',
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def make_engine(
    workers: int,
    strategy: Strategy,
    task: Task,
    data: ClientData,
    execution: Execution,
    device: torch.device = CPU,
) -> InProcess | Processes:
    """This process for one worker, with its card if a device is one, else so many forks of it.

    Raises:
        ConfigError: forks could not use the device that the model or the data are on.
    """
    if device.type != "cpu":
        return InProcess(strategy, task, data, execution, Place(device, CudaCapture(device)))
    if workers == 1:
        return InProcess(strategy, task, data, execution)
    tensors = list(task.module.state_dict().values())
    if isinstance(data, PackedClients):
        tensors += data.fields.values()
    devices = {str(tensor.device) for tensor in tensors if tensor.device.type != "cpu"}
    if devices:
        raise ConfigError(
            f"workers = {workers} with tensors on {', '.join(sorted(devices))}",
            why="workers are forks of this process, which cannot use a device that it has used",
            instead="workers = 1, or the model and the data in the computer's own memory",
        )
    return Processes(strategy, task, data, execution, workers)
