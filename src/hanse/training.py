"""Training as a loop you write yourself: `for round in hanse.rounds(experiment)`."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch

from hanse.core.errors import DivergenceError
from hanse.core.threads import one_thread
from hanse.core.types import Exchange
from hanse.evaluation import Evaluation, evaluate
from hanse.evaluation.released import released_histograms
from hanse.experiment import Experiment, Prepared, prepare
from hanse.local import AdaptiveMu, FullGradientStep, ProximalSGD, ScaffoldSGD
from hanse.privacy.statement import Releases
from hanse.round import FederationState, RoundResult, initial_state, run_round
from hanse.server import ServerSGD
from hanse.soundness import seed_of_rounds

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from torch import nn

    from hanse.core.errors import BudgetError
    from hanse.privacy.accounting import Accountant
    from hanse.privacy.histogram import Released
    from hanse.privacy.ledger import Receipt
    from hanse.strategy import Strategy

_EXPLODED = 10.0  # a loss this many times the first …
_PATIENCE = 3  # … so many times in a row is divergence


@dataclass(frozen=True, eq=False)
class Round:
    """A round that is done; round 0 is the model before training.

    Attributes:
        state: all that the next round needs, on the experiment's device.
        result: what the round was; `None` for round 0.
        evaluations: by split (`"test"`, `"unseen"`), where the round was evaluated.
        seconds: the time it took, evaluation included.
        prepared: the experiment it belongs to.
        histograms: by split, noisy histograms of a metric over clients, where they were released.
        releases: how often the run has released something, if it is private.
        receipt: of the ledger, after what this round was charged.
        exchange: of a secure sum, how it went; whom it lost is withheld with the rest.

    Where exact numbers about clients are withheld (`Experiment.per_client`), `result` is `None` and
    `evaluations` is empty.
    """

    state: FederationState
    result: RoundResult | None
    evaluations: Mapping[str, Evaluation]
    seconds: float
    prepared: Prepared
    histograms: Mapping[str, Released] = field(default_factory=dict)
    releases: Releases = Releases()
    receipt: Receipt | None = None
    exchange: Exchange = Exchange()

    @property
    def number(self) -> int:
        """The round's number."""
        return self.state.round

    @property
    def train_loss(self) -> float | None:
        """The cohort's training loss; `None` if nobody trained.

        Each client's is the mean over its steps, and counts by its number of examples.
        """
        return None if self.result is None else train_loss(self.result)

    @property
    def reported(self) -> dict[str, float]:
        """What the strategy's parts report of the server's state, such as an adaptive mu.

        And of a secure sum, who was in it.
        """
        onion = self.prepared.experiment.strategy.onion
        return {
            name: float(value)
            for layer, state in zip(onion, self.state.layers, strict=True)
            for name, value in layer.reported(state).items()
        } | dict(self.exchange.numbers)

    def epsilon(self, accountant: Accountant = "rdp") -> float | None:
        """What the run has cost so far, by itself; `None` if it is not private.

        Of noise that is drawn from the run's seed it is what it would cost. `None` also where the
        accountant is not installed, or has no proof for what is released; and where clients differ
        or noise is correlated, after rounds that were computed again: a ledger counts them.
        """
        statement = self.prepared.privacy
        if statement is None or not (
            statement.counts_repeated or self.releases.rounds == self.number
        ):
            return None
        return statement.epsilon(self.releases, accountant)

    @property
    def bytes_up(self) -> int:
        """What the cohort sent to the server: its messages, as `hanse.wire` would write them."""
        return 0 if self.result is None else int(self.result.facts.sent.sum())

    @property
    def bytes_down(self) -> int:
        """What the cohort was sent: all that is shared of the model, and what layers add to it.

        A message to each client, stragglers included.
        """
        return 0 if self.result is None else self.result.cohort * self.result.broadcast

    def model(self) -> nn.Module:
        """The global model, as a new module in the computer's memory."""
        return self.prepared.task.with_values(self.state.params.cpu(), self.state.buffers.cpu())


