"""Where a run computes: the computer's processor, or a graphics card."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from hanse.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

CPU = torch.device("cpu")
_INSTEAD = 'device = "cpu"'


def device_named(name: object, workers: int = 1) -> torch.device:
    """The device of a name such as `"cpu"`, `"cuda"` (the first card) or `"cuda:1"`.

    Raises:
        ConfigError: there is no such device, or worker processes could not use it.
    """
    if not isinstance(name, str) or name.partition(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(
            f"device = {name!r}",
            why="clients train on the computer's processor, or on a graphics card of NVIDIA's",
            instead=f'{_INSTEAD}, device = "cuda", or device = "cuda:1" for the second card',
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"device = {name!r}",
            why=str(error).splitlines()[0],
            instead=f'{_INSTEAD}, or "cuda:" and the number of a card, from 0',
        ) from error
    if device.type == "cpu":
        return CPU
    if workers > 1:
        raise ConfigError(
            f"device = {name!r} with workers = {workers}",
            why="workers are forks of this process, which cannot use a graphics card",
            instead="workers = 1: a card trains a block of clients at once",
        )
    return torch.device("cuda", _card(name, device.index))


def _card(name: str, index: int | None) -> int:
    if torch.version.cuda is None:
        raise ConfigError(
            f"device = {name!r}",
            why=f"PyTorch {torch.__version__} was built without CUDA",
            instead=f"{_INSTEAD}, or a build of PyTorch with CUDA (https://pytorch.org)",
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"device = {name!r}",
            why="PyTorch finds no graphics card, or no driver for it (`nvidia-smi` lists them)",
            instead=_INSTEAD,
        )
    cards = torch.cuda.device_count()
    if index is not None and index >= cards:
        raise ConfigError(
            f"device = {name!r}",
            why=f"PyTorch finds {cards} card{'s' * (cards > 1)}, numbered from 0",
            instead='device = "cuda", which is the first one',
        )
    return torch.cuda.current_device() if index is None else index


def described(device: torch.device) -> str:
    """A device in words, with the card's name."""
    if device.type == "cpu":
        return "cpu"
    return f"{device.type}, {torch.cuda.get_device_name(device)}"


@contextlib.contextmanager
def placed(device: torch.device) -> Iterator[None]:
    """Tensors that are made inside lie on the device, where nothing else is said.

    On a card, convolutions are computed in the type of their numbers: cuDNN would otherwise leave
    out half of the digits of single precision. It takes the same kernels each time.
    """
    if device.type == "cpu":
        yield
        return
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.device(device), torch.cuda.device(device), exact:
        yield


def generators(device: torch.device) -> list[int]:
    """The cards whose random numbers training on a device draws, for `torch.random.fork_rng`."""
    return [] if device.type == "cpu" else [device.index]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; the processor does not wait until it has arrived."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
