"""A run with a ledger: every round is charged before it begins, and the one too many is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import torch
from tests.runs.small_runs import experiment, federation

import hanse
from hanse import BudgetError, ClientDP, ConfigError, Experiment, LedgerError, Poisson, RunError
from hanse.core.types import Layer
from hanse.experiment import prepare
from hanse.privacy.accounting import epsilon
from hanse.privacy.events import Budget, GaussianEvent
from hanse.privacy.ledger import Ledger
from hanse.runs import resume, run
from hanse.training import rounds

if TYPE_CHECKING:
    from pathlib import Path

    from hanse import Strategy
    from hanse.core.types import Broadcast, ClientContext, Memory, Update

EVENT = GaussianEvent(2.0, "poisson", 0.5)
DELTA = 1e-2
PAID = 3


def private(noise: str = "os", multiplier: float = 2.0) -> Strategy:
    layer = ClientDP(clip=0.5, noise_multiplier=multiplier, noise=noise)  # type: ignore[arg-type]
    return hanse.fedavg().replace(layers=(layer,))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Enough for three rounds, and not for four."""
    costs = [epsilon([replace(EVENT, count=n)], DELTA, "rdp") for n in (PAID, PAID + 1)]
    budget = Budget(sum(costs) / 2, DELTA, "rdp")
    return Ledger.create(tmp_path / "people.ledger", "people", budget)


def charged(ledger: Ledger, **changes: object) -> Experiment:
    given = {"strategy": private(), "participation": Poisson(0.5), "rounds": 10, **changes}
    return experiment(data=federation(), ledger=str(ledger.path), **given)


def test_the_round_that_would_overspend_is_not_begun(ledger: Ledger) -> None:
    done: list[int] = []
    with pytest.raises(BudgetError, match="round 4"):
        done.extend(one.number for one in rounds(charged(ledger, name="mine")))
    assert done == [0, 1, 2, 3]
    entries = Ledger.open(ledger.path).entries()[1:]
    assert [(e.run, e.round, e.repetition) for e in entries] == [("mine", n, 0) for n in (1, 2, 3)]
    assert ledger.account().events() == [replace(EVENT, count=PAID)]


@dataclass(frozen=True)
class Interrupted(Layer):
    """Somebody presses Ctrl-C while clients train."""

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        raise KeyboardInterrupt


def test_a_round_is_charged_before_anybody_trains(ledger: Ledger) -> None:
    plain = private()
    going = rounds(charged(ledger, strategy=plain.replace(layers=(Interrupted(), *plain.layers))))
    next(going)
    assert len(ledger.entries()) == 1  # round 0 evaluates, and releases nothing
    with pytest.raises(KeyboardInterrupt):
        next(going)
    assert [entry.round for entry in ledger.entries()[1:]] == [1]


def test_a_run_stops_with_the_model_of_the_last_paid_round(ledger: Ledger, tmp_path: Path) -> None:
    model = charged(ledger)
    with pytest.raises(BudgetError) as caught:
        run(model, tmp_path / "run")
    assert "hanse privacy ledger raise" in caught.value.instead
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["status"] == "stopped"
    assert any(str(ledger.path) in warning for warning in about["warnings"])
    exported = hanse.export(tmp_path / "run", tmp_path / "paid.safetensors", model.model)
    assert exported.is_file()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1 + PAID

    with pytest.raises(BudgetError):  # nothing is free
        resume(tmp_path / "run", model)
    ledger.raise_budget(100.0, "the board agreed")
    resume(tmp_path / "run", model)
    entries = Ledger.open(ledger.path).entries()
    assert [e.round for e in entries if e.kind == "charge"] == list(range(1, 11))
    assert {e.run for e in entries if e.kind == "charge"} == {str(tmp_path / "run")}


def test_two_runs_spend_of_one_budget(ledger: Ledger) -> None:
    first = rounds(charged(ledger, name="first"))
    second = rounds(charged(ledger, name="second", seed=1))
    for going in (first, second, first, second, first):
        next(going)
    with pytest.raises(BudgetError, match="of second"):
        for _ in second:
            pass
    first.close()
    # Round 0 of each is free; three rounds were paid for, and the fourth was refused.
    assert [e.run for e in ledger.entries()[1:]] == ["first", "second", "first"]


def test_a_round_that_is_computed_again_is_charged_again(ledger: Ledger, tmp_path: Path) -> None:
    model = charged(ledger, checkpoint_every=100, rounds=2)
    going = hanse.runs.carry_on(
        prepared := prepare(model),
        hanse.runs.start(prepared, tmp_path / "run"),
    )
    next(going), next(going)
    going.close()  # round 1 is charged, and in no checkpoint
    resume(tmp_path / "run", model)
    found = [(e.round, e.repetition) for e in ledger.entries()[1:]]
    assert found == [(1, 0), (1, 1), (2, 0)]


def test_noise_from_the_system_differs_from_run_to_run(ledger: Ledger) -> None:
    ledger.raise_budget(100.0, "for a test")
    states = [list(rounds(charged(ledger, rounds=1)))[-1].state.params for _ in range(2)]
    assert not torch.equal(*states)


def test_cohorts_that_are_charged_as_secret_cannot_be_drawn_from_the_seed(ledger: Ledger) -> None:
    one, other = (prepare(charged(ledger)).population for _ in range(2))
    known = prepare(experiment(data=federation(), strategy=private("seeded"))).population
    assert len({one.seed, other.seed, known.seed}) == 3
    assert known.seed == prepare(experiment(data=federation())).population.seed  # the run's own


@pytest.mark.parametrize(
    ("strategy", "found", "instead"),
    [
        (hanse.fedavg(), "with fedavg", "dp_fedavg"),
        (private(multiplier=0.0), "without noise", "noise_multiplier=1.0"),
        (private("seeded"), "seed", "noise='os'"),
    ],
)
def test_a_ledger_for_what_protects_nobody_is_refused(
    ledger: Ledger, strategy: Strategy, found: str, instead: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        list(rounds(charged(ledger, strategy=strategy)))
    assert found in caught.value.found
    assert instead in caught.value.instead
    assert len(ledger.entries()) == 1


def test_a_ledger_that_is_not_there_is_refused_before_a_run_begins(
    tmp_path: Path, ledger: Ledger
) -> None:
    missing = experiment(
        data=federation(), strategy=private(), participation=Poisson(0.5),
        ledger=tmp_path / "none.ledger",
    )  # fmt: skip
    with pytest.raises(LedgerError, match=r"none\.ledger"):
        run(missing, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError):
        resume(tmp_path / "run", missing)
