"""Splits and skews that cannot be meant, in the form of the table in test_bad_input.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.bad_input.test_bad_input import Bad, empty, filed, fine_file, write

import hanse
from hanse import ConfigError, DataError, HanseError, ModelError, RunError
from hanse.cli.listing import inspect_data
from hanse.data import (
    federation_from_arrays,
    fetch,
    labels_per_client,
    lognormal,
    noise_by_client,
    partitioned,
    quantity,
    rotate_by_client,
    shakespeare,
    split,
)
from hanse.models import char_lstm, cross_entropy, next_token

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["empty"]  # a fixture

LABELS = np.repeat(np.arange(5), 20)
PEOPLE: dict[str, Any] = {
    "anna": (np.zeros((4, 3)), np.zeros(4)),
    "ben": (np.ones((4, 3)), np.ones(4)),
}
NAN = float("nan")


def of_labels(clients: int, count: Any, labels: Any = LABELS) -> Callable[[], object]:  # noqa: ANN401
    return lambda: labels_per_client(labels, clients, count, seed=0)


def digits(*overrides: str) -> Callable[[], object]:
    return filed(*overrides, data={"source": "digits", "clients": 5})


def fine_digits(*overrides: str) -> Callable[[], object]:
    return fine_file(*overrides, data={"source": "digits", "clients": 5})


def shown(out: str) -> Callable[[], object]:
    return lambda: inspect_data(write(), [], out=Path(out))


TABLE: dict[str, Bad] = {
    "more labels a client than there are": Bad(
        DataError,
        "labels_per_client=6 of 5 labels",
        "between 1 and 5",
        of_labels(8, 6),
        of_labels(8, 5),
    ),
    "no labels a client": Bad(
        DataError, "labels_per_client=0", "between 1 and 5", of_labels(8, 0), of_labels(8, 1)
    ),
    "half a label a client": Bad(DataError, "1.5", "between 1 and 5", of_labels(8, 1.5)),
    "labels that no client would have": Bad(
        DataError,
        "2 clients with labels_per_client=2, of 5 labels",
        "labels_per_client=3 or more",
        of_labels(2, 2),
        of_labels(2, 3),
    ),
    "labels that nobody would have, with more clients": Bad(
        DataError, "2 clients", "clients=3 or more", of_labels(2, 2), of_labels(3, 2)
    ),
    "more clients of a label than it has examples": Bad(
        DataError,
        "label 4 has 2 examples",
        "write clients=2 and labels_per_client=3",
        of_labels(30, 2, np.append(LABELS[:-20], [4, 4])),
        of_labels(2, 3, np.append(LABELS[:-20], [4, 4])),
    ),
    "more clients than examples": Bad(
        DataError,
        "labels of 100 examples for 101 clients",
        "clients=100 or fewer",
        of_labels(101, 1),
        of_labels(100, 1),
    ),
    "quantities as labels": Bad(
        DataError, "float64", "iid or natural", of_labels(2, 2, np.linspace(0, 1, 9))
    ),
    "no concentration of sizes": Bad(
        DataError,
        "quantity(alpha=0)",
        "alpha=0.5",
        lambda: quantity(100, 5, 0, 0),
        lambda: quantity(100, 5, 0.5, 0),
    ),
    "a text as concentration": Bad(
        DataError,
        "alpha=small",
        "alpha=0.5",
        lambda: quantity(100, 5, "small", 0),  # type: ignore[arg-type]
    ),
    "a deviation of NaN": Bad(
        DataError,
        "lognormal(sigma=nan)",
        "sigma=1",
        lambda: lognormal(100, 5, NAN, 0),
        lambda: lognormal(100, 5, 1, 0),
    ),
    "a negative deviation": Bad(
        DataError,
        "sigma=-1",
        "0 for equal sizes",
        lambda: lognormal(100, 5, -1, 0),
        lambda: lognormal(100, 5, 0, 0),
    ),
    "more than there is for each": Bad(
        DataError,
        "for 5 clients of at least 30",
        "clients=3 or fewer, or min_size=20 or less",
        lambda: quantity(100, 5, 1.0, 0, min_size=30),
        lambda: quantity(100, 5, 1.0, 0, min_size=20),
    ),
    "fewer than no examples": Bad(
        DataError,
        "min_size=-1",
        "min_size=0 or more",
        lambda: lognormal(100, 5, 1, 0, min_size=-1),
        lambda: lognormal(100, 5, 1, 0, min_size=0),
    ),
    "half a client": Bad(
        DataError,
        "clients=2.5",
        "whole number",
        lambda: split(LABELS, 2.5, "quantity", seed=0),  # type: ignore[arg-type]
    ),
    "nothing to split": Bad(
        DataError, "no examples", "find data", lambda: split(LABELS[:0], 2, "lognormal", seed=0)
    ),
    "empty clients that were not asked for": Bad(
        DataError,
        "'client 1' has no examples",
        "leave this client out",
        lambda: partitioned(LABELS[:, None], LABELS, [np.arange(100), np.arange(0)]),
        lambda: partitioned(
            LABELS[:, None], LABELS, [np.arange(100), np.arange(0)], may_be_empty=True
        ),
    ),
    "a scheme that there is not, in a file": Bad(
        ConfigError,
        "data.partition = 'quantities'",
        "partition",
        digits("data.partition=quantities"),
        fine_digits("data.partition=quantity"),
    ),
    "too many labels a client, in a file": Bad(
        DataError,
        "labels_per_client=11 of 10 labels",
        "between 2 and 10",
        digits("data.partition=labels", "data.labels_per_client=11"),
        fine_digits("data.partition=labels", "data.labels_per_client=2"),
    ),
    "negative noise": Bad(
        DataError,
        "variance -0.1",
        "0.1",
        lambda: noise_by_client(federation_from_arrays(PEOPLE), -0.1),
        lambda: noise_by_client(federation_from_arrays(PEOPLE), 0.1),
    ),
    "noise on characters": Bad(
        DataError, "int64", "floats", lambda: noise_by_client(shakespeare(), 0.1)
    ),
    "noise that is no number, in a file": Bad(
        ConfigError,
        "data.feature_noise = 'much'",
        "feature_noise",
        digits("data.feature_noise=much"),
        fine_digits("data.feature_noise=0.1"),
    ),
    "a third of a turn": Bad(
        DataError,
        "rotations=3",
        "4 for quarter turns",
        digits("data.feature_rotations=3", "data.images=true"),
        fine_digits("data.feature_rotations=4", "data.images=true"),
    ),
    "turns of what is no image": Bad(
        DataError,
        "quarter turns of inputs of shape [64]",
        "images",
        digits("data.feature_rotations=4"),
    ),
    "quarter turns of oblong images": Bad(
        DataError,
        "[4, 3]",
        "rotations=2",
        lambda: rotate_by_client(federation_from_arrays({"a": (np.zeros((2, 4, 3)), np.zeros(2))})),
        lambda: rotate_by_client(
            federation_from_arrays({"a": (np.zeros((2, 4, 3)), np.zeros(2))}), 2
        ),
    ),
    "plays that there are not": Bad(
        DataError,
        "plays='some'",
        "plays='bundled'",
        lambda: shakespeare(plays="some"),  # type: ignore[arg-type]
        lambda: shakespeare(plays="bundled"),
    ),
    "plays that were not fetched": Bad(
        DataError,
        "no data set in nowhere",
        "hanse data fetch shakespeare",
        lambda: shakespeare(plays="all", directory="nowhere"),
    ),
    "windows longer than anyone speaks": Bad(
        DataError,
        "length=100000",
        "a smaller length",
        lambda: shakespeare(length=100_000),
        lambda: shakespeare(length=1000),
    ),
    "windows of no characters": Bad(
        DataError,
        "length=0",
        "length=80",
        lambda: shakespeare(length=0),
        lambda: shakespeare(length=80),
    ),
    "all lines to test on": Bad(
        DataError,
        "test_fraction=1",
        "0.2",
        lambda: shakespeare(test_fraction=1.0),
        lambda: shakespeare(test_fraction=0.2),
    ),
    "a data set that is not known": Bad(
        DataError, "'cifar-100'", "cifar-10", lambda: fetch("cifar-100", "nowhere")
    ),
    "a character model of no characters": Bad(
        ModelError, "classes=0", "classes=10", lambda: char_lstm(0), lambda: char_lstm(10)
    ),
    "the loss of labels for tokens": Bad(
        ModelError,
        "outputs [3, 80",
        "next_token",
        lambda: list(hanse.rounds(_speakers(cross_entropy))),
        lambda: next(hanse.rounds(_speakers(next_token))),
    ),
    "a picture that is no page": Bad(RunError, "skew.png", "skew.html", shown("skew.png")),
}


def _speakers(loss: Any) -> hanse.Experiment:  # noqa: ANN401 - a loss
    said = np.zeros((3, 80), np.int64)
    return hanse.Experiment(
        hanse.fedavg(),
        federation_from_arrays({"macbeth": (said, said)}),
        lambda: char_lstm(4, 2, 3, 1),
        loss=loss,
    )


@pytest.mark.parametrize("name", TABLE)
def test_what_cannot_be_meant_is_refused_with_a_remedy(empty: Path, name: str) -> None:
    bad = TABLE[name]
    with pytest.raises(HanseError) as caught:
        bad.does()
    error = caught.value
    assert type(error) is bad.kind
    assert bad.says in error.found
    assert len(error.why) > 10
    assert bad.instead in error.instead
    assert not list(empty.iterdir())


@pytest.mark.parametrize("name", [name for name, bad in TABLE.items() if bad.works])
def test_the_remedy_works(name: str) -> None:
    remedy = TABLE[name].works
    assert remedy is not None
    remedy()
