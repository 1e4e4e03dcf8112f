"""The set-up of `mnist_2nn` as a loop in plain PyTorch that shares no code with Hanse.

If Hanse needs as many rounds as this loop, a difference to the published number of rounds is not
Hanse's doing.

    python -m benchmarks.fidelity.mnist_2nn_plain ~/.cache/hanse/mnist iid --rate 0.2 --seed 0
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def read(folder: Path, name: str, header: int) -> NDArray[np.uint8]:
    """The bytes after an IDX file's header."""
    path = next(path for path in folder.iterdir() if path.name.startswith(name))
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    return np.frombuffer(content, np.uint8, offset=header)


def images_and_labels(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images = read(folder, f"{part}-images", 16).reshape(-1, 784) / np.float32(255)
    labels = read(folder, f"{part}-labels", 8).astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels)


def deal(labels: Tensor, partition: str, numbers: np.random.Generator) -> list[NDArray[np.int64]]:
    """Which examples each of 100 clients has."""
    if partition == "iid":
        return np.array_split(numbers.permutation(len(labels)), 100)
    shards = np.array_split(np.argsort(labels.numpy(), kind="stable"), 200)
    hands = numbers.permutation(200).reshape(100, 2)
    return [np.concatenate([shards[one], shards[other]]) for one, other in hands]


def rounds_to(
    folder: Path, partition: str, rate: float, seed: int, target: float, cap: int
) -> int | None:
    """The first round whose test accuracy is the target."""
    x, y = images_and_labels(folder, "train")
    test_x, test_y = images_and_labels(folder, "t10k")
    numbers = np.random.default_rng(seed)
    torch.manual_seed(seed)
    clients = deal(y, partition, numbers)
    model = nn.Sequential(
        nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
    )
    weights = list(model.parameters())
    for number in range(1, cap + 1):
        before = [weight.detach().clone() for weight in weights]
        mean = [torch.zeros_like(weight) for weight in before]
        for client in numbers.choice(100, 10, replace=False):
            set_to(weights, before)
            order = torch.from_numpy(numbers.permutation(clients[client]))
            for batch in torch.split(order, 10):
                loss = cross_entropy(model(x[batch]), y[batch])
                gradients = torch.autograd.grad(loss, weights)
                with torch.no_grad():
                    for weight, gradient in zip(weights, gradients, strict=True):
                        weight.sub_(gradient, alpha=rate)
            for total, weight in zip(mean, weights, strict=True):
                total.add_(weight.detach(), alpha=0.1)  # all clients have 600 examples
        set_to(weights, mean)
        with torch.no_grad():
            right = int((model(test_x).argmax(1) == test_y).sum())
        if right / len(test_y) >= target:
            return number
    return None


def set_to(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity.mnist_2nn_plain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="with MNIST's four IDX files")
    parser.add_argument("partition", choices=["iid", "shards"])
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=0.97)
    parser.add_argument("--cap", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(rounds_to(**vars(options)) or f"not within {options.cap} rounds")


if __name__ == "__main__":
    main()
