"""Exact numbers about clients: covered by nothing and marked so, or nowhere at all."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.privacy.test_noise import CRITICAL, kolmogorov
from tests.privacy.test_runs_are_charged import private
from tests.runs.small_runs import experiment, federation

import hanse
from hanse import BudgetError, ConfigError, Poisson, StrategyError, Uniform
from hanse.experiment import prepare
from hanse.privacy.accounting import epsilon
from hanse.privacy.events import Budget, GaussianEvent
from hanse.privacy.histogram import PrivateHistogram
from hanse.privacy.ledger import Ledger
from hanse.privacy.noise import operating_system, seeded
from hanse.report import to_tensorboard
from hanse.runs import run, start
from hanse.spending import HISTOGRAM
from hanse.training import rounds

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from hanse import Experiment
    from hanse.privacy.events import Adjacency

FIVE = PrivateHistogram(noise_multiplier=20.0, bins=5)
DELTA = 1e-2
Values = st.integers(1, 30).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(-1, 2)))


def secret(**changes: object) -> Experiment:
    given_ = {
        "strategy": private("os"), "participation": Poisson(0.5), "rounds": 3, "per_client": FIVE,
        **changes,
    }  # fmt: skip
    return experiment(data=federation(), **given_)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "people.ledger", "people", Budget(50.0, DELTA, "rdp"))


# --------------------------------------------------------------------------- the histogram itself
@given(Values, st.floats(-1, 2))
def test_a_client_more_moves_one_count_by_one(values: NDArray[np.float64], other: float) -> None:
    moved = FIVE.counts(np.append(values, other)) - FIVE.counts(values)
    assert np.linalg.norm(moved) <= FIVE.sensitivity("client", "add-remove")
    assert FIVE.counts(values).sum() == len(values)


@given(Values, st.floats(-1, 2))
def test_another_value_moves_two_counts_by_one(values: NDArray[np.float64], other: float) -> None:
    changed = values.copy()
    changed[0] = other
    moved = np.linalg.norm(FIVE.counts(changed) - FIVE.counts(values))
    for unit, adjacency in (("client", "replace"), ("example", "add-remove")):
        assert moved <= FIVE.sensitivity(unit, adjacency) + 1e-12  # type: ignore[arg-type]


def test_the_bound_on_a_change_is_reached() -> None:
    one, other = np.array([0.1]), np.array([0.9])
    assert np.linalg.norm(FIVE.counts(one) - FIVE.counts(other)) == math.sqrt(2)
    assert FIVE.counts(np.array([math.nan, math.inf])).sum() == 0
    assert list(FIVE.counts(np.array([-5.0, 0.0, 0.2, 1.0, 7.0]))) == [2, 1, 0, 0, 2]


@pytest.mark.parametrize(
    ("adjacency", "distance"), [("add-remove", 1.0), ("replace", math.sqrt(2))]
)
def test_the_noise_has_the_deviation_that_is_charged(adjacency: Adjacency, distance: float) -> None:
    many = PrivateHistogram(noise_multiplier=3.0, bins=1000)
    values = np.full(50, 0.5)
    drawn = [many.release(values, "client", adjacency, seeded(np.uint64(n))) for n in range(4)]
    noise = np.concatenate([np.array(one.counts) - many.counts(values) for one in drawn])
    sigma = many.event(adjacency).noise_multiplier * distance
    assert kolmogorov(noise, sigma) < CRITICAL
    assert kolmogorov(noise, 1.2 * sigma) > CRITICAL  # the negative control
    assert drawn[0].deviation == pytest.approx(sigma, rel=1e-6)


def test_the_estimate_of_the_mean_is_near_it_where_there_is_little_noise() -> None:
    values = np.random.default_rng(0).beta(8, 2, 5000)
    fine = PrivateHistogram(noise_multiplier=2.0, bins=50)
    found = fine.release(values, "client", "add-remove", operating_system)
    assert found.mean == pytest.approx(values.mean(), abs=0.02)


# ------------------------------------------------------------------------------ what is nowhere
def everything(folder: Path) -> str:
    """All files as one text, without the style and the script of a page."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    whole = "\n".join(path.read_bytes().decode("latin-1") for path in files)
    return re.sub(r"<(style|script)\b.*?</\1>", "", whole, flags=re.DOTALL)


