"""What a run directory holds, as plain values: the product of `hanse.report.reading`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from hanse.evaluation.spread import lower_is_better
from hanse.report.quantities import weighted_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hanse.report.guarantee import Counts, Guarantee, Spent
    from hanse.report.quantities import ClientStats, Number

Status = Literal["finished", "running", "stopped", "diverged"]
Split = Literal["test", "unseen"]
SPLITS: tuple[Split, ...] = ("test", "unseen")
LOSS = "loss"
ACCURACY = "accuracy"
NOUNS = {"client": "client", "clients": "clients", "examples": "examples"}


@dataclass(frozen=True)
class DataInfo:
    """The data a run was trained on.

    Attributes:
        name: the name of the data set.
        attribution: whom the data set is owed to and under which terms; empty where unknown.
        classes: names of the C classes; None for regression or where unknown.
        clients: names of the K clients; None where there are too many to write down.
        population: K, the number of clients that may train.
        train_sizes: training examples of each of the K clients; None where unknown.
        label_counts: K rows of C training-example counts; None where unknown.
        unseen: names of the clients that never train; None where there are too many.
        nouns: what to call `client`, `clients` and `examples` in sentences.
        public: how many of each client's examples are public ones; None where none are.
    """

    name: str
    attribution: str
    classes: tuple[str, ...] | None
    clients: tuple[str, ...] | None
    population: int
    train_sizes: tuple[int, ...] | None
    label_counts: tuple[tuple[int, ...], ...] | None
    unseen: tuple[str, ...] | None
    nouns: Mapping[str, str]
    public: int | None = None

    def client_name(self, split: str, client: int) -> str:
        """The name of a client of a split (`train` and `test` share their clients)."""
        names = self.unseen if split == "unseen" else self.clients
        if names is not None and 0 <= client < len(names):
            return names[client]
        return f"unseen client {client}" if split == "unseen" else f"client {client}"


@dataclass(frozen=True)
class RunInfo:
    """The contents of `run.json`; every text is printable and its length bounded.

    Attributes:
        seconds: wall-clock time of the run so far; None where not written yet.
        local_columns: how many of the parameters stay with the clients.
        privacy: what is promised; None where nobody is protected.
        (the others as in `run.json`)
    """

    name: str
    hanse: str
    torch: str
    python: str
    started: str
    seed: int | None
    strategy: str
    strategy_repr: str
    setting: str
    setting_set: tuple[str, ...]
    machine: str
    engine_path: str
    engine_block: int | None
    engine_why: str
    rounds: int
    parameters: int | None
    buffers: int | None
    local_columns: int | None
    warnings: tuple[str, ...]
    data: DataInfo
    status: Status
    advice: str | None
    seconds: float | None
    privacy: Guarantee | None = None


@dataclass(frozen=True)
class Dropped:
    """A client whose update a round did not accept."""

    client: int
    name: str
    reason: str


@dataclass(frozen=True)
class RoundRow:
    """A line of `metrics.jsonl`.

    Attributes:
        round: 0 is the evaluation before any training.
        seconds: wall-clock time of the round.
        cohort: clients drawn.
        accepted: clients whose update was used.
        dropped: clients whose update was not.
        train_loss: mean training loss of the cohort.
        norm_mean: mean L2 norm of the clients' updates.
        norm_max: largest L2 norm of the clients' updates.
        pairwise_cosine: mean cosine between the updates of two clients, -1 to 1.
        bytes_up: what the cohort sent to the server; None where not written down.
        bytes_down: what the cohort was sent.
        metrics: per evaluated split, the example-weighted metrics over its clients.
        privacy: what was spent up to here; None where nobody is protected.
        histograms: per split, the noisy histogram that was released.
    """

    round: int
    seconds: float | None
    cohort: int | None
    accepted: int | None
    dropped: tuple[Dropped, ...]
    train_loss: float | None
    norm_mean: float | None
    norm_max: float | None
    pairwise_cosine: float | None
    bytes_up: int | None
    bytes_down: int | None
    metrics: Mapping[str, Mapping[str, Number]]
    privacy: Spent | None = None
    histograms: Mapping[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True)
class ClientValues:
    """The metrics of the clients of one split.

    Attributes:
        round: after which round they were measured; None for a baseline.
        clients: the K clients evaluated.
        examples: the examples of each of the K clients.
        metrics: for each metric its K values; None where not finite.
    """

    round: int | None
    clients: tuple[int, ...]
    examples: tuple[int, ...]
    metrics: Mapping[str, tuple[Number, ...]]

    def overall(self, metric: str) -> float | None:
        """The example-weighted mean of a metric over the clients."""
        values = self.metrics.get(metric)
        return None if values is None else weighted_mean(values, self.examples)

    def by_client(self, metric: str) -> dict[int, float]:
        """The finite values of a metric by client."""
        values = self.metrics.get(metric, ())
        pairs = zip(self.clients, values, strict=False)
        return {client: value for client, value in pairs if value is not None}


@dataclass(frozen=True)
class RunRecord:
    """A run directory.

    Attributes:
        path: the directory.
        info: `run.json`.
        config: the text of `config.toml`; None for a run started from Python.
        rounds: the lines of `metrics.jsonl`, ascending by round.
        curves: split ("train", "test", "unseen") -> round -> metric -> its spread over clients.
        last: split -> the clients' metrics of the last evaluation with a finite value.
        taken_part: client -> in how many rounds it trained.
        mean_norm: client -> the mean L2 norm of its updates.
        baselines: kind ("local", "pooled", "federated") -> split -> the clients' metrics.
        traffic: client -> bytes that it sent and was sent; None where not written down.
    """

    path: Path
    info: RunInfo
    config: str | None
    rounds: tuple[RoundRow, ...]
    curves: Mapping[str, Mapping[int, Mapping[str, ClientStats]]]
    last: Mapping[str, ClientValues]
    taken_part: Mapping[int, int]
    mean_norm: Mapping[int, float]
    baselines: Mapping[str, Mapping[str, ClientValues]] = field(default_factory=dict)
    traffic: Mapping[int, tuple[int, int]] | None = None

    @property
    def trained_rounds(self) -> int:
        """The last round of training that was written down; 0 before the first."""
        return self.rounds[-1].round if self.rounds else 0

    def federated(self, split: str) -> ClientValues | None:
        """The federated model's last metrics of each client of a split."""
        return self.last.get(split) or self.baselines.get("federated", {}).get(split)

    def overall(self, split: str, metric: str) -> tuple[int | None, float | None]:
        """The round and the example-weighted value of the last finite evaluation of a split."""
        for row in reversed(self.rounds):
            metrics = row.metrics.get(split)
            # An accuracy measured with a loss that is not a number is an accident of argmax.
            if metrics is None or metrics.get(LOSS, 0.0) is None:
                continue
            value = metrics.get(metric)
            if value is not None:
                return row.round, value
        values = self.federated(split)
        return (None, None) if values is None else (values.round, values.overall(metric))


