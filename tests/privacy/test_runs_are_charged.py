"""A run with a ledger: every round is charged before it begins, and the one too many is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import torch
from tests.runs.small_runs import experiment, federation

import hanse
from hanse import (
    BudgetError,
    ClientDP,
    ConfigError,
    Experiment,
    LedgerError,
    Poisson,
    RunError,
    Uniform,
)
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
    (name,) = {e.run for e in entries if e.kind == "charge"}
    assert str(name).startswith(f"{tmp_path / 'run'} #")


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
    going.close()
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # as a kill leaves it: charged, and nowhere
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


# --------------------------------------------------------------------- which ledger, whose account
def test_a_stopped_run_keeps_its_last_round_so_that_it_is_not_charged_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError):
        run(charged(ledger, checkpoint_every=100), tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / f"round-{PAID:06d}").is_dir()
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "hanse privacy ledger raise" in (tmp_path / "run" / "report.html").read_text()
    ledger.raise_budget(100.0, "the board agreed")
    resume(tmp_path / "run", charged(ledger, checkpoint_every=100))
    found = [entry.round for entry in ledger.entries() if entry.kind == "charge"]
    assert found == list(range(1, 11))


@pytest.fixture
def begun(ledger: Ledger, tmp_path: Path) -> Path:
    """A run that stopped after its first round."""
    going = hanse.runs.carry_on(
        prepared := prepare(charged(ledger, rounds=3)), hanse.runs.start(prepared, tmp_path / "run")
    )
    next(going), next(going)
    going.close()
    return tmp_path / "run"


def test_a_run_does_not_go_on_without_its_ledger(begun: Path, ledger: Ledger) -> None:
    free = replace(charged(ledger, rounds=3), ledger=None)
    for other in (free, replace(free, per_client="withheld")):
        with pytest.raises(RunError, match="the ledger of 'people'"):
            resume(begun, other)
    assert len(ledger.entries()) == 2


def test_a_run_does_not_go_on_with_another_ledger(
    begun: Path, ledger: Ledger, tmp_path: Path
) -> None:
    other = Ledger.create(tmp_path / "other.ledger", "people", Budget(100.0, DELTA, "rdp"))
    with pytest.raises(RunError, match="ledger"):
        resume(begun, charged(other, rounds=3))
    assert len(other.entries()) == 1


def test_a_run_without_a_ledger_does_not_go_on_with_one(ledger: Ledger, tmp_path: Path) -> None:
    """Its first rounds would have cost nothing."""
    free = replace(charged(ledger, rounds=2), ledger=None, per_client="withheld")
    run(free, tmp_path / "run")
    with pytest.raises(RunError, match="ledger"):
        resume(tmp_path / "run", charged(ledger, rounds=3))
    assert len(ledger.entries()) == 1


def test_a_ledger_may_be_moved_and_not_put_back(
    begun: Path, ledger: Ledger, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "people.ledger"
    moved.parent.mkdir()
    shutil.copy(ledger.path, older := tmp_path / "older.ledger")
    resume(begun, charged(ledger, rounds=2))
    shutil.move(ledger.path, moved)
    with pytest.raises(LedgerError, match="entries"):  # a copy from before the second round
        resume(begun, charged(Ledger.open(older), rounds=3))
    resume(begun, charged(Ledger.open(moved), rounds=3))
    found = Ledger.open(moved).entries()[1:]
    assert [entry.round for entry in found] == [1, 2, 3]
    assert len({entry.run for entry in found}) == 1


def test_runs_of_one_name_have_accounts_of_their_own(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.raise_budget(100.0, "for a test")
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        done = run(charged(ledger, rounds=2), "run").metrics()
        assert done[-1]["privacy"]["releases"]["rounds"] == 2
    found = [(entry.round, entry.repetition) for entry in ledger.entries() if entry.run]
    assert found == [(1, 0), (2, 0)] * 2


def test_what_a_ledger_cannot_add_up_is_refused_before_a_run_begins(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.charge(GaussianEvent(10.0, adjacency="replace"), run="statistics", round=0)
    with pytest.raises(ConfigError, match="replace"):
        run(charged(ledger), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_walk_draws_cohorts_of_its_own(ledger: Ledger) -> None:
    """Two walks of one prepared experiment are two releases: their cohorts must not be the same."""
    ledger.raise_budget(100.0, "for a test")
    prepared = prepare(
        charged(ledger, participation=Uniform(count=3), rounds=6, per_client="simulation")
    )
    walks = [
        [tuple(one.result.facts.id) for one in rounds(prepared) if one.result is not None]
        for _ in range(2)
    ]
    assert walks[0] != walks[1]
