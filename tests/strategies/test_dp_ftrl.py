"""DP-FTRL: clients in turns, noise that is taken back, and what a run is charged for it."""

from __future__ import annotations

import dataclasses
import math
import shutil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.small import MODULE, SIZES, VMAP, World, federation, mlp, world
from tests.privacy.test_correlated import dense
from tests.privacy.test_noise import CRITICAL, kolmogorov
from tests.runs.small_runs import experiment, same_state, state_of
from tests.runs.small_runs import federation as people
from tests.strategies.test_client_dp import CLIP, context, neighbours

import hanse
import hanse.runs
from hanse import BinaryTree, ClientDP, Experiment, Separated, StrategyError, Toeplitz, dp_ftrl
from hanse.core.rng import derive
from hanse.core.types import Summed
from hanse.engines import InProcess
from hanse.experiment import prepare
from hanse.layers.clip import STEPS
from hanse.privacy import Budget, GaussianEvent, epsilon, sensitivity
from hanse.privacy.ledger import Ledger
from hanse.round import publish
from hanse.selection import Selected
from hanse.server import ServerSGD
from hanse.spending import spending
from hanse.training import rounds

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.privacy import Correlation
    from hanse.round import FederationState
    from hanse.strategy import Strategy

TURNS = Separated(3)
PROCESSES: list[Correlation] = [Toeplitz(7), Toeplitz(7, bands=3), BinaryTree(7)]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=str)


def private(process: Correlation, z: float = 1.0, noise: Literal["seeded", "os"] = "seeded") -> Any:  # noqa: ANN401 - a strategy
    layer = ClientDP(CLIP, z, correlation=process, noise=noise)
    return hanse.fedavg(lr=0.3).replace(layers=(layer,))


# --------------------------------------------------------------------------------- who takes part
@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_turns_are_as_far_apart_as_is_promised(population: int, data: st.DataObject) -> None:
    separation = data.draw(st.integers(1, population))
    most = data.draw(st.none() | st.integers(1, 4))
    key = derive(data.draw(st.integers(0, 2**63 - 1)))
    turns = Separated(separation, most)
    chosen = [turns.select(population, key, n) for n in range(1, 3 * separation + 2)]
    seen: dict[int, list[int]] = {}
    for number, ids in enumerate(chosen):
        assert list(ids) == sorted(set(ids))
        for k in ids:
            seen.setdefault(int(k), []).append(number)
    assert set(seen) == set(range(population))
    for places in seen.values():
        assert set(np.diff(places)) <= {separation}
        assert most is None or len(places) <= most
    sizes = [len(ids) for ids in chosen[:separation]]
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == population
    assert turns.expected(population) == pytest.approx(np.mean(sizes))


def test_the_groups_are_dealt_anew_for_each_seed_and_kept_in_a_run() -> None:
    small = world(participation=TURNS)
    first = [list(small.population.cohort(n, "drop")[0].ids) for n in range(1, 10)]
    assert first[:3] == first[3:6] == first[6:]
    other = dataclasses.replace(small, seed=4).population
    assert first != [list(other.cohort(n, "drop")[0].ids) for n in range(1, 10)]


def test_noise_from_the_system_leaves_the_schedule_to_the_seed() -> None:
    """A resumed run would otherwise ask clients again that have just had their turn."""
    chosen = [
        prepare(
            Experiment(
                private(Toeplitz(7), noise="os"), federation(), mlp(), 7, participation=TURNS,
                execution=VMAP,
            )
        ).population.cohort(4, "drop")[0].ids
        for _ in range(2)
    ]  # fmt: skip
    assert np.array_equal(chosen[0], chosen[1])


# ---------------------------------------------------------------------- how far a client moves it
def sums(
    small: World, strategy: Strategy, at: FederationState, number: int, without: int = -1
) -> torch.Tensor:
    """The clipped sum of a round at a state, by the real engine; of all but one client."""
    ids = small.population.cohort(number, "drop")[0].ids
    ids = ids[ids != without]
    broadcast = publish(at, strategy, context(small, number))
    engine = InProcess(strategy, small.task, small.data, MODULE)
    found = engine.collect(broadcast, Selected(ids), at.clients, at.direction).aggregate
    return torch.zeros_like(at.direction) if found is None else found["delta"].values


