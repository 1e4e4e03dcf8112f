"""The numbers of a summary, computed once more with NumPy from the files themselves."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.report import Spread, summary
from hanse.report.quantities import client_stats, histogram, over_seeds, thin, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOWER = {"loss"}
floats = st.floats(-1e6, 1e6)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def last_clients(run: Path, split: str) -> dict[str, Any]:
    found = [row for row in lines(run / "clients.jsonl") if row["split"] == split]
    return [row for row in found if None not in row["metrics"]["loss"]][-1]


def expected(run: Path, split: str, metric: str) -> dict[str, float]:
    row = last_clients(run, split)
    values, weights = np.array(row["metrics"][metric]), np.array(row["examples"])
    worst_first = np.sort(values)[:: -1 if metric in LOWER else 1]
    tenth = math.ceil(len(values) / 10)
    return {
        "overall": float((values * weights).sum() / weights.sum()),
        "client_mean": float(values.mean()),
        "client_std": float(np.sqrt(((values - values.mean()) ** 2).mean())),
        "worst_decile": float(worst_first[:tenth].mean()),
        "worst": float(worst_first[0]),
    }


@pytest.mark.parametrize("kind", ["small", "hundred", "big", "regression", "diverged", "bare"])
def test_every_number_agrees_with_numpy(shared: Callable[[str], Path], kind: str) -> None:
    run = shared(kind)
    found = summary(run)
    assert found.runs == 1
    for split in found.splits:
        assert split.clients == len(last_clients(run, split.split)["clients"])
        assert split.examples == sum(last_clients(run, split.split)["examples"])
        for metric in split.metrics:
            wanted = expected(run, split.split, metric.metric)
            for name, value in wanted.items():
                number = getattr(metric, name)
                number = number.value if name == "worst" else number
                assert number.mean == pytest.approx(value, rel=1e-9), (split.split, metric, name)
                assert number.std is None


def test_the_worst_client_is_named(shared: Callable[[str], Path]) -> None:
    run = shared("small")
    row = last_clients(run, "test")
    name = f"subject {row['clients'][int(np.argmin(row['metrics']['accuracy']))] + 1}"
    split = summary(run).split("test")
    assert split is not None
    worst = split.metric("accuracy").worst
    assert worst is not None
    assert worst.name == name
    with pytest.raises(KeyError):
        split.metric("recall")


@pytest.mark.parametrize("kind", ["small", "hundred", "regression"])
@pytest.mark.parametrize("metric", [0, -1])
def test_clients_worse_than_alone_are_counted_and_named(
    shared: Callable[[str], Path], kind: str, metric: int
) -> None:
    run = shared(kind)
    split = summary(run).split("test")
    assert split is not None
    found = split.metrics[metric]
    ours = last_clients(run, "test")["metrics"][found.metric]
    alone = json.loads((run / "baselines.json").read_bytes())["local"]["test"]
    gain = np.array(ours) - np.array(alone["metrics"][found.metric])
    harm = gain if found.metric in LOWER else -gain
    order = [int(k) for k in np.argsort(-harm, kind="stable") if harm[k] > 0]
    against = found.comparison
    assert against is not None
    assert against.worse.mean == len(order)
    assert against.compared == len(gain)
    assert against.gain.mean == pytest.approx(float(gain.mean()), rel=1e-9)
    assert [int(name.split()[1]) - 1 for name in against.names] == order
    assert found.alone is not None
    assert found.alone.mean == pytest.approx(
        float(np.average(alone["metrics"][found.metric], weights=alone["examples"]))
    )


def test_a_group_gives_means_and_sample_deviations(shared: Callable[[str], Path]) -> None:
    group = shared("group")
    runs = [summary(group / f"seed-{seed}") for seed in range(5)]
    found = summary(group)
    assert found.seeds == (0, 1, 2, 3, 4)
    assert found.seconds == pytest.approx(35.5)
    for split in found.splits:
        for metric in split.metrics:
            for name in ("overall", "client_mean", "client_std", "worst_decile", "alone", "pooled"):
                parts = [
                    getattr(part.metric(metric.metric), name).mean
                    for run in runs
                    if (part := run.split(split.split)) is not None
                ]
                spread = getattr(metric, name)
                assert spread.mean == pytest.approx(np.mean(parts))
                assert spread.std == pytest.approx(np.std(parts, ddof=1))
                assert spread.count == 5
    worst = found.splits[0].metrics[0].worst
    assert worst is not None
    assert (worst.name, worst.seeds) == ("subject 4", 5)


def test_without_baselines_nothing_is_compared(shared: Callable[[str], Path]) -> None:
    for split in summary(shared("bare")).splits:
        for metric in split.metrics:
            assert (metric.alone, metric.pooled, metric.comparison) == (None, None, None)


def test_the_primary_metric_is_accuracy_then_the_users_then_the_loss(
    shared: Callable[[str], Path], make: Callable[..., Path]
) -> None:
    assert summary(shared("hundred")).primary == "accuracy"
    assert summary(shared("regression")).primary == "r2"
    assert summary(make("regression", extra="")).primary == "loss"


def test_of_an_error_less_is_better(make: Callable[..., Path]) -> None:
    run = make("regression", extra="absolute_error")
    split = summary(run).split("test")
    assert split is not None
    found = split.metric("absolute_error")
    assert found.lower_is_better
    assert found.worst is not None
    assert found.worst.value.mean == max(last_clients(run, "test")["metrics"]["absolute_error"])


@pytest.mark.parametrize("worst", ["diverged", "stopped", "running"])
def test_a_group_is_as_good_as_its_worst_run(make: Callable[..., Path], worst: str) -> None:
    make("bare", "group/seed-0", rounds=5)
    group = make("bare", "group/seed-1", rounds=5, stop=3, status=worst).parent
    found = summary(group)
    assert (found.status, found.trained, found.rounds) == (worst, 3, 5)


def test_the_federated_baseline_fills_in_for_missing_client_lines(
    make: Callable[..., Path],
) -> None:
    run = make("small")
    (run / "clients.jsonl").unlink()
    split = summary(run).split("test")
    assert split is not None
    assert split.metric("accuracy").worst is not None
    assert split.metric("accuracy").comparison is not None


@given(st.lists(st.none() | floats, min_size=1, max_size=50))
def test_client_stats_skip_what_is_not_finite(values: list[float | None]) -> None:
    found = client_stats(values, range(len(values)))
    kept = [value for value in values if value is not None]
    if not kept:
        assert found is None
        return
    assert found is not None
    assert found.count == len(kept)
    assert found.low == min(kept) == values[found.lowest]
    assert found.high == max(kept) == values[found.highest]
    assert found.median == pytest.approx(float(np.median(kept)), abs=1e-6)
    assert found.low <= found.low_decile <= found.high_decile <= found.high or math.isclose(
        found.low_decile, found.high_decile, abs_tol=1e-6
    )


@given(st.lists(floats, max_size=30))
def test_over_seeds_is_the_mean_and_the_sample_deviation(values: list[float]) -> None:
    found = over_seeds(values)
    if not values:
        assert found is None
    elif len(values) == 1:
        assert found == Spread(values[0], None, 1)
    else:
        assert found is not None
        assert found.mean == pytest.approx(np.mean(values), abs=1e-6)
        assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-6)


@given(st.lists(st.tuples(floats, st.integers(0, 1000)), max_size=30))
def test_weighted_mean_agrees_with_numpy(pairs: list[tuple[float, int]]) -> None:
    values, weights = [value for value, _ in pairs], [weight for _, weight in pairs]
    found = weighted_mean(values, weights)
    if sum(weights) == 0:
        assert found is None
    else:
        assert found == pytest.approx(float(np.average(values, weights=weights)), abs=1e-6)


@given(st.lists(st.floats(-10, 10), max_size=50), st.integers(1, 20))
def test_a_histogram_loses_nobody(values: list[float], bins: int) -> None:
    assert sum(histogram(values, -5.0, 5.0, bins)) == len(values)


@given(st.integers(0, 5000), st.integers(2, 300))
def test_thinning_keeps_both_ends(count: int, most: int) -> None:
    found = thin(count, most)
    assert len(found) <= most
    assert found == sorted(set(found))
    if count:
        assert (found[0], found[-1]) == (0, count - 1)
