"""Compression of what clients send, with and without a memory of what was left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hanse.compression import Source
from hanse.core.errors import StrategyError, did_you_mean
from hanse.core.rng import derive
from hanse.core.types import Layer, Summed, vector
from hanse.local.schedules import check_coefficient

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.compression import Compressor
    from hanse.core.types import (
        Aggregate,
        Broadcast,
        ClientContext,
        Memory,
        RoundContext,
        State,
        Update,
        Vector,
    )


@dataclass(frozen=True)
class Compress(Layer):
    """Clients send what a compressor makes of their vectors; sums are lifted at the server.

    Nothing is remembered. A compressor that is right on average (`Quantize`, `RandomK`) suits; of
    one that is biased (`TopK`, `Sign`), see `ErrorFeedback`.

    Attributes:
        inner: a compressor, or a chain of them: `TopK(0.01) >> Quantize(8)`.
        vectors: the names of the vectors that are compressed: also `"control"`, which SCAFFOLD
            sends, or `"gradient"`, which MimeLite does.

    Raises:
        StrategyError: `inner` is no compressor, or `vectors` no names.
    """

    inner: Compressor
    vectors: tuple[str, ...] = ("delta",)

    def __post_init__(self) -> None:
        """Refuse what is no compressor."""
        check_compressor("Compress", self.inner)
        _check_vectors("Compress", self.vectors)

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Compress.

        Raises:
            StrategyError: a vector that nobody sends.
        """
        after = dict(update)
        for name in self.vectors:
            sent = vector_named(update, name, "Compress")
            after[name] = self.inner.enter(sent, source_of(name, sent, broadcast, client))
        return after, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """Lift."""
        return lifted(total, self.vectors), state

    def of_nobody(self, total: Aggregate, round_: RoundContext) -> Aggregate:
        """Sums of nothing, in the spaces that are the same for all clients."""
        return nothing(total, self.vectors, self.inner, round_)


@dataclass(frozen=True)
class ErrorFeedback(Layer):
    """What a compressor leaves out is remembered by the client, and added to its next update.

    So nothing is lost: all that was sent, and what is remembered, is the sum of all updates. The
    memory counts once the server has used the update.

    With `momentum` m this is the momentum correction of deep gradient compression: a client adds up
    `v = m v + g`, as it would without compression, and what is sent is left out of v as well
    (momentum factor masking), since a stale direction would be followed on and on.

    Source: Seide et al., "1-bit stochastic gradient descent", Interspeech 2014; Karimireddy et al.,
    "Error feedback fixes SignSGD and other gradient compression schemes", ICML 2019, algorithm 2.
    Momentum: Lin et al., "Deep gradient compression", ICLR 2018, sections 3.1 and 3.2.

    Attributes:
        inner: a compressor, or a chain of them, that leaves out no more than it is given.
        vectors: the names of the vectors that are compressed; each as long as the model.
        momentum: of the clients, with what they send; 0: none.

    Raises:
        StrategyError: `inner` is no compressor, or makes vectors longer; or `vectors` are no names.
    """

    inner: Compressor
    vectors: tuple[str, ...] = ("delta",)
    momentum: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no compressor."""
        check_compressor("ErrorFeedback", self.inner)
        _check_vectors("ErrorFeedback", self.vectors)
        check_coefficient(self.momentum, "momentum", below=1.0)

    def init_client(self, broadcast: Broadcast) -> Memory:
        """Nothing was left out."""
        zeros = broadcast.params.new_zeros(broadcast.round.layout.shared)
        return {name: zeros for one in self.vectors for name in self._names(one)}

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Add what was left out, compress, and remember what is left out now.

        Raises:
            StrategyError: a vector that nobody sends or that is not as long as the model, or a
                compressor that does not say what its vectors stand for.
        """
        after, kept = dict(update), dict(memory)
        for name in self.vectors:
            rest, *velocity = self._names(name)
            named = vector_named(update, name, "ErrorFeedback")
            given = named.lifted()
            _check_length(name, given, memory[rest])
            if self.momentum:
                given = memory[velocity[0]] * self.momentum + given
            wanted = memory[rest] + given
            source = source_of(name, named, broadcast, client)
            sent = self.inner.enter(vector(wanted), source)
            arrived = sent.lifted()
            _check_lifted(self.inner, wanted, arrived)
            kept[rest] = wanted - arrived
            if self.momentum:
                kept[velocity[0]] = torch.where(arrived != 0, torch.zeros_like(given), given)
            after[name] = sent
        return after, kept

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """Lift."""
        return lifted(total, self.vectors), state

    def of_nobody(self, total: Aggregate, round_: RoundContext) -> Aggregate:
        """Sums of nothing, in the spaces that are the same for all clients."""
        return nothing(total, self.vectors, self.inner, round_)

    def _names(self, one: str) -> tuple[str, ...]:
        rest = f"{one}_left_out"
        return (rest, f"{one}_velocity") if self.momentum else (rest,)