def rounds(
    experiment: Experiment | Prepared,
    start: FederationState | None = None,
    *,
    run: str | None = None,
    before: Releases | None = None,
) -> Generator[Round, None, None]:
    """Run an experiment round by round.

    Args:
        experiment: what to run.
        start: the state to go on from; `None`: from the beginning, yielding round 0 first.
        run: what the privacy ledger calls this run, if there is one; `None`: the experiment's name.
        before: what was released before `start`, where rounds were computed more than once;
            `None`: each once.

    Worker processes, if the experiment has any, end with the iterator.

    Raises:
        DivergenceError: the training loss exploded, or no client's update was finite.
        WorkerError: some clients end every process that trains them.
        BudgetError: the next round would cost more than is left in the ledger. What was yielded
            before is paid for.
        HanseError: the experiment cannot be prepared.
    """
    prepared = experiment if isinstance(experiment, Prepared) else prepare(experiment)
    if before is None:
        before = Releases(0 if start is None else start.round)
    try:
        yield from _rounds(prepared, start, run or prepared.experiment.name, before)
    finally:  # also where the caller stops listening
        prepared.engine.close()


def _rounds(
    prepared: Prepared, state: FederationState | None, run: str, before: Releases
) -> Iterator[Round]:
    experiment, charged = prepared.experiment, prepared.charged
    # A secret of this walk: cohorts that were the same in two walks would be charged as if they
    # had been drawn anew.
    seed = seed_of_rounds(experiment.strategy, prepared.population.seed)
    population = dataclasses.replace(prepared.population, seed=seed)
    exact = prepared.shown == "simulation"
    if state is not None:
        state = state.on(prepared.device)
    else:
        state = initial_state(experiment.strategy, prepared.task, prepared.device)
        began = time.perf_counter()
        with one_thread():
            evaluations = evaluate_all(prepared, state) if exact else {}
            state = _watched(prepared, state, None, evaluations)
        yield Round(
            state, None, evaluations, time.perf_counter() - began, prepared, releases=before
        )
    charges: Iterator[Receipt | None] = itertools.repeat(None)
    if charged is not None:
        charges = charged.charges(run, state.round)
    while state.round < experiment.rounds:
        began = time.perf_counter()
        receipt = next(charges)
        with one_thread():
            state, result = run_round(state, prepared.engine, population, prepared.task.layout)
            due = prepared.shown != "withheld" and _is_due(prepared, state.round)
            evaluations = evaluate_all(prepared, state) if due else {}
            state = _watched(prepared, state, result, evaluations)
        seconds, went = time.perf_counter() - began, result.exchange
        done = Round(state, result, evaluations, seconds, prepared, exchange=went)
        done, before, refused = _seen(done, run, before, receipt)
        yield done
        if refused is not None:  # the round itself was paid for, and is shown first
            raise refused


def _seen(
    done: Round, run: str, before: Releases, receipt: Receipt | None
) -> tuple[Round, Releases, BudgetError | None]:
    """What may be seen of a round, what has been released with it, and what was refused."""
    prepared = done.prepared
    statement, charged = prepared.privacy, prepared.charged
    if statement is None:
        return done, before, None
    releases, refused = Releases(before.rounds + 1, before.histograms), None
    if statement.shown == "simulation":
        seen = dataclasses.replace(done, releases=releases, receipt=receipt)
        return seen, releases, None
    histograms: dict[str, Released] = {}
    if statement.histogram is not None and done.evaluations:
        event = statement.histogram

        def charge(split: str) -> None:
            nonlocal receipt
            if charged is not None:
                receipt = charged.charge_histogram(event, run, done.number, split)

        histograms, refused = released_histograms(
            statement, done.evaluations, charge, prepared.experiment.seed, done.number
        )
        releases = Releases(releases.rounds, releases.histograms + len(histograms))
    seen = dataclasses.replace(
        done,
        result=None,
        evaluations={},
        histograms=histograms,
        releases=releases,
        receipt=receipt,
        exchange=done.exchange._replace(lost={}),
    )
    return seen, releases, refused


def train_loss(result: RoundResult) -> float | None:
    """The cohort's mean training loss, by examples, of the clients whose loss is finite."""
    loss, examples = result.facts.loss, result.facts.examples
    finite = np.isfinite(loss)
    if not finite.any():
        return None
    return float(np.average(loss[finite], weights=examples[finite]))


def _is_due(prepared: Prepared, number: int) -> bool:
    return number % prepared.evaluate_every == 0 or number == prepared.experiment.rounds


def evaluate_all(prepared: Prepared, state: FederationState) -> dict[str, Evaluation]:
    """Evaluate every split that exists, with the clients that the experiment evaluates."""
    held = {"test": prepared.data.test, "unseen": prepared.data.unseen}
    found = {}
    for split, ids in prepared.evaluated.items():
        data = held[split]
        if data is not None:
            strategy = prepared.experiment.strategy
            found[split] = evaluate(prepared.task, strategy, state, data, ids, split)
    return found


