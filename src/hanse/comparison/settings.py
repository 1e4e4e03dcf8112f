"""What runs have in common, what they differ in, and whether they can be compared at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanse.config import read_experiment
from hanse.core.errors import RunError
from hanse.report.records import LOSS
from hanse.report.words import NOTHING, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hanse.report.records import Experiment, Split

# Results do not depend on these, or another sentence is about them.
_NO_MATTER = {"name", "run.workers", "run.checkpoint_every", "run.seed"}
# A part that is exchanged brings other parameters with it: that is one difference, not several.
_NAMES = {"data": "source", "model": "name", "strategy": "name"}
_DEFAULT_LOSS = "cross_entropy"


@dataclass(frozen=True)
class Setting:
    """A setting in which runs differ.

    Attributes:
        key: as `--set` has it, or a word for runs that were started from Python.
        values: its value in each experiment; an en dash where it has none.
        matters: whether results may differ by it.
    """

    key: str
    values: tuple[str, ...]
    matters: bool


def settings(experiments: Sequence[Experiment]) -> tuple[Setting, ...]:
    """The settings in which the experiments differ, those that matter first."""
    files = [_flat(one) for one in experiments]
    if any(file is None for file in files):
        files = [_facts(one) for one in experiments]
    tables = [file or {} for file in files]
    found = []
    for key in dict.fromkeys(key for table in tables for key in table):
        values = tuple(table.get(key, NOTHING) for table in tables)
        if len(set(values)) > 1:
            found.append(Setting(key, values, key not in _NO_MATTER))
    seeds = tuple(_seeds(one) for one in experiments)
    if len(set(seeds)) > 1:
        found.append(Setting("seeds", seeds, matters=False))
    return tuple(sorted(found, key=lambda setting: not setting.matters))


def independent(found: Sequence[Setting]) -> list[Setting]:
    """The settings without those that only follow from a part having been exchanged."""
    exchanged = {key for key, name in _NAMES.items() if f"{key}.{name}" in {s.key for s in found}}
    return [
        setting
        for setting in found
        if setting.matters
        and not (
            setting.key.partition(".")[0] in exchanged
            and NOTHING in setting.values
            and setting.key.partition(".")[2] not in _NAMES.values()
        )
    ]


def _flat(experiment: Experiment) -> dict[str, str] | None:
    """The run's `config.toml`, as `--set` names its values; None for a run from Python."""
    path = experiment.first.path / "config.toml"
    if not path.is_file():
        return None
    found = {}
    for section, table in read_experiment(path).content.items():
        if not isinstance(table, Mapping):
            found[section] = written(table)
            continue
        found |= {f"{section}.{key}": written(value) for key, value in table.items()}
    return {key: value for key, value in found.items() if key != "run.seed"}


def _facts(experiment: Experiment) -> dict[str, str]:
    """What `run.json` says of the experiment."""
    info = experiment.first.info
    return {
        "strategy": info.strategy_repr or info.strategy,
        "setting": info.setting,
        "rounds": str(info.rounds),
        "parameters": str(info.parameters),
        "name": info.name,
    }


def _seeds(experiment: Experiment) -> str:
    return ", ".join(str(run.info.seed) for run in experiment.runs)


def written(value: Any) -> str:  # noqa: ANN401 - whatever TOML can hold
    """A value as TOML writes it on a line, texts without quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {written(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    return str(value)


# ------------------------------------------------------------------------------- refusals
def check_clients(labels: Sequence[str], experiments: Sequence[Experiment]) -> None:
    """Refuse experiments about different data or clients.

    Raises:
        RunError: which two, and what differs.
    """
    first = experiments[0].first.info.data
    for label, experiment in zip(labels[1:], experiments[1:], strict=True):
        if _withholds(experiment) != _withholds(experiments[0]):
            raise RunError(
                f"of {labels[0]} and {label}, one withholds exact numbers about clients",
                why="there is no metric that both have",
                instead="runs with the same run.per_client, or `hanse report` of each",
            )
    for label, experiment in zip(labels[1:], experiments[1:], strict=True):
        data = experiment.first.info.data
        both = (
            ("the data set", first.name, data.name),
            ("the number of clients", first.population, data.population),
            ("the clients' names", first.clients, data.clients),
            ("how many examples each client has", first.train_sizes, data.train_sizes),
            ("which labels each client has", first.label_counts, data.label_counts),
            ("who never trains", first.unseen, data.unseen),
        )
        for what, ours, theirs in both:
            if ours != theirs:
                raise RunError(
                    f"{labels[0]} and {label} differ in {what}{_said(ours, theirs)}",
                    why="a client's results are compared with those of the same client on the same "
                    "examples",
                    instead="runs on the same data (data.seed decides how a data set is split), or "
                    "`hanse report` of each",
                )


def _withholds(experiment: Experiment) -> bool:
    promised = experiment.first.info.privacy
    return promised is not None and not promised.exact


def _said(ours: object, theirs: object) -> str:
    return f": {ours} and {theirs}" if isinstance(ours, str | int) else ""


def common_splits(labels: Sequence[str], experiments: Sequence[Experiment]) -> tuple[Split, ...]:
    """The splits that all experiments were evaluated on.

    Raises:
        RunError: one was not evaluated yet, or none is common.
    """
    for label, experiment in zip(labels, experiments, strict=True):
        if not experiment.splits:
            raise RunError(
                f"{label} has not been evaluated yet",
                why="there is nothing to compare of it",
                instead="data with test examples or unseen clients; or, if it has them, wait for "
                "its first evaluation, or `hanse resume` it if it was stopped",
            )
    found = tuple(
        split for split in experiments[0].splits if all(split in one.splits for one in experiments)
    )
    if not found:
        each = ", ".join(
            f"{label}: {listed(one.splits)}" for label, one in zip(labels, experiments, strict=True)
        )
        raise RunError(
            f"the runs were evaluated on different clients ({each})",
            why="a client is compared with itself",
            instead="runs with the same test clients",
        )
    return found


def common_metrics(labels: Sequence[str], experiments: Sequence[Experiment]) -> tuple[str, ...]:
    """The metrics that all experiments have, the primary one first.

    Raises:
        RunError: no metric that means the same in all of them.
    """
    found = [
        metric
        for metric in experiments[0].metrics
        if all(metric in one.metrics for one in experiments)
    ]
    losses = [_loss(one) for one in experiments]
    if len(set(losses)) > 1 and LOSS in found:
        found.remove(LOSS)  # two losses of the same name
    wanted = any(set(one.metrics) - {LOSS} for one in experiments)
    if not found or (wanted and found == [LOSS]):
        each = "; ".join(
            f"{label}: {', '.join(one.metrics)}" + f" ({loss})" * (loss is not None)
            for label, one, loss in zip(labels, experiments, losses, strict=True)
        )
        raise RunError(
            f"the runs have no metric in common ({each})",
            why="numbers of different metrics say nothing about each other",
            instead="runs with the same model.metrics and model.loss",
        )
    return tuple(found)


def _loss(experiment: Experiment) -> str | None:
    """The name of the loss; None for a run from Python, which does not write it down."""
    table = _flat(experiment)
    return None if table is None else table.get("model.loss", _DEFAULT_LOSS)
