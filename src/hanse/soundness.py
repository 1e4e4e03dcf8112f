"""What does not compose soundly is refused before the run, by name, with the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import StrategyError
from hanse.core.types import RoundContext
from hanse.local import FullGradientStep
from hanse.memory import initial_memory
from hanse.round import initial_state, publish

if TYPE_CHECKING:
    from hanse.models import Task
    from hanse.settings import Setting
    from hanse.strategy import Strategy


def check(strategy: Strategy, task: Task, setting: Setting) -> tuple[str, ...]:
    """Refuse what is unsound; return warnings for what is sound but likely to disappoint.

    Raises:
        StrategyError: the combination is refused.
    """
    _refuse_untrained_columns(strategy, task)
    if setting.memory == "stale" and _clients_remember(strategy, task, setting):
        warning = (
            f"{type(strategy.local).__name__} has clients remember a vector between rounds, but "
            f"in a {setting.name} federation a client returns after many rounds, with stale "
            "memory: consider fedprox, or momentum at the server"
        )
        return (warning,)
    return ()


def _refuse_untrained_columns(strategy: Strategy, task: Task) -> None:
    if task.layout.local and isinstance(strategy.local, FullGradientStep):
        kept = [
            n
            for n, o in zip(task.layout.names, task.layout.offsets, strict=True)
            if o >= task.layout.shared
        ]
        raise StrategyError(
            f"FedSGD with parameters that stay with the clients: {', '.join(kept)}",
            why="its clients only send a gradient: what stays with them would never be trained",
            instead="a strategy that trains at the client (fedavg, fedprox, scaffold)",
        )


def _clients_remember(strategy: Strategy, task: Task, setting: Setting) -> bool:
    context = RoundContext(
        number=1,
        key=np.uint64(0),
        population=1,
        expected=1.0,
        cohort=1,
        setting=setting.name,
        layout=task.layout,
    )
    broadcast = publish(initial_state(strategy, task), strategy, context)
    _, *memories = initial_memory(strategy, broadcast, task.buffers.local)
    return any(memories)
