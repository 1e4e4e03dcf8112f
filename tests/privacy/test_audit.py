"""Audits of runs: sound ones keep their promise, broken ones are caught, nothing is short-cut."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from benchmarks.privacy.audit import Case, broken, experiment, people, sound
from benchmarks.privacy.broken import BUGS, SUBTLE, WithoutNoise
from tests.cli.terminal import hanse as command
from tests.runs.small_runs import FEATURES, perceptron
from tests.runs.small_runs import experiment as small

import hanse
from hanse import AdaptiveClip, Audit, ClientDP, ConfigError, DivergenceError, Normalized, audit
from hanse.auditing import attack as module
from hanse.auditing.attack import _prepared
from hanse.auditing.canaries import RELEASED
from hanse.auditing.page import render_audit, write_audit
from hanse.layers.clip import STEPS
from hanse.privacy import GaussianEvent, epsilon
from hanse.privacy.events import Budget
from hanse.privacy.ledger import Ledger
from hanse.selection import Full, Poisson, Uniform
from hanse.training import rounds

if TYPE_CHECKING:
    from pathlib import Path

    from hanse import Experiment, Strategy

DELTA = 1e-5
FEW, SEEDS = 6, 20


def case(layer: ClientDP, **changes: Any) -> Experiment:  # noqa: ANN401 - the experiment's fields
    """One round of everybody, on random data."""
    strategy = hanse.dp_fedavg().replace(layers=(layer,))
    return dataclasses.replace(experiment(Case(strategy), seed=0), **changes)


# --------------------------------------------------------------------- what audits are there for
def test_the_bound_stays_below_the_claim_of_a_sound_run() -> None:
    """The estimate is about the claim, where each round counts in full."""
    found = [audit(experiment(Case(hanse.dp_fedavg(noise_multiplier=1.0)), k), seed=k + 1000)
             for k in range(FEW)]  # fmt: skip
    assert not any(one.broken for one in found)
    assert {round(one.claimed, 3) for one in found} == {4.377}
    estimates = [one.estimate.epsilon for one in found if one.estimate is not None]
    assert len(estimates) == FEW
    assert np.mean(estimates) == pytest.approx(4.377, abs=0.4)
    assert np.mean([one.bound for one in found]) > 1
    assert all(one.bound < one.most for one in found)


@pytest.mark.parametrize("name", [name for name in BUGS if name != SUBTLE])
@pytest.mark.parametrize("sees", ["rounds", "last-model"])
def test_a_gross_bug_is_caught(name: str, sees: Any) -> None:  # noqa: ANN401 - a choice
    rounds_ = 5 if name.endswith("5 rounds") else 1
    found = audit(case(BUGS[name](0.5, 1.0), rounds=rounds_), canaries=900, sees=sees)
    assert found.broken
    assert found.bound > found.claimed
    assert found.verdict[0].startswith("The promise is broken.")


def test_half_the_noise_shows_in_the_estimate_only() -> None:
    found = audit(case(BUGS[SUBTLE](0.5, 1.0)))
    assert not found.broken
    assert found.estimate is not None
    assert found.estimate.low > found.claimed
    assert "The one-shot estimate lies above the claim" in found.verdict[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", sound())
def test_sound_runs_of_every_kind_keep_their_bounds_below(name: str) -> None:
    one = sound()[name]
    for seed in range(SEEDS if one.rounds == 1 else FEW):
        found = audit(experiment(one, seed), seed=seed + 1000, sees=one.sees)
        assert not found.broken


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, one in broken().items() if one.gross])
def test_gross_bugs_are_caught_with_every_seed(name: str) -> None:
    one = broken()[name]
    for seed in range(SEEDS if one.rounds == 1 else FEW):
        assert audit(experiment(one, seed), seed=seed + 1000, sees=one.sees).broken


# ------------------------------------------------------------------------- nothing is short-cut
@dataclasses.dataclass(frozen=True)
class Watched(WithoutNoise):
    """Keeps what the real client half makes of each client, for the test to look at."""

    def on_client(self, update: Any, broadcast: Any, memory: Any, client: Any) -> Any:  # noqa: ANN401
        after, memory = super().on_client(update, broadcast, memory, client)
        SEEN.append((client.id, {name: part.values for name, part in after.items()}))
        return after, memory


SEEN: list[tuple[np.ndarray[Any, Any], dict[str, torch.Tensor]]] = []


@pytest.mark.parametrize(
    "layer",
    [
        Watched(0.5, 1.0),
        Watched(AdaptiveClip(0.5, quantile=0.25), 1.0),
        Watched(0.5, 1.0, clipping="per-layer"),
    ],
)
def test_canaries_pass_through_the_real_clip_and_use_all_of_it(layer: ClientDP) -> None:
    SEEN.clear()
    audit(case(layer), canaries=400)
    ids = np.concatenate([ids for ids, _ in SEEN])
    rows = torch.cat([values["delta"] for _, values in SEEN])
    canaries = rows[torch.from_numpy(ids >= len(people().train))]
    assert 150 < len(canaries) < 250  # only those in
    assert torch.equal(canaries, canaries.trunc())  # on the grid
    norms = canaries.norm(dim=1)
    assert bool((norms <= STEPS).all())
    shortest = 0.9 if layer.clipping == "per-layer" else 0.9999
    assert bool((norms > shortest * STEPS).all())
    if isinstance(layer.clip, AdaptiveClip):  # a quarter of them says that it was below
        said = torch.cat([values["within_clip"] for _, values in SEEN]).squeeze(1)
        said = said[torch.from_numpy(ids >= len(people().train))]
        assert float((said > 0).double().mean()) == pytest.approx(0.25, abs=0.08)


def test_scaffold_s_canaries_put_the_whole_norm_into_the_update() -> None:
    SEEN.clear()
    strategy = hanse.scaffold().replace(layers=(Watched(0.5, 1.0, side_scale=0.1),))
    audit(case(Watched(), strategy=strategy), canaries=100)
    for ids, values in SEEN:
        rows = torch.from_numpy(ids >= len(people().train))
        assert not values["control"][rows].any()
        assert bool((values["delta"][rows].norm(dim=1) > 0.9999 * STEPS).all())
        assert values["control"][~rows].any() or bool(rows.all())


def test_what_is_released_is_the_real_sum_over_clients_and_canaries() -> None:
    """Without noise: the real clients' clipped sum, and the directions of those in."""
    plain = case(WithoutNoise(0.5, 1.0), execution=hanse.Execution("dense", 1))
    *_, alone = rounds(plain)
    attack = _prepared(plain, 300, seed=5)
    *_, both = rounds(attack.prepared)
    many = len(people().train)
    canaries = attack.canaries
    inside = canaries.ids[canaries.coins(canaries.ids)]
    columns = len(alone.state.direction)
    added = canaries.directions(inside, columns).sum(dim=0) * 0.5
    released = both.state.layers[-2][RELEASED].double() * (many + 300)  # the public number
    assert torch.allclose(released, alone.state.direction.double() * many + added, atol=2e-3)


