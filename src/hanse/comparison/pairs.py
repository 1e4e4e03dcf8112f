"""Two experiments client by client: what each client gains or loses by the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.comparison.statistics import Interval, interval, sign_test
from hanse.report.quantities import mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hanse.report.records import Experiment, RunRecord, Split


@dataclass(frozen=True)
class Pair:
    """A client that both experiments evaluated; means over seeds.

    Attributes:
        name: its name.
        examples: examples it was evaluated on.
        reference: its value in the first experiment.
        other: its value in the other one.
        difference: other minus reference.
    """

    name: str
    examples: int
    reference: float
    other: float

    @property
    def difference(self) -> float:
        """What the client has more by the other experiment, in the unit of the metric."""
        return self.other - self.reference


@dataclass(frozen=True)
class Contrast:
    """An experiment against the reference, on one split and metric.

    Attributes:
        split: the split.
        metric: the metric.
        lower_is_better: whether less of it is better.
        pairs: the clients that both evaluated, the largest loser first.
        seeds: the seeds that both have; empty where none is.
        clients: the mean difference, each client counting once, and its interval over clients.
        by_seed: the difference of the example-weighted metrics, and its interval over paired
            seeds; None where no seed is in both.
    """

    split: Split
    metric: str
    lower_is_better: bool
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]
    clients: Interval
    by_seed: Interval | None

    def gain(self, pair: Pair) -> float:
        """How much better the client is served: the difference, turned so that more is better."""
        return -pair.difference if self.lower_is_better else pair.difference

    @property
    def better(self) -> int:
        """How many clients are served better."""
        return sum(self.gain(pair) > 0 for pair in self.pairs)

    @property
    def worse(self) -> int:
        """How many clients are served worse."""
        return sum(self.gain(pair) < 0 for pair in self.pairs)

    @property
    def losers(self) -> tuple[Pair, ...]:
        """The clients served worse, the largest loser first."""
        return tuple(pair for pair in self.pairs if self.gain(pair) < 0)

    @property
    def sign(self) -> float:
        """The p-value of the sign test over clients."""
        return sign_test(self.better, self.worse)


def matched(reference: Experiment, other: Experiment) -> list[tuple[RunRecord, RunRecord]]:
    """The runs with the same seed."""
    theirs = {run.info.seed: run for run in other.runs if run.info.seed is not None}
    return [(run, theirs[run.info.seed]) for run in reference.runs if run.info.seed in theirs]


def contrast(
    reference: Experiment, other: Experiment, split: Split, metric: str
) -> Contrast | None:
    """Compare client by client; None where no client has a value in both.

    With seeds that both have, each client's difference is taken within a seed and averaged over
    them. Without, it is between the means over the seeds that each has.
    """
    same = matched(reference, other)
    lower = reference.lower_is_better(metric)
    pairs = sorted(
        _pairs(reference, other, same, split, metric),
        key=lambda pair: (pair.difference * (-1 if lower else 1), pair.name),
    )
    over_clients = interval([pair.difference for pair in pairs])
    if over_clients is None:
        return None
    seeds = []
    differences = []
    for one, two in same:
        values = one.overall(split, metric)[1], two.overall(split, metric)[1]
        if values[0] is not None and values[1] is not None and one.info.seed is not None:
            seeds.append(one.info.seed)
            differences.append(values[1] - values[0])
    return Contrast(
        split, metric, lower, tuple(pairs), tuple(seeds), over_clients, interval(differences)
    )


def _pairs(
    reference: Experiment,
    other: Experiment,
    same: list[tuple[RunRecord, RunRecord]],
    split: Split,
    metric: str,
) -> Iterator[Pair]:
    """The clients with a value in both."""
    merged = reference.same_clients and other.same_clients
    if same and not merged:  # each seed has clients of its own
        for one, two in same:
            yield from _joined([one], [two], split, metric, f"seed {one.info.seed}: ")
        return
    ours, theirs = zip(*same, strict=True) if same else (reference.runs, other.runs)
    yield from _joined(list(ours), list(theirs), split, metric, "")


def _joined(
    ours: list[RunRecord], theirs: list[RunRecord], split: Split, metric: str, prefix: str
) -> Iterator[Pair]:
    """A pair for each client, of its means over runs."""
    left, examples = _by_client(ours, split, metric)
    right, _ = _by_client(theirs, split, metric)
    for client, values in left.items():
        one, two = mean(values), mean(right.get(client, ()))
        if one is not None and two is not None:
            name = prefix + ours[0].info.data.client_name(split, client)
            yield Pair(name, examples[client], one, two)


def _by_client(
    runs: list[RunRecord], split: Split, metric: str
) -> tuple[dict[int, list[float]], dict[int, int]]:
    """Client -> its values over runs, and its examples; only clients that every run evaluated."""
    values: dict[int, list[float]] = {}
    examples: dict[int, int] = {}
    for run in runs:
        found = run.federated(split)
        if found is None:
            continue
        examples |= dict(zip(found.clients, found.examples, strict=True))
        for client, value in found.by_client(metric).items():
            values.setdefault(client, []).append(value)
    return {k: v for k, v in values.items() if len(v) == len(runs)}, examples
