"""What a federation is measured against, beside loops in plain PyTorch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tests.runs.small_runs import FEATURES, experiment, federation, state_of
from torch import Tensor, nn

import hanse
from hanse.baselines import baselines
from hanse.core.rng import derive
from hanse.data.batching import Epochs, plan
from hanse.experiment import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from hanse import Experiment
    from hanse.data import ClientData

Examples = tuple[Tensor, Tensor]
SEED, ROUNDS = 5, 4
# Sums of a few float64 numbers, in another order than the engine's.
CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
WORK = {"whole batches": Epochs(2, None), "small batches": Epochs(2, 3)}
OPTIONS: dict[str, Any] = {"lr": 0.3, "momentum": 0.5, "weight_decay": 0.01}


def _linear() -> nn.Module:
    return nn.Linear(FEATURES, 3).double()


def _experiment(**changes: Any) -> Experiment:  # noqa: ANN401 - the experiment's own fields
    return experiment(
        data=federation(dtype=torch.float64), model=_linear, seed=SEED, rounds=ROUNDS, **changes
    )


def _examples(data: ClientData | None, client: int) -> Examples:
    assert data is not None
    fields, starts, sizes = data.block(np.array([client]))
    rows = slice(int(starts[0]), int(starts[0] + sizes[0]))
    return fields["x"][rows], fields["y"][rows]


def _initial(made: Experiment) -> nn.Module:
    """The weights that every baseline starts from: those of the experiment."""
    return next(iter(hanse.rounds(made))).model()


def _batches(examples: Examples, work: Epochs, round_number: int, client: int) -> list[Examples]:
    """A client's batches in a round, by the keys that are derived for it."""
    x, y = examples
    round_key = derive(derive(SEED, "round", round_number), "clients")
    key = derive(derive(round_key, np.array([client])), "pass", 0)
    steps = plan(work, np.array([len(x)]), np.zeros(1, np.int64), key, torch.float64)
    rows = [step.rows[0, : int(step.counts[0])] for step in steps]
    return [(x[chosen], y[chosen]) for chosen in rows]


def _train(
    module: nn.Module, examples: Examples, work: Epochs, rounds: int, client: int
) -> nn.Module:
    """SGD as in torch.optim, begun anew in each round as a client's optimiser is."""
    params = list(module.parameters())
    for number in range(1, rounds + 1):
        velocity = [torch.zeros_like(p) for p in params]
        for x, y in _batches(examples, work, number, client):
            loss = nn.functional.cross_entropy(module(x), y)
            for p, v, g in zip(params, velocity, torch.autograd.grad(loss, params), strict=True):
                v.mul_(OPTIONS["momentum"]).add_(g + OPTIONS["weight_decay"] * p.detach())
                p.data.sub_(OPTIONS["lr"] * v)
    return module


def _judge(module: nn.Module, examples: Examples) -> tuple[float, float]:
    x, y = examples
    with torch.no_grad():
        outputs = module(x)
    loss = nn.functional.cross_entropy(outputs, y)
    return float(loss), float((outputs.argmax(dim=1) == y).double().mean())


def _strategy(work: Epochs) -> hanse.Strategy:
    return hanse.fedavg(local_epochs=work.count, batch_size=work.batch_size, **OPTIONS)


# Half of the clients in each of four rounds: as many epochs as two rounds of all.
@pytest.mark.parametrize(("participation", "rounds"), [(hanse.Uniform(0.5), 2), (None, ROUNDS)])
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_each_client_alone_is_trained_as_a_plain_loop_would(
    work: Epochs, participation: hanse.Uniform | None, rounds: int
) -> None:
    made = _experiment(strategy=_strategy(work), participation=participation)
    found = baselines(prepare(made)).local
    strangers = []
    for client in range(len(made.data.train)):
        examples = _examples(made.data.train, client)
        module = _train(_initial(made), examples, work, rounds, client)
        loss, accuracy = _judge(module, _examples(made.data.test, client))
        assert found["test"].metrics["loss"][client] == pytest.approx(loss, rel=1e-10)
        assert found["test"].metrics["accuracy"][client] == accuracy
        strangers.append(_judge(module, _examples(made.data.unseen, 0)))
    for name, value in zip(("loss", "accuracy"), np.mean(strangers, axis=0), strict=True):
        np.testing.assert_allclose(found["unseen"].metrics[name], [value], **CLOSE)


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_all_data_pooled_is_trained_as_a_plain_loop_would(work: Epochs) -> None:
    made = _experiment(strategy=_strategy(work), participation=None)
    found = baselines(prepare(made)).pooled
    each = [_examples(made.data.train, k) for k in range(len(made.data.train))]
    together = torch.cat([x for x, _ in each]), torch.cat([y for _, y in each])
    module = _train(_initial(made), together, work, ROUNDS, 0)
    for split, data in (("test", made.data.test), ("unseen", made.data.unseen)):
        assert data is not None
        judged = [_judge(module, _examples(data, k)) for k in range(len(data))]
        for name, values in zip(("loss", "accuracy"), zip(*judged, strict=True), strict=True):
            np.testing.assert_allclose(found[split].metrics[name], values, **CLOSE)


