"""What becomes of exact numbers about clients in a private run: never kept and withheld at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanse.aggregation import SecureSum
from hanse.core.errors import ConfigError, StrategyError, did_you_mean
from hanse.memory import initial_memory
from hanse.privacy.accounting import installed
from hanse.privacy.histogram import PrivateHistogram
from hanse.soundness.composition import first_broadcast

if TYPE_CHECKING:
    from hanse.data import Federation
    from hanse.models import Task
    from hanse.privacy.statement import Shown, Statement
    from hanse.settings import Setting
    from hanse.strategy import Strategy


def what_is_shown(
    asked: Shown | PrivateHistogram | None, statement: Statement | None, *, ledger: bool
) -> Shown | PrivateHistogram:
    """What was asked for, or the default: who keeps a ledger means to protect somebody.

    Args:
        asked: by the experiment.
        statement: what the strategy promises, if anything.
        ledger: whether rounds are charged to one.

    Raises:
        ConfigError: exact numbers are to be withheld of a run that protects nobody.
    """
    if statement is None and asked not in (None, "simulation"):
        raise ConfigError(
            f"per_client = {asked!r} with a strategy that adds no noise",
            why="the model itself tells of single clients, so it would protect nobody to withhold "
            "their metrics",
            instead="dp_fedavg(…), or ClientDP(noise_multiplier=1.0) as the last layer; or "
            "per_client='simulation'",
        )
    if asked is not None:
        return asked
    real = statement is not None and statement.protects and ledger
    return "withheld" if real else "simulation"


def about_shown(statement: Statement | None) -> tuple[str, ...]:
    """What must be known of a private run's numbers."""
    if statement is None:
        return ()
    said = []
    if not installed():
        said.append("no epsilon is stated: that takes pip install 'hanse[privacy]'")
    if statement.shown == "simulation":
        said.append(
            "losses, norms, metrics, numbers of examples and the per-client results of this run "
            "are exact: no guarantee covers them"
        )
    elif statement.shown == "withheld":
        said.append(
            "no exact number about clients is computed or written down, metrics among them: "
            "per_client = 'simulation' does both, uncovered by the guarantee, and a "
            "PrivateHistogram releases noisy counts"
        )
    else:
        said.append(
            "instead of exact numbers about clients, each evaluation releases noisy counts of "
            f"their {statement.shown.metric}, which are part of what the run costs"
        )
    return tuple(said)


def check_shown(
    shown: Shown | PrivateHistogram,
    strategy: Strategy,
    task: Task,
    data: Federation,
    setting: Setting,
    evaluation_clients: int | None,
) -> None:
    """Refuse what would write exact numbers down after all, or release no histogram.

    Args:
        shown: what becomes of them.
        strategy: whose clients may remember something.
        task: with its metrics.
        data: with the clients that are evaluated.
        setting: of the experiment.
        evaluation_clients: how many clients are evaluated at most, if the experiment says so.

    Raises:
        ConfigError: a histogram of a metric, or of clients, that there are not; or of some clients.
        StrategyError: checkpoints would hold what single clients remember.
    """
    if shown == "simulation":
        return
    broadcast = first_broadcast(strategy, task, setting)
    if any(initial_memory(strategy, broadcast, task.buffers.local)):
        raise StrategyError(
            f"{strategy.name}, whose clients remember something, with per_client = {shown!r:.40}",
            why="a simulation keeps what each client remembers in its checkpoints, exactly",
            instead="a strategy without memory (dp_fedavg), or per_client='simulation' "
            "('per_client = \"simulation\"' in [run]), which the guarantee does not cover",
        )
    if not isinstance(shown, PrivateHistogram):
        return
    if isinstance(strategy.aggregation, SecureSum):
        raise ConfigError(
            "a PrivateHistogram with secure sums",
            why="whoever counts clients by a metric sees the metric of each, and the server is to "
            "see nothing of a single one",
            instead="per_client='withheld', or per_client='simulation', which no guarantee covers",
        )
    known = ["loss", *task.metrics]
    if shown.metric not in known:
        raise ConfigError(
            f"PrivateHistogram(metric={shown.metric!r})",
            why="the experiment has no such metric",
            instead=did_you_mean(shown.metric, known),
        )
    if data.test is None and data.unseen is None:
        raise ConfigError(
            "a PrivateHistogram, and no client with test examples",
            why="there is nobody to evaluate",
            instead="data with test examples or unseen clients, or per_client='withheld'",
        )
    if evaluation_clients is not None:
        raise ConfigError(
            f"evaluation_clients = {evaluation_clients} with a PrivateHistogram",
            why="who of them is drawn depends on who else is there, so one client more would "
            "change other counts, too",
            instead="no evaluation_clients: every client is evaluated",
        )
