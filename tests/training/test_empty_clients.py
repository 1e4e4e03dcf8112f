"""Clients without examples: they are there and drawn, and change nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.runs.small_runs import CLASSES, FEATURES, experiment, same_tensors
from torch import nn

import hanse
from hanse import Experiment, Poisson, Uniform, fedavg, feddyn, fedprox, mimelite, scaffold
from hanse.data import Federation, PackedClients, partitioned
from hanse.experiment import prepare
from hanse.report import write

if TYPE_CHECKING:
    from pathlib import Path

    from hanse import Strategy

SIZES = (0, 6, 0, 9, 1, 0, 4)
EMPTY = [0, 2, 5]


def data(sizes: tuple[int, ...] = SIZES, test_fraction: float = 0.4) -> Federation:
    random = np.random.default_rng(0)
    n = sum(sizes)
    parts = np.split(np.arange(n), np.cumsum(sizes)[:-1])
    x = random.normal(size=(n + 5, FEATURES)).astype(np.float32)
    y = random.integers(0, CLASSES, n + 5)
    return partitioned(
        x[:n], y[:n], parts, holdout=(x[n:], y[n:]), classes=["a", "b", "c"],
        test_fraction=test_fraction, may_be_empty=True,
    )  # fmt: skip


def linear() -> nn.Module:
    return nn.Linear(FEATURES, CLASSES)


def made(federation: Federation, strategy: Strategy, **changes: object) -> Experiment:
    """Whole batches, so that nothing depends on whose keys shuffle."""
    return experiment(
        data=federation, strategy=strategy, model=linear,
        **{"participation": None, "rounds": 3, **changes},
    )  # fmt: skip


@pytest.mark.parametrize(
    "strategy",
    [
        fedavg(batch_size=None),
        fedprox(batch_size=None, mu=0.1),
        scaffold(batch_size=None),
        feddyn(batch_size=None),
        mimelite(batch_size=None),
    ],
    ids=lambda strategy: strategy.name,
)
def test_they_change_nothing(strategy: Strategy) -> None:
    without = data(tuple(n for n in SIZES if n))
    one, other = (made(federation, strategy) for federation in (data(), without))
    for left, right in zip(hanse.rounds(one), hanse.rounds(other), strict=True):
        assert torch.equal(left.state.params, right.state.params)
        for split in ("test", "unseen"):
            mine, theirs = left.evaluations[split], right.evaluations[split]
            assert mine.metrics["loss"].tolist() == theirs.metrics["loss"].tolist()


def test_they_are_drawn_and_not_asked() -> None:
    prepared = prepare(made(data(), fedavg(), participation=Uniform(count=3), rounds=30))
    asked: set[int] = set()
    smallest = 3
    for done in hanse.rounds(prepared):
        if done.result is not None:
            asked |= set(done.result.facts.id.tolist())
            smallest = min(smallest, done.result.cohort)
            assert done.result.cohort == len(done.result.facts.id)
            assert not done.result.dropped
    assert asked == set(range(len(SIZES))) - set(EMPTY)
    assert smallest < 3
    assert prepared.population.clients == len(SIZES)
    assert any("3 of 7 clients have no examples" in warning for warning in prepared.warnings)


def test_a_round_of_nobody_else_changes_nothing() -> None:
    prepared = prepare(made(data(), fedavg(), participation=Uniform(count=1), rounds=20))
    before = None
    for done in hanse.rounds(prepared):
        if done.result is not None and done.result.cohort == 0:
            assert before is not None
            assert torch.equal(done.state.params, before.params)
            break
        before = done.state
    else:
        pytest.fail("in 20 rounds an empty client was never drawn alone")


def test_clients_with_nothing_to_be_tested_on_are_not_evaluated() -> None:
    prepared = prepare(made(data(), fedavg()))
    assert prepared.evaluated["test"].tolist() == [1, 3, 6]  # client 4 has one example: to train on
    limited = prepare(made(data(), fedavg(), evaluation_clients=2))
    assert len(limited.evaluated["test"]) == 2
    assert set(limited.evaluated["test"].tolist()) <= {1, 3, 6}


@pytest.mark.parametrize("participation", [None, Poisson(0.5)])
def test_a_run_with_baselines_and_its_report(tmp_path: Path, participation: object) -> None:
    made_ = made(data(), scaffold(batch_size=2), participation=participation, workers=2)
    run = hanse.run(made_, tmp_path / "run", baselines=True)
    about = json.loads((run.path / "run.json").read_text())
    kept = data().train
    assert isinstance(kept, PackedClients)
    assert about["data"]["train_sizes"] == np.diff(kept.offsets).tolist()
    assert "3 of 7 clients have no examples" in write(run.path).read_text()
    alone = json.loads((run.path / "baselines.json").read_text())["local"]
    assert alone["test"]["clients"] == [1, 3, 6]


def test_workers_do_not_matter() -> None:
    states = []
    for workers in (1, 2):
        *_, last = hanse.rounds(
            made(data(), fedavg(batch_size=2), workers=workers, participation=Uniform(count=4))
        )
        states.append({"params": last.state.params})
    assert same_tensors(*states)
