"""Exact metrics for every client."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.client import at_client
from hanse.core.device import placed
from hanse.core.rng import derive, generator
from hanse.core.types import RoundContext
from hanse.data.clients import without_examples
from hanse.data.packing import rows_of
from hanse.engines.on_device import OnHost
from hanse.evaluation.spread import spread
from hanse.memory import initial_memory
from hanse.models.task import write
from hanse.round import publish

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from hanse.core.types import Broadcast
    from hanse.data import ClientData
    from hanse.memory import Slots
    from hanse.models import Loss, Metric, Task
    from hanse.round import FederationState
    from hanse.strategy import Strategy

_ROWS = 4096  # examples in one forward pass
_BYTES = 64 * 2**20  # of the clients' memories that are brought together


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of n clients on their own examples.

    Attributes:
        split: `"test"` (clients that train), or `"unseen"` (clients that never did).
        clients: `[n]`, their ids in the split's data.
        examples: `[n]`.
        metrics: by name, `[n]` each; `"loss"` first.
    """

    split: str
    clients: NDArray[np.int64]
    examples: NDArray[np.int64]
    metrics: Mapping[str, NDArray[np.float64]]

    @property
    def overall(self) -> dict[str, float]:
        """Each metric over all examples."""
        return {k: spread(k, v, self.examples).overall for k, v in self.metrics.items()}


def evaluate(
    task: Task,
    strategy: Strategy,
    state: FederationState,
    data: ClientData,
    ids: NDArray[np.int64],
    split: str,
) -> Evaluation:
    """Evaluate each client on all its examples with the model it would use.

    Outputs are computed where the state lies, losses and metrics on the computer's processor.
    Clients of the split `"unseen"` have no memory: they use what a new client starts from.

    Args:
        task: the model, its loss and its metrics.
        strategy: says which model a client evaluates with.
        state: the parameters and the clients' memories.
        data: the clients' examples.
        ids: `[n]`, the clients to evaluate.
        split: the name of `data`.
    """
    device = state.params.device
    module = copy.deepcopy(task.module).eval().to(device)
    data = data if device.type == "cpu" else OnHost(data)
    functions = {"loss": task.loss, **task.metrics}
    parts: dict[str, list[Tensor]] = {name: [] for name in functions}
    with torch.no_grad(), placed(device):
        broadcast = _broadcast(task, strategy, state, len(ids))
        initial = initial_memory(strategy, broadcast, task.buffers.local)
        sizes = data.sizes(ids)
        for chunk in _chunks(ids, sizes, _room(initial)):
            slots = _slots(state, chunk, initial, known=split != "unseen")
            seen = at_client(broadcast, slots[0], len(chunk))
            models = seen._replace(params=strategy.local.model_for(seen, slots[1]))
            for name, values in _chunk(task, module, models, functions, data, chunk).items():
                parts[name].append(values)
    metrics = {name: torch.cat(found).numpy() for name, found in parts.items()}
    return Evaluation(split, ids, sizes, metrics)


def evaluated_clients(held: ClientData, limit: int | None, seed: int) -> NDArray[np.int64]:
    """The clients that are evaluated, ascending: those that have examples, `limit` of them."""
    clients = np.setdiff1d(np.arange(len(held)), without_examples(held))
    if limit is None or len(clients) <= limit:
        return clients
    drawn = generator(derive(seed, "evaluated"))
    return clients[np.sort(drawn.choice(len(clients), size=limit, replace=False, shuffle=False))]


def _chunks(
    ids: NDArray[np.int64], sizes: NDArray[np.int64], room: int
) -> Iterator[NDArray[np.int64]]:
    """Consecutive clients with about `_ROWS` examples together, `room` clients at most."""
    ends = np.cumsum(sizes)
    cuts = np.flatnonzero(np.diff(ends // _ROWS)) + 1
    for chunk in np.split(ids, cuts):
        yield from (chunk[first : first + room] for first in range(0, len(chunk), room))


def _room(initial: Slots) -> int:
    """How many clients' memories are brought together, whatever the number of clients."""
    each = sum(v.numel() * v.element_size() for slot in initial for v in slot.values())
    return max(_BYTES // each, 1) if each else _ROWS


def _broadcast(task: Task, strategy: Strategy, state: FederationState, clients: int) -> Broadcast:
    context = RoundContext(
        number=state.round,
        key=np.uint64(0),
        population=clients,
        expected=float(clients),
        cohort=clients,
        setting="evaluation",
        layout=task.layout,
    )
    return publish(state, strategy, context)


def _slots(state: FederationState, ids: NDArray[np.int64], initial: Slots, *, known: bool) -> Slots:
    """What a chunk of clients remembers, `[K, ...]`."""
    if known:
        return state.clients.recall(ids, initial)
    return tuple({k: v.expand(len(ids), *v.shape) for k, v in slot.items()} for slot in initial)


def _chunk(
    task: Task,
    module: nn.Module,
    models: Broadcast,
    functions: Mapping[str, Metric | Loss],
    data: ClientData,
    ids: NDArray[np.int64],
) -> dict[str, Tensor]:
    block, device = data.block(ids), models.params.device
    same = models.params.stride(0) == 0 and not task.buffers.local
    groups = [np.arange(len(ids))] if same else [np.array([k]) for k in range(len(ids))]
    found: dict[str, list[Tensor]] = {name: [] for name in functions}
    for group in groups:
        write(module, task.layout, models.params[group[0]], task.buffers, models.buffers[group[0]])
        sizes = block.sizes[group]
        rows = torch.from_numpy(rows_of(block.starts[group], sizes))
        inputs = (block.fields["x"][part].to(device) for part in torch.split(rows, _ROWS))
        outputs = torch.cat([module(x).cpu() for x in inputs])
        targets = block.fields["y"][rows]
        with contextlib.nullcontext() if device.type == "cpu" else torch.device("cpu"):
            for name, function in functions.items():
                found[name].append(_by_client(function, outputs, targets, sizes))
    return {name: torch.cat(values) for name, values in found.items()}


def _by_client(
    function: Metric | Loss, outputs: Tensor, targets: Tensor, sizes: NDArray[np.int64]
) -> Tensor:
    """The mean of a per-example function over each client's rows, float64 `[K]`."""
    bounds = [int(size) for size in sizes]
    first = function(outputs[: bounds[0]], targets[: bounds[0]])
    if first.dim() == 0:  # of all a client's examples at once
        pairs = zip(torch.split(outputs, bounds), torch.split(targets, bounds), strict=True)
        return torch.stack([function(o, t).double() for o, t in pairs])
    values = function(outputs, targets).double()
    owner = torch.repeat_interleave(torch.arange(len(bounds)), torch.tensor(bounds))
    sums = torch.zeros(len(bounds), dtype=torch.float64).index_add_(0, owner, values)
    return sums / torch.tensor(bounds, dtype=torch.float64)
