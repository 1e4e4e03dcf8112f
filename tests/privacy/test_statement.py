"""What a private run says that it has cost, against the accountant asked directly."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.privacy.test_runs_are_charged import private
from tests.runs.small_runs import experiment, federation

import hanse
from hanse import ClientDP, ConfigError, Poisson, Separated, Uniform
from hanse.experiment import prepare
from hanse.privacy.accounting import epsilon
from hanse.privacy.correlated import sensitivity
from hanse.privacy.events import GaussianEvent
from hanse.privacy.histogram import PrivateHistogram
from hanse.privacy.statement import Releases, Statement, default_delta, every_round, milestones
from hanse.round import Population
from hanse.runs import carry_on, resume, run, start
from hanse.spending import client_epsilons, epsilons, privacy_of

if TYPE_CHECKING:
    from pathlib import Path

    from hanse import Experiment, Strategy
    from hanse.selection import Participation

EVENT = GaussianEvent(2.0, "poisson", 0.5)
PEOPLE = 6


def simulated(noise: str = "seeded", **changes: object) -> Experiment:
    given = {"strategy": private(noise), "participation": Poisson(0.5), "rounds": 5, **changes}
    return experiment(data=federation(), **given)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("participation", [Poisson(0.5), Uniform(count=3), hanse.Full()])
def test_every_round_states_what_all_rounds_so_far_cost(
    participation: hanse.Poisson, tmp_path: Path
) -> None:
    run(simulated(participation=participation), tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())["privacy"]
    event = GaussianEvent(**about["event"])
    assert event == private().layers[-1].event(participation, PEOPLE)  # type: ignore[attr-defined]
    assert (about["guarantee"], about["adjacency"]) == (False, event.adjacency)
    assert about["delta"] < 1 / PEOPLE
    for number, record in enumerate(lines(tmp_path / "run")):
        found = record["privacy"]
        assert found["releases"] == {"rounds": number, "histograms": 0}  # type: ignore[index]
        if not number:
            assert found["epsilon"] == {"rdp": 0.0, "pld": None}  # type: ignore[index]
            continue
        events = [replace(event, count=number)]
        costs = {"rdp": epsilon(events, about["delta"], "rdp"), "pld": None}
        if event.sampling != "without-replacement":  # pld has no proof for it
            costs["pld"] = epsilon(events, about["delta"], "pld")
        assert found["epsilon"] == costs  # type: ignore[index]


def test_a_run_without_noise_states_nothing(tmp_path: Path) -> None:
    for strategy in (hanse.fedavg(), private(multiplier=0.0)):
        assert prepare(simulated(strategy=strategy)).privacy is None
    done = run(simulated(strategy=hanse.fedavg(), rounds=1), tmp_path / "run")
    assert done.about()["privacy"] is None
    assert done.metrics()[-1]["privacy"] is None


def test_the_costliest_kind_of_client_counts() -> None:
    """As other mechanisms need it: clients whose events differ."""
    kinds = (GaussianEvent(4.0), GaussianEvent(1.0, count=3))

    def events(rounds: int) -> list[list[GaussianEvent]]:
        return [[replace(kind, count=rounds * kind.count)] for kind in kinds]

    statement = Statement(
        "made up", "example", "add-remove", events,
        None, 1e-5, "the test's", protects=True, against="", covered="", not_covered=(),
    )  # fmt: skip
    found = statement.epsilon(Releases(2), "rdp")
    assert found == epsilon([GaussianEvent(1.0, count=6)], 1e-5, "rdp")


def test_delta_is_the_experiments_or_well_below_one_in_a_client() -> None:
    assert prepare(simulated(delta=1e-3)).privacy.delta == 1e-3  # type: ignore[union-attr]
    for clients in (1, 7, 10, 11, 1000, 763_430):
        delta, _ = default_delta(clients)
        assert 0.01 / clients < delta <= 0.1 / clients * (1 + 1e-9)
        assert math.log10(delta) == pytest.approx(round(math.log10(delta)))


def test_the_slow_accountant_is_asked_a_few_times_and_at_the_end() -> None:
    for rounds in (1, 5, 12, 13, 100, 12_345):
        found = milestones(rounds)
        assert rounds in found
        assert len(found) == min(rounds, 12)
        assert min(found) >= 1


def test_rounds_that_were_computed_twice_with_new_noise_count_twice(tmp_path: Path) -> None:
    model = simulated("os", rounds=4, checkpoint_every=100)
    going = carry_on(prepared := prepare(model), start(prepared, tmp_path / "run"))
    next(going), next(going), next(going)
    going.close()  # rounds 1 and 2 are recorded, and in no checkpoint
    resume(tmp_path / "run", model)
    found = [record["privacy"]["releases"]["rounds"] for record in lines(tmp_path / "run")]  # type: ignore[index]
    assert found == [0, 3, 4, 5, 6]  # the record of round 0 is that from before

    seeded = dataclasses.replace(model, strategy=private("seeded"))
    going = carry_on(prepared := prepare(seeded), start(prepared, tmp_path / "seeded"))
    next(going), next(going), next(going)
    going.close()  # the same bits come again
    resume(tmp_path / "seeded", seeded)
    found = [record["privacy"]["releases"]["rounds"] for record in lines(tmp_path / "seeded")]  # type: ignore[index]
    assert found == [0, 1, 2, 3, 4]


def test_a_round_that_a_kill_may_have_interrupted_counts(tmp_path: Path) -> None:
    model = simulated("os", rounds=2)
    going = carry_on(prepared := prepare(model), done := start(prepared, tmp_path / "run"))
    next(going), next(going)
    going.close()
    done.update(status="running")  # as a kill leaves it
    resume(tmp_path / "run", model)
    assert lines(tmp_path / "run")[-1]["privacy"]["releases"]["rounds"] == 3  # type: ignore[index]


def test_rounds_that_were_taken_back_are_remembered_however_often_a_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = simulated("os", rounds=3, checkpoint_every=100)
    going = carry_on(prepared := prepare(model), run := start(prepared, tmp_path / "run"))
    next(going), next(going), next(going)
    going.close()  # rounds 1 and 2 are recorded, and in no checkpoint

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hanse.training, "run_round", interrupted)
        for status in ("stopped", "running"):  # the second time it is killed
            with pytest.raises(KeyboardInterrupt):
                next(carry_on(prepare(model), run))
            assert [record["round"] for record in lines(run.path)] == [0]
            run.update(status=status)
    resume(tmp_path / "run", model)
    assert lines(tmp_path / "run")[-1]["privacy"]["releases"]["rounds"] == 2 + 1 + 3  # type: ignore[index]


def population(participation: Participation) -> Population:
    return Population(PEOPLE, participation, "cross-silo", seed=0)


def test_privacy_of_reads_the_participation() -> None:
    found = privacy_of(private("os"), population(Poisson(0.5)))
    assert found is not None
    assert found.protects
    assert any("cohorts" in text for text in found.not_covered)
    whole = privacy_of(private("os"), population(hanse.Full()))
    assert whole is not None
    assert not any("cohorts" in text for text in whole.not_covered)
    assert [*whole.events(3)[0]] == [*every_round(GaussianEvent(2.0))(3)[0]]


def test_correlated_rounds_cost_what_their_sensitivity_does() -> None:
    strategy = hanse.dp_ftrl(rounds=6, noise_multiplier=2.0)
    found = privacy_of(strategy, population(Separated(separation=3)))
    assert found is not None
    assert found.event is None
    assert any("checkpoint" in text for text in found.not_covered)
    layer = strategy.layers[-1]
    assert isinstance(layer, ClientDP)
    assert layer.correlation is not None
    whole = GaussianEvent(2.0 / sensitivity(layer.correlation, 3))
    assert found.epsilon(Releases(6), "rdp") == pytest.approx(
        epsilon([whole], found.delta, "rdp"), rel=1e-3
    )
    assert found.epsilon(Releases(2), "rdp") < found.epsilon(Releases(6), "rdp")  # type: ignore[operator]


def test_of_clients_with_noise_of_their_own_the_costliest_counts() -> None:
    people = population(Uniform(count=3))
    strategy = hanse.ldp_fedavg(noise_multiplier=4.0)
    found = privacy_of(strategy, people)
    assert found is not None
    assert (found.unit, found.adjacency) == ("client", "replace")
    assert found.against.startswith("the server")
    worst = client_epsilons(strategy, people, 7, found.delta, "rdp").max()
    assert found.epsilon(Releases(7), "rdp") == pytest.approx(worst, rel=1e-3)


def test_examples_are_stated_for_a_client_in_every_round() -> None:
    strategy = hanse.dp_sgd(noise_multiplier=1.5, rate=0.2, steps=4)
    found = privacy_of(strategy, population(Uniform(count=3)))
    assert found is not None
    assert (found.unit, found.adjacency) == ("example", "add-remove-example")
    once = epsilons(strategy, [5], found.delta, "rdp")[0]
    assert found.epsilon(Releases(5), "rdp") == pytest.approx(once)
    # Of divisor / rate = 50 examples for each client, not of the clients.
    assert found.delta == default_delta(50 * PEOPLE)[0] < default_delta(PEOPLE)[0] / 10
    assert "examples" in found.delta_from


@pytest.mark.parametrize(
    ("strategy", "server"),
    [(hanse.dp_sgd(), True), (hanse.ldp_fedavg(), True), (hanse.dp_fedavg(), False)],
    ids=["dp_sgd", "ldp_fedavg", "dp_fedavg"],
)
def test_who_makes_a_histogram_sees_what_is_in_it(strategy: Strategy, server: bool) -> None:
    found = privacy_of(strategy, population(Poisson(0.5)))
    assert found is not None
    histograms = found.showing(PrivateHistogram(10.0)).not_covered
    assert any("as far as histograms go" in text for text in histograms) == server
    assert found.showing("withheld").not_covered == found.not_covered


def test_what_repeated_rounds_of_correlated_noise_cost_is_left_to_a_ledger() -> None:
    one = simulated(
        strategy=hanse.dp_ftrl(rounds=5, noise_multiplier=2.0), participation=Separated(3)
    )
    *_, last = hanse.rounds(one)
    assert last.epsilon() is not None
    assert dataclasses.replace(last, releases=Releases(last.number + 1)).epsilon() is None


def test_no_epsilon_where_the_accountant_has_none() -> None:
    found = privacy_of(private("os"), population(Uniform(count=3)))
    assert found is not None
    assert found.epsilon(Releases(1), "pld") is None
    assert found.epsilon(Releases(1), "rdp") is not None


@pytest.mark.parametrize("delta", [0, 1, 2.0, True, "1e-5"])
def test_a_delta_that_is_no_probability_is_refused(delta: object) -> None:
    with pytest.raises(ConfigError, match="delta"):
        simulated(delta=delta)


def test_a_delta_beside_a_ledgers_is_refused() -> None:
    with pytest.raises(ConfigError, match="with a ledger"):
        simulated("os", ledger="people.ledger", delta=1e-5)
