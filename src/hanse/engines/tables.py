"""What a block reads in the steps of a pass, brought to the device before the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from hanse.core.device import sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from hanse.data.batching import Batch, Plan

_ENTRIES = 1 << 22  # of a table: 48 MB; longer passes have several


class Table(NamedTuple):
    """The batches of some consecutive steps, R >= K rows and W >= B columns wide.

    What is not a client's batch weighs nothing, and reads an example that there is.

    Attributes:
        first: the number of the first of the T steps.
        actives: for each step, how many leading clients still train.
        counts: for each step `[active]`, in the computer's memory: see `Batch.counts`.
        rows: int64 `[T, R, W]`, on the device.
        weights: `[T, R, W]`, on the device.
    """

    first: int
    actives: list[int]
    counts: list[Tensor]
    rows: Tensor
    weights: Tensor


def tables(
    plan: Plan, width: int, room: Callable[[int], int], device: torch.device
) -> Iterator[Table]:
    """The tables of a pass, one after another.

    Args:
        plan: of a block's pass.
        width: W.
        room: from K clients to R.
        device: where they are wanted.
    """
    first, steps = 0, iter(plan)
    while first < len(plan):
        rows = room(plan.actives[first])
        together = min(max(_ENTRIES // (rows * width), 1), len(plan) - first)
        batches = [next(steps) for _ in range(together)]
        yield _table(first, batches, plan, (rows, width), device)
        first += together


def _table(
    first: int, batches: list[Batch], plan: Plan, shape: tuple[int, int], device: torch.device
) -> Table:
    clients = batches[0].active
    rows = torch.empty((len(batches), *shape), dtype=torch.int64, device="cpu")
    own = torch.from_numpy(plan.starts[:clients])
    rows[:] = own[0]
    rows[:, :clients] = own.unsqueeze(1)
    weights = torch.zeros(rows.shape, dtype=plan.dtype, device="cpu")
    for number, batch in enumerate(batches):
        active, width = batch.rows.shape
        rows[number, :active, :width] = batch.rows
        weights[number, :active, :width] = batch.weights
    return Table(
        first,
        [batch.active for batch in batches],
        [batch.counts for batch in batches],
        sent(rows, device),
        sent(weights, device),
    )
