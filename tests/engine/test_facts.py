"""What a round measures of its clients, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.engine.small import BAD, MODULE, OTHERS, SIZES, VMAP, Recorded, mlp, regression, world
from tests.strategies.oracle import gradient, vector
from torch import nn

from hanse.data.batching import Epochs
from hanse.models import Execution
from hanse.selection import Uniform
from hanse.strategies import fedavg, fedsgd, scaffold

executions = pytest.mark.parametrize(
    "execution", [MODULE, Execution("module", 4), VMAP], ids=["alone", "block", "vmap"]
)


@executions
def test_norms_and_cosines_are_those_of_the_updates(execution: Execution) -> None:
    small, recorded = world(), Recorded()
    strategy = fedavg().replace(layers=(recorded, *fedavg().layers))
    first, one = small.step(small.start(strategy), strategy, execution)
    assert np.isnan(one.facts.cosine).all()
    recorded.seen.clear()
    _, result = small.step(first, strategy, execution)
    facts = result.facts
    assert sorted(facts.id) == small.cohort(2)
    assert facts.examples.tolist() == [SIZES[k] for k in facts.id]
    updates = np.stack([recorded.seen[int(k)][0].numpy() for k in facts.id])
    norms = np.linalg.norm(updates, axis=1)
    before = first.direction.numpy()
    np.testing.assert_allclose(facts.norm, norms, rtol=1e-12)
    cosine = updates @ before / norms / np.linalg.norm(before)
    np.testing.assert_allclose(facts.cosine, cosine, rtol=1e-12)
    pairs = (updates @ updates.T / np.outer(norms, norms))[~np.eye(len(norms), dtype=bool)]
    assert result.pairwise_cosine == pytest.approx(pairs.mean(), abs=1e-12)


@executions
def test_the_loss_is_the_mean_over_the_steps_of_the_first_pass(execution: Execution) -> None:
    small, loss = world(), nn.functional.cross_entropy
    for strategy in (fedavg(lr=0.1), scaffold(lr=0.1, option=1)):  # in round 1 they walk alike
        _, result = small.step(small.start(strategy), strategy, execution)
        for k, found in zip(result.facts.id, result.facts.loss, strict=True):
            module, losses = mlp(), []
            for x, y in small.batches(Epochs(), 1, int(k)):
                with torch.no_grad():
                    losses.append(float(loss(module(x), y)))
                at = vector(module)
                step = at - 0.1 * gradient(module, loss, at, x, y)
                nn.utils.vector_to_parameters(step, module.parameters())
            assert found == pytest.approx(np.mean(losses), abs=1e-12)


@executions
def test_a_full_gradients_loss_is_the_clients_mean_whatever_the_chunk(
    execution: Execution,
) -> None:
    small = world()
    for strategy in (fedsgd(), fedsgd(chunk=4)):
        _, result = small.step(small.start(strategy), strategy, execution)
        for k, found in zip(result.facts.id, result.facts.loss, strict=True):
            x, y = small.examples(int(k))
            with torch.no_grad():
                expected = float(nn.functional.cross_entropy(mlp()(x), y))
            assert found == pytest.approx(expected, abs=1e-12)


@executions
def test_a_failed_client_has_no_norm_and_spoils_no_mean(execution: Execution) -> None:
    strategy = fedavg(lr=0.02)
    start = regression().start(strategy)
    _, result = regression(BAD).step(start, strategy, execution)
    _, without = regression(BAD, chosen=OTHERS).step(start, strategy, execution)
    assert np.isnan(result.facts.norm[result.facts.id == BAD]).all()
    assert np.isfinite(result.facts.norm[result.facts.id != BAD]).all()
    assert result.pairwise_cosine == pytest.approx(without.pairwise_cosine, abs=1e-12)


def test_one_client_has_no_pair() -> None:
    small = world(participation=Uniform(count=1))
    assert np.isnan(small.step(small.start(fedavg()), fedavg())[1].pairwise_cosine)
