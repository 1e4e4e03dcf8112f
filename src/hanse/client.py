"""What a client does in a round: the one function that every engine calls."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import torch

from hanse.core.errors import StrategyError
from hanse.core.types import Layer, Memory, Update, Vector, vector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.types import Broadcast, ClientContext, Work
    from hanse.memory import Slots
    from hanse.strategy import Strategy


class ClientResult(NamedTuple):
    """What K clients have to show for a round; k of them have finite updates.

    Attributes:
        update: what is sent, k rows.
        memory: what is kept if the server accepts the update, k rows.
        client: the k clients.
        trained: the update before the layers, k rows, for measuring drift.
        everyone: all K clients, with the facts of their training.
        finite: `[K]` bool; who is among the k. The others send nothing and remember nothing new.
        norm: `[k]`, the Euclidean norm of what training sends as `delta`; NaN for who sends zeros
            in the place of what was not finite.
    """

    update: Update
    memory: Slots
    client: ClientContext
    trained: Update
    everyone: ClientContext
    finite: Tensor
    norm: Tensor


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
    broadcast = at_client(broadcast, own, len(client.id))
    for layer, remembered in zip(strategy.onion, memories, strict=True):
        broadcast = layer.on_receive(broadcast, remembered, client)
    work.buffers.copy_(broadcast.buffers)

    untouched = broadcast.params._version, broadcast.buffers._version  # noqa: SLF001 - documented
    state = strategy.local.start(broadcast, memories[0], client)
    _check_state(strategy, state, len(client.id))
    for number in range(len(strategy.local.passes)):
        work.walk(number, state, strategy.local.step)
    facts = work.facts()
    if any(layer.uses_steps for layer in strategy.layers):
        effective = strategy.local.effective_steps(broadcast, facts.steps)
        facts = facts._replace(effective_steps=effective)
    everyone = dataclasses.replace(client, facts=facts)

    own = _own_columns(strategy, broadcast, own, state, work)
    update, kept = strategy.local.finish(state, broadcast, memories[0], everyone)
    if untouched != (broadcast.params._version, broadcast.buffers._version):  # noqa: SLF001 - as above
        raise _written_to(strategy)
    update = {**update, **_buffer_update(broadcast, own, work)}
    _check_update(update, broadcast)
    _check_memory(strategy.local, memories[0], kept, len(client.id), may_fail=True)

    # Before anything is encoded: quantised or masked, a NaN would become a finite number.
    finite, norm = _finite(update, own, kept)
    if any(layer.answers_always for layer in strategy.layers):
        update, own, kept = _silenced(finite, update, (own, kept), memory)
        finite, norm = torch.ones_like(finite), norm.where(finite, torch.nan)
    done = ClientResult(
        update, (own, kept, *memories[1:]), everyone, update, everyone, finite, norm
    )
    if bool(finite.all()):
        return _through_layers(strategy, broadcast, done)
    chosen = finite.nonzero().squeeze(1)
    if not len(chosen):  # nobody is left for the layers to ask
        return _select(done, chosen)
    broadcast = broadcast._replace(
        params=broadcast.params[chosen], buffers=broadcast.buffers[chosen]
    )
    return _through_layers(strategy, broadcast, _select(done, chosen))


def _through_layers(strategy: Strategy, broadcast: Broadcast, done: ClientResult) -> ClientResult:
    update, client, after = done.update, done.client, [*done.memory[:2]]
    for layer, remembered in zip(strategy.layers, done.memory[2:], strict=True):
        before = update
        update, kept = layer.on_client(update, broadcast, remembered, client)
        _check_layer(layer, before, update)
        _check_memory(layer, remembered, kept, len(client.id))
        after.append(kept)
    return done._replace(update=update, memory=tuple(after))


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


def _finite(update: Update, *memory: Memory) -> tuple[Tensor, Tensor]:
    """Who sends and remembers finite numbers only, `[K]`, and the norms of `delta`.

    A norm that overflows is infinite.
    """
    norms = {k: torch.linalg.vector_norm(v.values, dim=1) * v.scale for k, v in update.items()}
    rows = list(norms.values())
    for slot in memory:
        rows += [value.reshape(len(value), -1).sum(dim=1) for value in slot.values()]
    return torch.stack(rows).isfinite().all(dim=0), norms["delta"]


def _silenced(
    finite: Tensor, update: Update, after: tuple[Memory, Memory], before: Slots
) -> tuple[Update, Memory, Memory]:
    """Zeros in the place of what is not finite, from clients that remember what they did."""

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        rows = finite.reshape(-1, *[1] * (new.dim() - 1))
        return torch.where(rows, new, old)

    zeros = {
        name: Vector(chosen(v.values, torch.zeros_like(v.values)), v.scale, v.space)
        for name, v in update.items()
    }
    own, kept = (
        {name: chosen(value, old[name]) for name, value in new.items()}
        for new, old in zip(after, before, strict=False)
    )
    return zeros, own, kept


def _select(done: ClientResult, rows: Tensor) -> ClientResult:
    """The same with some of the clients left."""
    client = done.client
    assert client.facts is not None  # noqa: S101 - training is over, for the type checker
    index = rows.cpu().numpy()
    update = {k: Vector(v.values[rows], v.scale[rows], v.space) for k, v in done.update.items()}
    return done._replace(
        update=update,
        trained=update,
        norm=done.norm[rows],
        memory=tuple({k: v[rows] for k, v in slot.items()} for slot in done.memory),
        client=dataclasses.replace(
            client,
            id=client.id[index],
            position=client.position[index],
            key=client.key[index],
            examples=client.examples[rows],
            facts=client.facts.of(rows),
        ),
    )


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


# --------------------------------------------------------------- what a part's author may get wrong
def _check_state(strategy: Strategy, state: object, clients: int) -> None:
    if not isinstance(state, dict):
        raise StrategyError(
            f"{type(strategy.local).__name__}.start returned {state!r:.80}",
            why="a local training keeps its state in a dictionary of tensors",
            instead='for example {"params": broadcast.params.clone()}',
        )
    for name, value in state.items():
        if value.dim() and len(value) != clients:
            raise StrategyError(
                f"{type(strategy.local).__name__}.start returned {name!r} of shape "
                f"{list(value.shape)}",
                why=f"a step is given the first rows of each tensor, one for each of {clients} "
                "clients while all of them train",
                instead=f"[{clients}, …] (value.expand(len(client.id), -1)), or 0-d for a number",
            )


def _written_to(strategy: Strategy) -> StrategyError:
    return StrategyError(
        f"{type(strategy.local).__name__} wrote into the broadcast",
        why="what the server published is shared by all clients, and deltas are taken from it",
        instead="start from a copy: broadcast.params.clone()",
    )


def _check_update(update: Update, broadcast: Broadcast) -> None:
    _check_vectors("local training", update)
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


def _check_vectors(who: str, update: Update) -> None:
    for name, sent in update.items():
        if not isinstance(sent, Vector):
            raise StrategyError(
                f"{who} sends {name!r} as a {type(sent).__name__}",
                why="what travels has a scale beside its values, for weighting and clipping",
                instead=f'{{"{name}": vector(values)}}, with hanse.core.types.vector',
            )


def _check_layer(layer: Layer, before: Update, after: Update) -> None:
    """Refuse NaN that a layer makes; values that it passes on have been looked at already."""
    _check_vectors(type(layer).__name__, after)
    for name, sent in after.items():
        same = name in before and before[name].values is sent.values
        looked_at = sent.scale if same else sent.values
        if not bool(looked_at.isfinite().all() and sent.scale.isfinite().all()):
            raise StrategyError(
                f"{type(layer).__name__} makes {name!r} NaN or infinite",
                why="the update it was given was finite, and the sum would not be",
                instead="an on_client that returns finite numbers for every finite update "
                "(think of a norm of zero)",
            )


def _check_memory(
    layer: Layer, before: Memory, after: Memory, clients: int, *, may_fail: bool = False
) -> None:
    name = type(layer).__name__
    if after.keys() != before.keys():
        raise StrategyError(
            f"{name} has clients remember {sorted(after)}",
            why=f"its init_client declares {sorted(before)}, and only that is handed back",
            instead="the same names in init_client and in what is returned",
        )
    for key, value in after.items():
        if not value.dim() or len(value) != clients:
            raise StrategyError(
                f"{name} has clients remember {key!r} of shape {list(value.shape)}",
                why=f"a memory has a row for each of the block's {clients} clients",
                instead=f"[{clients}, …]; only init_client leaves the first dimension out",
            )
        if not may_fail and not bool(value.isfinite().all()):
            raise StrategyError(
                f"{name} would have clients remember {key!r} with NaN or infinity",
                why="the update it was given was finite, and the next one would not be",
                instead="an on_client that returns finite memory for every finite update",
            )
