"""An attack on a private run: canaries among its clients, who then have to be told apart."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from hanse.auditing.canaries import (
    RELEASED,
    Canaries,
    CanaryClients,
    CanaryLayer,
    Without,
    evidence,
)
from hanse.auditing.report import Audit
from hanse.auditing.statistics import LEAST, best_guesses, most_found, one_shot
from hanse.core.errors import ConfigError, DivergenceError, did_you_mean
from hanse.core.rng import derive
from hanse.data import Federation
from hanse.experiment import Experiment, Prepared, prepare
from hanse.layers import AdaptiveClip, ClientDP
from hanse.layers.client_dp import CLIP
from hanse.privacy import accounts_for, epsilon
from hanse.training import rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hanse.privacy import Accountant, GaussianEvent
    from hanse.training import Round

Sees = Literal["rounds", "last-model"]
USUAL = 1000  # canaries, where a model has so many directions


@dataclass(frozen=True, eq=False)
class _Attack:
    """What is trained, and what is known of it before.

    Attributes:
        prepared: the experiment with canaries in it.
        canaries: who they are.
        layer: the one that is put to the test.
        event: what a round releases, as it is accounted for.
    """

    prepared: Prepared
    canaries: Canaries
    layer: ClientDP
    event: GaussianEvent


@dataclass(frozen=True, eq=False)
class _Scores:
    """Each canary's score, `[m]` each: by likelihood, and as a plain sum of inner products."""

    likely: NDArray[np.float64]
    plain: NDArray[np.float64]
    rounds: int
    stopped: str = ""


def audit(
    experiment: Experiment,
    *,
    canaries: int | None = None,
    delta: float = 1e-5,
    seed: int = 0,
    sees: Sees = "rounds",
    silent: bool = False,
    accountant: Accountant | None = None,
    confidence: float = 0.95,
    progress: Callable[[int], None] | None = None,
) -> Audit:
    """Try to break the promise of a run with `ClientDP`, by training it with canaries.

    Canaries are clients beside the real ones. A fair coin decides for each whether it is there
    (with cohorts of a fixed size: which of two opposite vectors it sends). Whenever it is drawn, it
    sends a vector far longer than the clip norm in a direction of its own. Everything else is the
    real run: the experiment's participation, its clients' training, the clip, the grid, the sum,
    the noise, the server. Then it is guessed from what was released which coins fell how.

    Sources: Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", NeurIPS 2023
    (the bound); Andrew et al., "One-shot empirical privacy estimation for federated learning", ICLR
    2024 (the estimate).

    Args:
        experiment: what is audited. Its ledger is not charged, and its test data are not used.
        canaries: how many; `None`: 1000, or as many as the model has directions for.
        delta: at which epsilon is claimed, bounded and estimated.
        seed: of coins and directions.
        sees: what the attacker sees: the noisy mean of every round, as the accountant assumes, or
            the last model only.
        silent: whether the real clients train and then send zeros. What they send hides canaries
            like noise, and no promise may rest on that; without it, less is hidden.
        accountant: whose epsilon is the claim; `None`: `"pld"`, or `"rdp"` where that has no proof.
        confidence: that the bound holds.
        progress: called with the number of each round that is done.

    Returns:
        The bound, the estimate and the claim; `Audit.broken` says whether they contradict.

    Raises:
        ConfigError: nothing is claimed that could be tested; numbers that cannot be meant; more
            canaries than the model has directions.
        DivergenceError: the first round diverged already.
        HanseError: the experiment cannot be prepared.
    """
    _check(canaries, seed, sees, confidence)
    attack = _prepared(experiment, canaries, seed, silent=silent)
    name = _accountant(attack.event, accountant)
    whole = dataclasses.replace(attack.event, count=experiment.rounds)
    claimed = epsilon([whole], delta, name)
    scores = _scored(attack, sees, progress)
    included = attack.canaries.coins(attack.canaries.ids)
    if not 2 <= int(included.sum()) <= len(included) - 2:
        raise ConfigError(
            f"seed={seed}, with which {int(included.sum())} of {len(included)} canaries are in",
            why="those in are compared with those out",
            instead="another seed",
        )
    return Audit(
        claimed=claimed,
        delta=delta,
        accountant=name,
        event=whole,
        confidence=confidence,
        guesses=best_guesses(included, scores.likely, delta, confidence),
        estimate=one_shot(included, scores.plain, delta),
        most=most_found(len(included), delta, confidence),
        canaries=len(included),
        included=int(included.sum()),
        sees=sees,
        rounds=scores.rounds,
        notes=_notes(experiment, attack, scores, silent=silent),
        scores=tuple(scores.plain.tolist()),
        coins=tuple(included.tolist()),
    )