def test_nothing_exact_is_on_the_disk(ledger: Ledger, tmp_path: Path) -> None:
    """Whatever a simulation writes into `clients.jsonl` and elsewhere is searched for."""
    names = [f"person {k}" for k in range(6)] + ["stranger"]
    for shown in (None, "withheld", FIVE):
        place = tmp_path / str(shown)[:8]
        model = secret(per_client=shown, ledger=str(ledger.path))
        run(model, place)
        to_tensorboard(place, place / "events")
        assert not (place / "clients.jsonl").exists()
        records = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        for record in records:
            empty = ("cohort", "accepted", "train_loss", "drift", "bytes")
            assert [record[key] for key in empty] == [None] * 5
            assert record["dropped"] == []
            for split in ("test", "unseen"):
                assert set(record[split] or {}) <= {"noisy_accuracy"}
        about = json.loads((place / "run.json").read_text())
        hidden = ("clients", "train_sizes", "label_counts", "unseen")
        assert [about["data"][key] for key in hidden] == [None] * 4
        state = json.loads(next((place / "checkpoints").glob("*/state.json")).read_text())
        assert state["fingerprint"]["training data"] == "6 clients"  # no sum over the data
        whole = everything(place)
        assert not [name for name in names if name in whole]
        assert not re.search(r"worst|decile|cosine", whole, re.IGNORECASE), shown


def test_a_simulation_of_the_same_is_full_of_them(tmp_path: Path) -> None:
    """The negative control of the search, and the mark that they are covered by nothing."""
    run(secret(per_client=None), tmp_path / "run")
    whole = everything(tmp_path / "run")
    assert "person 3" in whole
    assert re.search(r"worst|decile|cosine", whole, re.IGNORECASE)
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("the guarantee does not cover them") > 3


def test_a_round_carries_nothing_exact(ledger: Ledger) -> None:
    done = list(rounds(secret(ledger=str(ledger.path))))
    assert all(one.result is None and not one.evaluations for one in done)
    assert [set(one.histograms) for one in done] == [set(), *[{"test", "unseen"}] * 3]
    assert all(float(one.state.first_loss) == 0 for one in done)


# ---------------------------------------------------------------------------------- it is charged
def test_each_histogram_is_charged_beside_its_round(ledger: Ledger) -> None:
    done = list(rounds(secret(ledger=str(ledger.path), name="mine", evaluate_every=2)))
    found = [(entry.run, entry.round, entry.repetition) for entry in ledger.entries()[1:]]
    also = [f"mine{HISTOGRAM}{split}" for split in ("test", "unseen")]
    expected = [("mine", 1), ("mine", 2), *((name, 2) for name in also), ("mine", 3)]
    expected += [(name, 3) for name in also]
    assert found == [(*one, 0) for one in expected]
    events = [GaussianEvent(2.0, "poisson", 0.5, count=3), GaussianEvent(20.0, count=4)]
    assert ledger.spent() == epsilon(events, DELTA, "rdp")
    assert done[-1].epsilon() == ledger.spent()


def test_a_histogram_is_charged_before_its_noise_is_drawn(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PrivateHistogram, "release", interrupted)
    going = rounds(secret(ledger=str(ledger.path)))
    next(going)
    with pytest.raises(KeyboardInterrupt):
        next(going)
    assert HISTOGRAM in str(ledger.entries()[-1].run)


