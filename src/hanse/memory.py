"""What clients remember between rounds, changed only by what the server has accepted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.types import Broadcast, Memory
    from hanse.strategy import Strategy

Slots = tuple["Memory", ...]
"""One memory for what the layout keeps local, then one for each layer of the onion."""


@dataclass(frozen=True, eq=False)
class ClientMemory:
    """The memories of the clients that have taken part, by client id.

    A client proposes a new memory with its update; only if the server accepts the update does the
    memory change. Otherwise the two sides of SCAFFOLD's controls would drift apart with every lost
    message.
    """

    rows: Mapping[int, Slots] = field(default_factory=dict)

    def recall(self, ids: NDArray[np.int64], initial: Slots) -> Slots:
        """The memories of a block, each tensor `[K, ...]`; `initial` for clients never accepted."""
        if not any(initial):
            return initial
        known = [self.rows.get(int(client), initial) for client in ids]
        return tuple(
            {name: torch.stack([slots[number][name] for slots in known]) for name in slot}
            for number, slot in enumerate(initial)
        )

    def on(self, device: torch.device) -> ClientMemory:
        """The same memories on a device."""
        moved = {
            client: tuple(
                {name: value.to(device) for name, value in slot.items()} for slot in slots
            )
            for client, slots in self.rows.items()
        }
        return ClientMemory(moved)

    def accept(self, accepted: list[tuple[NDArray[np.int64], Slots]]) -> ClientMemory:
        """A new store in which these clients (ids, and their memories by row) remember anew."""
        if not any(slot for _, slots in accepted for slot in slots):
            return self
        rows = dict(self.rows)
        for ids, slots in accepted:
            for row, client in enumerate(ids):
                rows[int(client)] = tuple(
                    {name: value[row].clone() for name, value in slot.items()} for slot in slots
                )
        return ClientMemory(rows)


def initial_memory(strategy: Strategy, broadcast: Broadcast, local_buffers: int) -> Slots:
    """The memory of a client before its first round.

    Args:
        strategy: whose layers remember.
        broadcast: as the server publishes it, `params` `[P]`.
        local_buffers: how many trailing buffer columns stay with their client.
    """
    own: dict[str, Tensor] = {}
    if broadcast.round.layout.local:
        own["params"] = broadcast.params[broadcast.round.layout.shared :].clone()
    if local_buffers:
        own["buffers"] = broadcast.buffers[-local_buffers:].clone()
    return (own, *(layer.init_client(broadcast) for layer in strategy.onion))
