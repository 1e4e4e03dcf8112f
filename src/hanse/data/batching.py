"""Which examples each client sees at each step of a pass over its data.

A plan depends on nothing but a client's own number of examples and its own key: the same client
gets the same batches alone, beside a thousand others, in this process or in another. All clients
are shuffled at once, by hashing (key, epoch, example) and one sort.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanse.core.errors import StrategyError
from hanse.core.rng import Keys, derive, hash_grid
from hanse.data.packing import offsets_of, rows_of
from hanse.data.poisson import PoissonSteps, drawn

if TYPE_CHECKING:
    from collections.abc import Iterator

Int64s = NDArray[np.int64]

_HASH_BITS = 40  # of a sort key; the other 24 bits number the clients of a plan
_PLANNED = 1 << 14  # rows looked up at once: many steps of small blocks, one of a large one
_TABLE = 1 << 17  # rows looked up for all clients of a plan at once
_KEPT = 1 << 22  # rows of shuffled epochs that are kept


@dataclass(frozen=True)
class Epochs:
    """Each client goes through its examples `count` times, reshuffled each time.

    An epoch's last batch is short if the batch size does not divide the client's examples
    (McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
    AISTATS 2017, algorithm 1).

    Attributes:
        count: epochs, at least 1.
        batch_size: examples a batch; None: all of the client's examples are one batch.
    """

    count: int = 1
    batch_size: int | None = 10

    def __post_init__(self) -> None:
        """Refuse counts below 1."""
        _check("Epochs", "count", self.count)
        if self.batch_size is not None:
            _check("Epochs", "batch_size", self.batch_size)


@dataclass(frozen=True)
class Steps:
    """Each client takes exactly `count` steps, all on full batches.

    Batches are read from one shuffled epoch after another, so that a batch may hold the end of one
    epoch and the beginning of the next; a client with fewer examples than `batch_size` sees some
    of them twice in a batch.

    Attributes:
        count: steps, at least 1.
        batch_size: examples a batch, at least 1.
    """

    count: int
    batch_size: int = 10

    def __post_init__(self) -> None:
        """Refuse counts below 1."""
        _check("Steps", "count", self.count)
        _check("Steps", "batch_size", self.batch_size)


@dataclass(frozen=True)
class FullGradient:
    """Each client reads every example once, in order, each weighing 1/n.

    The gradients of the steps add up to the gradient of the client's mean loss.

    Attributes:
        chunk: how many examples at most are read at a time; it changes memory, not the result.
    """

    chunk: int = 1024

    def __post_init__(self) -> None:
        """Refuse counts below 1."""
        _check("FullGradient", "chunk", self.chunk)


Pass = Epochs | Steps | FullGradient | PoissonSteps


class Batch(NamedTuple):
    """One step of the clients that still train.

    Attributes:
        active: how many clients still train: the first ones of the block.
        rows: int64 [active, B], into the block's fields, B the examples of the largest batch.
            Padding repeats the client's first row.
        weights: floats [active, B]; 0 for padding. A row of `Epochs` or `Steps` sums to 1; the
            rows of a client's `FullGradient` sum to 1 together; one of `PoissonSteps` does so on
            average.
        counts: int64 [active]: how many entries of each row are not padding; `PoissonSteps` may
            leave none.
    """

    active: int
    rows: Tensor
    weights: Tensor
    counts: Tensor


class _Table(NamedTuple):
    """What k clients read in T steps; of no use where a client has fewer steps."""

    rows: Tensor  # [T, k, B]
    weights: Tensor  # [T, k, B]
    counts: Int64s  # [T, k]

    def of(self, steps: int, clients: slice) -> _Table:
        """The first steps of some of the clients."""
        return _Table(
            self.rows[:steps, clients], self.weights[:steps, clients], self.counts[:steps, clients]
        )


class _Shuffles:
    """The order in which clients see their examples, epoch by epoch."""

    def __init__(self, sizes: Int64s, starts: Int64s, keys: Keys) -> None:
        self.offsets = offsets_of(sizes)
        self._sizes, self._starts, self._keys = sizes, starts, keys
        self._orders: dict[int, Int64s] = {}  # a memo: whoever asks again gets the same

    def order(self, epoch: int) -> Int64s:
        """All clients' rows, each client's shuffled for an epoch that all of them have."""
        known = self._orders.get(epoch)
        if known is None:
            if (len(self._orders) + 1) * self.offsets[-1] > _KEPT:
                self._orders.clear()
            known = self._orders[epoch] = np.empty(self.offsets[-1], np.int64)
            everyone = np.arange(len(self._sizes))
            self.write(known, everyone, np.full(len(everyone), epoch))
        return known

    def write(self, order: Int64s, clients: Int64s, epoch: Int64s) -> None:
        """Write these clients' rows into `order`, each client's shuffled for its epoch `[K]`."""
        if not len(clients):
            return
        sizes = self._sizes[clients]
        keys = derive(self._keys[clients], epoch[clients])
        # One sort for all: a client's number above, the leading bits of the hash below. The bits
        # are as many whatever the block, and the sort is stable, so neighbours change nothing.
        example = rows_of(np.zeros_like(sizes), sizes)
        bits = hash_grid(np.repeat(keys, sizes), example.astype(np.uint64))
        number = np.repeat(np.arange(len(clients), dtype=np.uint64), sizes)
        places = (number << np.uint64(_HASH_BITS)) | (bits >> np.uint64(64 - _HASH_BITS))
        shuffled = rows_of(self._starts[clients], sizes)[np.argsort(places, kind="stable")]
        order[rows_of(self.offsets[clients], sizes)] = shuffled


@dataclass(frozen=True, eq=False)
class Plan:
    """All steps of one pass of K clients; iterate it, as often as you like, to get `Batch`es.

    Memory is 8 bytes for each example of an epoch, and the rows of a few steps.

    Attributes:
        pass_: what the clients do.
        sizes: [K], their numbers of examples, each at least 1.
        starts: [K], their first rows in the block's fields.
        keys: uint64 [K], their keys for this pass.
        dtype: the floating-point type of the weights.
        steps: [K], their numbers of steps, never increasing.
        width: how many examples a batch has at most.
        whole: the plan that this one is a part of; what it has looked up is not looked up again.
        first: the place of this plan's first client in the whole.
    """

    pass_: Pass
    sizes: Int64s
    starts: Int64s
    keys: Keys
    dtype: torch.dtype
    steps: Int64s
    width: int
    whole: Plan | None = None
    first: int = 0

    def part(self, rows: slice) -> Plan:
        """The plan of some of the clients, as if they had been planned alone."""
        sizes = self.sizes[rows]
        return replace(
            self,
            sizes=sizes,
            starts=self.starts[rows],
            keys=self.keys[rows],
            steps=self.steps[rows],
            width=_width(self.pass_, sizes),
            whole=self.whole or self,
            first=self.first + rows.start,
        )

    def __len__(self) -> int:
        """How many steps the longest-training client takes."""
        return int(self.steps[0]) if len(self.steps) else 0

    def __iter__(self) -> Iterator[Batch]:
        """Yield the steps in order."""
        match self.pass_:
            case FullGradient() | Epochs(batch_size=None):
                return self._in_order()
            case Epochs():
                return self._epochs()
            case Steps():
                return self._stream()
            case PoissonSteps():
                return self._drawn(self.pass_.rate)

    def _in_order(self) -> Iterator[Batch]:
        # A batch of all examples needs no shuffle: each of its epochs is the same batch.
        full = isinstance(self.pass_, FullGradient)
        for t in range(len(self)):
            active = self.actives[t]
            sizes = self.sizes[:active]
            first = t * self.width if full else 0
            counts = np.minimum(sizes - first, self.width)
            rows = self.starts[:active, None] + first + np.arange(self.width)
            yield self._batch(rows, counts, sizes if full else counts)

    def _epochs(self) -> Iterator[Batch]:
        for first, table in self._tables():
            for t in range(len(table.counts)):
                active = self.actives[first + t]
                longest = int(table.counts[t, :active].max())
                yield Batch(
                    active,
                    table.rows[t, :active, :longest],
                    table.weights[t, :active, :longest],
                    torch.from_numpy(table.counts[t, :active]),
                )

    def _tables(self) -> Iterator[tuple[int, _Table]]:
        """The steps of epochs, some at a time: the number of the first one, and what they read."""
        whole = self.whole or self
        if not len(self):
            return
        if whole._table is not None:  # noqa: SLF001 - our own
            clients = slice(self.first, self.first + len(self.sizes))
            yield 0, whole._table.of(len(self), clients)  # noqa: SLF001 - our own
            return
        first = 0
        while first < len(self):
            active = self.actives[first]
            together = min(max(_PLANNED // (active * self.width), 1), len(self) - first)
            yield first, self._some_steps(first, together, active)
            first += together

    @cached_property
    def _table(self) -> _Table | None:
        """All steps of all clients, if that is no waste."""
        if len(self) * len(self.sizes) * self.width > _TABLE:
            return None
        return self._some_steps(0, len(self), len(self.sizes))

    @cached_property
    def _shuffles(self) -> _Shuffles:
        return _Shuffles(self.sizes, self.starts, self.keys)

    def _some_steps(self, first: int, together: int, active: int) -> _Table:
        """What the first clients read in T steps."""
        assert isinstance(self.pass_, Epochs)  # noqa: S101 - for the type checker
        shuffles = (self.whole or self)._shuffles  # noqa: SLF001 - our own
        sizes = self.sizes[:active]
        number = np.arange(first, first + together)[:, None]
        epoch, step = np.divmod(number, -(-sizes // self.width))
        np.minimum(epoch, self.pass_.count - 1, out=epoch)
        counts = np.minimum(sizes - step * self.width, self.width)
        places = (shuffles.offsets[self.first :][:active] + step * self.width)[:, :, None]
        places = places + np.arange(self.width)
        low, high = int(epoch.min()), int(epoch.max())
        rows = shuffles.order(low).take(places, mode="clip")
        for later in range(low + 1, high + 1):
            now = epoch == later
            rows[now] = shuffles.order(later).take(places[now], mode="clip")
        return _Table(*self._tensors(rows, counts, counts), counts)

    def _stream(self) -> Iterator[Batch]:
        shuffles = _Shuffles(self.sizes, self.starts, self.keys)
        offsets = shuffles.offsets
        order = np.empty(offsets[-1], np.int64)
        current = np.full(len(self.sizes), -1, np.int64)
        for t, active in enumerate(self.actives):
            current = current[:active]
            sizes, counts = self.sizes[:active], np.full(active, self.width, np.int64)
            epoch, place = np.divmod(t * self.width + np.arange(self.width), sizes[:, None])
            places = offsets[:active, None] + place
            rows = np.empty_like(places)
            # A batch may begin in one epoch and end in a later one: fill it epoch by epoch.
            for later in range(int((epoch[:, -1] - epoch[:, 0]).max()) + 1):
                now = epoch[:, 0] + later
                inside = epoch == now[:, None]
                shuffles.write(order, np.flatnonzero(inside.any(1) & (current < now)), now)
                current = np.maximum(current, np.minimum(now, epoch[:, -1]))
                rows[inside] = order[places[inside]]
            yield self._batch(rows, counts, counts)

    def _drawn(self, rate: float) -> Iterator[Batch]:
        for t, active in enumerate(self.actives):
            sizes = self.sizes[:active]
            rows, counts = drawn(rate, sizes, self.starts[:active], self.keys[:active], t)
            tensors = self._tensors(rows, counts, rate * sizes)
            yield Batch(active, *tensors, torch.from_numpy(counts))

    @cached_property
    def actives(self) -> list[int]:
        """How many clients take part in each step."""
        done = np.searchsorted(self.steps[::-1], np.arange(len(self)), side="right")
        actives: list[int] = (len(self.steps) - done).tolist()
        return actives

    def _batch(self, rows: Int64s, counts: Int64s, divisor: Int64s) -> Batch:
        longest = int(counts.max())
        tensors = self._tensors(rows[:, :longest], counts, divisor)
        return Batch(len(rows), *tensors, torch.from_numpy(counts))

    def _tensors(
        self, rows: Int64s, counts: Int64s, divisor: NDArray[Any]
    ) -> tuple[Tensor, Tensor]:
        width = rows.shape[-1]
        real = np.arange(width) < counts[..., None]
        if int(counts.min()) < width:
            rows = np.where(real, rows, self.starts[: rows.shape[-2], None])
        weights = torch.from_numpy(real / divisor[..., None]).to(self.dtype)
        return torch.from_numpy(rows), weights


def steps(pass_: Pass, sizes: Int64s) -> Int64s:
    """How many steps each client takes in a pass: int64 [K].

    Args:
        pass_: what the clients do.
        sizes: [K], how many examples they have.
    """
    match pass_:
        case Epochs(count=count, batch_size=None):
            return np.full(len(sizes), count, np.int64)
        case Epochs(count=count, batch_size=int(batch)):
            return count * -(-sizes // batch)
        case Steps(count=count) | PoissonSteps(count=count):
            return np.full(len(sizes), count, np.int64)
        case FullGradient(chunk=chunk):
            return -(-sizes // chunk)
    raise AssertionError(pass_)


def steps_in_part(pass_: Pass, sizes: Int64s, shares: NDArray[np.float64]) -> Int64s:
    """How many steps clients take that do a share of a pass: int64 [K], each at least 1.

    A step that is begun is finished.

    Args:
        pass_: what the clients do.
        sizes: [K], how many examples they have.
        shares: [K], above 0 and at most 1.
    """
    return np.maximum(np.ceil(shares * steps(pass_, sizes)), 1).astype(np.int64)


def plan(
    pass_: Pass,
    sizes: Int64s,
    starts: Int64s,
    keys: Keys,
    dtype: torch.dtype = torch.float32,
    taken: Int64s | None = None,
) -> Plan:
    """Lay out a pass of K clients.

    Args:
        pass_: what the clients do.
        sizes: [K], how many examples they have, each at least 1.
        starts: [K], where their examples start in the block's fields.
        keys: uint64 [K], their keys for this pass: other keys, other batches.
        dtype: the floating-point type of the weights.
        taken: [K], how many of its first steps each client takes; None: all of them.

    Returns:
        The plan; a step is as wide as the largest batch in it.

    Raises:
        ValueError: if the clients are not sorted by their number of steps, most first, or the
            arrays do not fit together (an error in the calling engine, not in anyone's data).
    """
    if not len(sizes) == len(starts) == len(keys) < 1 << (64 - _HASH_BITS):
        message = f"{len(sizes)} sizes, {len(starts)} starts, {len(keys)} keys"
        raise ValueError(message)
    if len(sizes) and int(sizes.min()) < 1:
        message = "a client without examples cannot be planned"
        raise ValueError(message)
    if taken is None:
        taken = steps(pass_, sizes)
    if bool((np.diff(taken) > 0).any()):
        message = "clients must come sorted by their number of steps, most first"
        raise ValueError(message)
    return Plan(pass_, sizes, starts, keys, dtype, taken, _width(pass_, sizes))


def _width(pass_: Pass, sizes: Int64s) -> int:
    largest = int(sizes.max()) if len(sizes) else 0
    match pass_:
        case FullGradient(chunk=chunk):
            return min(chunk, largest)
        case Epochs(batch_size=None) | PoissonSteps():
            return largest
        case Epochs(batch_size=int(batch)) | Steps(batch_size=batch):
            return batch
    raise AssertionError(pass_)


def _check(kind: str, field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise StrategyError(
            f"{kind}({field}={value!r})",
            why=f"{field} counts something that every client does",
            instead=f"give {field} a whole number, 1 or more",
        )
