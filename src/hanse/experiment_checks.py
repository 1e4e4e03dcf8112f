"""What an experiment is made of, looked at before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hanse.core.errors import ConfigError, StrategyError
from hanse.privacy import ExampleDP
from hanse.privacy.histogram import PrivateHistogram
from hanse.privacy.statement import Shown
from hanse.strategy import Partial

if TYPE_CHECKING:
    from hanse.strategy import Strategy


def check_kind(name: str, value: object, kind: type, example: str) -> None:
    """Refuse a part of another kind."""
    if not isinstance(value, kind):
        raise ConfigError(
            f"{name} is of type {type(value).__name__}: {value!r:.80}",
            why=f"an experiment needs a {kind.__name__} there",
            instead=f"{name}={example}",
        )


def check_ledger(ledger: object) -> None:
    """Refuse what is no path."""
    if ledger is not None and not isinstance(ledger, str | Path):
        raise ConfigError(
            f"ledger is of type {type(ledger).__name__}: {ledger!r:.80}",
            why="a run opens and verifies it by itself",
            instead='the path of its file: ledger="people.ledger"',
        )


def check_delta(delta: object, ledger: object) -> None:
    """Refuse what is no probability, and one beside that of a ledger."""
    if delta is None:
        return
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < 1:
        raise ConfigError(
            f"delta = {delta!r}",
            why="it is the probability that a guarantee does not hold",
            instead="a number above 0 and well below 1 / clients, such as delta = 1e-5",
        )
    if ledger is not None:
        raise ConfigError(
            f"delta = {delta!r} with a ledger",
            why="its budget has a delta, and what is spent of it is stated at that one",
            instead="no delta here; `hanse privacy ledger create --delta` sets the ledger's",
        )


def check_per_client(shown: object) -> None:
    """Refuse another word than those that are known."""
    known = get_args(Shown)
    if shown is None or shown in known or isinstance(shown, PrivateHistogram):
        return
    raise ConfigError(
        f"per_client = {shown!r:.80}",
        why="it says what a private run makes of exact numbers about clients",
        instead=f"one of {', '.join(map(repr, known))}, or PrivateHistogram(noise_multiplier=10.0)",
    )


_PARTS = {
    "local": (("passes", "start", "finish"), "a local training, such as LocalSGD(SGD(0.1))"),
    "aggregation": (("contribution", "merge"), "an aggregation, such as Sum()"),
    "server": (("init", "step"), "a server optimiser, such as ServerAdam(lr=0.01)"),
}


def check_parts(strategy: Strategy) -> None:
    """Refuse a strategy of which a part is missing or is a class."""
    if strategy.partial not in get_args(Partial):
        raise StrategyError(
            f"a strategy with partial={strategy.partial!r}",
            why="it says what becomes of the work that stragglers have done",
            instead='"keep" (it counts as any other), or "drop"',
        )
    if strategy.examples is not None and not isinstance(strategy.examples, ExampleDP):
        raise StrategyError(
            f"a strategy with examples={strategy.examples!r:.80}",
            why="it says how the gradients of single examples are clipped and noised",
            instead="ExampleDP(clip=1.0, noise_multiplier=1.0, divisor=10.0), or None",
        )
    for name, (methods, example) in _PARTS.items():
        _check_part(name, getattr(strategy, name), methods, example)
    if not isinstance(strategy.layers, tuple | list):
        raise StrategyError(
            f"layers is of type {type(strategy.layers).__name__}: {strategy.layers!r:.80}",
            why="a strategy may have several, in the clients' order",
            instead='a tuple, such as layers=(Weighted("examples"),)',
        )
    for number, layer in enumerate(strategy.layers):
        example = 'a Layer, such as Weighted("examples")'
        if hasattr(layer, "enter"):  # a compressor
            example = f"Compress({layer!r:.80}), or ErrorFeedback around it"
        _check_part(f"layers[{number}]", layer, ("on_client", "on_server"), example)


def _check_part(name: str, part: object, methods: tuple[str, ...], example: str) -> None:
    if isinstance(part, type) or not all(hasattr(part, method) for method in methods):
        raise StrategyError(
            f"the strategy's {name} is {part!r:.120}",
            why="it is a class, not a value of it"
            if isinstance(part, type)
            else f"it lacks {', '.join(m for m in methods if not hasattr(part, m))}",
            instead=example,
        )


def check_participation(participation: object) -> None:
    """Refuse what draws no clients."""
    if participation is None:
        return
    if isinstance(participation, type) or not hasattr(participation, "select"):
        raise ConfigError(
            f"participation = {participation!r}",
            why="it draws the clients of a round",
            instead="Full(), Uniform(fraction=0.1), Uniform(count=10) or Poisson(0.1)",
        )


def check_local(local: object) -> None:
    """Refuse what neither is nor makes a list of globs."""
    if callable(local) and not isinstance(local, type):
        return
    if isinstance(local, str) or not isinstance(local, Sequence):
        raise ConfigError(
            f"local = {local!r}",
            why="it is a list of globs, each of them matched with the names of parameters",
            instead=f"local=({local!r},)"
            if isinstance(local, str)
            else 'local=("head.*",), or local=hanse.models.batch_norm',
        )
    for pattern in local:
        if not isinstance(pattern, str):
            raise ConfigError(
                f"local = {local!r}, with {pattern!r} in it",
                why="what stays with the clients is chosen by its name",
                instead='local=("head.*",)',
            )


def check_metrics(metrics: object) -> None:
    """Refuse what has no name or computes nothing."""
    if metrics is None:
        return
    example = 'metrics={"accuracy": hanse.models.accuracy}'
    if not isinstance(metrics, Mapping):
        raise ConfigError(
            f"metrics is of type {type(metrics).__name__}: {metrics!r:.80}",
            why="reports call each metric by a name",
            instead=example,
        )
    for name, metric in metrics.items():
        if not isinstance(name, str) or not callable(metric) or name == "loss":
            raise ConfigError(
                f"the metric {name!r}: {metric!r:.80}",
                why="the loss has this name and is always reported"
                if name == "loss"
                else "a metric has a text as its name, and is a function of outputs and targets",
                instead=example,
            )
