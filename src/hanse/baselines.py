"""What a federation is measured against: every client alone, and all data in one place.

For simulations only: pooling is exactly what a real federation cannot do.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hanse.core.errors import ConfigError, DivergenceError
from hanse.data import Federation
from hanse.data import pooled as pool
from hanse.data.batching import Epochs
from hanse.evaluation import Evaluation, evaluate
from hanse.experiment import Experiment, Prepared, prepare
from hanse.layers import Weighted
from hanse.local import SGD, FullGradientStep, LocalSGD, Schedule
from hanse.selection import Full
from hanse.strategy import Strategy
from hanse.training import rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.round import FederationState


class Baselines(NamedTuple):
    """Evaluations by split (`"test"`, `"unseen"`), none of a baseline that diverged."""

    local: dict[str, Evaluation]
    pooled: dict[str, Evaluation]
    warnings: tuple[str, ...]


def baselines(prepared: Prepared) -> Baselines:
    """Train every client alone, and one model on all data, with as many epochs as the federation.

    Both use the strategy's local SGD (for FedSGD: full-batch steps with the server's rate). Alone,
    each client starts from the same model and never sends anything; on unseen clients its value is
    the mean over the clients' models.

    A baseline that diverges is left out, with a warning: the federation may well be stable where a
    client alone is not.

    Raises:
        ConfigError: the strategy has no local SGD to train with.
    """
    local = local_sgd(prepared.experiment.strategy)
    alone, warned = _unless_it_diverges("each client alone", lambda: _alone(prepared, local))
    pooled, warned_too = _unless_it_diverges(
        "all data pooled", lambda: _in_one_place(prepared, local)
    )
    return Baselines(alone, pooled, (*warned, *warned_too))


def _unless_it_diverges(
    words: str, train: Callable[[], dict[str, Evaluation]]
) -> tuple[dict[str, Evaluation], tuple[str, ...]]:
    try:
        return train(), ()
    except DivergenceError as error:
        return {}, (f"there is no baseline of {words}: {error.found}",)


def _alone(prepared: Prepared, local: LocalSGD) -> dict[str, Evaluation]:
    experiment = _variant(prepared, local, prepared.data, everything_local=True)
    alone = prepare(experiment)
    state = _last_state(alone)
    found = {}
    data, strategy = prepared.data, experiment.strategy
    if data.test is not None:
        ids = prepared.evaluated["test"]
        found["test"] = evaluate(alone.task, strategy, state, data.test, ids, "test")
    if data.unseen is not None:
        found["unseen"] = _mean_of_models(prepared, alone, state)
    return found


def _mean_of_models(prepared: Prepared, alone: Prepared, state: FederationState) -> Evaluation:
    """Each client's own model on the unseen clients, averaged over the models."""
    data, ids = prepared.data.unseen, prepared.evaluated["unseen"]
    assert data is not None  # noqa: S101 - the caller's promise, for the type checker
    results = []
    for slots in state.clients.rows.values():
        own = slots[0]
        one = dataclasses.replace(
            state, params=own["params"], buffers=own.get("buffers", state.buffers)
        )
        strategy = alone.experiment.strategy
        results.append(evaluate(alone.task, strategy, one, data, ids, "unseen"))
    metrics = {
        name: np.mean([result.metrics[name] for result in results], axis=0)
        for name in results[0].metrics
    }
    return Evaluation("unseen", ids, results[0].examples, metrics)


def _in_one_place(prepared: Prepared, local: LocalSGD) -> dict[str, Evaluation]:
    data = prepared.data
    together = dataclasses.replace(data, train=pool(data.train), test=None, unseen=None)
    experiment = _variant(prepared, local, together, everything_local=False)
    one = prepare(experiment)
    state = _last_state(one)
    return {
        split: evaluate(
            one.task, experiment.strategy, state, held, prepared.evaluated[split], "unseen"
        )
        for split, held in (("test", data.test), ("unseen", data.unseen))
        if held is not None
    }


@dataclass(frozen=True)
class _Stretched:
    """A schedule over fewer or more rounds, from its beginning to its end."""

    schedule: Schedule
    rounds: int
    planned: int

    def rate(self, round_number: int) -> float:
        """The rate of a round."""
        share = (round_number - 1) / max(self.rounds - 1, 1)
        return self.schedule.rate(1 + round(share * (self.planned - 1)))


def _variant(
    prepared: Prepared, local: LocalSGD, data: Federation, *, everything_local: bool
) -> Experiment:
    experiment = prepared.experiment
    share = prepared.population.participation.expected(prepared.population.clients)
    rounds_ = max(round(experiment.rounds * share / prepared.population.clients), 1)
    lr = local.optimizer.lr
    if isinstance(lr, Schedule):  # it ends at the same rate, in fewer rounds
        stretched = _Stretched(lr, rounds_, experiment.rounds)
        optimizer = dataclasses.replace(local.optimizer, lr=stretched)
        local = dataclasses.replace(local, optimizer=optimizer)
    return dataclasses.replace(
        experiment,
        strategy=Strategy(local, layers=(Weighted("uniform"),)),
        data=data,
        local=("*",) if everything_local else (),
        rounds=rounds_,
        setting="cross-silo",
        participation=Full(),
        stragglers=None,
        evaluate_every=rounds_,
        ledger=None,  # nothing of a baseline leaves a simulation, and no noise protects it
        delta=None,
        per_client=None,
    )


def _last_state(prepared: Prepared) -> FederationState:
    nothing = dataclasses.replace(prepared, evaluated={})
    state = None
    for done in rounds(nothing):
        state = done.state
    assert state is not None  # noqa: S101 - rounds yields round 0 at least
    return state


def local_sgd(strategy: Strategy) -> LocalSGD:
    """The local SGD that a client alone trains with.

    Raises:
        ConfigError: the strategy has none.
    """
    local = strategy.local
    if isinstance(local, FullGradientStep):
        return LocalSGD(SGD(getattr(strategy.server, "lr", 0.1)), Epochs(1, None))
    optimizer, work = getattr(local, "optimizer", None), getattr(local, "work", None)
    if not isinstance(optimizer, SGD) or work is None:
        raise ConfigError(
            f"baselines for {type(local).__name__}",
            why="it has no `optimizer` (an SGD) and `work` (a pass over the data) that a client "
            "alone could train with",
            instead="a local training with these two attributes, or a run without baselines",
        )
    return LocalSGD(optimizer, work)