# ------------------------------------------------------------------------------- what is trained
def _prepared(
    experiment: Experiment, count: int | None, seed: int, *, silent: bool = False
) -> _Attack:
    """The experiment as it is, with all that it refuses; and then with canaries."""
    if isinstance(experiment, Experiment):  # else `prepare` says what it wants
        experiment = dataclasses.replace(experiment, ledger=None)
    first = prepare(experiment)
    first.engine.close()
    layer = _audited(first)
    columns, clients = first.task.layout.shared, len(first.data.train)
    participation = first.population.participation
    signed = layer.event(participation, clients).adjacency == "replace"
    canaries = Canaries(
        first=clients,
        count=_fitting(count, columns),
        seed=int(derive(seed, "audit")),
        signed=signed,
        below=layer.clip.quantile if isinstance(layer.clip, AdaptiveClip) else 0.0,
    )
    strategy = first.experiment.strategy
    before = (*strategy.layers[:-1], CanaryLayer(canaries, silent))
    prepared = prepare(
        dataclasses.replace(
            first.experiment,
            strategy=strategy.replace(layers=(*before, layer)),
            data=Federation(CanaryClients(first.data.train, canaries.count)),
            execution=first.engine.execution,
            participation=participation,
            evaluate_every=experiment.rounds,
        )
    )
    there = Without(participation, canaries.absent)
    population = dataclasses.replace(prepared.population, participation=there)
    return _Attack(
        prepared=dataclasses.replace(prepared, population=population),
        canaries=canaries,
        layer=layer,
        event=layer.event(participation, clients + canaries.count),
    )


def _audited(prepared: Prepared) -> ClientDP:
    """The layer whose promise is tested."""
    strategy = prepared.experiment.strategy
    layer = strategy.layers[-1] if strategy.layers else None
    if not isinstance(layer, ClientDP):
        raise ConfigError(
            f"an audit of {strategy.name}, which has no ClientDP",
            why="it promises no client anything that could be tested",
            instead="dp_fedavg(…), or ClientDP(…) as the last layer",
        )
    if not layer.noise_multiplier:
        raise ConfigError(
            "an audit of ClientDP with noise_multiplier = 0",
            why="without noise it claims no epsilon",
            instead="noise_multiplier=1.0, or whatever the run is to be released with",
        )
    if layer.correlation is not None:
        raise ConfigError(
            f"an audit of {layer.correlation!r}",
            why="its rounds are released together, and the attack is on rounds with noise of their "
            "own",
            instead="an audit of the same run without the correlation, with participation Full(), "
            "Poisson(…) or Uniform(…)",
        )
    return layer


def _fitting(count: int | None, columns: int) -> int:
    """How many canaries: each needs a direction of its own."""
    if count is None:
        count = min(USUAL, columns - 1)
    if count > columns - 1:
        raise ConfigError(
            f"{count} canaries for a model of {columns} shared parameters",
            why="each has a direction of its own, at right angles to all others",
            instead=f"canaries={columns - 1} at most, or a larger model",
        )
    if count < LEAST:
        raise ConfigError(
            f"{count} canaries",
            why="so few guesses show nothing, even if all are right",
            instead=f"{LEAST} or more, better {USUAL}; the model needs a parameter more than that",
        )
    return count


