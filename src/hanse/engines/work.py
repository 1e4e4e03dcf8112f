"""The engine's side of a block: which examples at which step, and their gradients."""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.client import prefix
from hanse.core.rng import derive
from hanse.core.types import Facts
from hanse.data.batching import FullGradient, plan, steps
from hanse.models.gradient import Batch, BoundGradient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.rng import Keys
    from hanse.core.types import ClientContext, Gradient, Step
    from hanse.data.batching import Pass, Plan
    from hanse.data.federation import Block
    from hanse.models.gradient import Executor


class SpanPlans:
    """The data of a span's clients, and for each pass the plan of their batches, made when used."""

    def __init__(
        self,
        passes: tuple[Pass, ...],
        data: Block,
        keys: Keys,
        dtype: torch.dtype,
        taken: NDArray[np.int64] | None = None,
    ) -> None:
        """Clients sorted by what they have to do in the first pass, most first.

        Args:
            passes: the local training's.
            data: the clients' examples.
            keys: `[K]`, the clients' for the round.
            dtype: of the batches' weights.
            taken: `[K]`, how many steps of the first pass each takes; `None`: all of them. Later
                passes are never cut: half a full gradient is not the gradient of anything.
        """
        self.passes, self.data = passes, data
        self._keys, self._dtype, self._taken = keys, dtype, taken
        self._plans: dict[int, Plan] = {}

    def runs(self, pass_number: int, rows: slice) -> list[slice]:
        """Some of the clients in runs that have ever less to do in a pass, counted from the first.

        It is one run, unless stragglers have less to do in the first pass than smaller clients.
        """
        clients = rows.stop - rows.start
        if pass_number == 0 or self._taken is None:
            return [slice(0, clients)]
        needed = steps(self.passes[pass_number], self.data.sizes[rows])
        ends = [*(np.flatnonzero(np.diff(needed) > 0) + 1).tolist(), clients]
        return [slice(start, end) for start, end in pairwise([0, *ends])]

    def plan(self, pass_number: int, rows: slice) -> Plan:
        """The batches of a run of clients."""
        if pass_number and self._taken is not None:  # no order suits both passes
            return self._planned(pass_number, rows)
        whole = self._plans.get(pass_number)
        if whole is None:
            whole = self._plans[pass_number] = self._planned(pass_number, slice(None))
        return whole.part(rows)

    def _planned(self, pass_number: int, clients: slice) -> Plan:
        return plan(
            self.passes[pass_number],
            self.data.sizes[clients],
            self.data.starts[clients],
            derive(self._keys[clients], "pass", pass_number),
            self._dtype,
            self._taken if pass_number == 0 else None,
        )


class BlockWork:
    """The batches of K clients, sorted by what they have to do in the first pass, most first."""

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
        runs = self._plans.runs(pass_number, self._rows)
        if len(runs) == 1:
            self._walk(pass_number, state, step, runs[0])
            return
        taken = 0
        numbers = {name: value.clone() for name, value in state.items() if not value.dim()}
        for run in runs:  # each as if it were alone
            part = {k: v[run] if v.dim() else numbers[k].clone() for k, v in state.items()}
            self._walk(pass_number, part, step, run)
            if len(self._plan(pass_number, run)) > taken:
                taken = len(self._plan(pass_number, run))
                for name in numbers:
                    state[name].copy_(part[name])

    def _plan(self, pass_number: int, run: slice) -> Plan:
        first = self._rows.start
        return self._plans.plan(pass_number, slice(first + run.start, first + run.stop))

    def _walk(self, pass_number: int, state: dict[str, Tensor], step: Step, run: slice) -> None:
        """Take all steps of a pass with a run of the clients; the state is theirs."""
        rows, still = MappingProxyType(state), run.stop - run.start
        for active, gradient in self._steps(pass_number, run):
            if active != still:
                rows, still = MappingProxyType(prefix(state, active)), active
            step(rows, gradient, pass_number)

    def _of_pass(self, pass_number: int, run: slice) -> tuple[Tensor, Tensor | None]:
        """The buffers that a pass changes, and the losses that are added to, if they are."""
        if pass_number == 0:
            return self.buffers[run], self._losses[run]
        # Later passes look at other parameters than those that are sent: their statistics go.
        return self.buffers[run].clone(), None

    def _steps(self, pass_number: int, run: slice) -> Iterator[tuple[int, Gradient]]:
        """For each step of a pass: how many leading clients still train, and their gradient."""
        x, y = self._plans.data.fields["x"], self._plans.data.fields["y"]
        buffers, losses = self._of_pass(pass_number, run)
        keys = self._client.key[run]
        for step, chosen in enumerate(self._plan(pass_number, run)):
            active, rows = chosen.active, chosen.rows.reshape(-1)
            shape = chosen.rows.shape
            batch = Batch(
                x=x.index_select(0, rows).view(*shape, *x.shape[1:]),
                y=y.index_select(0, rows).view(*shape, *y.shape[1:]),
                weights=chosen.weights,
                counts=chosen.counts,
                buffers=buffers[:active],
                keys=keys[:active],
                pass_number=pass_number,
                step=step,
            )
            yield active, BoundGradient(self._executor, batch, losses)

    def facts(self) -> Facts:
        """Steps taken and mean loss over the first pass."""
        first = self._plans.passes[0]
        taken = torch.from_numpy(self._plans.plan(0, self._rows).steps).to(self._losses)
        # The weights of a full gradient add up to one over all its steps, others' in each step.
        loss = self._losses if isinstance(first, FullGradient) else self._losses / taken
        return Facts(steps=taken, loss=loss)
