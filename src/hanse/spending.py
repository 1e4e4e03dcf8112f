"""What a run spends of a privacy budget: each round is charged before it begins.

`privacy_of` is the one place that knows which parts of a strategy protect somebody, and how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.errors import ConfigError
from hanse.layers import ClientDP
from hanse.privacy.ledger import Ledger
from hanse.privacy.statement import Statement, default_delta, every_round
from hanse.selection import Poisson, Uniform

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.privacy.events import GaussianEvent
    from hanse.privacy.ledger import Receipt
    from hanse.selection import Participation
    from hanse.strategy import Strategy


HISTOGRAM = ", histogram of "
"""Between a run's name and a split's, in the ledger."""


@dataclass(frozen=True, eq=False)
class Spending:
    """A ledger, and what is charged to it for each round.

    Attributes:
        ledger: the data set's.
        event: what a round releases.
    """

    ledger: Ledger
    event: GaussianEvent

    def charge(self, run: str, number: int) -> Receipt:
        """Charge a round; when this returns the charge is on the disk.

        A round is charged before anybody trains, so whatever ends it afterwards, nothing was
        released that was not paid for. One that is computed again draws new noise, and is charged
        again.

        Raises:
            BudgetError: it would cost more than is left. Nothing was charged.
            LedgerError: the ledger cannot be written or trusted.
        """
        return self.ledger.charge(self.event, run=run, round=number)

    def charge_histogram(
        self, histogram: GaussianEvent, run: str, number: int, split: str
    ) -> Receipt:
        """Charge a histogram of a split's clients, before it is released.

        In the ledger it has the run's name with `HISTOGRAM` and the split behind it.

        Raises:
            BudgetError: it would cost more than is left. Nothing was charged.
            LedgerError: the ledger cannot be written or trusted.
        """
        return self.ledger.charge(histogram, run=f"{run}{HISTOGRAM}{split}", round=number)


def privacy_of(
    strategy: Strategy,
    participation: Participation,
    clients: int,
    delta: tuple[float, str] | None = None,
) -> Statement | None:
    """What a strategy promises; `None` if none of its parts protects anybody.

    Another mechanism is one more branch: it says what a number of rounds releases
    (`Statement.events`), of every kind of client if clients differ.

    Args:
        strategy: what adds the noise.
        participation: who takes part in a round.
        clients: how many there are.
        delta: at which epsilon is stated, and where it is from; `None`: from the clients' number.
    """
    layer = next((layer for layer in strategy.layers if isinstance(layer, ClientDP)), None)
    if layer is None or not layer.noise_multiplier:
        return None
    event = layer.event(participation, clients)
    at, source = default_delta(clients) if delta is None else delta
    return Statement(
        mechanism=f"ClientDP: updates clipped, discrete Gaussian noise of "
        f"{layer.noise_multiplier:g} clip norms on their sum",
        unit="client",
        adjacency=event.adjacency,
        events=every_round(event),
        event=event,
        delta=at,
        delta_from=source,
        protects=layer.noise == "os",
        against="whoever sees the models, all of them, of every round",
        covered="the model after every round",
        not_covered=(*_of_sampling(participation), *_ALWAYS),
    )


def _of_sampling(participation: Participation) -> tuple[str, ...]:
    if not isinstance(participation, Poisson | Uniform) or not _samples(participation):
        return ()
    return (_COHORTS,)


def _samples(participation: Poisson | Uniform) -> bool:
    return not (isinstance(participation, Poisson) and participation.rate == 1)


_COHORTS = (
    "whoever knows the cohorts, the server among them: what is gained by sampling does not hold "
    "against them, and epsilon is larger"
)
_ALWAYS = (
    "choices made by results: the best of several runs, rates that were tuned, an early stop",
    "when rounds were done and how long they took, and whether the run ended by an error",
    "what was computed of the clients' data before the run, such as a standardisation",
)


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
        ConfigError: there is no noise to account for, or none that protects; or the ledger's
            accountant has no proof for what it would be charged with.
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
    event, opened = layer.event(participation, clients), Ledger.open(ledger)
    opened.check(event)  # of another adjacency than what is in it, for example
    return Spending(opened, event)
