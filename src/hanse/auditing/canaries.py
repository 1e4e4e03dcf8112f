"""Canaries: clients that send the worst that the clip allows, each if a coin says so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hanse.core.errors import StrategyError
from hanse.core.rng import derive, hash_grid
from hanse.core.types import Layer, Vector
from hanse.data import Block
from hanse.layers.client_dp import CLIP

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.layout import ParameterLayout
    from hanse.core.rng import Keys
    from hanse.core.types import (
        Aggregate,
        Broadcast,
        ClientContext,
        Memory,
        RoundContext,
        State,
        Update,
    )
    from hanse.data import ClientData
    from hanse.selection import Participation

Ids = NDArray[np.int64]

RELEASED = "released"
_EXAMPLES = 2  # that a canary trains on: what comes of it is replaced, but it has to train
_DONOR = np.zeros(1, np.int64)  # whose examples they are
_GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples are spread evenly between whole numbers
_BELOW = 1 - 2.0**-18  # of the clip norm: below it, whatever single precision makes of it


@dataclass(frozen=True)
class Canaries:
    """Who the canaries are, what each one's coin and direction is: from a seed, never stored.

    Directions are orthonormal: cosines of the frequencies 1 to `count`, with one random sign for
    each coordinate (the same for all canaries). So no canary is in another one's way, each alone
    looks like a random direction to whoever does not know the signs, and the inner products of all
    canaries with a vector take one Fourier transform.

    Attributes:
        first: the number of the first canary in the population; it is that of the real clients.
        count: how many there are.
        seed: of coins and signs.
        signed: whether the coin decides the sign of what is sent and not whether it is: for
            neighbours that differ by a client's data.
        length: how long the vector sent is, in clip norms: above 1, so that a missing clip is seen.
        below: the part of the canaries that stays just within the clip norm, for an adaptive one.
    """

    first: int
    count: int
    seed: int
    signed: bool = False
    length: float = 100.0
    below: float = 0.0

    @property
    def ids(self) -> Ids:
        """The canaries' numbers in the population, `[count]`."""
        return np.arange(self.first, self.first + self.count)

    def coins(self, ids: Ids) -> NDArray[np.bool_]:
        """Each canary's fair coin."""
        tossed: NDArray[np.bool_] = (derive(self.seed, "audit", "coin", ids) >> np.uint64(63)) == 1
        return tossed

    @property
    def absent(self) -> Ids:
        """Those that are not in the federation; they are nobody where coins decide signs."""
        return self.ids[:0] if self.signed else self.ids[~self.coins(self.ids)]

    def directions(self, ids: Ids, columns: int) -> Tensor:
        """The unit vectors of some canaries, `[k, columns]` in float64."""
        odd = 2 * torch.arange(columns) + 1
        frequency = torch.from_numpy(ids - self.first + 1).unsqueeze(1)
        angle = (frequency * odd) % (4 * columns)  # whole numbers: exact for any size
        waves = torch.cos(angle.double() * (math.pi / (2 * columns)))
        return waves * self._signs(columns) * math.sqrt(2 / columns)

    def sent(self, ids: Ids, columns: int, clip: float) -> Tensor:
        """What some canaries send, `[k, columns]` in float64, before it is clipped."""
        inside = (ids - self.first) * _GOLDEN % 1 < self.below
        norm = np.where(inside, _BELOW, self.length) * clip
        if self.signed:
            norm *= np.where(self.coins(ids), 1.0, -1.0)
        return self.directions(ids, columns) * torch.from_numpy(norm).unsqueeze(1)

    def products(self, released: Tensor) -> NDArray[np.float64]:
        """The inner product of every canary's direction with a vector, `[count]`."""
        columns = len(released)
        wave = torch.fft.rfft(released.cpu().double() * self._signs(columns), n=2 * columns)
        frequency = torch.arange(1, self.count + 1)
        half = torch.polar(
            torch.ones(self.count, dtype=torch.float64),
            -math.pi * frequency.double() / (2 * columns),
        )
        cosines = (wave[1 : self.count + 1] * half).real
        scaled: NDArray[np.float64] = (cosines * math.sqrt(2 / columns)).numpy()
        return scaled

    def _signs(self, columns: int) -> Tensor:
        key = derive(self.seed, "audit", "signs")
        bits = hash_grid(key, np.arange(columns, dtype=np.uint64)) >> np.uint64(63)
        return torch.from_numpy(1.0 - 2.0 * bits.astype(np.float64))


