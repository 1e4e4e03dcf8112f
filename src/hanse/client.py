"""What a client does in a round: the one function that every engine calls."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import torch

from hanse.core.errors import StrategyError
from hanse.core.types import Memory, Update, Vector, vector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Work
    from hanse.memory import Slots
    from hanse.strategy import Strategy


class ClientResult(NamedTuple):
    """What K clients have to show for a round.

    Attributes:
        update: what is sent.
        memory: what is kept if the server accepts the update.
        client: the clients' context with the facts of their training.
        trained: the update before the layers, for measuring drift.
        finite: `[K]` bool; a client whose update is not finite sends nothing.
    """

    update: Update
    memory: Slots
    client: ClientContext
    trained: Update
    finite: Tensor


def client_round(
    strategy: Strategy, broadcast: Broadcast, memory: Slots, client: ClientContext, work: Work
) -> ClientResult:
    """Train K >= 1 clients and prepare what they send; a node in a real federation has K = 1.

    Args:
        strategy: what is done.
        broadcast: as published, with `params` `[P]` and `buffers` `[b]`.
        memory: what the clients remember, `[K, ...]`.
        client: who they are.
        work: the engine's batches and gradients; its `buffers` start as the broadcast's.

    Raises:
        StrategyError: the update does not fit the layout.
    """
    own, *memories = memory
    local = strategy.local
    broadcast = at_client(broadcast, own, len(client.id))
    for layer, remembered in zip(strategy.onion, memories, strict=True):
        broadcast = layer.on_receive(broadcast, remembered, client)
    work.buffers.copy_(broadcast.buffers)

    state = local.start(broadcast, memories[0], client)
    for number in range(len(local.passes)):
        rows, still = state, len(client.id)
        for active, gradient in work.steps(number):
            if active != still:
                rows, still = prefix(state, active), active
            local.step(rows, gradient, number)
    client = dataclasses.replace(client, facts=work.facts())

    own = _own_columns(strategy, broadcast, own, state, work)
    update, kept = local.finish(state, broadcast, memories[0], client)
    update = {**update, **_buffer_update(broadcast, own, work)}
    _check_width(update, broadcast)
    trained, finite = drop_non_finite(update)

    update, after = trained, [kept]
    for layer, remembered in zip(strategy.layers, memories[1:], strict=True):
        update, kept = layer.on_client(update, broadcast, remembered, client)
        after.append(kept)
    return ClientResult(update, (own, *after), client, trained, finite)


def at_client(broadcast: Broadcast, own: Memory, clients: int) -> Broadcast:
    """The broadcast as K clients see it: `[K, ...]`, local columns replaced by their own."""
    params = broadcast.params.expand(clients, -1)
    buffers = broadcast.buffers.expand(clients, -1)
    if "params" in own:
        params = torch.cat([params[:, : broadcast.round.layout.shared], own["params"]], dim=1)
    if "buffers" in own:
        keep = buffers.shape[1] - own["buffers"].shape[1]
        buffers = torch.cat([buffers[:, :keep], own["buffers"]], dim=1)
    return broadcast._replace(params=params, buffers=buffers)


def prefix(state: Mapping[str, Tensor], active: int) -> dict[str, Tensor]:
    """The first `active` rows of every tensor; numbers (0-d) as they are."""
    return {name: value[:active] if value.dim() else value for name, value in state.items()}


def drop_non_finite(update: Update) -> tuple[Update, Tensor]:
    """Zero the rows that hold NaN or infinity in any vector, and say which are finite, `[K]`.

    This comes before anything is encoded: quantised or masked, a NaN would become a finite number
    that nobody notices. A norm that overflows counts as infinite.
    """
    norms = [torch.linalg.vector_norm(v.values, dim=1) * v.scale for v in update.values()]
    finite = torch.stack(norms).isfinite().all(dim=0)
    if bool(finite.all()):
        return update, finite
    rows = finite.unsqueeze(1)
    zeroed = {
        name: Vector(torch.where(rows, v.values, 0.0), torch.where(finite, v.scale, 0.0), v.space)
        for name, v in update.items()
    }
    return zeroed, finite


def _own_columns(
    strategy: Strategy, broadcast: Broadcast, own: Memory, state: Mapping[str, Tensor], work: Work
) -> Memory:
    """The local columns after training, copied before `finish` may overwrite the state."""
    after: dict[str, Tensor] = {}
    if "params" in own:
        trained = strategy.local.trained(state)
        if trained is None:
            raise StrategyError(
                f"{type(strategy.local).__name__} with parameters that stay with the clients",
                why="its clients only send a gradient: what stays with them would never be trained",
                instead="a strategy that trains at the client (fedavg, fedprox, scaffold)",
            )
        after["params"] = trained[:, broadcast.round.layout.shared :].clone()
    if "buffers" in own:
        after["buffers"] = work.buffers[:, -own["buffers"].shape[1] :].clone()
    return after


def _buffer_update(broadcast: Broadcast, own: Memory, work: Work) -> Update:
    local = own["buffers"].shape[1] if "buffers" in own else 0
    shared = work.buffers.shape[1] - local
    if not shared:
        return {}
    return {"buffers": vector(work.buffers[:, :shared] - broadcast.buffers[:, :shared])}


def _check_width(update: Update, broadcast: Broadcast) -> None:
    shared = broadcast.round.layout.shared
    if "delta" not in update:
        raise StrategyError(
            f"local training sends {sorted(update)}",
            why="the server's optimiser moves the model along 'delta'",
            instead="a 'delta' among what finish returns (zeros, if the model is not to move)",
        )
    delta = update["delta"]
    if not delta.space and delta.values.shape[1] != shared:
        raise StrategyError(
            f"local training sends a 'delta' of {delta.values.shape[1]} columns",
            why=f"{shared} columns of the model are shared; the rest stays with the clients",
            instead="delta[:, : broadcast.round.layout.shared]",
        )
