"""FedProx whose mu follows the loss, against Li et al. (MLSys 2020), section 5.3.2."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from tests.engine.small import MODULE, VMAP, federation, mlp, world
from tests.strategies.oracle import mean_state, trained, vector, weights

import hanse
from hanse.data.batching import Epochs
from hanse.experiment import Experiment
from hanse.layers import Normalized
from hanse.local import SGD, AdaptiveMu, ProximalSGD
from hanse.records import round_record
from hanse.strategies import fedprox
from hanse.training import rounds

if TYPE_CHECKING:
    from tests.engine.small import World
    from torch import Tensor, nn


def heuristic(losses: list[float], start: float, step: float, patience: int) -> list[float]:
    """mu after each of the losses, in plain numbers."""
    mu, falls, found = start, 0, []
    for before, now in zip([float("nan"), *losses], losses, strict=False):
        if now > before:
            mu, falls = mu + step, 0
        elif now < before:
            falls += 1
        else:
            falls = 0
        if falls == patience:
            mu, falls = max(mu - step, 0.0), 0
        found.append(mu)
    return found


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3, 2, 1], [0.1, 0.1, 0.0]),  # two falls in a row
        ([3, 4, 5], [0.1, 0.2, 0.3]),
        ([3, 2, 4, 3, 2, 1, 0], [0.1, 0.1, 0.2, 0.2, 0.1, 0.1, 0.0]),
        ([3, 2, 2, 1, 0], [0.1, 0.1, 0.1, 0.1, 0.0]),  # no change is no fall
        ([5, 4, 3, 2, 1, 0], [0.1, 0.1, 0.0, 0.0, 0.0, 0.0]),  # never below zero
    ],
)
def test_mu_rises_with_the_loss_and_falls_after_falls(
    losses: list[float], expected: list[float]
) -> None:
    rule = AdaptiveMu(start=0.1, step=0.1, patience=2)
    state, found = rule.init(), []
    for loss in losses:
        state = rule.after(torch.tensor(float(loss), dtype=torch.float32), state)
        found.append(float(state["mu"]))
    assert found == pytest.approx(expected)
    assert found == pytest.approx(heuristic(losses, 0.1, 0.1, 2))


def loop(
    small: World, work: Epochs, *, rule: tuple[float, float, int], **local: float
) -> tuple[nn.Module, list[float]]:
    """Eight rounds of FedProx by examples: the model, and mu after each round."""
    met: list[float] = []

    def noting(outputs: Tensor, targets: Tensor) -> Tensor:
        found = small.task.loss(outputs, targets)
        met.append(float(found.detach().mean()))
        return found

    listening = replace(small, task=replace(small.task, loss=noting))
    model, mu, losses = copy.deepcopy(mlp()), rule[0], []
    for number in range(1, 9):
        models, cohort_losses = [], []
        for k in small.cohort(number):
            met.clear()
            models.append(trained(listening, model, number, k, work, mu=mu, **local))
            cohort_losses.append(sum(met) / len(met))
        parts = weights(small, small.cohort(number), "examples")
        losses.append(sum(p * loss for p, loss in zip(parts, cohort_losses, strict=True)))
        model.load_state_dict(mean_state(models, parts))
        mu = heuristic(losses, *rule)[-1]
    return model, heuristic(losses, *rule)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1)])
def test_fedprox_follows_the_loss_of_its_cohorts(momentum: float, decay: float) -> None:
    small = world()
    expected, mus = loop(
        small,
        Epochs(2, 10),
        rule=(0.5, 0.25, 1),
        lr=0.3,
        momentum=momentum,
        weight_decay=decay,
    )
    assert len({round(mu, 6) for mu in mus}) > 2
    strategy = fedprox(
        lr=0.3,
        mu=AdaptiveMu(0.5, 0.25, 1),
        local_epochs=2,
        momentum=momentum,
        weight_decay=decay,
    )
    for execution in (MODULE, VMAP):
        state, found = small.start(strategy), []
        for _ in mus:
            state, _result = small.step(state, strategy, execution)
            found.append(float(state.layers[0]["mu"]))
        assert found == pytest.approx(mus)
        assert float((state.params - vector(expected)).abs().max()) < 1e-12


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_mu_that_is_published_pulls_as_one_that_is_written_down(momentum: float) -> None:
    # The first round, before mu changes; several steps, so that the pull is not zero.
    options = {"local_epochs": 3, "batch_size": 4, "momentum": momentum, "weight_decay": 0.1}
    fixed, free = fedprox(mu=0.7, **options), fedprox(mu=AdaptiveMu(0.7), **options)  # type: ignore[arg-type]
    one, other = world().run(fixed, rounds=1), world().run(free, rounds=1)
    assert float((one.params - other.params).abs().max()) < 1e-14


def test_normalized_counts_the_steps_of_the_published_mu() -> None:
    options = {"local_epochs": 2, "batch_size": 4, "momentum": 0.5}
    pair = [fedprox(mu=mu, **options) for mu in (0.7, AdaptiveMu(0.7))]  # type: ignore[arg-type]
    one, other = (world().run(s.replace(layers=(Normalized(), *s.layers)), rounds=1) for s in pair)
    assert float((one.params - other.params).abs().max()) < 1e-14


def test_a_user_sees_mu_round_by_round_and_in_the_records() -> None:
    experiment = Experiment(
        fedprox(lr=1.0, mu="adaptive"), federation(), mlp(), rounds=6, execution=VMAP
    )
    done = list(rounds(experiment))
    seen = [round_.reported["mu"] for round_ in done]
    assert seen == [float(round_.state.layers[0]["mu"]) for round_ in done]
    assert [round_record(round_)["server"] for round_ in done] == [{"mu": mu} for mu in seen]
    assert seen[0] == 0.1


def test_other_strategies_report_nothing() -> None:
    first = next(iter(rounds(Experiment(hanse.fedavg(), federation(), mlp(), execution=VMAP))))
    assert first.reported == round_record(first)["server"] == {}


def test_adaptive_in_one_word_has_the_papers_steps() -> None:
    assert fedprox(mu="adaptive") == fedprox(mu=AdaptiveMu(0.1, 0.1, 5))
    assert ProximalSGD(SGD(), mu=AdaptiveMu()).averaged == ("train_loss",)
