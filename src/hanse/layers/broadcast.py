"""Compression of what the server sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.compression import Source
from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.core.types import Layer, vector
from hanse.layers.compressed import check_compressor

if TYPE_CHECKING:
    from hanse.compression import Compressor
    from hanse.core.layout import ParameterLayout
    from hanse.core.types import Broadcast, State

_HELD, _BEGUN = "held", "begun"


@dataclass(frozen=True)
class CompressedBroadcast(Layer):
    """Clients receive a compressed model, train from it, and send what they changed in it.

    The server keeps its own model in full and moves that, so that errors do not add up: each round
    begins with what the model really is, whatever was sent before. Metrics are of that model.

    A client that was away can read a *model* by itself, so this is what is sent by default, and
    nothing can be left out of it. *Differences* are smaller numbers, and most of them can be left
    out; but they mean something only to a client that has received all of those before. So they
    take full participation. Each is taken from what clients hold, not from the model before, so
    what was left out of one is part of the next: this is error feedback, at the server.

    Source: Tang et al., "DoubleSqueeze", ICML 2019 (both ways compressed, with error feedback);
    Gruntkowska, Tyurin and Richtárik, "EF21-P and friends", ICML 2023, algorithm 1 (differences
    from what is held).

    Attributes:
        inner: a compressor, or a chain: `Quantize(8)`; with `difference`, `TopK(0.1)` too.
        difference: send differences from what all clients hold; the first model goes in full.

    Raises:
        StrategyError: no compressor, or one that leaves coordinates of a model out.
    """

    inner: Compressor
    difference: bool = False

    def __post_init__(self) -> None:
        """Refuse what would send a model with holes."""
        check_compressor("CompressedBroadcast", self.inner)
        if self.inner.shortens and not self.difference:
            raise StrategyError(
                f"CompressedBroadcast({self.inner!r:.80})",
                why="most parameters of the model that clients train from would be zero",
                instead="difference=True, where every client takes part in every round; or "
                "CompressedBroadcast(Quantize(8))",
            )

    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """What clients hold: nothing yet."""
        if not self.difference:
            return {}
        return {_HELD: torch.zeros(layout.shared, dtype=dtype), _BEGUN: torch.tensor(0)}

    def on_broadcast(self, broadcast: Broadcast, state: State) -> Broadcast:
        """The model as clients will have it."""
        round_ = broadcast.round
        if round_.setting == "evaluation" or (self.difference and not state[_BEGUN]):
            return broadcast
        shared, rest = broadcast.params.tensor_split([round_.layout.shared])
        held = state[_HELD] if self.difference else torch.zeros_like(shared)
        key = derive(round_.key, "broadcast")
        source = Source(key, derive(key, "server").reshape(1), round_.layout)
        sent = self.inner.enter(vector((shared - held).unsqueeze(0)), source)
        params = torch.cat([held + sent.lifted()[0], rest])
        return broadcast._replace(params=params, sent=sent)

    def on_published(self, broadcast: Broadcast, state: State) -> State:
        """What clients hold now."""
        if not self.difference:
            return state
        held = broadcast.params[: broadcast.round.layout.shared].clone()
        return {_HELD: held, _BEGUN: torch.tensor(1)}