def test_pooled_whole_batches_are_gradient_descent_by_hand() -> None:
    made = _experiment(strategy=hanse.fedavg(lr=0.5, batch_size=None), participation=None)
    found = baselines(prepare(made)).pooled
    x, y = made.data.train.block(np.arange(len(made.data.train))).fields.values()
    initial = _initial(made)
    weight, bias = (p.detach().numpy().copy() for p in initial.parameters())
    inputs, wanted = x.numpy(), np.eye(3)[y.numpy()]
    for _ in range(ROUNDS):
        logits = inputs @ weight.T + bias
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        error = (shares - wanted) / len(inputs)
        weight, bias = weight - 0.5 * error.T @ inputs, bias - 0.5 * error.sum(axis=0)
    x, y = _examples(made.data.unseen, 0)
    logits = x.numpy() @ weight.T + bias
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y.numpy()]
    np.testing.assert_allclose(found["unseen"].metrics["loss"], [losses.mean()], **CLOSE)


STRATEGIES = {
    "fedprox": hanse.fedprox(mu=10.0, **OPTIONS),
    "scaffold": hanse.scaffold(option=1, **OPTIONS),
    "fedadam": hanse.fedavg(server=hanse.ServerAdam(), **OPTIONS),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_holds_a_federation_together_is_no_part_of_its_baselines(name: str) -> None:
    plain = baselines(prepare(_experiment(strategy=hanse.fedavg(**OPTIONS))))
    other = baselines(prepare(_experiment(strategy=STRATEGIES[name])))
    for one, two in ((plain.local, other.local), (plain.pooled, other.pooled)):
        for split, evaluation in one.items():
            for metric, values in evaluation.metrics.items():
                np.testing.assert_array_equal(two[split].metrics[metric], values)


def test_fedsgd_is_measured_against_whole_batches_at_the_servers_rate() -> None:
    plain = baselines(prepare(_experiment(strategy=hanse.fedavg(lr=0.2, batch_size=None))))
    other = baselines(prepare(_experiment(strategy=hanse.fedsgd(lr=0.2))))
    np.testing.assert_array_equal(
        plain.pooled["test"].metrics["loss"], other.pooled["test"].metrics["loss"]
    )


def test_the_file_holds_what_direct_evaluation_finds(tmp_path: Path) -> None:
    made = _experiment(strategy=hanse.fedavg(**OPTIONS), metrics={"hits": hanse.models.accuracy})
    run = hanse.run(made, tmp_path / "run", baselines=True).path
    written = json.loads((run / "baselines.json").read_text())
    found = baselines(prepare(made))
    for kind, by_split in (("local", found.local), ("pooled", found.pooled)):
        for split, evaluation in by_split.items():
            assert written[kind][split]["clients"] == evaluation.clients.tolist()
            assert written[kind][split]["examples"] == evaluation.examples.tolist()
            for metric in ("loss", "hits"):
                assert written[kind][split]["metrics"][metric] == (
                    evaluation.metrics[metric].tolist()
                )
    state = state_of(run)
    module = prepare(made).task.with_values(state.params, state.buffers)
    for split, data in (("test", made.data.test), ("unseen", made.data.unseen)):
        assert data is not None
        judged = [_judge(module, _examples(data, k)) for k in range(len(data))]
        for metric, values in zip(("loss", "hits"), zip(*judged, strict=True), strict=True):
            np.testing.assert_allclose(
                written["federated"][split]["metrics"][metric], values, **CLOSE
            )


def test_a_baseline_that_diverges_is_left_out_with_a_warning(tmp_path: Path) -> None:
    # At rate 0.1 a step multiplies the error by 1 - 0.2 x^2: by -2.2 where x is 4, and by 0.8 where
    # it is 1. The mean of the models is stable, the first client alone is not.
    steep = {
        f"person {k}": (np.full((2, 1), 4.0 if k == 0 else 1.0), np.ones((2, 1))) for k in range(4)
    }
    made = experiment(
        strategy=hanse.fedavg(lr=0.1, batch_size=None),
        data=hanse.data.federation_from_arrays(steep, test=steep),
        model=lambda: nn.Linear(1, 1, bias=False),
        loss=hanse.models.squared_error,
        participation=None,
        rounds=8,
    )
    run = hanse.run(made, tmp_path / "run", baselines=True)
    about = run.about()
    assert about["status"] == "finished"
    assert len(about["warnings"]) == 1
    assert about["warnings"][0].startswith("there is no baseline of each client alone: round ")
    written = json.loads((run.path / "baselines.json").read_text())
    assert written["local"] == {"test": None, "unseen": None}
    assert written["pooled"]["test"]["clients"] == [0, 1, 2, 3]
    assert "no baseline of each client alone" in (run.path / "report.html").read_text()


def test_baselines_that_cannot_be_had_are_refused_before_the_run(tmp_path: Path) -> None:
    odd = hanse.local.LocalSGD(optimizer=None)  # type: ignore[arg-type]  # no SGD to train with
    with pytest.raises(hanse.ConfigError, match="baselines for LocalSGD"):
        hanse.run(experiment(strategy=hanse.Strategy(odd)), tmp_path / "run", baselines=True)
    assert not (tmp_path / "run").exists()
