"""What travels in a round is counted as it would be written, header and all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.runs.small_runs import CLASSES, FEATURES, experiment, federation
from tests.wire.by_hand import broadcast_length, update_length
from torch import nn

import hanse
from hanse import Execution, Full, Poisson, Uniform, fedavg, scaffold

P = FEATURES * 4 + 4 + 4 * CLASSES + CLASSES  # the perceptron's parameters


@pytest.mark.parametrize(
    ("execution", "workers"),
    [(Execution("module", 1), 1), (Execution("vmap", 4), 1), (Execution("vmap", 2), 2)],
)
def test_scaffold_sends_everything_twice(execution: Execution, workers: int) -> None:
    made = experiment(execution=execution, workers=workers, participation=Uniform(count=4))
    first, *rounds = hanse.rounds(made)
    assert (first.bytes_up, first.bytes_down) == (0, 0)
    for done in rounds:
        assert done.bytes_up == 4 * update_length({"delta": P, "control": P, "weight": 1})
        published = {"params": P, "buffers": 0, "control": P}
        assert done.bytes_down == 4 * broadcast_length(published)


def test_numbers_of_double_precision_have_eight_bytes() -> None:
    made = experiment(
        strategy=fedavg(), data=federation(dtype=torch.float64), participation=Full(), rounds=1,
        model=lambda: nn.Linear(FEATURES, CLASSES).double(),
    )  # fmt: skip
    done = list(hanse.rounds(made))[-1]
    size = FEATURES * CLASSES + CLASSES
    assert done.bytes_up == 6 * update_length({"delta": size, "weight": 1}, 8)
    assert done.bytes_down == 6 * broadcast_length({"params": size, "buffers": 0}, 8)


def test_what_stays_with_clients_does_not_travel_and_buffers_do() -> None:
    def model() -> nn.Module:
        first, last = nn.Linear(FEATURES, 4), nn.Linear(4, CLASSES)
        return nn.Sequential(first, nn.BatchNorm1d(4), last, nn.BatchNorm1d(CLASSES))

    made = experiment(
        strategy=fedavg(), model=model, participation=Full(), rounds=1, local=("3.*", "2.*")
    )
    done = list(hanse.rounds(made))[-1]
    shared = FEATURES * 4 + 4 + 8  # the first layer and its norm's weights
    assert done.bytes_up == 6 * update_length({"delta": shared, "buffers": 8, "weight": 1})
    assert done.bytes_down == 6 * broadcast_length({"params": shared, "buffers": 8})


def test_who_sends_nothing_is_not_counted() -> None:
    data = federation()
    fields = dict(data.train.fields)  # type: ignore[attr-defined]
    fields["x"] = fields["x"].clone()
    fields["x"][0] = 1e37  # finite, and no step on it is
    train = dataclasses.replace(data.train, fields=fields)  # type: ignore[type-var]
    made = experiment(
        strategy=fedavg(local_epochs=4, batch_size=1),
        data=dataclasses.replace(data, train=train),
        model=lambda: nn.Linear(FEATURES, CLASSES),
        participation=Full(),
        rounds=1,
        execution=Execution("vmap", 3),
    )
    done = list(hanse.rounds(made))[-1]
    assert done.result is not None
    assert done.result.accepted == 5
    size = FEATURES * CLASSES + CLASSES
    assert done.bytes_up == 5 * update_length({"delta": size, "weight": 1})
    assert done.bytes_down == 6 * broadcast_length({"params": size, "buffers": 0})
    assert np.sort(done.result.facts.sent)[0] == 0


def test_an_empty_round_sends_nothing() -> None:
    made = experiment(strategy=scaffold(), participation=Poisson(rate=1e-9), rounds=1)
    done = list(hanse.rounds(made))[-1]
    assert (done.bytes_up, done.bytes_down) == (0, 0)