# ------------------------------------------------------------------------ what layers share
def source_of(name: str, sent: Vector, broadcast: Broadcast, client: ClientContext) -> Source:
    """The draws for a vector of K clients in a round."""
    round_ = broadcast.round
    source = Source(
        derive(round_.key, "compress", name), derive(client.key, "compress", name), round_.layout
    )
    # Two layers that compress one vector draw apart: else the second is not right on average.
    return source.of(f"behind {len(sent.space)}") if sent.space else source


def lifted(total: Aggregate, names: tuple[str, ...]) -> Aggregate:
    """The named sums in full."""
    return {k: summed.lifted() if k in names else summed for k, summed in total.items()}


def nothing(
    total: Aggregate, names: tuple[str, ...], inner: Compressor, round_: RoundContext
) -> Aggregate:
    """The named sums of zeros, as clients would have compressed them."""
    after = dict(total)
    for name in names:
        summed = total[name]
        key = derive(round_.key, "compress", name)
        source = Source(key, derive(key, "nobody").reshape(1), round_.layout)
        sent = vector(summed.values.unsqueeze(0))._replace(space=summed.space)
        after[name] = _as_sum(inner.enter(sent, source))
    return after


def _as_sum(sent: Vector) -> Summed:
    values, space = sent.values, sent.space
    while space and not all(s.common and s.linear for s in space):
        values, space = space[-1].lift(values), space[:-1]
    return Summed(values[0], space)


def vector_named(update: Update, name: str, who: str) -> Vector:
    """The vector of a name.

    Raises:
        StrategyError: there is none.
    """
    if name not in update:
        raise StrategyError(
            f"{who} of {name!r}",
            why="no part of the strategy sends it",
            instead=did_you_mean(name, update),
        )
    return update[name]


def check_compressor(who: str, inner: object) -> None:
    """Refuse what is no compressor.

    Raises:
        StrategyError: it is none.
    """
    if isinstance(inner, type) or not (hasattr(inner, "enter") and hasattr(inner, "contracts")):
        raise StrategyError(
            f"{who}({inner!r:.80})",
            why="it is put around a compressor, which takes a vector and makes it cheaper to send",
            instead=f"{who}(TopK(0.01)), or {who}(TopK(0.01) >> Quantize(8))",
        )


def _check_vectors(who: str, vectors: object) -> None:
    names = vectors if isinstance(vectors, tuple) else ()
    named = all(isinstance(name, str) for name in names)
    if not (names and named and len(set(names)) == len(names)):
        raise StrategyError(
            f"{who}(…, vectors={vectors!r:.80})",
            why="it names the vectors that are compressed, each of them once",
            instead='("delta",), or ("delta", "control")',
        )


def _check_length(name: str, given: Tensor, memory: Tensor) -> None:
    if given.shape != memory.shape:
        raise StrategyError(
            f"ErrorFeedback of {name!r}, of {given.shape[1]} numbers",
            why=f"clients remember {memory.shape[1]} numbers, as many as the model shares",
            instead="vectors that are as long as the model, such as 'delta'",
        )


def _check_lifted(inner: Compressor, wanted: Tensor, arrived: Tensor) -> None:
    if wanted.shape != arrived.shape:
        raise StrategyError(
            f"ErrorFeedback around {inner!r:.80}, whose vectors of {arrived.shape[1]} numbers "
            f"cannot be lifted to {wanted.shape[1]}",
            why="a client must know what the server makes of what it sends, to keep the rest",
            instead="a compressor whose vectors are in a space with `lift`, or Compress",
        )
