"""The engine's side of a block: which examples at which step, and their gradients."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from hanse.client import prefix
from hanse.core.rng import derive
from hanse.core.types import Facts
from hanse.data.batching import FullGradient, plan, steps
from hanse.models.gradient import Batch, BoundGradient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from hanse.core.rng import Keys
    from hanse.core.types import ClientContext, Gradient, Step
    from hanse.data.batching import Pass, Plan
    from hanse.data.federation import Block
    from hanse.models.gradient import Executor


class SpanPlans:
    """The data of a span's clients, and for each pass the plan of their batches, made when used."""

    def __init__(
        self, passes: tuple[Pass, ...], data: Block, keys: Keys, dtype: torch.dtype
    ) -> None:
        """Clients sorted by their number of examples, most first."""
        self.passes, self.data = passes, data
        self._keys, self._dtype = keys, dtype
        self._plans: dict[int, Plan] = {}

    def plan(self, pass_number: int, rows: slice) -> Plan:
        """The batches of some of the clients."""
        whole = self._plans.get(pass_number)
        if whole is None:
            whole = self._plans[pass_number] = plan(
                self.passes[pass_number],
                self.data.sizes,
                self.data.starts,
                derive(self._keys, "pass", pass_number),
                self._dtype,
            )
        return whole.part(rows)


class BlockWork:
    """The batches of K clients, sorted by their number of examples, most first."""

    def __init__(
        self,
        executor: Executor,
        plans: SpanPlans,
        rows: slice,
        client: ClientContext,
        buffers: Tensor,
    ) -> None:
        """Bind an executor to a block's data; `buffers` `[K, b]` is changed by training."""
        self.buffers = buffers
        self._executor = executor
        self._plans, self._rows, self._client = plans, rows, client
        self._losses = torch.zeros_like(client.examples)

    def walk(self, pass_number: int, state: dict[str, Tensor], step: Step) -> None:
        """As `Work.walk`."""
        rows, still = MappingProxyType(state), len(self._client.id)
        for active, gradient in self._steps(pass_number):
            if active != still:
                rows, still = MappingProxyType(prefix(state, active)), active
            step(rows, gradient, pass_number)

    def _steps(self, pass_number: int) -> Iterator[tuple[int, Gradient]]:
        """For each step of a pass: how many leading clients still train, and their gradient."""
        x, y = self._plans.data.fields["x"], self._plans.data.fields["y"]
        first = pass_number == 0
        losses = self._losses if first else None
        # Later passes look at other parameters than those that are sent: their statistics go.
        buffers = self.buffers if first else self.buffers.clone()
        for step, chosen in enumerate(self._plans.plan(pass_number, self._rows)):
            active, rows = chosen.active, chosen.rows.reshape(-1)
            shape = chosen.rows.shape
            batch = Batch(
                x=x.index_select(0, rows).view(*shape, *x.shape[1:]),
                y=y.index_select(0, rows).view(*shape, *y.shape[1:]),
                weights=chosen.weights,
                counts=chosen.counts,
                buffers=buffers[:active],
                keys=self._client.key[:active],
                pass_number=pass_number,
                step=step,
            )
            yield active, BoundGradient(self._executor, batch, losses)

    def facts(self) -> Facts:
        """Steps taken and mean loss over the first pass."""
        first = self._plans.passes[0]
        taken = torch.from_numpy(steps(first, self._plans.data.sizes[self._rows]))
        taken = taken.to(self._losses)
        # The weights of a full gradient add up to one over all its steps, others' in each step.
        loss = self._losses if isinstance(first, FullGradient) else self._losses / taken
        return Facts(steps=taken, loss=loss)