def test_silent_clients_send_nothing_and_canaries_what_they_always_send() -> None:
    attack = _prepared(case(WithoutNoise(0.5, 1.0)), 300, seed=5, silent=True)
    *_, last = rounds(attack.prepared)
    canaries = attack.canaries
    inside = canaries.ids[canaries.coins(canaries.ids)]
    columns = len(last.state.direction)
    added = canaries.directions(inside, columns).sum(dim=0) * 0.5
    released = last.state.layers[-2][RELEASED].double() * (len(people().train) + 300)
    assert torch.allclose(released, added, atol=1e-4)


@pytest.mark.parametrize("clip", [0.5, AdaptiveClip(0.5, rate=1.0)])
def test_scores_add_up_over_rounds_in_clip_norms_of_each(clip: float | AdaptiveClip) -> None:
    """Without noise, a canary that is in scores one in each round, and one that is out nothing."""
    found = audit(case(WithoutNoise(clip, 1.0), rounds=3), canaries=50, silent=True)
    assert np.array(found.scores) == pytest.approx(3.0 * np.array(found.coins), abs=1e-3)
    assert found.guesses.right == found.guesses.made


@pytest.mark.parametrize("participation", [Full(), Poisson(0.5), Uniform(count=60)])
def test_population_cohort_and_claim_are_those_of_the_sampling_that_takes_place(
    participation: Full | Poisson | Uniform,
) -> None:
    plain = case(ClientDP(0.5, 2.0), participation=participation, rounds=3)
    attack = _prepared(plain, 100, seed=0)
    population = attack.prepared.population
    assert population.clients == 200
    assert population.participation.expected(200) == participation.expected(200)
    found = audit(plain, canaries=100)
    event = ClientDP(0.5, 2.0).event(participation, 200)
    accountant: Any = "rdp" if isinstance(participation, Uniform) else "pld"
    assert found.accountant == accountant
    assert found.claimed == epsilon([dataclasses.replace(event, count=3)], DELTA, accountant)
    drawn = population.cohort(1, "drop")[0].ids
    assert not set(drawn) & set(attack.canaries.absent)
    if isinstance(participation, Uniform):
        assert not len(attack.canaries.absent)
        assert len(drawn) == 60
        assert any("canaries among them" in note for note in found.notes)
    else:
        assert attack.canaries.absent.tolist()