def _watched(
    prepared: Prepared,
    state: FederationState,
    result: RoundResult | None,
    evaluations: Mapping[str, Evaluation],
) -> FederationState:
    """The state with its count of exploded rounds; raises where its numbers mean nothing."""
    strategy = prepared.experiment.strategy
    if not bool(state.params.isfinite().all() and state.buffers.isfinite().all()):
        _stop(state, strategy, "the new model is not finite")
    if prepared.shown != "simulation":  # whatever else there is to watch is exact
        return state
    population = prepared.population
    trained = 0 if result is None else len(result.facts.id)
    lost = result is not None and trained > 0 and not result.accepted
    lost = lost and result is not None and not result.exchange.lost  # they were finite
    if lost and trained == population.clients - len(population.empty):
        _stop(state, strategy, f"none of the {trained} clients' updates was finite")
    name, loss, factor = _judged(prepared, result, evaluations)
    if loss is None and not lost:
        return state
    first = float(state.first_loss) or loss or 0.0
    far = loss is not None and loss > factor * first > 0
    exploded = int(state.exploded) + 1 if lost or far else 0
    if exploded >= _PATIENCE:
        found = f"the {name} is {loss:.3g}, above {factor:g} times the first, {first:.3g}"
        if lost or loss is None:
            found = "none of the cohort's updates was finite"
        _stop(state, strategy, f"{found}, {_PATIENCE} times in a row")
    return dataclasses.replace(
        state,
        first_loss=torch.tensor(first, dtype=torch.float64, device="cpu"),
        exploded=torch.tensor(exploded, device="cpu"),
    )


def _judged(
    prepared: Prepared, result: RoundResult | None, evaluations: Mapping[str, Evaluation]
) -> tuple[str, float | None, float]:
    """A loss to be compared from round to round, and how many times the first one is too much.

    That is the training loss if everyone trains, else the evaluated clients'. Where nobody can be
    evaluated it is the cohort's, which depends on who is in it: there only an explosion tells.
    """
    population, drops = prepared.population, prepared.experiment.strategy.partial == "drop"
    everyone = population.participation.expected(population.clients) == population.clients
    if everyone and not (drops and population.stragglers is not None):
        return "training loss", None if result is None else train_loss(result), _EXPLODED
    for split in ("test", "unseen"):
        if split in evaluations:
            loss = evaluations[split].overall["loss"]
            return f"loss on {split} clients", loss if math.isfinite(loss) else None, _EXPLODED
    if result is None or prepared.experiment.data.test or prepared.experiment.data.unseen:
        return "loss", None, _EXPLODED
    return "training loss of the cohort", train_loss(result), _EXPLODED**3


def _stop(state: FederationState, strategy: Strategy, found: str) -> NoReturn:
    raise DivergenceError(
        f"round {state.round} diverged: {found}",
        why="clients walked further than their gradients can be trusted",
        instead=advice(strategy),
    )


def _overshoots(local: ProximalSGD) -> bool:
    mu = local.mu.start if isinstance(local.mu, AdaptiveMu) else local.mu
    return local.optimizer.rate(1) * mu > 1


def advice(strategy: Strategy) -> str:
    """What to change when training diverges, most promising first."""
    local = strategy.local
    server = f"a smaller server rate than {strategy.server}"
    if isinstance(local, FullGradientStep):
        return server
    words = []
    optimizer = getattr(local, "optimizer", None)
    if optimizer is not None:
        words.append(f"a smaller rate (lr={optimizer.lr} now; try a third of it)")
    count = getattr(getattr(local, "work", None), "count", 1)
    if count > 1:
        words.append(f"fewer local steps ({count} epochs or steps now)")
    if isinstance(local, ProximalSGD) and _overshoots(local):
        words.append("a smaller mu (lr * mu is above 1: a step overshoots the global model)")
    elif isinstance(local, ProximalSGD):
        mu, name = local.mu, "mu"
        if isinstance(mu, AdaptiveMu):
            mu, name = mu.start, "start of the adaptive mu"
        words.append(f"a larger {name} ({mu:g} now; try {10 * mu or 0.01:g})")
    elif not isinstance(local, ScaffoldSGD):
        words.append("fedprox with mu=0.1, which holds clients near the global model")
    if strategy.server != ServerSGD():
        words.append(server)
    return "; ".join(words)
