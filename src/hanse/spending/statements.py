"""What a strategy promises: the one place that knows which of its parts protect, and whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from hanse.data import PoissonSteps
from hanse.layers import ClientDP, DistributedDP, DistributedExampleDP, LocalDP
from hanse.privacy.events import GaussianEvent
from hanse.privacy.examples import ExampleDP
from hanse.privacy.statement import Statement, default_delta, every_round
from hanse.selection import Poisson, Uniform
from hanse.spending.costs import EveryRound, Shared, cost_of, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.round import Population
    from hanse.selection import Participation
    from hanse.spending.costs import Cost, Source
    from hanse.strategy import Strategy

_Kinds = Sequence[Sequence[GaussianEvent]]
_SEES_MODELS = "whoever sees the models, all of them, of every round"
_MODELS = "the model after every round"
_COHORTS = (
    "whoever knows the cohorts, the server among them: what is gained by sampling does not hold "
    "against them, and epsilon is larger"
)
_STATE = "whoever sees the server's state or a checkpoint: earlier rounds' noise is in it"
_DRAWN = "whoever knows which examples were drawn for a step"
_MANY = "a person with many examples: epsilon is that of one of them"
_DROP_OUTS = (
    "who takes part and who drops out, which the server sees; a client whose training overflows "
    "drops out, too"
)
_ALWAYS = (
    "choices made by results: the best of several runs, rates that were tuned, an early stop",
    "when rounds were done and how long they took, and whether the run ended by an error",
    "what was computed of the clients' data before the run, such as a standardisation",
)


def privacy_of(
    strategy: Strategy, population: Population, delta: tuple[float, str] | None = None
) -> Statement | None:
    """What a strategy promises; `None` if none of its parts protects anybody.

    Another mechanism is one more branch: it says what a number of rounds releases
    (`Statement.events`), of every kind of client if clients differ.

    Args:
        strategy: what adds the noise.
        population: who takes part in a round.
        delta: at which epsilon is stated, and where it is from; `None`: from the clients' number,
            or about the number of examples where those are protected.
    """
    source = source_of(strategy)
    if source is None or not source.noise_multiplier:
        return None
    at = _usual_delta(source, strategy, population) if delta is None else delta
    cost = cost_of(source, strategy, population)
    if isinstance(source, ExampleDP):
        return _of_examples(source, cost, at)
    if isinstance(source, LocalDP):
        return _of_clients(source, cost, at)
    if isinstance(source, Shared):
        return _of_shares(source, next(cost.events(0)), at)
    return _of_sums(source, cost, population.participation, at)


def _usual_delta(source: Source, strategy: Strategy, population: Population) -> tuple[float, str]:
    """By the number of those that are protected: by the clients', it may lay open many examples.

    How many examples there are is no public number. What is public says how many there are about:
    a batch of a usual client has `divisor` examples, each drawn with probability `rate`.
    """
    if isinstance(source, DistributedExampleDP):
        usual = math.ceil(max(source.divisor, population.clients))
        return default_delta(usual, f"examples (divisor {source.divisor:g})")
    if not isinstance(source, ExampleDP):
        return default_delta(population.clients)
    rates = [work.rate for work in strategy.local.passes if isinstance(work, PoissonSteps)]
    rate = min(rates, default=1.0)
    usual = max(math.ceil(source.divisor / rate), 1)
    words = f"examples (clients, times divisor {source.divisor:g} by rate {rate:g})"
    return default_delta(population.clients * usual, words)


def _of_sums(
    layer: ClientDP, cost: Cost, participation: Participation, delta: tuple[float, str]
) -> Statement:
    """Noise on sums over clients, independent from round to round or correlated."""
    words = "discrete Gaussian noise"
    first = next(cost.events(0))
    alike = isinstance(cost, EveryRound)
    if not alike:
        words = f"{words}, correlated over rounds,"
    return Statement(
        mechanism=f"ClientDP: updates clipped, {words} of {layer.noise_multiplier:g} clip norms on "
        "their sum",
        unit="client",
        adjacency=first.adjacency,
        events=every_round(first) if alike else _round_by_round(cost),
        event=first if alike else None,
        delta=delta[0],
        delta_from=delta[1],
        protects=layer.noise == "os",
        against=_SEES_MODELS,
        covered=_MODELS,
        not_covered=(
            *_of_sampling(participation),
            *(() if alike else (_STATE,)),
            *_ALWAYS,
        ),
        counts_repeated=alike,
    )


def _of_shares(layer: Shared, event: GaussianEvent, delta: tuple[float, str]) -> Statement:
    """Noise that clients add together, within secure sums."""
    honest, whole = layer.survivors - layer.colluders, isinstance(layer, DistributedDP)
    what = "updates" if whole else "gradients of examples"
    return Statement(
        mechanism=f"{type(layer).__name__}: {what} clipped, discrete Gaussian noise of "
        f"{layer.noise_multiplier:g} clip norms on their secure sum, of {honest} clients or more",
        unit="client" if whole else "example",
        adjacency=event.adjacency,
        events=every_round(event),
        event=event,
        delta=delta[0],
        delta_from=delta[1],
        protects=layer.noise == "os",
        against=f"the server with {layer.colluders} of the clients, if sums are secure, and "
        "whoever sees the models",
        covered="the secure sum and the model after every round",
        at_client=True,
        not_covered=(_DROP_OUTS, *_ALWAYS),
    )


def _of_clients(layer: LocalDP, cost: Cost, delta: tuple[float, str]) -> Statement:
    """Noise that each client adds: what is stated is the costliest client's."""
    return Statement(
        mechanism="LocalDP: each client clips its update and adds discrete Gaussian noise of "
        f"{layer.noise_multiplier:g} clip norms; of the client that takes part most often",
        unit="client",
        adjacency=layer.event.adjacency,
        events=_round_by_round(cost),
        event=None,
        delta=delta[0],
        delta_from=delta[1],
        protects=layer.noise == "os",
        against="the server, and whoever sees what clients send",
        covered="all that a client sends, and so the models",
        at_client=True,
        not_covered=_ALWAYS,
        counts_repeated=False,
    )


def _of_examples(source: ExampleDP, cost: Cost, delta: tuple[float, str]) -> Statement:
    """Noise in the steps of clients: what is stated is that of a client in every round."""
    event = next(cost.events(0))
    return Statement(
        mechanism=f"ExampleDP: gradients of examples clipped, noise of {source.noise_multiplier:g} "
        "clip norms on their sum in every step; of a client that takes part in every round",
        unit="example",
        adjacency=event.adjacency,
        events=every_round(event),
        event=event,
        delta=delta[0],
        delta_from=delta[1],
        protects=source.noise == "os",
        against="the server, and whoever sees what clients send",
        covered="all that a client sends, and so the models",
        at_client=True,
        not_covered=(_DRAWN, _MANY, *_ALWAYS),
    )


def _round_by_round(cost: Cost) -> Callable[[int], _Kinds]:
    going, known = cost.events(0), list[GaussianEvent]()

    def events(rounds: int) -> _Kinds:
        known.extend(islice(going, max(rounds - len(known), 0)))  # each is made once
        return (known[:rounds],)

    return events


def _of_sampling(participation: Participation) -> tuple[str, ...]:
    if isinstance(participation, Uniform) or (
        isinstance(participation, Poisson) and participation.rate < 1
    ):
        return (_COHORTS,)
    return ()
