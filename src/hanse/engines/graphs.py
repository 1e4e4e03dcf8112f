"""Passes walked by recorded steps, one recording for each number of clients that still train.

Blocks shrink as clients end, and a recorded step has a fixed number of rows. So there is one for
each of a few sizes, and the smallest that suffices is repeated. Rows that are in it without a
client compute something that nobody looks at.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch

from hanse.client import prefix
from hanse.data.batching import FullGradient
from hanse.engines.capture import Uncapturable, words
from hanse.engines.stage import Fields, StageBatch, StageState, Writes, spec_of
from hanse.engines.tables import tables
from hanse.models.gradient import BoundGradient

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hanse.core.types import Step
    from hanse.data.batching import Plan
    from hanse.engines.capture import Capture
    from hanse.engines.stage import Part, Spec
    from hanse.models.gradient import Executor

_APART = 1.2  # a size and the next smaller one; and widths that depend on the data
_COARSE = 8  # widths above this are multiples of it


class Pass(NamedTuple):
    """A pass that is to be walked.

    Attributes:
        number: of the local training's passes.
        plan: the batches of K clients.
        state: theirs, changed in place.
        step: what is done with it.
        x: the examples that the plan's rows are of.
        y: their targets.
        losses: `[K]`, what losses are added to; `None`: they are not wanted.
    """

    number: int
    plan: Plan
    state: dict[str, Tensor]
    step: Step
    x: Tensor
    y: Tensor
    losses: Tensor | None


class _Recorded(NamedTuple):
    """A step of a number of rows: what repeats it, and where its inputs go."""

    replay: Callable[[], None]
    rows: int
    x: Tensor
    y: Tensor
    weights: Tensor


class _Stage:
    """Memory for one kind of pass, and the steps that are recorded on it."""

    def __init__(self, state: StageState, batch: StageBatch) -> None:
        self.state, self.batch = state, batch
        self.steps: dict[int, _Recorded] = {}
        self.written: dict[str, Part] = {}

    def record(self, size: int, one: Pass, executor: Executor, capture: Capture) -> None:
        """Record a step of the first `size` rows; all of the memory is changed by it.

        Raises:
            Uncapturable: it cannot be recorded.
        """
        state = MappingProxyType(prefix(self.state.tensors, size))
        batch = self.batch.batch(size, one.number)
        losses = None if one.losses is None else self.batch.losses[:size]

        def run() -> None:
            one.step(state, BoundGradient(executor, batch, losses), one.number)

        try:
            with Writes() as writes:
                run()
        except Exception as error:
            raise Uncapturable(words(error)) from error
        replay = capture(run)
        for part in self.state.written(writes):
            if part.tied:
                text = f"{part.name!r} is written to, and shares its memory with other tensors"
                raise Uncapturable(text)
            self.written[part.name] = part
        self.steps[size] = _Recorded(replay, size, *self.batch.inputs(size))


class Graphs:
    """Recorded steps of one strategy, kept from block to block and from round to round."""

    def __init__(
        self, executor: Executor, capture: Capture, block: int, device: torch.device
    ) -> None:
        """Nothing is recorded yet.

        Args:
            executor: computes the gradients.
            capture: records.
            block: how many clients a block has at most.
            device: where.
        """
        self._executor, self._capture, self._device = executor, capture, device
        self._block, self._sizes = block, sizes(block)
        self._states: dict[Spec, StageState] = {}
        self._batches: dict[tuple[Fields, int], StageBatch] = {}
        self._stages: dict[tuple[int, Spec, Fields, int], _Stage] = {}
        self._given_up = False

    def walk(self, one: Pass) -> bool:
        """Walk a pass; `False`, and nothing is changed, if it cannot be recorded."""
        clients = len(one.plan.sizes)
        # A block of one has no stride that says whether its row is meant for all clients.
        if self._given_up or (clients == 1 and self._block > 1):
            return False
        width = _width(one.plan)
        stage = self._stage(one, self.room(clients), width)
        try:
            for size in sorted({self.room(active) for active in one.plan.actives}, reverse=True):
                if size not in stage.steps:
                    stage.record(size, one, self._executor, self._capture)
        except Uncapturable as reason:
            self._given_up = True
            for memory in (self._states, self._batches, self._stages):
                memory.clear()
            warnings.warn(
                f"steps of {_name(one.step)} cannot be recorded, and take longer: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        self._replay(one, stage, width)
        return True

    def room(self, clients: int) -> int:
        """The smallest recorded size for a number of clients."""
        return self._sizes[bisect_left(self._sizes, clients)]

    def _stage(self, one: Pass, rows: int, width: int) -> _Stage:
        """Memory that suffices; where it had been too small, with nothing recorded on it."""
        spec, fields = spec_of(one.state), Fields.of(one.x, one.y, one.plan.dtype)
        state = self._states.get(spec)
        if state is None or state.rows < rows:
            state = self._states[spec] = StageState(spec, rows, self._device)
        batch = self._batches.get((fields, width))
        if batch is None or batch.rows < rows:
            batch = self._batches[fields, width] = StageBatch(fields, rows, width, self._device)
        key = one.number, spec, fields, width
        stage = self._stages.get(key)
        if stage is None or stage.state is not state or stage.batch is not batch:
            stage = self._stages[key] = _Stage(state, batch)
        return stage

    def _replay(self, one: Pass, stage: _Stage, width: int) -> None:
        """Take the steps: no number is read between the first and the last of them."""
        written = list(stage.written.values())
        stage.state.put(one.state)
        if one.losses is not None:
            stage.batch.losses[: len(one.losses)].copy_(one.losses)
        still = len(one.plan.sizes)
        for table in tables(one.plan, width, self.room, self._device):
            rows, weights = table.rows.unbind(0), table.weights.unbind(0)
            for number, active in enumerate(table.actives):
                if active != still:
                    _take(one, stage, written, active, still)
                    still = active
                step = stage.steps[self.room(active)]
                chosen = rows[number][: step.rows].flatten()
                torch.index_select(one.x, 0, chosen, out=step.x)
                torch.index_select(one.y, 0, chosen, out=step.y)
                step.weights.copy_(weights[number][: step.rows])
                step.replay()
        _take(one, stage, written, 0, still)
        stage.state.take_numbers(one.state, written)


def _take(one: Pass, stage: _Stage, written: list[Part], start: int, stop: int) -> None:
    """Copy back the rows of clients that have taken their last step."""
    stage.state.take_rows(one.state, written, start, stop)
    if one.losses is not None:
        one.losses[start:stop].copy_(stage.batch.losses[start:stop])


def sizes(block: int) -> list[int]:
    """The numbers of rows that steps are recorded for, smallest first, `block` last."""
    found = [block]
    while found[-1] > 1:
        found.append(min(int(found[-1] / _APART), found[-1] - 1))
    return found[::-1]


def _width(plan: Plan) -> int:
    """How many examples the recorded batches have: at least the plan's, and the same for many."""
    given = getattr(plan.pass_, "batch_size", None)
    if given is not None:
        return plan.width
    width = 1
    while width < plan.width:
        width = max(int(width * _APART), width + 1)
        if width > _COARSE:
            width = -(-width // _COARSE) * _COARSE
    return min(width, plan.pass_.chunk) if isinstance(plan.pass_, FullGradient) else width


def _name(step: Step) -> str:
    owner = getattr(step, "__self__", step)
    return type(owner).__name__
