"""What client-level differential privacy composes with; the rest is refused before the run."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from hanse.core.errors import StrategyError
from hanse.data import SharedClients
from hanse.data.clients import without_examples
from hanse.layers import ClientDP, Weighted
from hanse.selection import Uniform
from hanse.soundness.compression import why_not_behind_a_clip

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.data import ClientData
    from hanse.models import Task
    from hanse.selection import Participation, Stragglers
    from hanse.strategy import Strategy

_REMEDIES = {
    "effective_steps": "Normalized(steps=…): a public number of steps in the place of the clients'",
    "heard": "fedavg, fedprox or scaffold with this ClientDP",
    "train_loss": "a number for mu, such as fedprox(mu=0.1)",
}


def check_client_privacy(
    strategy: Strategy,
    task: Task,
    clients: ClientData,
    participation: Participation,
    stragglers: Stragglers | None,
    ledger: str | Path | None = None,
) -> tuple[str, ...]:
    """Refuse what breaks the promise of a `ClientDP`; return what must be known about the rest.

    Args:
        strategy: which may have such a layer.
        task: the model.
        clients: who trains.
        participation: who takes part in a round.
        stragglers: who is late.
        ledger: what rounds are charged to.

    Raises:
        StrategyError: the combination is refused.
    """
    layers = [layer for layer in strategy.layers if isinstance(layer, ClientDP)]
    if not layers:
        return ()
    _refuse_places(strategy, len(layers))
    _refuse_what_travels(strategy, task)
    _refuse_aggregation(strategy)
    if stragglers is not None:
        raise StrategyError(
            f"ClientDP with {stragglers}",
            why="who is late, and so whose partial work counts, depends on who else is in the "
            "cohort: one client more changes what others send, not its own update alone",
            instead="an experiment without stragglers",
        )
    if empty := len(without_examples(clients)):
        raise StrategyError(
            f"ClientDP with {empty} clients without examples",
            why="they are left out of what sums are divided by, and that must not depend on "
            "anybody's data",
            instead="a federation without them (min_size=1)",
        )
    layer, population = layers[0], len(clients)
    layer.multipliers(participation.expected(population))
    if layer.noise_multiplier:
        layer.event(participation, population)
    return tuple(_warnings(layer, clients, participation, ledger))


def seed_of_rounds(strategy: Strategy, seed: int) -> int:
    """What cohorts and batches are drawn from: the run's seed, or a secret.

    Sampling protects only from those who do not know the cohorts, and a run's seed is written
    down, and often 0. So where noise comes from the operating system, cohorts do, too.

    Args:
        strategy: which may have a `ClientDP`.
        seed: the run's.
    """
    real = any(isinstance(x, ClientDP) and x.noise == "os" for x in strategy.layers)
    return secrets.randbits(63) if real else seed


def _refuse_places(strategy: Strategy, count: int) -> None:
    if count > 1:
        raise StrategyError(
            f"{count} ClientDP layers in one strategy",
            why="each would add noise of its own, and a round is charged for that of one",
            instead="one of them, as the last layer",
        )
    weighted = [layer for layer in strategy.layers if isinstance(layer, Weighted)]
    if weighted:
        raise StrategyError(
            f"ClientDP with {weighted[0]!r:.60}",
            why="every client counts the same, and a sum is divided by the expected size of a "
            "cohort: a weight, or the number of those who came, would be released without noise",
            instead="layers=(ClientDP(…),), without the Weighted",
        )
    last = strategy.layers[-1]
    if not isinstance(last, ClientDP):
        raise StrategyError(
            f"{type(last).__name__} behind ClientDP",
            why=why_not_behind_a_clip(last),
            instead=f"the other order: layers=({type(last).__name__}(…), ClientDP(…))",
        )


def _refuse_what_travels(strategy: Strategy, task: Task) -> None:
    shared = task.layout.shared
    for part in strategy.onion[:-1]:
        for name, columns in part.sends(task.layout).items():
            if columns != shared or name in _REMEDIES:
                raise StrategyError(
                    f"ClientDP around {type(part).__name__}, which sends {name!r} with the update",
                    why="it depends on a client's data: in one norm with the update it would take "
                    "most of it, and beside it it would be released without noise",
                    instead=_REMEDIES.get(name, f"a {type(part).__name__} that does not send it"),
                )
    if task.buffers.shared:
        raise StrategyError(
            f"ClientDP with buffers that are averaged: {', '.join(task.buffers.names):.80}",
            why="running statistics of clients' data would be released without noise",
            instead="local=hanse.models.batch_norm (they stay with the clients), or GroupNorm in "
            "the place of BatchNorm",
        )


def _refuse_aggregation(strategy: Strategy) -> None:
    if strategy.aggregation.sees != "sum":
        raise StrategyError(
            f"ClientDP with {type(strategy.aggregation).__name__}",
            why="noise for a sum does not cover what is computed from single updates: a median "
            "moves by up to two clip norms, and a choice of one update releases it",
            instead="aggregation=Sum()",
        )


def _warnings(
    layer: ClientDP, clients: ClientData, participation: Participation, ledger: str | Path | None
) -> list[str]:
    said = []
    if not layer.noise_multiplier:
        said.append(
            "ClientDP with noise_multiplier = 0 clips and adds no noise: nobody is protected"
        )
    else:
        said.append(
            "ClientDP: nothing is charged to a ledger. Epsilon is stated of this run by itself, as "
            "if nothing else were released of the same data (docs/privacy-ledger.md)"
            if ledger is None
            else f"every round is charged to {ledger} before it begins"
        )
        if layer.noise == "seeded":
            said.append(
                "ClientDP's noise is drawn from the run's seed: whoever knows the seed can take it "
                "off again. This is for experiments; noise = 'os' is for models that are released"
            )
        else:
            said.append(
                "ClientDP's noise comes from the operating system: the run cannot be repeated bit "
                "for bit, and rounds that a resumed run computes again are released twice. Cohorts "
                "and batches are drawn from a secret of this process, not from the run's seed"
            )
    if isinstance(participation, Uniform):
        said.append(
            "cohorts of a fixed size are accounted for with one client replaced, which moves a sum "
            "by two clip norms; Poisson participation needs half the noise for the same event"
        )
    if isinstance(clients, SharedClients):
        said.append("examples that all clients share are taken to be public: nothing protects them")
    return said