# ------------------------------------------------------------------- every way to run, the same
@pytest.mark.parametrize(
    "strategy",
    [
        hanse.dp_fedavg(clip=AdaptiveClip(0.2, count_noise=4.0), mu=0.1),
        hanse.fednova().replace(layers=(Normalized(4.0), ClientDP(0.3))),
        hanse.fedsgd(lr=0.5).replace(layers=(ClientDP(0.3),)),
        hanse.mimelite().replace(layers=(ClientDP(0.3),)),
    ],
    ids=lambda strategy: strategy.name,
)
def test_other_strategies_can_be_audited(strategy: Strategy) -> None:
    found = audit(case(ClientDP(), strategy=strategy, rounds=2), canaries=200)
    assert not found.broken
    assert found.rounds == 2
    assert found.estimate is not None
    assert found.estimate.high > 1


def test_workers_find_the_same() -> None:
    layer = ClientDP(0.5, 1.0)
    one, two = (audit(case(layer, rounds=2, workers=workers), canaries=100) for workers in (1, 2))
    assert one == two


def test_the_same_seed_finds_the_same_and_another_something_else() -> None:
    layer = ClientDP(0.5, 1.0)
    first, again, other = (audit(case(layer), canaries=100, seed=k) for k in (3, 3, 4))
    assert first == again
    assert first.estimate != other.estimate


def test_noise_from_the_system_and_a_ledger_which_is_not_charged(tmp_path: Path) -> None:
    path = tmp_path / "people.ledger"
    Ledger.create(path, "people", Budget(1.0, DELTA))
    found = audit(case(ClientDP(0.5, 1.0, noise="os"), ledger=str(path)), canaries=100)
    assert found.claimed == pytest.approx(4.377, abs=1e-3)  # the ledger has not so much
    assert len(Ledger.open(path).entries()) == 1
    assert any("charged no ledger" in note for note in found.notes)


def test_local_parameters_and_a_batch_norm_are_left_alone() -> None:
    def normed() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.BatchNorm1d(FEATURES), perceptron())

    found = audit(
        small(
            model=normed, local=hanse.models.batch_norm, strategy=hanse.dp_fedavg(),
            participation=None, execution=None,
        ),
        canaries=25,
    )  # fmt: skip
    assert found.canaries == 25
    assert not found.broken


def test_training_that_breaks_off_is_scored_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(prepared: Any) -> Any:  # noqa: ANN401 - as the real one
        for one in rounds(prepared):
            if one.number == 2:
                raise DivergenceError("it exploded", why="…", instead="…")
            yield one

    plain = case(ClientDP(0.5, 1.0), rounds=2)
    whole = audit(dataclasses.replace(plain, rounds=1), canaries=100)
    monkeypatch.setattr(module, "rounds", breaking)
    found = audit(plain, canaries=100)
    assert (found.rounds, found.guesses.right) == (1, whole.guesses.right)
    assert found.claimed > whole.claimed
    assert "it exploded" in found.notes[0]


# -------------------------------------------------------------------------------- in words
def found_with(**changes: Any) -> Audit:  # noqa: ANN401 - the audit's fields
    return dataclasses.replace(audit(case(ClientDP(0.5, 1.0)), canaries=100), **changes)


