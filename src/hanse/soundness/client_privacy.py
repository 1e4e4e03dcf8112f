"""What client-level differential privacy composes with; the rest is refused before the run."""

from __future__ import annotations

import math
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from hanse.core.errors import StrategyError
from hanse.data import SharedClients
from hanse.data.clients import without_examples
from hanse.layers import ClientDP, LocalDP, Weighted
from hanse.selection import Separated, Uniform
from hanse.soundness.compression import why_not_behind_a_clip

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.data import ClientData
    from hanse.models import Task
    from hanse.privacy import Correlation
    from hanse.selection import Participation, Stragglers
    from hanse.strategy import Strategy

_REMEDIES = {
    "effective_steps": "Normalized(steps=…): a public number of steps in the place of the clients'",
    "heard": "fedavg, fedprox or scaffold with this layer",
    "train_loss": "a number for mu, such as fedprox(mu=0.1)",
}


def check_client_privacy(
    strategy: Strategy,
    task: Task,
    clients: ClientData,
    participation: Participation,
    stragglers: Stragglers | None,
    rounds: int,
    ledger: str | Path | None = None,
) -> tuple[str, ...]:
    """Refuse what breaks the promise of a `ClientDP` or `LocalDP`; return what must be known.

    Args:
        strategy: which may have such a layer.
        task: the model.
        clients: who trains.
        participation: who takes part in a round.
        stragglers: who is late.
        rounds: how many there will be.
        ledger: what rounds are charged to.

    Raises:
        StrategyError: the combination is refused.
    """
    layers = [layer for layer in strategy.layers if isinstance(layer, ClientDP | LocalDP)]
    if not layers:
        return ()
    layer, population, name = layers[-1], len(clients), type(layers[-1]).__name__
    _refuse_places(strategy, layers)
    _refuse_what_travels(strategy, task, name)
    if stragglers is not None:
        raise StrategyError(
            f"{name} with {stragglers}",
            why="who is late, and so whose partial work counts, depends on who else is in the "
            "cohort: one client more changes what others send, not its own update alone"
            if isinstance(layer, ClientDP)
            else "whose partial work it is depends on how much data a client has, and the server "
            "sees who is late",
            instead="an experiment without stragglers",
        )
    if empty := len(without_examples(clients)):
        raise StrategyError(
            f"{name} with {empty} clients without examples",
            why="they are left out of what sums are divided by, and that must not depend on "
            "anybody's data",
            instead="a federation without them (min_size=1)",
        )
    if isinstance(layer, LocalDP):
        return (*_about_local(layer, ledger), *_about_both(clients))
    _refuse_aggregation(strategy)
    layer.multipliers(participation.expected(population))
    if layer.correlation is not None:
        _check_correlated(strategy, layer.correlation, task, participation, rounds)
    if layer.noise_multiplier or layer.correlation is not None:
        replace(layer, noise_multiplier=1.0).event(participation, population)
    return (*_warnings(layer, participation, ledger), *_about_both(clients))


def seed_of_rounds(strategy: Strategy, seed: int) -> int:
    """What cohorts and batches are drawn from: the run's seed, or a secret.

    Sampling protects only from those who do not know the cohorts, and a run's seed is written
    down, and often 0. So where noise comes from the operating system, cohorts do, too. Clients that
    take turns, or add their own noise, are protected without that, and what they spend is counted
    by a schedule that a resumed run must keep to.

    Args:
        strategy: which may have a `ClientDP` or an `ExampleDP`.
        seed: the run's.
    """
    real = any(
        isinstance(x, ClientDP) and x.noise == "os" and x.correlation is None
        for x in strategy.layers
    )
    real = real or (strategy.examples is not None and strategy.examples.noise == "os")
    return secrets.randbits(63) if real else seed


