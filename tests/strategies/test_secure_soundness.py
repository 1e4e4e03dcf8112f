"""What must be known of a secure sum is said, once, before the run; and what a run then shows."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tests.cli.terminal import hanse as command_line
from tests.engine.small import VMAP, federation, same_bits, snapshot, world
from tests.engine.test_extensions import RandK
from tests.runs.small_runs import experiment

import hanse
from hanse import ClientDP, DistributedDP, SecureSum, fedavg, fedavg_secagg, scaffold
from hanse.aggregation import Assumptions
from hanse.core.types import Layer, Space, vector
from hanse.experiment import prepare
from hanse.strategies import ldp_fedavg

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Memory, Update

NOISE = DistributedDP(survivors=3)


def warnings(strategy: hanse.Strategy, **changes: Any) -> str:  # noqa: ANN401 - the experiment's
    return "\n".join(prepare(experiment(strategy=strategy, **changes)).warnings)


SAID: dict[str, tuple[hanse.Strategy, dict[str, Any], str, bool]] = {
    "fast": (fedavg_secagg(), {}, "without keys and masks: this is a simulation", True),
    "real": (
        fedavg_secagg(secure=SecureSum(protocol="real")),
        {},
        "with all its clients in one process",
        True,
    ),
    "not secure": (fedavg(), {}, "SecureSum", False),
    "cohorts can be compared": (fedavg_secagg(), {}, "two cohorts that differ by one", True),
    "and with noise not": (
        fedavg_secagg(privacy=NOISE),
        {},
        "two cohorts that differ by one",
        False,
    ),
    "single clients": (fedavg_secagg(), {}, "a server would see none of them", True),
    "three": (
        fedavg_secagg(),
        {"participation": hanse.Uniform(count=3)},
        "3 clients, all of whom a sum needs",
        True,
    ),
    "five": (
        fedavg_secagg(),
        {"participation": hanse.Uniform(count=5)},
        "all of whom a sum needs",
        False,
    ),
    "five, but all at least": (
        fedavg_secagg(secure=SecureSum(least=5)),
        {"participation": hanse.Uniform(count=5)},
        "5 clients, all of whom a sum needs",
        True,
    ),
    "parameters": (
        fedavg_secagg(),
        {"participation": hanse.Full()},
        "complete, threshold 5",
        True,
    ),
    "many examples": (
        fedavg_secagg(secure=SecureSum(most_examples=6)),
        {},
        "2 clients have more than most_examples = 6",
        True,
    ),
    "not so many": (
        fedavg_secagg(secure=SecureSum(most_examples=9)),
        {},
        "more than most_examples",
        False,
    ),
    "noise of the server": (
        fedavg().replace(layers=(ClientDP(),), aggregation=SecureSum()),
        {},
        "which sees the sum without it",
        True,
    ),
    "noise of each client by itself": (
        ldp_fedavg().replace(aggregation=SecureSum()),
        {},
        "LocalDP within secure sums",
        True,
    ),
    "seeded": (fedavg_secagg(privacy=NOISE), {}, "DistributedDP's noise is drawn from", True),
    "uncharged": (fedavg_secagg(privacy=NOISE), {}, "nothing is charged to a ledger", True),
    "os": (
        fedavg_secagg(privacy=dataclasses.replace(NOISE, noise="os")),
        {},
        "noise comes from the operating system",
        True,
    ),
    "stale memory": (
        scaffold().replace(aggregation=SecureSum()),
        {"setting": "cross-device", "participation": hanse.Uniform(count=3)},
        "stale memory",
        True,
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_must_be_known_is_said(name: str) -> None:
    strategy, changes, words, there = SAID[name]
    assert (words in warnings(strategy, **changes)) == there


def test_many_clients_have_a_planned_graph() -> None:
    data = federation([2] * 120)
    found = warnings(
        fedavg_secagg(),
        data=data,
        model=lambda: torch.nn.Linear(4, 3).double(),
        participation=hanse.Full(),
    )
    assert "120 clients, " in found
    assert "neighbours each" in found
    assert "complete" not in found


# -------------------------------------------------------------------- spaces common to all clients
@pytest.mark.parametrize("strategy", [fedavg(weighting="uniform"), fedavg()])
def test_sums_are_taken_in_a_common_space(strategy: hanse.Strategy) -> None:
    small, chosen = world(participation=hanse.Full()), strategy.then(RandK(10))
    plain = small.run(chosen, VMAP)
    found = {
        protocol: small.run(
            chosen.replace(
                aggregation=SecureSum(
                    most_examples=64,
                    protocol=protocol,
                    assumptions=Assumptions(corrupt=0.1),
                )
            ),
            VMAP,
        )
        for protocol in ("sum", "real")
    }
    assert same_bits(snapshot(found["sum"]), snapshot(found["real"]))
    assert float((found["sum"].params - plain.params).abs().max()) < 1e-3
    assert int((found["sum"].direction != 0).sum()) == 10


@dataclass(frozen=True)
class Steps(Space):
    """Whole numbers up to 7, in a public step."""

    most: int = 7
    step: float = 2.0**-4
    linear = True
    isometric = False
    common = True

    def lift(self, values: Tensor) -> Tensor:
        return values * self.step


@dataclass(frozen=True)
class Coarse(Layer):
    """Rounds to a public grid."""

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        grid, delta = Steps(), update["delta"]
        whole = (delta.values / grid.step).round().clamp(-grid.most, grid.most)
        sent = vector(whole)._replace(space=(grid,))
        return {**update, "delta": sent.scaled(delta.scale)}, memory


def test_sums_of_whole_numbers_in_a_public_step_are_exact() -> None:
    small = world(participation=hanse.Full())
    chosen = fedavg(lr=0.5).replace(layers=(Coarse(), hanse.Weighted("examples")))
    plain = small.run(chosen, VMAP, rounds=2)
    found = small.run(chosen.replace(aggregation=SecureSum(most_examples=64)), VMAP, rounds=2)
    assert float((found.params - plain.params).abs().max()) < 1e-12
    assert float((found.params - small.start(chosen).params).abs().max()) > 0.01


# ------------------------------------------------------------------------------------- on disk
FILE = """
name = "secure"
data = {source = "own.py:people"}
model = {name = "mlp", hidden = [4]}
run = {rounds = 4, participation = "full", execution = {path = "module", block = 1}}

[strategy]
name = "fedavg"
weighting = "uniform"
secure_sum = {drops = {mask = 0.3}}
"""
OWN = """
from tests.runs.small_runs import federation


def people():
    return federation()
"""


def test_a_run_says_which_rounds_came_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "FILE").write_text(FILE)
    printed = command_line("run", "FILE", "--out", "run")
    assert printed.code == 0, printed.err
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    failed = [line["round"] for line in lines if line["failure"]]
    assert failed
    assert len(failed) < 4
    said = printed.out + printed.err
    for number in range(1, 5):
        assert (f"round {number}: no sum, the model stays" in said) == (number in failed)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "secure sum" in page


def test_the_bits_do_not_depend_on_a_seed_of_numpy() -> None:
    small, strategy = world(), fedavg_secagg(privacy=NOISE)
    one = small.run(strategy, VMAP, rounds=1)
    np.random.seed(3)  # noqa: NPY002 - as somebody else might
    assert same_bits(snapshot(one), snapshot(small.run(strategy, VMAP, rounds=1)))
