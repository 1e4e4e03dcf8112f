"""The numbers of a run: what its report says in words and the command line in its last table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.report.quantities import Spread, client_stats, mean, over_seeds
from hanse.report.reading import read
from hanse.report.traffic import Traffic, traffic

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.report.quantities import ClientStats
    from hanse.report.records import Experiment, RunRecord, Split, Status


@dataclass(frozen=True)
class WorstClient:
    """The client that a model serves worst.

    Attributes:
        name: its name; over several seeds the one that is worst most often.
        seeds: in how many seeds this client is the worst.
        value: its value; over several seeds, of the worst client of each.
    """

    name: str
    seeds: int
    value: Spread


@dataclass(frozen=True)
class Comparison:
    """The federated model against the model that each client trains alone.

    For clients that never train, "alone" is the mean over the training clients' models.

    Attributes:
        worse: how many clients the federated model serves worse.
        compared: how many clients have both numbers (in the first seed).
        gain: mean over clients of federated minus alone, in the unit of the metric.
        names: the clients served worse, the greatest loss first; over several seeds those that
            are worse in at least one, the most frequent first.
    """

    worse: Spread
    compared: int
    gain: Spread
    names: tuple[str, ...]


@dataclass(frozen=True)
class MetricSummary:
    """One metric on one split; every number is a mean over seeds with its deviation.

    Attributes:
        metric: its name.
        lower_is_better: whether less of it is better.
        overall: example-weighted over clients: what one model gives on all examples.
        client_mean: each client counting once.
        client_std: standard deviation over clients (divisor n).
        worst_decile: mean of the tenth of the clients served worst (rounded up).
        worst: the client served worst.
        alone: the same as `overall` for the models the clients train alone; None without baselines.
        pooled: the same as `overall` for a model trained on all data in one place.
        comparison: client by client against training alone.
    """

    metric: str
    lower_is_better: bool
    overall: Spread | None
    client_mean: Spread | None
    client_std: Spread | None
    worst_decile: Spread | None
    worst: WorstClient | None
    alone: Spread | None
    pooled: Spread | None
    comparison: Comparison | None


@dataclass(frozen=True)
class SplitSummary:
    """The metrics of one split: `test` (the training clients) or `unseen` (those that never train).

    Attributes:
        split: its name.
        clients: clients evaluated (in the first seed).
        examples: examples evaluated (in the first seed).
        missing: clients of these without a finite value of the first metric; they are left out
            of the numbers over clients.
        metrics: the primary metric first, the loss last.
    """

    split: Split
    clients: int
    examples: int
    missing: int
    metrics: tuple[MetricSummary, ...]

    def metric(self, name: str) -> MetricSummary:
        """The summary of one metric.

        Raises:
            KeyError: where the split has no such metric.
        """
        for found in self.metrics:
            if found.metric == name:
                return found
        raise KeyError(name)


@dataclass(frozen=True)
class Summary:
    """The numbers of a run, or of the runs of an experiment with several seeds.

    Attributes:
        name: the name of the experiment.
        status: `diverged`, `stopped` or `running` where any seed is, in this order.
        seeds: the seeds, as far as they are known.
        runs: how many runs the numbers are over.
        rounds: rounds planned.
        trained: rounds of training written down (the fewest over seeds).
        seconds: wall-clock time of all runs together; None where unknown.
        primary: the metric to look at first.
        dropped: updates that were not accepted, over all runs and rounds.
        splits: the splits that were evaluated.
        traffic: what travelled; None where not written down.
        uncovered: whether the numbers are exact ones of a private run, which its guarantee does
            not cover.
    """

    name: str
    status: Status
    seeds: tuple[int, ...]
    runs: int
    rounds: int
    trained: int
    seconds: float | None
    primary: str
    dropped: int
    splits: tuple[SplitSummary, ...]
    traffic: Traffic | None = None
    uncovered: bool = False

    def split(self, name: str) -> SplitSummary | None:
        """The summary of a split; None where it was not evaluated."""
        return next((split for split in self.splits if split.split == name), None)


def summary(path: Path) -> Summary:
    """Summarise a run directory or a group directory.

    Raises:
        RunError: where the folder is missing or is no run, or where a file in it is malformed.
    """
    return summarise(read(path))


def summarise(experiment: Experiment) -> Summary:
    """Summarise runs that were already read."""
    runs = experiment.runs
    info = experiment.first.info
    order: tuple[Status, ...] = ("diverged", "stopped", "running", "finished")
    seconds = [run.info.seconds for run in runs if run.info.seconds is not None]
    return Summary(
        name=info.name,
        status=next(status for status in order if any(run.info.status == status for run in runs)),
        seeds=tuple(run.info.seed for run in runs if run.info.seed is not None),
        runs=len(runs),
        rounds=info.rounds,
        trained=min(run.trained_rounds for run in runs),
        seconds=sum(seconds) if seconds else None,
        primary=experiment.primary,
        dropped=sum(len(row.dropped) for run in runs for row in run.rounds),
        splits=tuple(_split(experiment, split) for split in experiment.splits),
        traffic=traffic(experiment),
        uncovered=any(run.info.privacy is not None and run.info.privacy.exact for run in runs),
    )


def _split(experiment: Experiment, split: Split) -> SplitSummary:
    """The summary of one split."""
    known = [run.federated(split) for run in experiment.runs]
    values = next((found for found in known if found is not None), None)
    return SplitSummary(
        split=split,
        clients=len(values.clients) if values else 0,
        examples=sum(values.examples) if values else 0,
        missing=values.metrics.get(experiment.primary, ()).count(None) if values else 0,
        metrics=tuple(
            found
            for metric in experiment.metrics
            if (found := _metric(experiment, split, metric)).overall or found.client_mean
        ),
    )


def _metric(experiment: Experiment, split: Split, metric: str) -> MetricSummary:
    """The summary of one metric on one split."""
    lower = experiment.lower_is_better(metric)
    stats = [(run, found) for run in experiment.runs if (found := _stats(run, split, metric))]
    return MetricSummary(
        metric=metric,
        lower_is_better=lower,
        overall=over_seeds(run.overall(split, metric)[1] for run in experiment.runs),
        client_mean=over_seeds(found.mean for _, found in stats),
        client_std=over_seeds(found.std for _, found in stats),
        worst_decile=over_seeds(found.worst_decile(lower_is_better=lower) for _, found in stats),
        worst=_worst(stats, split, lower=lower),
        alone=_baseline(experiment, "local", split, metric),
        pooled=_baseline(experiment, "pooled", split, metric),
        comparison=_comparison(experiment, split, metric, lower=lower),
    )


def _stats(run: RunRecord, split: Split, metric: str) -> ClientStats | None:
    """The spread over clients of a run's last evaluation."""
    values = run.federated(split)
    if values is None or metric not in values.metrics:
        return None
    return client_stats(values.metrics[metric], values.clients)


