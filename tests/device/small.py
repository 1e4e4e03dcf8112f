"""Engines that work as on a graphics card, but in the computer's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hanse.core.types import LocalTraining
from hanse.engines import InProcess
from hanse.engines.capture import DirectCapture
from hanse.engines.on_device import Place
from hanse.round import run_round

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.engine.small import World
    from torch import Tensor

    from hanse.core.types import Gradient
    from hanse.models import Execution
    from hanse.round import FederationState
    from hanse.strategy import Strategy

Torchs: TypeAlias = Any  # what torch passes, and expects back
CPU = torch.device("cpu")
_READING = {
    torch.ops.aten._local_scalar_dense.default,  # noqa: SLF001 - what .item() becomes
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,  # noqa: SLF001 - what unique() becomes
}


class Unread(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """No number may be read inside, as if each reading had to wait for a device."""

    def __torch_dispatch__(
        self,
        func: Torchs,
        types: Torchs,
        args: Torchs = (),
        kwargs: Mapping[str, Torchs] | None = None,
    ) -> Torchs:
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

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        def counted() -> None:
            self.replayed += 1
            if self.strict:
                with Unread():  # type: ignore[no-untyped-call]
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


@dataclass(frozen=True)
class _Watched(LocalTraining):
    """Another local training, whose steps may not read a number."""

    inner: LocalTraining

    def __getattribute__(self, name: str) -> Torchs:
        if name in ("inner", "step", "__class__", "__dict__"):
            return super().__getattribute__(name)
        return getattr(self.inner, name)

    def step(self, state: Mapping[str, Tensor], gradient: Gradient, pass_number: int) -> None:
        with Unread():  # type: ignore[no-untyped-call]
            self.inner.step(state, gradient, pass_number)


def reads_nothing(strategy: Strategy) -> Strategy:
    """The same strategy; to read a number in a step is an error."""
    return strategy.replace(local=_Watched(strategy.local))  # type: ignore[abstract]
