"""Batches and models for the tests of examples' gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hanse.models.gradient import Batch


def batch_of(x: Tensor, y: Tensor, counts: tuple[int, ...] | None = None, step: int = 0) -> Batch:
    """A step's batches `[k, B, ...]`; of each client the first `counts` examples are real."""
    clients, width = x.shape[:2]
    numbers = torch.tensor(counts or (width,) * clients)
    real = torch.arange(width) < numbers.unsqueeze(1)
    dtype = x.dtype if x.is_floating_point() else torch.float64
    keys = np.arange(clients).astype(np.uint64)
    return Batch(x, y, real.to(dtype), numbers, torch.zeros(clients, 0), keys, 0, step)


class Tokens(nn.Module):
    """An embedding, layer norm and a layer over positions; a word may come twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 5, padding_idx=0)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.norm(self.words(x)))).mean(1)
        return out


class Twice(nn.Module):
    """Calls a layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.layer(torch.relu(self.layer(x)))))
        return out


class Hidden(nn.Module):
    """Reads a layer's weight without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x) + x @ self.layer.weight)
        return out


class Own(nn.Module):
    """A parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.ones(4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x * self.scale)
        return out


class Choosy(nn.Module):
    """Looks at a number, so that it cannot be batched; and a layer of its own for some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = [self.high(row) if float(row[0]) > 0 else self.low(row) for row in x]
        return torch.stack(rows)


def images() -> nn.Module:
    """Two convolutions with everything that a convolution may have."""
    return nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 3, 3, bias=False, padding=1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