def test_a_round_whose_histogram_cannot_be_paid_is_still_shown(tmp_path: Path) -> None:
    round_, both = GaussianEvent(2.0, "poisson", 0.5), GaussianEvent(20.0, count=1)
    cost = epsilon([round_, both], DELTA, "rdp")  # the round, and the histogram of one split
    ledger = Ledger.create(tmp_path / "l", "people", Budget(cost, DELTA, "rdp"))
    place = tmp_path / "run"
    with pytest.raises(BudgetError):
        run(secret(ledger=str(ledger.path)), place)
    last = json.loads((place / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["round"] == 1
    assert set(last["histograms"]) == {"test"}
    assert (place / "model.safetensors").is_file()


def test_without_a_ledger_it_is_part_of_what_is_stated() -> None:
    (*_, last) = rounds(secret(strategy=private("seeded"), participation=Uniform(count=3)))
    event = GaussianEvent(1.0, "without-replacement", 0.5, 6, "replace", 3)
    also = GaussianEvent(20.0, adjacency="replace", count=6)
    delta = last.prepared.privacy.delta  # type: ignore[union-attr]
    assert last.epsilon() == epsilon([event, also], delta, "rdp")


def test_seeded_histograms_repeat_and_others_do_not() -> None:
    def counts(noise: str) -> list[tuple[float, ...]]:
        (*_, last) = rounds(secret(strategy=private(noise), rounds=1))
        return [one.counts for one in last.histograms.values()]

    assert counts("seeded") == counts("seeded")
    assert counts("os") != counts("os")


# -------------------------------------------------------------------------------- the defaults
def test_with_a_ledger_exact_numbers_are_withheld_unless_asked_for(ledger: Ledger) -> None:
    charged = str(ledger.path)
    assert prepare(secret(per_client=None, ledger=charged)).shown == "withheld"
    assert prepare(secret(per_client="simulation", ledger=charged)).shown == "simulation"
    assert prepare(secret(per_client=None)).shown == "simulation"
    assert prepare(secret(per_client=None, strategy=hanse.fedavg())).shown == "simulation"


def test_a_histogram_evaluates_every_client() -> None:
    found = prepare(secret(setting="cross-device")).evaluated
    assert {split: len(ids) for split, ids in found.items()} == {"test": 6, "unseen": 1}


# ------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("changes", "kind", "found"),
    [
        ({"strategy": hanse.fedavg()}, ConfigError, "adds no noise"),
        ({"strategy": hanse.fedavg(), "per_client": "withheld"}, ConfigError, "adds no noise"),
        ({"per_client": "open"}, ConfigError, "'open'"),
        ({"per_client": PrivateHistogram(metric="auc")}, ConfigError, "'auc'"),
        ({"evaluation_clients": 3}, ConfigError, "evaluation_clients = 3"),
        (
            {"strategy": hanse.scaffold().replace(layers=private("os").layers)},
            StrategyError,
            "remember something",
        ),
        ({"local": ("2.*",), "per_client": "withheld"}, StrategyError, "remember something"),
    ],
)
def test_what_cannot_be_withheld_is_refused(
    changes: dict[str, object], kind: type[hanse.HanseError], found: str
) -> None:
    with pytest.raises(kind, match=found):
        prepare(secret(**changes))


def test_baselines_of_what_is_withheld_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="baselines"):
        start(prepare(secret()), tmp_path / "run", baselines=True)
    assert not (tmp_path / "run").exists()


def test_baselines_beside_a_ledger_are_not_charged(ledger: Ledger, tmp_path: Path) -> None:
    model = secret(per_client="simulation", ledger=str(ledger.path), rounds=2)
    run(model, tmp_path / "run", baselines=True)
    assert (tmp_path / "run" / "baselines.json").is_file()
    assert len(ledger.entries()) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": "10"},
        {"bins": 1},
        {"bins": 2.0},
        {"bins": 10**9},
        {"low": 1.0, "high": 0.0},
        {"high": math.inf},
        {"low": math.nan},
        {"metric": ""},
        {"metric": 3},
    ],
)
def test_a_histogram_that_cannot_be_meant_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PrivateHistogram(**arguments)
