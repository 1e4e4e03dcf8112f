"""What a run spends of a privacy budget: each round is charged before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.errors import ConfigError
from hanse.layers import ClientDP
from hanse.privacy.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.privacy.events import GaussianEvent
    from hanse.selection import Participation
    from hanse.strategy import Strategy


@dataclass(frozen=True, eq=False)
class Spending:
    """A ledger, and what is charged to it for each round.

    Attributes:
        ledger: the data set's.
        event: what a round releases.
    """

    ledger: Ledger
    event: GaussianEvent

    def charge(self, run: str, number: int) -> None:
        """Charge a round; when this returns the charge is on the disk.

        A round is charged before anybody trains, so whatever ends it afterwards, nothing was
        released that was not paid for. One that is computed again draws new noise, and is charged
        again.

        Raises:
            BudgetError: it would cost more than is left. Nothing was charged.
            LedgerError: the ledger cannot be written or trusted.
        """
        self.ledger.charge(self.event, run=run, round=number)


def spending(
    ledger: str | Path | None, strategy: Strategy, participation: Participation, clients: int
) -> Spending | None:
    """Open the ledger that an experiment is charged to, if it is; all of it is verified.

    Args:
        ledger: its file.
        strategy: what adds the noise.
        participation: who takes part in a round.
        clients: how many there are.

    Raises:
        ConfigError: there is no noise to account for, or none that protects.
        LedgerError: there is no such ledger, or it is damaged.
    """
    if ledger is None:
        return None
    layer = next((layer for layer in strategy.layers if isinstance(layer, ClientDP)), None)
    if layer is None or not layer.noise_multiplier:
        what = strategy.name if layer is None else f"ClientDP without noise in {strategy.name}"
        raise ConfigError(
            f"ledger = {str(ledger)!r} with {what}",
            why="without noise a round costs more than any budget holds",
            instead="dp_fedavg(…), or ClientDP(noise_multiplier=1.0) as the last layer; or no "
            "ledger",
        )
    if layer.noise == "seeded":
        raise ConfigError(
            f"ledger = {str(ledger)!r} with noise that is drawn from the run's seed",
            why="whoever knows the seed can take the noise off again, so nothing was protected "
            "and there is nothing to account for",
            instead="noise='os' (from the operating system); or no ledger, in an experiment",
        )
    return Spending(Ledger.open(ledger), layer.event(participation, clients))
