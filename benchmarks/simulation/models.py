"""The workloads' models in PyTorch, and weights as NumPy files in PyTorch's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.simulation.workloads import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.simulation.workloads import Workload

    Weights = Mapping[str, NDArray[np.floating]]


class CharLSTM(nn.Module):
    """Characters [B, T] to scores of the next one [B, T, V]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.lstm = nn.LSTM(8, 256, 2, batch_first=True)
        self.out = nn.Linear(256, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.out(self.lstm(self.embedding(x))[0])
        return scores


def build(workload: Workload) -> nn.Module:
    """The model, with fresh weights."""
    match workload.name:
        case "logistic-regression":
            return nn.Sequential(nn.Linear(784, 10))
        case "mlp":
            return nn.Sequential(
                *(nn.Linear(784, 200), nn.ReLU()),
                *(nn.Linear(200, 200), nn.ReLU()),
                nn.Linear(200, 10),
            )
        case "cifar-cnn":  # pfl-research's, without its dropout: random masks cannot be compared
            return nn.Sequential(
                *(nn.Conv2d(3, 32, 3), nn.ReLU()),
                *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Flatten(), nn.Linear(64 * 14 * 14, 128), nn.ReLU()),
                nn.Linear(128, 10),
            )
        case "mcmahan-cnn":
            return nn.Sequential(
                *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU()),
                nn.Linear(512, 62),
            )
        case "char-lstm":
            return CharLSTM()
    raise KeyError(workload.name)


def mean_loss(workload: Workload) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean cross-entropy of a batch, of all its characters if it is text."""
    return _sequence_loss if workload.is_text else F.cross_entropy


def _sequence_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def loss_per_sequence(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of each sequence, [B]."""
    each = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return each.view(targets.shape).mean(dim=1)


def weights_of(module: nn.Module) -> dict[str, NDArray[np.floating]]:
    """A copy of a module's weights by name."""
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def load_weights(module: nn.Module, path: Path) -> nn.Module:
    """Put the weights of a NumPy file into the module, which takes over their type."""
    with np.load(path) as file:
        weights = {name: torch.from_numpy(file[name]) for name in file.files}
    module.to(next(iter(weights.values())).dtype).load_state_dict(weights)
    return module


def write_initial(workload: Workload, path: Path, dtype: torch.dtype) -> None:
    """Write the weights that every engine starts from, and in whose type it computes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights: dict[str, Any] = dict(weights_of(build(workload).to(dtype)))
        np.savez(path, **weights)