def moved(small: World, strategy: Strategy, count: int) -> dict[int, torch.Tensor]:
    """By client: the difference that it makes to each round's sum, `[T, S]`, in clip norms."""
    state, found = small.start(strategy), {k: [] for k in range(len(SIZES))}  # type: ignore[var-annotated]
    for number in range(1, count + 1):
        whole = sums(small, strategy, state, number)
        for k, differences in found.items():
            rest = sums(small, strategy, state, number, without=k)
            differences.append((whole - rest) / STEPS)
        state, _ = small.step(state, strategy)
    return {k: torch.stack(differences) for k, differences in found.items()}


@each_process
def test_no_client_moves_all_that_is_released_further_than_is_declared(
    process: Correlation,
) -> None:
    strategy, small = private(process, z=0.0), world(participation=TURNS)
    matrix = torch.from_numpy(dense(process))
    lengths = {k: float((matrix @ d).norm()) for k, d in moved(small, strategy, 7).items()}
    declared = sensitivity(process, TURNS.separation)
    assert max(lengths.values()) <= declared
    assert max(lengths.values()) > 0.9 * declared  # the bound is used
    # The negative control: clients that are drawn at random come back too soon.
    drawn = world(participation=hanse.Uniform(count=9))
    lengths = {k: float((matrix @ d).norm()) for k, d in moved(drawn, strategy, 7).items()}
    assert max(lengths.values()) > 1.2 * declared


def test_no_bad_data_move_a_round_by_more_than_two_clip_norms() -> None:
    strategy, small = private(Toeplitz(7), z=0.0), world(participation=TURNS)
    start, number = small.start(strategy), 1
    while 1 not in small.population.cohort(number, "drop")[0].ids:
        number += 1
    whole = sums(small, strategy, start, number)
    for data in neighbours():
        other = sums(dataclasses.replace(small, data=data), strategy, start, number)
        assert 0 < float((whole - other).norm()) <= 2 * STEPS


# ------------------------------------------------------------------------------------- its noise
@pytest.mark.parametrize("source", ["seeded", "os"])
@each_process
def test_what_the_noise_is_made_of_has_its_sigma_and_no_other(
    process: Correlation, source: Literal["seeded", "os"]
) -> None:
    small, z, size = world(), 1.3, 12_000
    layer = ClientDP(CLIP, z, correlation=process, noise=source)
    state, found = layer.init_server(small.task.layout, torch.float64), []
    state = {**state, "history": process.start(size)}
    for number in range(1, 8):
        round_ = dataclasses.replace(context(small, number), key=derive(9, number))
        after, state = layer.on_server({"delta": Summed(torch.zeros(size))}, state, round_)
        found.append(after["delta"].values.numpy() * round_.expected)
    drawn = dense(process) @ np.stack(found)
    noise = drawn.flatten()
    bound = CRITICAL if source == "seeded" else 3.5
    assert kolmogorov(noise, z * CLIP) < bound
    assert kolmogorov(noise, 0.9 * z * CLIP) > bound
    assert kolmogorov(noise, 1.1 * z * CLIP) > bound
    between = np.corrcoef(drawn) - np.eye(7)
    assert np.abs(between).max() < 5 / math.sqrt(size)  # each round's is independent


def test_rounding_is_paid_for_by_more_noise() -> None:
    """Sigma over the sensitivity, rounding included, is at least what is declared."""
    process, z, size = Toeplitz(1000), 2.0, 10**7
    declared = z / sensitivity(process, 50)
    fine = STEPS << process.fine
    sigma = math.ceil(z * (fine + process.slack(size)))
    assert sigma / (fine * sensitivity(process, 50) + process.slack(size)) >= declared
    assert z * fine / (fine * sensitivity(process, 50) + process.slack(size)) < declared
    assert sigma < 1.001 * z * fine


@pytest.mark.parametrize("process", [Toeplitz(400), BinaryTree(400)], ids=str)
def test_the_sum_of_all_rounds_has_less_noise_than_by_independent_rounds(
    process: Correlation,
) -> None:
    """Clients never come back here, and both runs cost the same."""
    small, silent = world(participation=hanse.Poisson(1e-9)), ServerSGD(1.0)
    lengths = {}
    for one in (process, Toeplitz(400, bands=1)):
        z = sensitivity(one, 400)
        strategy = private(one, z).replace(server=silent)
        start = small.start(strategy)
        state = small.run(strategy, rounds=400)
        noise = (state.params - start.params) * small.participation.expected(len(SIZES)) / CLIP
        lengths[one] = float(noise.norm()) / math.sqrt(len(noise))
    assert lengths[process] < 0.6 * lengths[Toeplitz(400, bands=1)]