def _worst(
    stats: list[tuple[RunRecord, ClientStats]], split: Split, *, lower: bool
) -> WorstClient | None:
    """The worst client of each run, under the name that comes up most often."""
    value = over_seeds(found.worst(lower_is_better=lower) for _, found in stats)
    if value is None:
        return None
    names = Counter(
        run.info.data.client_name(split, found.worst_client(lower_is_better=lower))
        for run, found in stats
    )
    name, seeds = names.most_common(1)[0]
    return WorstClient(name, seeds, value)


def _baseline(experiment: Experiment, kind: str, split: Split, metric: str) -> Spread | None:
    """The example-weighted value of a baseline."""
    found = (run.baselines.get(kind, {}).get(split) for run in experiment.runs)
    return over_seeds(values.overall(metric) if values else None for values in found)


def _comparison(
    experiment: Experiment, split: Split, metric: str, *, lower: bool
) -> Comparison | None:
    """Federated against alone, for the runs that have both."""
    worse: list[float] = []
    gains: list[float | None] = []
    compared = 0
    losses: Counter[str] = Counter()
    order: dict[str, float] = {}
    for run in experiment.runs:
        federated = run.federated(split)
        alone = run.baselines.get("local", {}).get(split)
        if federated is None or alone is None:
            continue
        ours, theirs = federated.by_client(metric), alone.by_client(metric)
        gain = {client: ours[client] - theirs[client] for client in ours if client in theirs}
        if not gain:
            continue
        harm = {
            client: g if lower else -g for client, g in gain.items() if (g if lower else -g) > 0
        }
        compared = compared or len(gain)
        worse.append(float(len(harm)))
        gains.append(mean(gain.values()))
        for client, size in harm.items():
            name = run.info.data.client_name(split, client)
            losses[name] += 1
            order[name] = max(size, order.get(name, 0.0))
    total, gained = over_seeds(worse), over_seeds(gains)
    if total is None or gained is None:
        return None
    names = sorted(losses, key=lambda name: (-losses[name], -order[name], name))
    return Comparison(total, compared, gained, tuple(names))