# ------------------------------------------------------------------------------ what is released
def _scored(attack: _Attack, sees: Sees, progress: Callable[[int], None] | None) -> _Scores:
    """Train, and score every canary by what is released; also where training breaks off."""
    nothing = np.zeros(attack.canaries.count)
    total = _Scores(nothing, nothing, 0)
    training = rounds(attack.prepared)
    first = before = next(training)
    try:
        for after in training:
            if sees == "rounds":
                total = _with_round(attack, total, before, after)
            else:
                total = _with_last_model(attack, first, after)
            before = after
            if progress is not None:
                progress(after.number)
    except DivergenceError as error:
        if not total.rounds:
            raise
        return dataclasses.replace(total, stopped=error.found)
    return total


def _with_round(attack: _Attack, total: _Scores, before: Round, after: Round) -> _Scores:
    """The scores with those of a round's noisy mean, in clip norms of the sum."""
    population = attack.prepared.population
    expected = population.participation.expected(population.clients)
    clip = float(before.state.layers[-1][CLIP])
    products = attack.canaries.products(after.state.layers[-2][RELEASED]) * (expected / clip)
    noise, _ = attack.layer.multipliers(expected)
    rate, signed = attack.event.rate, attack.canaries.signed
    likely = evidence(products, noise, rate, signed=signed)
    return _Scores(total.likely + likely, total.plain + products, total.rounds + 1)


def _with_last_model(attack: _Attack, first: Round, last: Round) -> _Scores:
    """The scores by how far the model has come."""
    shared = attack.prepared.task.layout.shared
    moved = last.state.params[:shared].double() - first.state.params[:shared].double()
    products = attack.canaries.products(moved)
    return _Scores(products, products, last.number)


# -------------------------------------------------------------------------------------- in words
def _notes(
    experiment: Experiment,
    attack: _Attack,
    scores: _Scores,
    *,
    silent: bool,
) -> tuple[str, ...]:
    said = []
    if scores.stopped:
        said.append(
            f"training broke off ({scores.stopped}); what was released in {scores.rounds} rounds "
            f"is compared with the claim for {experiment.rounds}"
        )
    if attack.event.sampling == "without-replacement":
        real = attack.canaries.first
        said.append(
            f"the claim is for cohorts out of {attack.event.population:,} clients, canaries among "
            f"them; without them there are {real:,}, and the run's own claim is another"
        )
    if attack.layer.clipping == "per-layer":
        said.append(
            "per-layer clipping bends canaries' directions, so they are told apart less well than "
            "the worst clients that the clip allows"
        )
    if silent:
        said.append("the real clients trained and sent zeros; nothing of their data was released")
    else:
        said.append(
            "this trained on the clients' data and charged no ledger: keep what it found to "
            "yourself, or let the clients be silent"
        )
    return tuple(said)


def _accountant(event: GaussianEvent, wanted: Accountant | None) -> Accountant:
    if wanted is not None:
        return wanted
    return "pld" if accounts_for(event, "pld") else "rdp"


def _check(canaries: object, seed: object, sees: object, confidence: object) -> None:
    for name, value in (("canaries", canaries), ("seed", seed)):
        if name == "canaries" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise ConfigError(
                f"an audit with {name}={value!r}",
                why="it is a whole number, not below 0",
                instead=f"{name}={USUAL if name == 'canaries' else 0}",
            )
    if sees not in get_args(Sees):
        raise ConfigError(
            f"an audit with sees={sees!r}",
            why="it is what the attacker sees",
            instead=did_you_mean(str(sees), get_args(Sees)),
        )
    if isinstance(confidence, bool) or not isinstance(confidence, float) or not 0 < confidence < 1:
        raise ConfigError(
            f"an audit with confidence={confidence!r}",
            why="it is the probability that the bound holds",
            instead="a number between 0 and 1, such as 0.95",
        )
