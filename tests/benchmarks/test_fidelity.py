"""The driver of `benchmarks.fidelity`: what is run, what is not run again, what the page says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks.fidelity import driver
from benchmarks.fidelity.__main__ import GRIDS, main
from benchmarks.fidelity.grid import Cell, Grid, Record, Settings
from benchmarks.fidelity.similarity import by_similarity
from benchmarks.fidelity.tables import mean_rounds, rounds

import hanse
from hanse.data import synthetic

if TYPE_CHECKING:
    from collections.abc import Sequence


def record(
    accuracies: Sequence[float],
    rate: float = 0.1,
    seed: int = 0,
    *,
    diverged: bool = False,
    settings: Settings = {"epochs": 1},  # noqa: B006 - read only
) -> Record:
    where = ("2026-01-02", "a machine", "versions", "module, block 1")
    return Record(settings, rate, seed, list(accuracies), diverged, 1.0, *where)


def grid(
    rates: tuple[float, ...] = (0.1, 0.01),
    target: float | None = 0.5,
    tuning_seed: int | None = 9,
    cap: int = 4,
) -> Grid:
    def experiment(cell: Cell) -> hanse.Experiment:
        return hanse.Experiment(
            strategy=hanse.fedavg(lr=cell.rate),
            data=synthetic(1, 1, clients=2, seed=cell.seed),
            model=lambda: hanse.models.softmax_regression(60, 10),
            rounds=cell.cap,
            seed=cell.seed,
            execution=hanse.Execution("module", 1),
        )

    return Grid(
        name="small",
        fetch=None,
        settings=({"epochs": 1},),
        experiment=experiment,
        section=lambda _, records: [f"{len(records)} records"],
        cap=lambda _: cap,
        rates=rates,
        seeds=(0, 1),
        target=target,
        tuning_seed=tuning_seed,
    )


# ------------------------------------------------------------------------------ rounds
def test_the_first_round_at_the_target_counts_though_later_ones_fall_below() -> None:
    curve = record([0.1, 0.4, 0.6, 0.3, 0.7])
    assert [curve.rounds_to(t) for t in (0.1, 0.4, 0.5, 0.7, 0.8)] == [0, 1, 2, 4, None]
    assert curve.rounds_to(None) is None
    assert curve.rounds == 4


def test_the_mean_counts_a_miss_as_never_and_the_table_says_how_many_missed() -> None:
    hit, slow, miss = record([0.1, 0.5]), record([0, 0, 0, 0.5]), record([0.1, 0.2, 0.3])
    assert rounds([hit, slow], 0.5) == "2.0 ± 1.4"
    assert rounds([hit, miss], 0.5) == "1 (1 of 2)"
    assert rounds([miss], 0.5) == "> 2"
    assert mean_rounds([hit, slow], 0.5) == 2
    assert mean_rounds([hit, miss], 0.5) == float("inf")
    assert mean_rounds([], 0.5) is None


# -------------------------------------------------------------------------------- plan
def test_the_rate_is_chosen_on_its_own_seed_and_no_rate_is_tried_longer_than_the_best() -> None:
    one = grid()
    assert list(one.plan([])) == [Cell({"epochs": 1}, rate, 9, 4) for rate in one.rates]
    tried = [record([0, 0.1, 0.2, 0.5], seed=9)]
    assert next(one.missing(tried)) == Cell({"epochs": 1}, 0.01, 9, 3)
    tried.append(record([0, 0.1, 0.5], 0.01, seed=9))
    assert one.chosen(tried, {"epochs": 1}) == (0.01,)
    assert list(one.missing(tried)) == [Cell({"epochs": 1}, 0.01, seed, 4) for seed in (0, 1)]


def test_where_no_rate_reaches_the_target_the_closest_is_chosen_and_never_a_diverged_one() -> None:
    tried = [record([0, 0.3], seed=9), record([0, 0.4], 0.01, seed=9)]
    assert grid().chosen(tried, {"epochs": 1}) == (0.01,)
    tried = [record([0, 0.1, 0.5], seed=9), record([0, 0.5], 0.01, seed=9, diverged=True)]
    assert grid().chosen(tried, {"epochs": 1}) == (0.1,)


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (record([0, 0.1]), True),  # it was interrupted, or had a smaller cap
        (record([0, 0.1, 0.2, 0.3, 0.4]), False),  # the cap
        (record([0, 0.6]), False),  # the target
        (record([0, 0.1], diverged=True), False),
        (record([0, 0.6], seed=1), True),  # another cell's
        (record([0, 0.6], rate=0.3), True),
        (record([0, 0.6], settings={"epochs": 2}), True),
    ],
)
def test_what_is_left_to_run(found: Record, left: bool) -> None:
    cell = Cell({"epochs": 1}, 0.1, 0, 4)
    missing = list(grid(rates=(0.1,), tuning_seed=None).missing([found]))
    assert (cell in missing) == left


# ----------------------------------------------------------------------------- running
def test_finished_runs_are_kept_and_never_run_again(tmp_path: Path) -> None:
    results = tmp_path / "small.jsonl"
    one = grid(target=0.99, cap=2)
    driver.run_missing(one, results)
    kept = results.read_text()
    records = driver.read(results)
    assert [(r.rate, r.seed, r.rounds) for r in records[:2]] == [(0.1, 9, 2), (0.01, 9, 2)]
    assert [r.seed for r in records[2:]] == [0, 1]
    driver.run_missing(one, results)
    assert results.read_text() == kept
    # Without its last line only that run is missing, and it comes to the same accuracies.
    results.write_text("".join(kept.splitlines(keepends=True)[:-1]))
    driver.run_missing(one, results)
    assert driver.read(results)[-1].accuracies == records[-1].accuracies


def test_a_run_ends_at_the_target_and_says_what_hanse_rounds_says() -> None:
    cell = Cell({"epochs": 1}, 0.1, 0, 3)
    curve = [
        done.evaluations["test"].overall["accuracy"]
        for done in hanse.rounds(grid().experiment(cell))
    ]
    whole = driver.run(grid(target=None), cell)
    np.testing.assert_allclose(whole.accuracies, curve, atol=5e-5)
    half = driver.run(grid(target=curve[1] - 1e-3), cell)
    assert half.accuracies == whole.accuracies[:2]


def test_a_run_that_diverges_is_a_result() -> None:
    found = driver.run(grid(target=None), Cell({"epochs": 1}, 1e30, 0, 10))
    assert found.diverged
    assert found.rounds < 10


# --------------------------------------------------------------------------- the tables
RESULTS = Path(driver.__file__).parent


@pytest.mark.parametrize("name", [name for name in GRIDS if (RESULTS / f"{name}.jsonl").exists()])
def test_kept_results_are_of_the_grid_and_make_its_table(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n<!-- {name}: begin -->\nold\n<!-- {name}: end -->\nafter\n")
    main([name, "--table-only", "--write", str(page)])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "minutes" in text
    assert "old" not in text
    assert f"benchmarks.fidelity {name}" in capsys.readouterr().out
    settings = [dict(known) for known in GRIDS[name].settings]
    kept = driver.read(RESULTS / f"{name}.jsonl")
    assert all(record.settings in settings for record in kept)


def test_a_table_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no results"):
        main(["similarity", "--table-only", "--results", str(tmp_path)])


# ------------------------------------------------------------------------- the partition
def test_similarity_is_the_part_of_a_client_that_is_a_fair_sample() -> None:
    labels = np.repeat(np.arange(10), 600)
    counts = {}
    for percent in (0, 10, 100):
        parts = by_similarity(labels, 100, percent, seed=3)
        assert sorted(np.concatenate(parts)) == list(range(6000))
        assert {len(part) for part in parts} == {60}
        counts[percent] = np.array([np.bincount(labels[part], minlength=10) for part in parts])
    assert (counts[0].max(axis=1) == 60).all()  # one label each
    # Of 60 examples 54 are of one label or, at a border, of two, and a fair sample may add to them.
    assert (np.sort(counts[10], axis=1)[:, -2:].sum(axis=1) >= 54).all()
    # Six of each label; seven standard deviations of a hypergeometric count of mean 6.
    assert counts[100].max() < 6 + 7 * np.sqrt(60 * 0.1 * 0.9)
