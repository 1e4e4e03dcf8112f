"""Noise for single examples that silos add together: what is summed, what moves, what it costs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import stats
from tests.engine.small import SIZES, VMAP, World, federation, mlp, same_bits, snapshot, world

import hanse
from hanse import DistributedDP, DistributedExampleDP, SecureSum, fedavg, fedsgd_secagg
from hanse.data import PackedClients
from hanse.layers.clip import STEPS
from hanse.models import Execution
from hanse.privacy import Budget, ExampleDP, GaussianEvent, epsilon
from hanse.privacy.ledger import Ledger
from hanse.selection import Full
from hanse.training import rounds

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

CLIP = 0.3
NOISE = DistributedExampleDP(CLIP, 0.8, survivors=4, divisor=1.0)


def strategy(noise: DistributedExampleDP = NOISE, **fields: object) -> hanse.Strategy:
    secure = SecureSum(**fields)  # type: ignore[arg-type]
    return fedsgd_secagg(lr=1.0, examples=noise, secure=secure)


def step_of(small: World, chosen: hanse.Strategy, execution: Execution = VMAP) -> Tensor:
    """What the server adds to the model, in units of the grid."""
    state = small.start(chosen)
    after, result = small.step(state, chosen, execution)
    assert not result.exchange.failure
    return (after.params - state.params) * STEPS / CLIP


def clipped_sums(small: World) -> Tensor:
    """Minus the sum over all examples of all clients, by a loop with autograd."""
    total = torch.zeros(small.task.layout.size, dtype=torch.float64)
    for client in range(len(SIZES)):
        for x, y in zip(*small.examples(client), strict=True):
            module = mlp()
            loss = torch.nn.functional.cross_entropy(module(x[None]), y[None])
            loss.backward()  # type: ignore[no-untyped-call]
            parts = [torch.zeros(0) if p.grad is None else p.grad for p in module.parameters()]
            gradient = torch.cat([part.flatten() for part in parts])
            total -= gradient * min(1.0, CLIP / float(gradient.norm()))
    return total * STEPS / CLIP


def test_what_is_summed_is_the_clipped_gradients_of_all_examples_and_noise() -> None:
    small = world(participation=Full())
    quiet = replace(NOISE, noise_multiplier=1e-5, survivors=3)
    found = step_of(small, strategy(quiet))
    assert float((found - found.round()).abs().max()) < 1e-4  # whole numbers, in a float64 model
    noise = 11 * math.ceil(1e-5 * STEPS / math.sqrt(3)) * 6
    rounding = sum(SIZES)  # towards zero, by less than one for each example
    assert float((found - clipped_sums(small)).abs().max()) < rounding + noise
    assert float(found.abs().max()) > 1000 * (rounding + noise)


@pytest.mark.parametrize("execution", [Execution("module", 1), Execution("dense", 4)])
def test_the_protocol_gives_the_bits_of_its_result(execution: Execution) -> None:
    small = world(participation=Full())
    fast, real = (
        small.run(strategy(protocol=protocol, drops=0.1), execution, rounds=2)
        for protocol in ("sum", "real")
    )
    assert same_bits(snapshot(fast), snapshot(real))


def test_one_example_moves_the_sum_by_no_more_than_the_clip_norm() -> None:
    whole = world(participation=Full())
    data, norms = whole.data, []
    for gone in (0, 3, 40, 90):
        keep = np.delete(np.arange(len(data.fields["y"])), gone)
        offsets = data.offsets - (data.offsets > gone)
        fields = {name: values[keep] for name, values in data.fields.items()}
        less = world(participation=Full(), data=PackedClients(fields, offsets, data.names))
        moved = step_of(whole, strategy()) - step_of(less, strategy())
        norms.append(float(moved.norm()))
    assert max(norms) <= STEPS * (1 + 1e-6)
    assert max(norms) > 0.5 * STEPS  # some gradients are as long as the clip


def test_the_noise_is_that_of_one_for_all_silos() -> None:
    small = world(participation=Full())
    drawn = []
    for seed in range(12):
        noisy = replace(small, seed=seed)
        found = step_of(noisy, strategy(replace(NOISE, survivors=11)))
        drawn.append((found - clipped_sums(small)) / STEPS)
    values = torch.cat(drawn).numpy()
    assert stats.kstest(values, stats.norm(0, 0.8).cdf).pvalue > 1e-4
    for wrong in (0.8 * 0.7, 0.8 * 1.4):
        assert stats.kstest(values, stats.norm(0, wrong).cdf).pvalue < 1e-3


def test_workers_and_a_resumed_run_give_the_same_bits() -> None:
    experiment = hanse.Experiment(
        strategy(drops=0.1), federation(), mlp(), rounds=3, execution=Execution("module", 2)
    )
    unbroken = list(rounds(experiment))
    *_, forked = rounds(replace(experiment, workers=2))
    *_, resumed = rounds(experiment, start=unbroken[1].state)
    assert same_bits(snapshot(forked.state), snapshot(unbroken[-1].state))
    assert same_bits(snapshot(resumed.state), snapshot(unbroken[-1].state))


def test_noise_that_colluders_tell_does_not_count() -> None:
    layer = DistributedExampleDP(CLIP, 0.8, survivors=9, colluders=5)
    assert layer.share == math.ceil(0.8 * STEPS / 2)
    assert abs(layer.event(Full(), 11).noise_multiplier / 0.8 - 1) < 1e-5


def test_a_round_is_charged_for_examples(tmp_path: Path) -> None:
    noise = replace(NOISE, noise_multiplier=2.0, noise="os")
    ledger = Ledger.create(tmp_path / "people.ledger", "people", Budget(100.0, 1e-3, "rdp"))
    experiment = hanse.Experiment(
        strategy(noise), federation(), mlp(), rounds=2, execution=VMAP, ledger=str(ledger.path)
    )
    *_, last = rounds(experiment)
    spent = epsilon([GaussianEvent(2.0, count=2)], 1e-3, "rdp")
    assert abs(Ledger.open(ledger.path).spent() / spent - 1) < 1e-4
    assert [e.adjacency for e in ledger.entries()[1:]] == ["zero-out-example"] * 2
    assert last.prepared.privacy is not None
    assert last.prepared.privacy.unit == "example"
    said = "\n".join(last.prepared.warnings)
    assert "Neighbours differ by one example" in said
    assert "nobody is protected" not in said


def refused(chosen: hanse.Strategy, model: torch.nn.Module | None = None) -> str:
    model = mlp() if model is None else model
    data = federation(dtype=next(model.parameters()).dtype)
    with pytest.raises(hanse.StrategyError) as error:
        next(rounds(hanse.Experiment(chosen, data, model, rounds=1, execution=VMAP)))
    return f"{error.value.found}; {error.value.instead}"


def test_what_is_no_exact_sum_of_clipped_gradients_is_refused() -> None:
    good = strategy()
    assert "model.double()" in refused(good, mlp(torch.float32))
    local = fedavg().local
    examples = good.examples
    assert examples is not None
    for other in (
        good.replace(examples=None),
        good.replace(examples=replace(examples, clip=1.0)),
        good.replace(examples=replace(examples, exact=False)),
        good.replace(examples=ExampleDP(CLIP, 0.0, 2.0, exact=True)),
        good.replace(local=local, examples=None),
        good.replace(layers=(hanse.Normalized(2.0), NOISE)),
    ):
        assert "fedsgd_secagg(examples=DistributedExampleDP(…))" in refused(other)
    assert "SecureSum(least=4)" in refused(good.replace(aggregation=hanse.aggregation.Sum()))
    assert "one of them" in refused(good.replace(layers=(DistributedDP(), NOISE)))
