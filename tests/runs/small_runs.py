"""A small experiment in Python, and how runs are compared."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hanse import Execution, Experiment, ServerAdam, Uniform, scaffold
from hanse.data import Federation, federation_from_arrays
from hanse.storage.checkpoint import flatten_state, latest_checkpoint, read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from hanse.round import FederationState

FEATURES, CLASSES = 3, 3
SIZES = (4, 9, 2, 7, 5, 6)
ONE_BY_ONE = Execution("module", 1)


def people(
    sizes: tuple[int, ...] = SIZES, seed: int = 0, *, labels: bool = True
) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Inputs and labels, or numbers to predict, by name."""
    random = np.random.default_rng(seed)
    found = {}
    for k, n in enumerate(sizes):
        x = random.normal(size=(n, FEATURES))
        y = random.integers(0, CLASSES, n) if labels else random.normal(size=(n, 1))
        found[f"person {k}"] = (x, y)
    return found


def federation(
    sizes: tuple[int, ...] = SIZES, dtype: torch.dtype = torch.float32, *, labels: bool = True
) -> Federation:
    """Clients with test examples, and one who never trains."""
    return federation_from_arrays(
        people(sizes, labels=labels),
        test=people(sizes[::-1], seed=1, labels=labels),
        unseen={"stranger": people((8,), seed=2, labels=labels)["person 0"]},
        classes=["a", "b", "c"] if labels else None,
        dtype=dtype,
    )


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.Tanh(), nn.Linear(4, CLASSES))


def experiment(**changes: Any) -> Experiment:  # noqa: ANN401 - the experiment's own fields
    """SCAFFOLD with Adam at the server and half the clients in a round."""
    base = Experiment(
        strategy=scaffold(batch_size=3, server=ServerAdam()),
        data=federation(),
        model=perceptron,
        rounds=4,
        participation=Uniform(fraction=0.5),
        execution=ONE_BY_ONE,
        name="small",
    )
    return dataclasses.replace(base, **changes)


def state_of(run: Path) -> FederationState:
    """The last checkpoint of a run."""
    path = latest_checkpoint(run / "checkpoints")
    assert path is not None
    return read_checkpoint(path, None)


def same_state(one: FederationState, other: FederationState) -> bool:
    """Whether every tensor of two states has the same bits."""
    left, right = flatten_state(one), flatten_state(other)
    return one.round == other.round and same_tensors(left, right)


def same_tensors(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors have the same bits, those of NaN included."""
    return left.keys() == right.keys() and all(_same(v, right[k]) for k, v in left.items())


def _same(one: Tensor, other: Tensor) -> bool:
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and one.numpy().tobytes() == other.numpy().tobytes()


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
