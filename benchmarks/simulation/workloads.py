"""What is trained: five models on synthetic data, the same numbers for every engine.

Needs NumPy alone, so that it can be imported in every peer's environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Sizes = Callable[[np.random.Generator, int], NDArray[np.int64]]

VOCABULARY = 86
PEERS = ("pfl", "fedjax", "fluke", "flower")
ENGINES = ("hanse", "floor", *PEERS)


@dataclass(frozen=True)
class Workload:
    """A model, its clients, and what Hanse is meant to reach.

    Attributes:
        name: as it is given on the command line.
        title: as it is called in tables.
        clients: how many take part in a round: all of them.
        sizes: draws how many examples each client has.
        shape: of one example's inputs; a character sequence for integers.
        classes: how many outputs an example has.
        rate: the clients' learning rate, of plain SGD.
        targets: by engine, how many times as long as Hanse's its round should take.
        batch: examples a step; an epoch's last batch is what is left.
        cannot: by engine, why it does not do this workload.
    """

    name: str
    title: str
    clients: int
    sizes: Sizes
    shape: tuple[int, ...]
    classes: int
    targets: Mapping[str, float]
    rate: float = 0.1
    batch: int = 10
    cannot: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_text(self) -> bool:
        """Whether an example is a sequence of characters, each with the next one as its label."""
        return len(self.shape) == 1 and self.classes == VOCABULARY


@dataclass(frozen=True, eq=False)
class Data:
    """All clients' examples, one client after another.

    Attributes:
        x: [N, ...], floats, or int64 for characters.
        y: int64 [N], or [N, length] for characters.
        offsets: [K + 1]; client k's examples are the rows `offsets[k] : offsets[k + 1]`.
    """

    x: NDArray[np.floating] | NDArray[np.int64]
    y: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self.offsets) - 1

    def rows(self, client: int) -> slice:
        """Where a client's examples are."""
        return slice(int(self.offsets[client]), int(self.offsets[client + 1]))

    def size(self, client: int) -> int:
        """How many examples a client has."""
        return int(self.offsets[client + 1] - self.offsets[client])


def _uniform(low: int, high: int) -> Sizes:
    return lambda random, clients: random.integers(low, high + 1, clients)


def _lognormal(random: np.random.Generator, clients: int) -> NDArray[np.int64]:
    return np.clip(random.lognormal(4.3, 0.8, clients), 10, 300).astype(np.int64)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "logistic-regression",
            "logistic regression, 1000 clients",
            clients=1000,
            sizes=_uniform(10, 30),
            shape=(784,),
            classes=10,
            targets={"pfl": 20, "fedjax": 8, "flower": 150, "floor": 10},
        ),
        Workload(
            "mlp",
            "MLP 2NN, 10 clients",
            clients=10,
            sizes=_uniform(600, 600),
            shape=(784,),
            classes=10,
            targets={"pfl": 3.5, "fedjax": 2, "flower": 6, "floor": 2.6},
        ),
        Workload(
            "cifar-cnn",
            "pfl's CIFAR-10 set-up, 20 clients",
            clients=20,
            sizes=_uniform(50, 50),
            shape=(3, 32, 32),
            classes=10,
            targets={"pfl": 1.3, "fedjax": 1.6, "flower": 3, "floor": 1.2},
        ),
        Workload(
            "mcmahan-cnn",
            "McMahan's CNN, 24 clients",
            clients=24,
            sizes=_lognormal,
            shape=(1, 28, 28),
            classes=62,
            targets={"pfl": 1, "fedjax": 1.2, "flower": 2, "floor": 1},
            batch=20,
        ),
        Workload(
            "char-lstm",
            "character LSTM, 10 clients",
            clients=10,
            sizes=_uniform(10, 40),
            shape=(80,),
            classes=VOCABULARY,
            targets={"pfl": 1, "floor": 1},
            rate=0.5,
            cannot={"fedjax": "has no LSTM with PyTorch's two biases per gate"},
        ),
    )
}


def make_data(workload: Workload, dtype: np.dtype[np.floating]) -> Data:
    """Noise with random labels: a step costs the same whatever it learns."""
    random = np.random.default_rng(0)
    sizes = workload.sizes(random, workload.clients)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    n = int(offsets[-1])
    if workload.is_text:
        length = workload.shape[0]
        text = random.integers(0, workload.classes, (n, length + 1))
        return Data(text[:, :-1].copy(), text[:, 1:].copy(), offsets)
    x = random.standard_normal((n, *workload.shape), dtype=np.float32)
    x *= np.float32(0.5)
    return Data(x.astype(dtype, copy=False), random.integers(0, workload.classes, n), offsets)
