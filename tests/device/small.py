"""Engines that work as on a graphics card, but in the computer's memory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from tests.engine.small import World, snapshot
from torch.utils._python_dispatch import TorchDispatchMode

from hanse.engines import InProcess
from hanse.engines.capture import DirectCapture
from hanse.engines.on_device import Place
from hanse.round import run_round

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from hanse.core.types import Gradient
    from hanse.models import Execution
    from hanse.round import FederationState
    from hanse.strategy import Strategy

CPU = torch.device("cpu")
_READING = {
    torch.ops.aten._local_scalar_dense.default,  # noqa: SLF001 - what .item() becomes
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,  # noqa: SLF001 - what unique() becomes
}


class Unread(TorchDispatchMode):
    """No number may be read inside, as if each reading had to wait for a device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _READING:
            message = f"{func} waits for the device"
            raise RuntimeError(message)
        return func(*args, **(kwargs or {}))


@dataclass
class Recorder(DirectCapture):
    """As `DirectCapture`; counts, and lets no number be read."""

    recorded: int = 0
    replayed: int = 0
    strict: bool = True
    errors: list[Exception] = field(default_factory=list)

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        def counted() -> None:
            self.replayed += 1
            if self.strict:
                with Unread():
                    run()
            else:
                run()

        replay = super().__call__(counted)
        self.recorded += 1
        self.replayed = 0
        return replay


def device_run(
    small: World,
    strategy: Strategy,
    execution: Execution,
    rounds: int = 3,
    place: Place | None = None,
) -> FederationState:
    """Rounds of one engine, kept between them as in a run."""
    place = Place(CPU, Recorder()) if place is None else place
    engine = InProcess(strategy, small.task, small.data, execution, place)
    state = small.start(strategy)
    for _ in range(rounds):
        state, _ = run_round(state, engine, small.population, small.task.layout)
    return state


def unread(strategy: Strategy) -> Strategy:
    """The same strategy, whose steps may not read a number."""
    local = strategy.local

    class Steps(type(local)):  # type: ignore[misc]
        def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
            with Unread():
                super().step(state, gradient, pass_number)

    values = {f.name: getattr(local, f.name) for f in dataclasses.fields(local)}
    return strategy.replace(local=Steps(**values))


__all__ = ["CPU", "Recorder", "Unread", "device_run", "snapshot", "unread"]
