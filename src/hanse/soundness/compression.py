"""What compression composes with; the rest is refused before the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.compression import Quantize, RandomK, Sign, Source
from hanse.compression.compressor import stages
from hanse.core.errors import StrategyError, did_you_mean
from hanse.core.rng import derive
from hanse.core.types import vector
from hanse.layers import ClientDP, Compress, CompressedBroadcast, ErrorFeedback
from hanse.selection import Full

if TYPE_CHECKING:
    from hanse.core.types import Layer
    from hanse.models import Task
    from hanse.selection import Participation
    from hanse.strategy import Strategy


def check_compression(
    strategy: Strategy, task: Task, participation: Participation
) -> tuple[str, ...]:
    """Refuse what would lose or spoil what is sent; return warnings.

    Args:
        strategy: which may have layers that compress.
        task: the model.
        participation: who takes part in a round.

    Raises:
        StrategyError: the combination is refused.
    """
    sent = {"buffers": task.buffers.shared} if task.buffers.shared else {}
    said: tuple[str, ...] = ()
    for part in strategy.onion:
        if isinstance(part, Compress | ErrorFeedback):
            for name in part.vectors:
                _refuse_vector(part, name, sent, task)
            said += _about_memory(part) + _about_buffers(part)
        sent |= part.sends(task.layout)
    _refuse_runs_of_tensors(strategy)
    _refuse_broadcasts(strategy, participation)
    return said


def why_not_behind_a_clip(layer: Layer) -> str:
    """What a layer behind `ClientDP` would do to the promise."""
    inner = layer.inner if isinstance(layer, Compress | ErrorFeedback) else None
    parts = () if inner is None else stages(inner)
    if any(isinstance(part, Sign) for part in parts):
        return (
            "signs of d numbers have the norm sqrt(d) times their size, whatever the clip norm "
            "was, and noise is sized for the clip norm"
        )
    if any(isinstance(part, Quantize) and part.rounding == "stochastic" for part in parts):
        return "rounding up makes an update longer than the clip norm that noise is sized for"
    if any(part.shortens for part in parts):
        return (
            "which coordinates are sent may depend on a client's data, and noise must cover all "
            "that are released"
        )
    return (
        "what comes behind the clip may make an update longer again, or send what was not clipped"
    )


def _refuse_vector(
    part: Compress | ErrorFeedback, name: str, sent: dict[str, int], task: Task
) -> None:
    who, shared = type(part).__name__, task.layout.shared
    if name not in sent:
        raise StrategyError(
            f"{who} of {name!r}",
            why="no part of the strategy before it sends such a vector",
            instead=f"vectors=(…,), {did_you_mean(name, sent)}",
        )
    columns = sent[name]
    if isinstance(part, ErrorFeedback) and (name == "buffers" or columns != shared):
        raise StrategyError(
            f"ErrorFeedback of {name!r}, of {columns} numbers",
            why=f"clients remember {shared} numbers, as many as the model shares",
            instead="vectors that are as long as the model, such as 'delta'; Compress for others",
        )
    tried = vector(torch.linspace(-1, 1, columns, dtype=task.dtype).unsqueeze(0))
    key = np.uint64(0)
    source = Source(key, derive(key, np.zeros(1, np.int64)), task.layout)
    came = part.inner.enter(tried, source).lifted()
    if came.shape != tried.values.shape:
        raise StrategyError(
            f"{who} around {part.inner!r:.80}, whose vectors of {came.shape[1]} numbers cannot be "
            f"lifted to {columns}",
            why="a client must know what the server makes of what it sends, to keep the rest"
            if isinstance(part, ErrorFeedback)
            else "nobody could tell what the numbers that are sent stand for",
            instead="a compressor whose vectors are in a space that lifts them",
        )


def _about_memory(part: Compress | ErrorFeedback) -> tuple[str, ...]:
    if not isinstance(part, ErrorFeedback):
        return ()
    if any(isinstance(one, RandomK) and one.unbiased for one in stages(part.inner)):
        raise StrategyError(
            f"ErrorFeedback around {part.inner!r:.80}",
            why="multiplied by d/k, what is sent is longer than what it stands for, so that what "
            "is remembered grows from round to round",
            instead="RandomK(…, unbiased=False): what is left out is sent later",
        )
    if part.inner.contracts:
        return ()
    warning = (
        f"ErrorFeedback around {part.inner!r}: rounding up and down by chance may leave out more "
        "than it was given, and that adds up; rounding='nearest' never does"
    )
    return (warning,)


def _about_buffers(part: Compress | ErrorFeedback) -> tuple[str, ...]:
    if "buffers" not in part.vectors:
        return ()
    warning = (
        f"{type(part).__name__} of 'buffers': they may hold running variances (BatchNorm), which "
        "an error can make negative, and then the model's outputs are NaN; they are few numbers"
    )
    return (warning,)


def _refuse_runs_of_tensors(strategy: Strategy) -> None:
    private = any(isinstance(x, ClientDP) and x.clipping == "per-layer" for x in strategy.layers)
    for part in strategy.layers if private else ():
        if isinstance(part, Compress | ErrorFeedback):
            first = stages(part.inner)[0]
            if isinstance(first, RandomK):
                raise StrategyError(
                    f"ClientDP(clipping='per-layer') behind {type(part).__name__}({first!r:.80})",
                    why="the coordinates that are drawn are of no tensor any more",
                    instead="clipping='flat'",
                )


def _refuse_broadcasts(strategy: Strategy, participation: Participation) -> None:
    found = [layer for layer in strategy.layers if isinstance(layer, CompressedBroadcast)]
    if len(found) > 1:
        raise StrategyError(
            f"{len(found)} CompressedBroadcast layers in one strategy",
            why="the second would compress what nobody is sent",
            instead="one of them, with a chain: Rotate() >> Quantize(4)",
        )
    if found and found[0].difference and type(participation) is not Full:
        raise StrategyError(
            f"CompressedBroadcast(difference=True) with {participation!r:.80}",
            why="a difference means something only to clients that have received all of those "
            "before it, and here some are away",
            instead="CompressedBroadcast(Quantize(8)), which sends a whole model; or Full()",
        )
