"""The two settings of federated learning, as defaults that say what they set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hanse.core.errors import ConfigError, did_you_mean
from hanse.selection import Full, Participation, Uniform


@dataclass(frozen=True)
class Setting:
    """Defaults for what the user leaves open.

    Attributes:
        name: `"cross-silo"` or `"cross-device"`.
        participation: who takes part in a round.
        evaluate_every: rounds between evaluations; the last round is always evaluated.
        evaluation_clients: how many clients are evaluated at most; `None`: all.
        memory: whether clients may be counted on to remember (`"kept"`), or a strategy whose
            clients remember is warned about (`"stale"`), since they return after many rounds.
    """

    name: Literal["cross-silo", "cross-device"]
    participation: Participation
    evaluate_every: int
    evaluation_clients: int | None
    memory: Literal["kept", "stale"]


CROSS_SILO = Setting("cross-silo", Full(), 1, None, "kept")
CROSS_DEVICE = Setting("cross-device", Uniform(fraction=0.01), 10, 1000, "stale")
SETTINGS = {setting.name: setting for setting in (CROSS_SILO, CROSS_DEVICE)}


def setting_named(name: str) -> Setting:
    """The setting of a name.

    Raises:
        ConfigError: there is no such setting.
    """
    if name not in SETTINGS:
        raise ConfigError(
            f"setting {name!r}",
            why="it decides who takes part, who is evaluated and what clients may remember",
            instead=did_you_mean(str(name), SETTINGS),
        )
    return SETTINGS[name]
