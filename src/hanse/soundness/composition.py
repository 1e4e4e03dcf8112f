"""Parts that need something of each other: means, effective steps, whole gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.core.errors import ConfigError, StrategyError
from hanse.core.types import RoundContext
from hanse.data.batching import FullGradient
from hanse.layers import (
    AVERAGED,
    ClientDP,
    DistributedDP,
    DistributedExampleDP,
    ErrorFeedback,
    LocalDP,
    Normalized,
    Weighted,
)
from hanse.local import DynamicSGD, FullGradientStep, MimeSGD
from hanse.memory import initial_memory
from hanse.round import initial_state, publish

if TYPE_CHECKING:
    from hanse.core.types import Broadcast, Layer
    from hanse.data import ClientData
    from hanse.models import Task
    from hanse.selection import Stragglers
    from hanse.settings import Setting
    from hanse.strategy import Strategy

_TRIED = 64  # steps of a client, to see whether they can be divided by


def check(strategy: Strategy, task: Task, setting: Setting) -> tuple[str, ...]:
    """Refuse what is unsound; return warnings for what is sound but likely to disappoint.

    Raises:
        StrategyError: the combination is refused.
    """
    _refuse_untrained_columns(strategy, task)
    _refuse_unsound_normalisation(strategy, task, setting)
    _refuse_sums_for_means(strategy)
    _refuse_weighted_dynamics(strategy)
    if setting.memory != "stale":
        return ()
    return tuple(
        f"{type(part).__name__} has clients remember a vector between rounds, but in a "
        f"{setting.name} federation a client returns after many rounds, with stale memory: "
        f"consider {_without_memory(part)}"
        for part in _who_remembers(strategy, task, setting)
    )


def check_whole_gradients(strategy: Strategy, clients: ClientData) -> None:
    """Refuse to take whole gradients in chunks, for a loss that couples examples.

    Raises:
        StrategyError: a client has more examples than a chunk.
    """
    chunks = [p.chunk for p in strategy.local.passes if isinstance(p, FullGradient)]
    most = int(clients.sizes(np.arange(len(clients))).max()) if chunks else 0
    if chunks and most > (chunk := min(chunks)):
        raise StrategyError(
            f"{type(strategy.local).__name__} reads {chunk} examples at a time for a whole "
            f"gradient, and a client has {most}",
            why="an example's loss depends on the rest of its batch, so the gradients of parts do "
            "not add up to that of the whole",
            instead=f"chunks of {most}: fedsgd(chunk={most}), "
            f"ScaffoldSGD(gradient_chunk={most}), MimeSGD(gradient_chunk={most})",
        )


def check_stragglers(stragglers: Stragglers | None, strategy: Strategy) -> None:
    """Refuse stragglers of whose work nothing is left, or nothing that means anything.

    Args:
        stragglers: of the experiment, if any.
        strategy: which keeps or drops their work.

    Raises:
        ConfigError: all of a cohort would be dropped, in every round.
        StrategyError: a part of one gradient would be kept.
    """
    if stragglers is None:
        return
    if strategy.partial == "keep":
        if isinstance(strategy.local.passes[0], FullGradient):
            raise StrategyError(
                f"{strategy.name} keeps the partial work of stragglers",
                why="its clients compute one gradient over all their examples, and a part of it is "
                "not the gradient of anything",
                instead='partial="drop", or a strategy that takes local steps (fedprox, fedavg)',
            )
        return
    if stragglers.fraction == 1:
        raise ConfigError(
            f"{stragglers}, and {strategy.name}, which drops stragglers",
            why="nobody would be left in any round",
            instead=f'a smaller fraction, fedprox, or partial="keep" for {strategy.name}',
        )


def _refuse_untrained_columns(strategy: Strategy, task: Task) -> None:
    layout = task.layout
    if not layout.local:
        return
    columns = zip(layout.names, layout.offsets, strict=True)
    kept = ", ".join(name for name, offset in columns if offset >= layout.shared)
    if isinstance(strategy.local, MimeSGD):
        raise StrategyError(
            f"MimeLite with parameters that stay with the clients: {kept}",
            why="clients step with the server's moments, and it has none of what it never sees",
            instead="a strategy whose clients step by themselves (fedavg, fedprox, scaffold)",
        )
    if isinstance(strategy.local, FullGradientStep):
        raise StrategyError(
            f"FedSGD with parameters that stay with the clients: {kept}",
            why="its clients only send a gradient: what stays with them would never be trained",
            instead="a strategy that trains at the client (fedavg, fedprox, scaffold)",
        )


def _refuse_unsound_normalisation(strategy: Strategy, task: Task, setting: Setting) -> None:
    count = sum(isinstance(layer, Normalized) for layer in strategy.layers)
    if count > 1:
        raise StrategyError(
            f"{count} Normalized layers in one strategy",
            why="a client's update would be divided by its number of steps more than once",
            instead='one of them: layers=(Normalized(), Weighted("examples"))',
        )
    if not count:
        return
    broadcast = first_broadcast(strategy, task, setting)
    taken = torch.arange(1, _TRIED + 1, dtype=task.dtype)
    if strategy.local.effective_steps(broadcast, taken) is None:
        raise StrategyError(
            f"Normalized around {type(strategy.local).__name__}",
            why="it does not say how many plain steps a client's walk amounts to, and that is what "
            "an update is divided by",
            instead="LocalSGD, ProximalSGD or ScaffoldSGD, or a method `effective_steps` of it",
        )


def _refuse_sums_for_means(strategy: Strategy) -> None:
    """Refuse a part that needs a mean where no `Weighted` behind it makes one."""
    onion = strategy.onion
    for place, part in enumerate(onion):
        needed = set(part.averaged)
        if needed and not any(needed <= _means(layer) for layer in onion[place + 1 :]):
            name, words = type(part).__name__, " and ".join(map(repr, sorted(needed)))
            by = "uniform" if isinstance(strategy.local, DynamicSGD) else "examples"
            order = f'({name}(), Weighted("{by}"))' if place else f'(Weighted("{by}"),)'
            raise StrategyError(
                f"{name} without a Weighted behind it that averages {words}",
                why="its server half needs the mean over clients, and would be given a sum",
                instead=f"layers={order}, and `vectors` left as they are",
            )


def _means(layer: Layer) -> set[str]:
    """The vectors of which a layer makes means."""
    if isinstance(layer, ClientDP | DistributedDP | DistributedExampleDP | LocalDP):
        return set(AVERAGED)
    return set(layer.vectors) if isinstance(layer, Weighted) else set()


def _refuse_weighted_dynamics(strategy: Strategy) -> None:
    if not isinstance(strategy.local, DynamicSGD) or not strategy.local.alpha:
        return
    for layer in strategy.layers:
        if isinstance(layer, Weighted) and layer.by != "uniform":
            raise StrategyError(
                f"FedDyn with updates weighted by {layer.by!r}",
                why="the server's h is the mean over clients of what each remembers, which a "
                "weighted mean of the updates does not tell",
                instead='layers=(Weighted("uniform"),), as feddyn() has it; scaffold takes either',
            )


def _who_remembers(strategy: Strategy, task: Task, setting: Setting) -> list[Layer]:
    broadcast = first_broadcast(strategy, task, setting)
    _, *memories = initial_memory(strategy, broadcast, task.buffers.local)
    return [part for part, kept in zip(strategy.onion, memories, strict=True) if kept]


def _without_memory(part: Layer) -> str:
    if isinstance(part, ErrorFeedback):
        return "Compress around Quantize or RandomK, which are right on average"
    return "fedprox, or momentum at the server"


def first_broadcast(strategy: Strategy, task: Task, setting: Setting) -> Broadcast:
    """What is published before the first round."""
    context = RoundContext(
        number=1,
        key=np.uint64(0),
        population=1,
        expected=1.0,
        cohort=1,
        setting=setting.name,
        layout=task.layout,
    )
    return publish(initial_state(strategy, task), strategy, context)