# ------------------------------------------------------------------------------------- its state
@each_process
def test_a_run_on_disk_goes_on_with_the_same_noise(process: Correlation, tmp_path: Path) -> None:
    short = experiment(
        strategy=private(process), data=people(), participation=Separated(3), rounds=3
    )
    whole = dataclasses.replace(short, rounds=7)
    hanse.run(short, tmp_path / "stopped")
    hanse.resume(tmp_path / "stopped", whole)
    hanse.run(whole, tmp_path / "unbroken")
    assert same_state(state_of(tmp_path / "stopped"), state_of(tmp_path / "unbroken"))


def test_a_run_without_its_history_would_go_on_with_other_noise() -> None:
    """The negative control of the test above: the state is needed."""
    small, strategy = world(participation=TURNS), private(Toeplitz(7))
    state = small.run(strategy, rounds=3)
    local, layer = state.layers
    lost = dataclasses.replace(state, layers=(local, {**layer, "history": 0 * layer["history"]}))
    one, other = (small.step(s, strategy)[0].params for s in (state, lost))
    assert float((one - other).norm()) > 0.1 * CLIP


def test_no_round_is_released_beyond_those_that_are_paid_for() -> None:
    small, strategy = world(participation=TURNS), private(BinaryTree(2))
    state = small.run(strategy, rounds=2)
    with pytest.raises(StrategyError, match="round 3"):
        small.step(state, strategy)


# --------------------------------------------------------------------------------- what it costs
def charged(path: Path, process: Correlation, **changes: Any) -> Experiment:  # noqa: ANN401 - fields
    if not path.exists():
        Ledger.create(path, "people", Budget(1e6, 1e-3, "rdp"))
    given = {"strategy": private(process, 1.0, "os"), "participation": Separated(3), "rounds": 7}
    return experiment(data=people(), ledger=str(path), **{**given, **changes})


def paid(path: Path) -> float:
    """The squared sensitivity that was charged for, with noise of one clip norm."""
    events = Ledger.open(path).account().events()
    return sum(event.count / event.noise_multiplier**2 for event in events)


def lost(process: Correlation, *walks: tuple[int, int]) -> float:
    """The squared sensitivity of walks from a round to a round, for the worst client."""
    matrix = dense(process)
    found = max(
        sum(np.square(matrix[first:last, g::3].sum(axis=1)).sum() for first, last in walks)
        for g in range(3)
    )
    return float(found)


@each_process
def test_rounds_are_charged_as_they_come_and_all_of_them_cost_one_event(
    process: Correlation, tmp_path: Path
) -> None:
    path = tmp_path / "people.ledger"
    for done in rounds(charged(path, process)):
        if done.number:
            assert paid(path) == pytest.approx(lost(process, (0, done.number)), rel=1e-5)
    event = ClientDP(CLIP, 1.0, correlation=process).event(Separated(3), 6)
    assert event == GaussianEvent(1 / sensitivity(process, 3))
    assert paid(path) == pytest.approx(event.noise_multiplier**-2, rel=1e-5)
    assert paid(path) >= event.noise_multiplier**-2 * (1 - 1e-12)
    assert [e.round for e in Ledger.open(path).entries()[1:]] == list(range(1, 8))


@each_process
def test_a_run_that_lost_nothing_is_charged_as_an_unbroken_one(
    process: Correlation, tmp_path: Path
) -> None:
    path, model = tmp_path / "people.ledger", charged(tmp_path / "people.ledger", process)
    hanse.run(dataclasses.replace(model, rounds=3), tmp_path / "run")
    hanse.resume(tmp_path / "run", model)
    assert paid(path) == pytest.approx(sensitivity(process, 3) ** 2, rel=1e-5)


@pytest.mark.parametrize("process", [*PROCESSES, Toeplitz(12, bands=2)], ids=str)
@pytest.mark.parametrize("reached", [3, 4, 6])
def test_rounds_that_are_computed_again_are_never_charged_as_less(
    process: Correlation, reached: int, tmp_path: Path
) -> None:
    path = tmp_path / "people.ledger"
    model = charged(path, process, checkpoint_every=2, rounds=process.rounds)
    going = hanse.runs.carry_on(
        prepared := prepare(model), hanse.runs.start(prepared, tmp_path / "run")
    )
    while next(going).number < reached:
        pass
    shutil.copytree(tmp_path / "run", tmp_path / "killed")  # as it is if the process ends here
    going.close()
    kept = reached - reached % 2
    hanse.resume(tmp_path / "killed", model)
    actual = lost(process, (0, reached), (kept, process.rounds))
    assert actual * (1 - 1e-12) <= paid(path) < 2.1 * actual
    repeated = [e.round for e in Ledger.open(path).entries()[1:]]
    assert repeated == [*range(1, reached + 1), *range(kept + 1, process.rounds + 1)]