@dataclass(frozen=True)
class Experiment:
    """A run, or the runs of the same experiment with several seeds.

    Attributes:
        path: the run directory or the group directory.
        group: whether `path` is a group directory.
        runs: the runs in the order of their seeds; one or more.
    """

    path: Path
    group: bool
    runs: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        """The run of the first seed, which speaks for what all seeds share."""
        return self.runs[0]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric of the runs' evaluations, the one that matters most first, loss last."""
        seen: dict[str, None] = {}
        for run in self.runs:
            for row in run.rounds:
                for metrics in row.metrics.values():
                    seen.update(dict.fromkeys(metrics))
            for split in SPLITS:
                values = run.federated(split)
                seen.update(dict.fromkeys(values.metrics if values else ()))
        rank = {ACCURACY: 0, LOSS: 2}
        return tuple(sorted(seen, key=lambda name: rank.get(name, 1)))

    @property
    def primary(self) -> str:
        """The metric that verdicts are about: accuracy, else the user's first, else the loss."""
        return next(iter(self.metrics), LOSS)

    def lower_is_better(self, metric: str) -> bool:
        """Whether less of a metric is better."""
        return lower_is_better(metric)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that were evaluated at least once."""
        return tuple(
            split
            for split in SPLITS
            if any(
                run.federated(split) is not None or any(split in row.metrics for row in run.rounds)
                for run in self.runs
            )
        )

    @property
    def same_clients(self) -> bool:
        """Whether client k is the same client in every run, so that its numbers may be averaged.

        A partition drawn anew for each seed gives the same names to different clients.
        """
        keys = {
            (run.info.data.clients, run.info.data.population, run.info.data.train_sizes,
             run.info.data.label_counts, run.info.data.unseen)
            for run in self.runs
        }  # fmt: skip
        return len(keys) == 1
