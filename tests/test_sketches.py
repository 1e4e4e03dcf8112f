"""What the sketches of tutorials get wrong, and Hanse must not: docs/concepts.md lists it.

What strategies compute is held against plain loops in tests/strategies; here each mistake is made
beside Hanse, so that a test that could not tell them apart would fail.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from tests.docs.pages import tables
from tests.engine.small import CLASSES, FEATURES, clients, seeded, world
from tests.strategies.oracle import mean_state, trained, vector
from torch import nn

import hanse
from hanse.data.batching import Epochs
from hanse.selection import Full

if TYPE_CHECKING:
    from torch import Tensor

SIZES = (5, 11, 7)  # no batch size below divides any of them
WORK = Epochs(2, 4)


class Counted(nn.Module):
    """BatchNorm, with its counter, and an integer buffer of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(FEATURES, 6), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, CLASSES)
        self.register_buffer("classes", torch.arange(CLASSES) * 7)
        self.norm.num_batches_tracked = torch.tensor(41)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.norm(self.body(x)).relu())
        return found


def averaged_by_the_sketch(models: list[nn.Module], sizes: tuple[int, ...]) -> dict[str, Tensor]:
    states = [model.state_dict() for model in models]
    return {
        key: sum(
            (s[key].double() * (n / sum(sizes)) for s, n in zip(states, sizes, strict=True)),
            torch.zeros((), dtype=torch.float64),
        )
        for key in states[0]
    }


def test_counters_and_integers_are_not_averaged_and_statistics_are() -> None:
    small = world(seeded(Counted), sizes=(6, 12, 8), participation=Full())
    module = seeded(Counted)
    models = [trained(small, module, 1, k, WORK, lr=0.1) for k in range(3)]
    sketch = averaged_by_the_sketch(models, (6, 12, 8))
    strategy = hanse.fedavg(lr=0.1, local_epochs=2, batch_size=4)
    state = small.run(strategy, rounds=1)
    found = small.task.with_values(state.params, state.buffers).state_dict()
    assert int(found["norm.num_batches_tracked"]) == 41
    assert found["norm.num_batches_tracked"].dtype == torch.int64
    assert float(sketch["norm.num_batches_tracked"]) > 41  # as the sketch would have it
    assert found["classes"].tolist() == [0, 7, 14]
    for name in ("norm.running_mean", "norm.running_var", "head.weight"):
        assert torch.allclose(found[name], sketch[name], atol=1e-12)


def test_weights_are_numbers_of_examples_whatever_the_batches() -> None:
    small = world(sizes=SIZES, participation=Full())
    module = copy.deepcopy(small.task.with_values(*small.task.initial()))
    models = [trained(small, module, 1, k, WORK, lr=0.2) for k in range(3)]

    def mean(sizes: tuple[int, ...]) -> Tensor:
        model = copy.deepcopy(module)
        model.load_state_dict(mean_state(models, [n / sum(sizes) for n in sizes]))
        return vector(model)

    found = small.run(hanse.fedavg(lr=0.2, local_epochs=2, batch_size=4), rounds=1).params
    assert torch.allclose(found, mean(SIZES), atol=1e-12)
    dropped = tuple(n - n % 4 for n in SIZES)  # `num_samples`, where the loader drops a batch
    assert not torch.allclose(found, mean(dropped), atol=1e-4)


def test_the_rule_of_the_proximal_term_is_the_gradient_of_its_graph() -> None:
    small = world(sizes=SIZES, participation=Full())
    module = copy.deepcopy(small.task.with_values(*small.task.initial()))
    found = small.run(hanse.fedprox(lr=0.1, mu=2.0, local_epochs=2, batch_size=4), rounds=1)
    means = []
    for mu in (2.0, 0.0):
        models = [trained(small, module, 1, k, WORK, lr=0.1, mu=mu) for k in range(3)]
        model = copy.deepcopy(module)
        model.load_state_dict(mean_state(models, [n / sum(SIZES) for n in SIZES]))
        means.append(vector(model))
    with_term, without = means
    assert torch.allclose(found.params, with_term, atol=1e-12)
    assert not torch.allclose(found.params, without, atol=1e-4)


def test_evaluation_returns_each_clients_loss_and_not_its_error_rate() -> None:
    data = hanse.data.Federation(clients((9, 14)), clients((9, 14)))
    model = seeded(lambda: nn.Linear(FEATURES, CLASSES))
    experiment = hanse.Experiment(
        hanse.fedavg(), data, model, rounds=1, execution=hanse.Execution("module", 1)
    )
    start = next(iter(hanse.rounds(experiment)))
    test = start.evaluations["test"]
    assert list(test.metrics) == ["loss", "accuracy"]
    fields = clients((9, 14)).block(test.clients).fields
    bounds = ((0, 9), (9, 23))
    for place, (first, end) in enumerate(bounds):
        x, y = fields["x"][first:end], fields["y"][first:end]
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(model(x), y))
            right = float((model(x).argmax(1) == y).double().mean())
        assert test.metrics["loss"][place] == pytest.approx(loss)
        assert test.metrics["accuracy"][place] == pytest.approx(right)
        assert loss != pytest.approx(1 - right, abs=1e-3)


def test_every_part_of_the_sketches_is_led_to_its_place() -> None:
    page = tables("concepts.md")
    parts = [row[0].split(":")[0].split(".")[0] for row in page[_SKETCHES]]
    assert parts == [
        "FedAvgServer",
        "FedAvgServer",
        "FedClient",
        "FedProxClient",
        "DPFedAvgClient",
        "TopKCompressor",
        "quantize_updates",
        "SecureAggregator",
        "FlowerClient",
    ]
    assert len(page["Its list of gotchas"]) == 8
    assert len(page["Its two settings"]) == 4


_SKETCHES = "From the sketches that tutorials show"