@pytest.mark.parametrize("process", [Toeplitz(12, bands=1), Toeplitz(12, bands=2)], ids=str)
def test_a_run_that_goes_on_once_more_still_knows_that_rounds_were_repeated(
    process: Correlation, tmp_path: Path
) -> None:
    """After a repetition the ledger shows all rounds again, some of them twice."""
    path = tmp_path / "people.ledger"
    model = charged(path, process, rounds=12)
    spent = spending(path, model.strategy, prepare(model).population)
    assert spent is not None
    for done, reached in ((0, 2), (1, 4), (4, 12)):  # killed after 2, and stopped after 4
        charges = spent.charges("run", done)
        for _ in range(reached - done):
            next(charges)
    assert paid(path) >= lost(process, (0, 2), (1, 12)) * (1 - 1e-12)


def test_charging_repeated_rounds_by_what_they_add_to_the_first_walk_would_be_less() -> None:
    """The negative control of the test above: why what is released again counts by itself."""
    process = Toeplitz(12, bands=2)
    costs = np.diff([0.0, *(lost(process, (0, n)) for n in range(1, 13))])
    naive = costs[:3].sum() + costs[2:].sum()
    assert naive < 0.95 * lost(process, (0, 3), (2, 12))


def test_a_ledger_that_never_saw_the_first_rounds_is_charged_for_the_rest_by_itself(
    tmp_path: Path,
) -> None:
    process = Toeplitz(7)
    *_, last = rounds(charged(tmp_path / "one.ledger", process, rounds=3))
    for _ in rounds(charged(tmp_path / "other.ledger", process), last.state):
        pass
    assert paid(tmp_path / "other.ledger") >= lost(process, (3, 7)) * (1 - 1e-12)


def test_a_budget_ends_a_run_where_it_is_spent(tmp_path: Path) -> None:
    process, path = Toeplitz(7), tmp_path / "people.ledger"
    costs = [epsilon([GaussianEvent(lost(process, (0, n)) ** -0.5)], 1e-3, "rdp") for n in (4, 5)]
    Ledger.create(path, "people", Budget(sum(costs) / 2, 1e-3, "rdp"))
    done: list[int] = []
    with pytest.raises(hanse.BudgetError, match="round 5"):
        done.extend(one.number for one in rounds(charged(path, process)))
    assert done == [0, 1, 2, 3, 4]


def test_other_strategies_are_charged_as_before(tmp_path: Path) -> None:
    path = tmp_path / "people.ledger"
    Ledger.create(path, "people", Budget(10.0, 1e-3, "rdp"))
    strategy = hanse.dp_fedavg(noise="os", noise_multiplier=2.0)
    population = prepare(
        experiment(data=people(), strategy=strategy, participation=hanse.Poisson(0.5))
    ).population
    costs = spending(path, strategy, population)
    assert costs is not None
    expected = GaussianEvent(2.0, "poisson", 0.5)
    assert next(costs.cost.events(0)) == next(costs.cost.events(5)) == expected


def test_correlated_rounds_are_not_audited_as_if_they_were_independent() -> None:
    one = experiment(data=people(), strategy=private(Toeplitz(7)), participation=Separated(3))
    with pytest.raises(hanse.ConfigError, match="an audit of Toeplitz"):
        hanse.audit(one)


# ----------------------------------------------------------------------------- the named strategy
def test_the_named_strategy_is_put_together_of_these_parts() -> None:
    one = dp_ftrl(rounds=9, bands=4, clip=0.3, noise_multiplier=2.0, momentum=0.5)
    assert one.layers == (ClientDP(0.3, 2.0, correlation=Toeplitz(9, 4)),)
    assert one.server == ServerSGD(0.1, momentum=0.9)
    tree = dp_ftrl(rounds=9, matrix="tree", noise="os")
    assert tree.layers == (ClientDP(0.5, 4.0, noise="os", correlation=BinaryTree(9)),)


def test_a_run_says_that_its_state_is_secret() -> None:
    def said(noise: Literal["seeded", "os"]) -> str:
        strategy = private(Toeplitz(7), noise=noise)
        one = Experiment(strategy, federation(), mlp(), 7, participation=TURNS, execution=VMAP)
        return "\n".join(prepare(one).warnings)

    assert "every checkpoint hold noise that must stay as secret" in said("os")
    assert "secret of this process" not in said("os")
    assert "whoever knows the seed" in said("seeded")