@dataclass(frozen=True)
class CanaryLayer(Layer):
    """Puts what canaries send in the place of what they trained, right before the clip.

    What comes behind is what comes behind for every client: clip, grid, sum, noise. Its server
    half keeps what the layer behind it released, and passes it on.

    Attributes:
        canaries: who they are.
        silent: whether all other clients send zeros, which is a federation like any other.
    """

    canaries: Canaries
    silent: bool = False

    def init_server(self, layout: ParameterLayout, dtype: torch.dtype) -> State:
        """Nothing has been released."""
        return {RELEASED: torch.zeros(layout.shared, dtype=dtype)}

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        """Replace the rows of canaries: the whole norm is the update's, the rest is zero.

        Raises:
            StrategyError: clients compress what they send.
        """
        for name, vector in update.items():
            if vector.space:
                raise StrategyError(
                    f"an audit of clients that compress {name!r}",
                    why="canaries send directions of the whole model",
                    instead="an audit of the strategy without compression: clip and noise behind "
                    "it are the same",
                )
        if self.silent:
            update = {name: v.scaled(torch.zeros_like(v.scale)) for name, v in update.items()}
        chosen = np.flatnonzero(client.id >= self.canaries.first)
        if not len(chosen):
            return update, memory
        rows = torch.from_numpy(chosen).to(broadcast.params.device)
        columns, clip = broadcast.round.layout.shared, float(broadcast.extra[CLIP])
        sent = self.canaries.sent(client.id[chosen], columns, clip)
        after = {}
        for name, vector in update.items():
            values, scale = vector.values.clone(), vector.scale.clone()
            values[rows] = sent.to(values) if name == "delta" else 0.0
            scale[rows] = 1.0
            after[name] = Vector(values, scale, vector.space)
        return after, memory

    def on_server(
        self, total: Aggregate, state: State, round_: RoundContext
    ) -> tuple[Aggregate, State]:
        """Keep the noisy mean."""
        return total, {RELEASED: total["delta"].values}


@dataclass(frozen=True, eq=False)
class CanaryClients:
    """Clients, and the canaries behind them, which train on two examples of the first client.

    Attributes:
        inner: the clients.
        count: how many canaries there are.
    """

    inner: ClientData
    count: int

    @property
    def ahead(self) -> bool:
        """Whether a block may be loaded in another thread, as far as the clients say."""
        return bool(getattr(self.inner, "ahead", True))

    def __len__(self) -> int:
        """How many clients and canaries there are."""
        return len(self.inner) + self.count

    def name(self, client: int) -> str:
        """The name of one client or canary."""
        real = len(self.inner)
        return self.inner.name(client) if client < real else f"canary {client - real}"

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each has, `[K]`."""
        real = ids < len(self.inner)
        sizes = np.empty(len(ids), np.int64)
        sizes[real] = self.inner.sizes(ids[real])
        sizes[~real] = np.minimum(self.inner.sizes(_DONOR), _EXAMPLES)
        return sizes

    def block(self, ids: Ids) -> Block:
        """The examples of clients and canaries, in this order."""
        real = ids < len(self.inner)
        if real.all():
            return self.inner.block(ids)
        fields, first, many = self.inner.block(np.append(ids[real], _DONOR))
        starts, sizes = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
        starts[real], starts[~real] = first[:-1], first[-1]
        sizes[real], sizes[~real] = many[:-1], min(int(many[-1]), _EXAMPLES)
        return Block(fields, starts, sizes)


@dataclass(frozen=True, eq=False)
class Without:
    """Participation of a population of which some are not there: whoever of them is drawn.

    The population, and with it the expected cohort by which sums are divided, is a public number
    that stays the same whoever is there.

    Attributes:
        inner: draws from all.
        absent: ascending, who is not there.
    """

    inner: Participation
    absent: Ids

    def expected(self, population: int) -> float:
        """As if all were there."""
        return self.inner.expected(population)

    def select(self, population: int, key: Keys) -> Ids:
        """The ids of a cohort, ascending, without those that are not there."""
        drawn = self.inner.select(population, key)
        return drawn[~np.isin(drawn, self.absent, assume_unique=True)]


def evidence(
    products: NDArray[np.float64], noise: float, rate: float, *, signed: bool
) -> NDArray[np.float64]:
    """The logarithm of how much likelier a round is with each canary than without.

    By the claimed mechanism: `1 - q + q exp((x - 1/2) / z^2)`, where x is N(0, z^2) without the
    canary. It is a score like any other, and the bound holds whether the claim is true or not.

    Args:
        products: `[m]`, inner products of the directions with the noisy sum in clip norms.
        noise: z, the noise multiplier relative to the clip norm.
        rate: q, the part of the clients in a round.
        signed: whether canaries that are out send the opposite vector.
    """

    def likelier(x: NDArray[np.float64]) -> NDArray[np.float64]:
        seen = (x - 0.5) / noise**2
        if rate == 1:
            return seen
        sampled: NDArray[np.float64] = np.logaddexp(math.log1p(-rate), math.log(rate) + seen)
        return sampled

    return likelier(products) - likelier(-products) if signed else likelier(products)