def _refuse_places(strategy: Strategy, layers: list[ClientDP | LocalDP]) -> None:
    name = type(layers[-1]).__name__
    if len({type(layer) for layer in layers}) > 1:
        correlated = any(isinstance(x, ClientDP) and x.correlation is not None for x in layers)
        raise StrategyError(
            "ClientDP and LocalDP in one strategy",
            why="noise of each client and noise that the server takes back in later rounds do not "
            "go together: only the server's own can be taken back"
            if correlated
            else "a server that is trusted adds noise once, to the sum; one that is not trusted "
            "adds none; each has a guarantee of its own, and one is charged",
            instead="ClientDP(…) alone (a trusted server, much less noise), or LocalDP(…) alone",
        )
    if len(layers) > 1:
        raise StrategyError(
            f"{len(layers)} {name} layers in one strategy",
            why="each would add noise of its own, and a round is charged for that of one",
            instead="one of them, as the last layer",
        )
    weighted = [layer for layer in strategy.layers if isinstance(layer, Weighted)]
    if weighted:
        raise StrategyError(
            f"{name} with {weighted[0]!r:.60}",
            why="every client counts the same, and a sum is divided by a public number: a weight, "
            "or the number of those who came, would be released without noise",
            instead=f"layers=({name}(…),), without the Weighted",
        )
    last = strategy.layers[-1]
    if not isinstance(last, ClientDP | LocalDP):
        raise StrategyError(
            f"{type(last).__name__} behind {name}",
            why=why_not_behind_a_clip(last),
            instead=f"the other order: layers=({type(last).__name__}(…), {name}(…))",
        )


def _refuse_what_travels(strategy: Strategy, task: Task, name: str) -> None:
    shared = task.layout.shared
    for part in strategy.onion[:-1]:
        for sent, columns in part.sends(task.layout).items():
            if columns != shared or sent in _REMEDIES:
                raise StrategyError(
                    f"{name} around {type(part).__name__}, which sends {sent!r} with the update",
                    why="it depends on a client's data: in one norm with the update it would take "
                    "most of it, and beside it it would be released without noise",
                    instead=_REMEDIES.get(sent, f"a {type(part).__name__} that does not send it"),
                )
    if task.buffers.shared:
        raise StrategyError(
            f"{name} with buffers that are averaged: {', '.join(task.buffers.names):.80}",
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


def _check_correlated(
    strategy: Strategy,
    correlation: Correlation,
    task: Task,
    participation: Participation,
    rounds: int,
) -> None:
    name = f"ClientDP with {correlation!r:.60}"
    for part in strategy.onion[:-1]:
        if beside := sorted(set(part.sends(task.layout)) - {"delta"}):
            raise StrategyError(
                f"{name} around {type(part).__name__}, which sends {', '.join(beside)}",
                why="noise that is taken back in later rounds helps where rounds are added up, as "
                "updates are in the model; what else is sent is not",
                instead="fedavg, fedprox or fednova (with Normalized(steps=…)), or no correlation",
            )
    if rounds > correlation.rounds:
        raise StrategyError(
            f"{rounds} rounds, and {name}",
            why="its noise, and what all rounds cost together, is made for so many rounds and no "
            "more",
            instead=f"rounds={rounds} in both places, or fewer rounds",
        )
    if isinstance(participation, Separated) and participation.most is not None:
        turns = math.ceil(correlation.rounds / participation.separation)
        if turns > participation.most:
            raise StrategyError(
                f"{name}, and {participation!r}",
                why="nobody would be left for the last rounds",
                instead=f"most={turns}, or a correlation of "
                f"{participation.most * participation.separation} rounds",
            )


def _warnings(
    layer: ClientDP, participation: Participation, ledger: str | Path | None
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
        elif layer.correlation is not None:
            said.append(
                "ClientDP's noise comes from the operating system. It is taken back in later "
                "rounds, so the server's state and every checkpoint hold noise that must stay as "
                "secret as the updates. Rounds that a resumed run computes again are released twice"
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
    return said


def _about_local(layer: LocalDP, ledger: str | Path | None) -> list[str]:
    if not layer.noise_multiplier:
        return ["LocalDP with noise_multiplier = 0 clips and adds no noise: nobody is protected"]
    return [
        "LocalDP: nothing is charged to a ledger. Each client spends an epsilon of its own where "
        "it takes part (hanse.spending.client_epsilons), and the largest is stated, as if nothing "
        "else were released of the same data (docs/privacy-ledger.md)"
        if ledger is None
        else f"every round is charged to {ledger} before it begins, for the client that has taken "
        "part most often",
        "LocalDP's noise is drawn from the run's seed: whoever knows the seed can take it off "
        "again. This is for experiments; noise = 'os' is for clients that are to be protected"
        if layer.noise == "seeded"
        else "LocalDP's noise comes from the operating system: the run cannot be repeated bit for "
        "bit, and rounds that a resumed run computes again are released twice",
    ]


def _about_both(clients: ClientData) -> list[str]:
    if isinstance(clients, SharedClients):
        return ["examples that all clients share are taken to be public: nothing protects them"]
    return []