def test_a_claim_that_no_audit_of_this_size_could_refute_is_said_to_be_one() -> None:
    found = found_with()
    assert found.claimed > found.most
    assert any("could not have failed" in line for line in found.verdict)
    fine = dataclasses.replace(found, claimed=found.most - 0.1)
    assert not any("could not have failed" in line for line in fine.verdict)
    assert dataclasses.replace(found, claimed=found.bound - 0.01).broken


def test_json_has_all_of_it() -> None:
    found = found_with(estimate=None)
    read = json.loads(found.to_json())
    assert read["bound"] == found.bound
    assert read["event"] == dataclasses.asdict(found.event)
    assert read["estimate"] is None
    assert not read["broken"]


def test_the_page_has_the_numbers_and_every_canary() -> None:
    found = found_with()
    page = render_audit(found)
    assert found.estimate is not None
    for value in (found.claimed, found.bound, found.estimate.epsilon, found.most):
        assert f"{value:.4f}" in page
    assert found.verdict[0] in page
    cells = re.findall(r"<tr><th scope=\"row\">.*?</th><td>(\d+)</td><td>(\d+)</td></tr>", page)
    assert sum(int(inside) for inside, _ in cells) == found.included
    assert sum(int(outside) for _, outside in cells) == found.canaries - found.included
    assert "https://" not in page  # nothing is fetched


def test_a_page_of_canaries_told_apart_without_any_noise() -> None:
    found = dataclasses.replace(found_with(estimate=None), scores=(0.0,) * 50 + (1.0,) * 50)
    page = render_audit(found)
    assert "Estimate" not in page
    assert page == render_audit(found)


def test_an_audit_is_written_as_its_name_says(tmp_path: Path) -> None:
    found = found_with()
    assert write_audit(found, tmp_path / "new" / "a.html").read_text() == render_audit(found)
    assert json.loads(write_audit(found, tmp_path / "a.json").read_text())["bound"] == found.bound
    with pytest.raises(ConfigError, match=r"a.txt") as caught:
        write_audit(found, tmp_path / "a.txt")
    assert ".html (a page)" in caught.value.instead


EXPERIMENT = """
[data]
source = "digits"
clients = 30

[model]
name = "softmax_regression"

[strategy]
name = "{strategy}"

[run]
rounds = 1
execution = {{path = "dense", block = 32}}
"""
BROKEN = """
import hanse
from benchmarks.privacy.broken import WithoutNoise


def careless() -> hanse.Strategy:
    return hanse.dp_fedavg().replace(layers=(WithoutNoise(0.5, 1.0),))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "fine.toml").write_text(EXPERIMENT.format(strategy="dp_fedavg"))
    (tmp_path / "own.py").write_text(BROKEN)
    (tmp_path / "broken.toml").write_text(EXPERIMENT.format(strategy="own.py:careless"))
    return tmp_path


def test_the_command_says_what_was_found_and_that_it_is_no_proof(folder: Path) -> None:
    given = ("--set", "strategy.noise_multiplier=1.0", "--out", "kept/audit.json")
    printed = command("privacy", "audit", "fine.toml", *given, "--canaries", "500", "--seed", "2")
    assert printed.code == 0, printed.err
    read = json.loads((folder / "kept/audit.json").read_text())
    assert read["canaries"] == 500
    assert f"{read['bound']:.2f}" in printed.out
    assert "4.38 │ claimed: pld" in printed.out
    assert "That is no proof of the claim." in " ".join(printed.out.split())
    event = GaussianEvent(1.0)
    assert read["claimed"] == epsilon([event], DELTA)


@pytest.mark.usefixtures("folder")
def test_the_command_fails_where_the_promise_is_broken() -> None:
    audited = ("privacy", "audit", "broken.toml", "--last-model", "--accountant", "rdp")
    assert command(*audited).code == 0  # in so small a model, 30 clients hide what is broken
    printed = command(*audited, "--silent")
    assert printed.code == 1
    assert "The promise is broken." in printed.out
    assert "Do not release this model." in " ".join(printed.out.split())
    assert "claimed: rdp" in printed.out
