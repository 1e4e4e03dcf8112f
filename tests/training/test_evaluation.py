"""Metrics by client against a loop, and their spread against NumPy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.engine.small import CLASSES, FEATURES, World, clients, mlp, seeded, world
from torch import Tensor, nn

from hanse.evaluation import evaluate, per_client, spread, worse_than
from hanse.memory import ClientMemory
from hanse.models import absolute_error, accuracy, squared_error, whole
from hanse.selection import Uniform
from hanse.strategies import fedavg, scaffold

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hanse.evaluation import Evaluation
    from hanse.memory import Slots
    from hanse.models import Metric

LARGE = (3, 5000, 1, 2000, 2500, 4096, 7, 4097, 2)  # more than one forward pass takes at once


def macro_recall(outputs: Tensor, targets: Tensor) -> float:
    """Of all examples at once: no mean over examples."""
    right = (outputs.argmax(1) == targets).double()
    classes = [c for c in range(CLASSES) if bool((targets == c).any())]
    return float(np.mean([float(right[targets == c].mean()) for c in classes]))


METRICS: dict[str, Metric] = {"accuracy": accuracy, "recall": whole(macro_recall)}


def evaluated(small: World, ids: list[int]) -> Evaluation:
    strategy = fedavg()
    chosen = np.array(ids, np.int64)
    return evaluate(small.task, strategy, small.start(strategy), small.data, chosen, "test")


def with_metrics(module: nn.Module, data_sizes: tuple[int, ...]) -> World:
    small = world(module, sizes=data_sizes)
    return dataclasses.replace(small, task=dataclasses.replace(small.task, metrics=METRICS))


@pytest.mark.parametrize("ids", [list(range(9)), [1], [7, 0, 3], [5, 7]], ids=str)
def test_every_client_is_evaluated_on_all_its_examples(ids: list[int]) -> None:
    small = with_metrics(mlp(), LARGE)
    found = evaluated(small, ids)
    assert found.clients.tolist() == ids
    assert found.examples.tolist() == [LARGE[k] for k in ids]
    assert list(found.metrics) == ["loss", "accuracy", "recall"]
    with torch.no_grad():
        for place, k in enumerate(ids):
            x, y = small.examples(k)
            outputs = mlp()(x)
            expected = {
                "loss": float(nn.functional.cross_entropy(outputs, y)),
                "accuracy": float((outputs.argmax(1) == y).double().mean()),
                "recall": macro_recall(outputs, y),
            }
            for name, value in expected.items():
                assert found.metrics[name][place] == pytest.approx(value, abs=1e-12), (k, name)


def test_modules_are_evaluated_in_evaluation_mode() -> None:
    module = seeded(
        lambda: nn.Sequential(
            nn.Linear(FEATURES, 5), nn.BatchNorm1d(5), nn.Dropout(0.9), nn.Linear(5, CLASSES)
        )
    )
    small = world(module, sizes=(20, 1))
    found = evaluated(small, [0, 1])
    module.eval()
    with torch.no_grad():
        for k in (0, 1):
            x, y = small.examples(k)
            expected = float(nn.functional.cross_entropy(module(x), y))
            assert found.metrics["loss"][k] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("split", ["test", "unseen"])
def test_clients_are_evaluated_with_what_they_keep(split: str) -> None:
    module = seeded(
        lambda: nn.Sequential(nn.Linear(FEATURES, 5), nn.BatchNorm1d(5), nn.Linear(5, CLASSES))
    )
    sizes, strategy = (6, 8, 10, 12, 7), fedavg(batch_size=None)
    small = world(module, sizes=sizes, local=("1.*", "2.*"), participation=Uniform(count=2))
    state = small.run(strategy, rounds=2)
    assert 2 <= len(state.clients.rows) < len(sizes)
    everyone = np.arange(len(sizes), dtype=np.int64)
    found = evaluate(small.task, strategy, state, small.data, everyone, split).metrics["loss"]
    for k in range(len(sizes)):
        params, buffers = state.params.clone(), state.buffers.clone()
        if split == "test" and k in state.clients.rows:
            own = state.clients.rows[k][0]
            params[small.task.layout.shared :] = own["params"]
            buffers[:] = own["buffers"]
        x, y = small.examples(k)
        with torch.no_grad():
            outputs = small.task.with_values(params, buffers).eval()(x)
            expected = float(nn.functional.cross_entropy(outputs, y))
        assert found[k] == pytest.approx(expected, abs=1e-12)


def test_a_loss_of_all_examples_at_once_is_evaluated_by_client() -> None:
    def worst(outputs: Tensor, targets: Tensor) -> Tensor:
        return squared_error(outputs, targets).max()

    module = seeded(lambda: nn.Linear(FEATURES, 1))
    small = world(module, data=clients((4, 9, 1), labels=False), loss=worst)
    found = evaluated(small, [0, 1, 2]).metrics["loss"]
    with torch.no_grad():
        for k in range(3):
            x, y = small.examples(k)
            assert found[k] == pytest.approx(float((module(x) - y).square().max()), abs=1e-12)


def test_overall_weighs_clients_by_their_examples() -> None:
    small = world(sizes=(1, 2, 40))
    found = evaluated(small, [0, 1, 2])
    with torch.no_grad():
        pooled = nn.functional.cross_entropy(mlp()(small.data.fields["x"]), small.data.fields["y"])
    assert found.overall["loss"] == pytest.approx(float(pooled), abs=1e-12)


def test_metrics_mean_what_their_names_say() -> None:
    outputs = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    targets = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    assert squared_error(outputs, targets).tolist() == [2.5, 4.5]
    assert absolute_error(outputs, targets).tolist() == [1.5, 1.5]
    assert accuracy(torch.eye(3), torch.tensor([0, 1, 1])).tolist() == [1.0, 1.0, 0.0]


# -------------------------------------------------------------------------------- spread
# Not so small that NumPy's squares of them are zero: `spread` scales, NumPy does not.
finite = st.floats(-1e6, 1e6).filter(lambda value: not 0 < abs(value) < 1e-100)
cohorts = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, n, elements=finite), arrays(np.int64, n, elements=st.integers(1, 1000))
    )
)


@given(cohorts, st.sampled_from(["loss", "accuracy", "absolute_error", "test_loss"]))
def test_spread_is_numpys(
    cohort: tuple[NDArray[np.float64], NDArray[np.int64]], metric: str
) -> None:
    values, examples = cohort
    found = spread(metric, values, examples)
    worst_first = np.sort(values) if metric == "accuracy" else np.sort(values)[::-1]
    tenth = worst_first[: -(-len(values) // 10)]
    assert found.overall == pytest.approx(np.sum(values * examples) / examples.sum(), rel=1e-9)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-9)
    assert found.deviation == pytest.approx(
        np.std(values), rel=1e-9, abs=1e-12 * np.abs(values).max()
    )
    assert found.worst_decile == pytest.approx(np.mean(tenth), rel=1e-9)
    assert found.worst == worst_first[0] == values[found.worst_client]


def test_a_client_without_a_number_is_left_out_of_all_numbers() -> None:
    values, examples = np.array([0.2, np.nan, 0.9, np.inf]), np.array([1, 5, 1, 5])
    for metric in ("accuracy", "loss"):
        found = spread(metric, values, examples)
        without = spread(metric, values[[0, 2]], examples[[0, 2]])
        assert found[:5] == without[:5]
        assert values[found.worst_client] == found.worst


def test_where_no_client_has_a_number_there_is_none() -> None:
    assert np.isnan(spread("loss", np.array([np.nan, np.inf]), np.ones(2, np.int64))[:5]).all()


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("accuracy", [True, False, False, True, False]), ("loss", [False, True, False, True, False])],
)
def test_worse_is_lower_or_higher_by_the_metrics_name(metric: str, expected: list[bool]) -> None:
    ours = np.array([0.1, 0.5, 0.3, np.nan, np.nan])
    theirs = np.array([0.2, 0.4, 0.3, 0.0, np.nan])
    assert worse_than(metric, ours, theirs).tolist() == expected


def test_a_function_of_outputs_and_targets_becomes_a_whole_metric() -> None:
    counted: list[int] = []

    def count(outputs: Tensor, targets: Tensor) -> float:
        counted.append(len(outputs))
        return float(len(targets))

    metric: Callable[[Tensor, Tensor], Tensor] = whole(count)
    assert metric(torch.zeros(3, 2), torch.zeros(3)).item() == 3.0
    assert counted == [3]


def test_few_memories_are_brought_together_however_many_clients_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, strategy = world(), scaffold()
    state = small.run(strategy)
    ids = np.arange(len(small.data))
    whole_ = evaluate(small.task, strategy, state, small.data, ids, "test")
    asked: list[int] = []
    recall = ClientMemory.recall

    def counted(self: ClientMemory, ids: NDArray[np.int64], initial: Slots) -> Slots:
        asked.append(len(ids))
        return recall(self, ids, initial)

    monkeypatch.setattr(ClientMemory, "recall", counted)
    monkeypatch.setattr(per_client, "_BYTES", 2 * 8 * small.task.layout.size)
    few = evaluate(small.task, strategy, state, small.data, ids, "test")
    assert max(asked) == 2
    assert sum(asked) == len(ids)
    for name, values in whole_.metrics.items():
        np.testing.assert_allclose(few.metrics[name], values, rtol=1e-12)
