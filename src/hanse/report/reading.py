"""Reading a run directory, or a group of them: JSON only, streamed, nothing unpickled."""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast, get_args

from hanse.core.errors import RunError
from hanse.report.fields import Fields, clean, lines, parse
from hanse.report.guarantee import guarantee, histograms, spent
from hanse.report.quantities import client_stats
from hanse.report.records import (
    LOSS,
    NOUNS,
    ClientValues,
    DataInfo,
    Dropped,
    Experiment,
    RoundRow,
    RunInfo,
    RunRecord,
    Split,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hanse.report.quantities import ClientStats, Number

FORMAT = 1
# Bounds on what a page may be asked to show; they keep it small whatever the files hold.
_NAME, _LONG, _CONFIG, _LIST = 120, 1000, 60_000, 100
_CLIENTS = 10_000_000


def read(path: Path) -> Experiment:
    """Read a run directory, or a group directory with a run in each `seed-N` folder.

    Raises:
        RunError: where the folder is missing or is neither, or where a file in it is malformed.
    """
    if not path.is_dir():
        raise RunError(
            f"there is no folder {path}",
            why="a report is made from the files of a run directory",
            instead="give the folder that `hanse run` printed, with run.json in it",
        )
    if (path / "run.json").is_file():
        return Experiment(path, group=False, runs=(read_run(path),))
    seeds = [
        (int(match[1]), folder)
        for folder in path.iterdir()
        if (match := re.fullmatch(r"seed-(\d+)", folder.name)) and (folder / "run.json").is_file()
    ]
    if not seeds:
        raise RunError(
            f"{path} has neither a run.json nor folders seed-0, seed-1, … with one",
            why="without it nobody knows what the other files mean",
            instead="give the folder of a run, or of a group of runs that differ in their seed",
        )
    return Experiment(path, group=True, runs=tuple(read_run(folder) for _, folder in sorted(seeds)))


def read_run(path: Path) -> RunRecord:
    """Read one run directory.

    Raises:
        RunError: where `run.json` is missing, of another format, or a file is malformed.
    """
    info = _info(parse((path / "run.json").read_bytes(), str(path / "run.json")))
    config = path / "config.toml"
    text = config.read_text("utf-8", errors="replace") if config.is_file() else None
    evaluations = _Evaluations()
    for fields in lines(path / "clients.jsonl"):
        evaluations.add(fields)
    return RunRecord(
        path=path,
        info=info,
        config=None if text is None else clean(text, _CONFIG),
        rounds=_rounds(path, info.data),
        curves=evaluations.curves,
        last=evaluations.last,
        taken_part=evaluations.taken_part(),
        mean_norm=evaluations.mean_norm(),
        baselines=_baselines(path),
        traffic=evaluations.traffic(),
    )


def _info(fields: Fields) -> RunInfo:
    """`run.json`, checked."""
    found = fields.values.get("format")
    if found != FORMAT:
        raise RunError(
            f"{fields.where}: format is {found!r}",
            why=f"this version of Hanse reads run directories of format {FORMAT}",
            instead="use the version of Hanse that wrote it (named in run.json under 'hanse')",
        )
    status = fields.text("status", "running")
    if status not in get_args(Status):
        fields.fail("status", "one of " + ", ".join(get_args(Status)))
    empty = Fields({}, fields.where)
    setting = fields.inner("setting") or empty
    engine = fields.inner("engine") or empty
    return RunInfo(
        name=fields.text("name", "run", _NAME),
        hanse=fields.text("hanse"),
        torch=fields.text("torch"),
        python=fields.text("python"),
        started=fields.text("started"),
        seed=fields.whole("seed"),
        strategy=fields.text("strategy", most=_NAME),
        strategy_repr=fields.text("strategy_repr", most=_LONG),
        setting=setting.text("name", most=_NAME),
        setting_set=setting.texts("set", most=_NAME * 2)[:_LIST],
        machine=fields.text("machine"),
        engine_path=engine.text("path"),
        engine_block=engine.whole("block"),
        engine_why=engine.text("why", most=_LONG),
        rounds=fields.needed_whole("rounds"),
        parameters=fields.whole("parameters"),
        buffers=fields.whole("buffers"),
        local_columns=fields.whole("local_columns"),
        warnings=fields.texts("warnings", _LONG)[:_LIST],
        data=_data(fields.inner("data") or empty),
        status=cast("Status", status),
        advice=fields.text("advice", most=_LONG) or None,
        seconds=fields.number("seconds"),
        privacy=guarantee(fields),
    )


def _data(fields: Fields) -> DataInfo:
    """The `data` of `run.json`, checked for lengths that belong together."""
    clients = fields.texts("clients", _NAME) if fields.has("clients") else None
    population = fields.whole("population")
    count = len(clients or ()) if population is None else population
    if count > _CLIENTS:
        fields.fail("population", f"at most {_CLIENTS:,}")
    classes = fields.texts("classes", _NAME) if fields.has("classes") else None
    sizes = fields.wholes("train_sizes") if fields.has("train_sizes") else None
    counts: tuple[tuple[int, ...], ...] | None = None
    if fields.has("label_counts"):
        rows = fields.items("label_counts")
        counts = tuple(
            Fields({"label_counts": row}, fields.where).wholes("label_counts") for row in rows
        )
        wide = len(counts[0]) if counts else 0
        if any(len(row) != wide for row in counts) or (classes and counts and len(classes) != wide):
            fields.fail("label_counts", "a list of equally long lists, a number for each class")
    for key, values in (("clients", clients), ("train_sizes", sizes), ("label_counts", counts)):
        if values is not None and len(values) != count:
            fields.fail(key, f"a list of {count} items, one for each client")
    nouns = fields.inner("nouns") or Fields({}, fields.where)
    public = fields.inner("public") or Fields({}, fields.where)
    return DataInfo(
        name=fields.text("name", most=_NAME),
        attribution=fields.text("attribution", most=_LONG),
        classes=classes,
        clients=clients,
        population=count,
        train_sizes=sizes,
        label_counts=counts or None,
        unseen=fields.texts("unseen", _NAME) if fields.has("unseen") else None,
        nouns={key: nouns.text(key, word, 40) for key, word in NOUNS.items()},
        public=public.whole("each"),
    )


def _rounds(path: Path, data: DataInfo) -> tuple[RoundRow, ...]:
    """The lines of `metrics.jsonl` that count."""
    rows: list[RoundRow] = []
    for fields in lines(path / "metrics.jsonl"):
        row = _round(fields, data)
        # A run that resumes from a checkpoint writes the rounds after it once more.
        while rows and rows[-1].round >= row.round:
            rows.pop()
        rows.append(row)
    return tuple(rows)


def _round(fields: Fields, data: DataInfo) -> RoundRow:
    """A line of `metrics.jsonl`."""
    drift = fields.inner("drift") or Fields({}, fields.where)
    sent = fields.inner("bytes") or Fields({}, fields.where)
    dropped: list[Dropped] = []
    for entry in fields.objects("dropped"):
        client = entry.needed_whole("client")
        name = entry.text("name", data.client_name("train", client), _NAME)
        dropped.append(Dropped(client, name, entry.text("reason", "no reason given", _NAME)))
    metrics: dict[str, Mapping[str, Number]] = {}
    for split in get_args(Split):
        values = fields.inner(split)
        if values is not None:
            metrics[split] = {clean(name, 60): values.number(name) for name in values.values}
    return RoundRow(
        round=fields.needed_whole("round"),
        seconds=fields.number("seconds"),
        cohort=fields.whole("cohort"),
        accepted=fields.whole("accepted"),
        dropped=tuple(dropped),
        train_loss=fields.number("train_loss"),
        norm_mean=drift.number("norm_mean"),
        norm_max=drift.number("norm_max"),
        pairwise_cosine=drift.number("pairwise_cosine"),
        bytes_up=sent.whole("up"),
        bytes_down=sent.whole("down"),
        metrics=metrics,
        privacy=spent(fields),
        histograms=histograms(fields, get_args(Split)),
    )


def _client_values(fields: Fields, round_: int | None) -> ClientValues:
    """The clients, examples and metrics of an object, equally long."""
    clients = fields.wholes("clients")
    examples = fields.wholes("examples")
    metrics = fields.inner("metrics") or Fields({}, fields.where)
    values = {clean(name, 60): metrics.numbers(name) for name in metrics.values}
    if any(len(row) != len(clients) for row in (examples, *values.values())):
        fields.fail("clients", "as long as examples and as every list of metrics")
    return ClientValues(round_, clients, examples, values)


def _without_accidents(values: ClientValues) -> ClientValues:
    """The values without the other metrics of clients whose loss is not finite.

    A model that returns nothing but NaN still has an accuracy: the frequency of its first class.
    """
    losses = values.metrics.get(LOSS)
    if losses is None or None not in losses:
        return values
    kept = {
        name: tuple(
            None if loss is None else value for value, loss in zip(row, losses, strict=True)
        )
        for name, row in values.metrics.items()
    }
    return replace(values, metrics=kept)


def _baselines(path: Path) -> dict[str, dict[str, ClientValues]]:
    """`baselines.json`; empty where the file is absent."""
    file = path / "baselines.json"
    if not file.is_file():
        return {}
    fields = parse(file.read_bytes(), str(file))
    found: dict[str, dict[str, ClientValues]] = {}
    for kind in ("local", "pooled", "federated"):
        splits = fields.inner(kind)
        for split in get_args(Split):
            values = splits.inner(split) if splits else None
            if values is not None:
                found.setdefault(kind, {})[split] = _client_values(values, None)
    return found


class _Sent(NamedTuple):
    """What a round's clients sent and were sent, in bytes."""

    up: array[int]  # of each client that trained
    down: int  # to each client
    late: array[int]  # clients that were sent it, too, and sent nothing


def _sent(fields: Fields, clients: int) -> _Sent | None:
    """The `bytes` of a line of training; None where it has none."""
    found = fields.inner("bytes")
    if found is None:
        return None
    up = found.wholes("up")
    if len(up) != clients:
        found.fail("up", "as long as the line's clients")
    return _Sent(array("q", up), found.needed_whole("down"), array("q", found.wholes("late")))


class _Evaluations:
    """What is kept of `clients.jsonl`: per line a few numbers, the clients of the last one only.

    With 100,000 clients a line has megabytes, so no two of them are held at once.
    """

    def __init__(self) -> None:
        self.curves: dict[str, dict[int, Mapping[str, ClientStats]]] = {}
        self.last: dict[str, ClientValues] = {}
        self._trained: dict[int, tuple[array[int], array[float]]] = {}
        self._sent: dict[int, _Sent | None] = {}

    def add(self, fields: Fields) -> None:
        """Take in a line."""
        split = fields.text("split")
        if split not in {"train", *get_args(Split)}:
            fields.fail("split", "one of train, test, unseen")
        round_ = fields.needed_whole("round")
        values = _client_values(fields, round_)
        if split != "train":
            values = _without_accidents(values)
        curve = self.curves.setdefault(split, {})
        # As in metrics.jsonl: what a resumed run writes again replaces what was there.
        while curve and next(reversed(curve)) >= round_:
            stale, _ = curve.popitem()
            if split == "train":
                del self._trained[stale]
                del self._sent[stale]
        stats = {
            metric: found
            for metric, row in values.metrics.items()
            if (found := client_stats(row, values.clients)) is not None
        }
        curve[round_] = stats
        if split == "train":
            norms = values.metrics.get("norm", (None,) * len(values.clients))
            self._trained[round_] = (
                array("q", values.clients),
                array("d", [-1.0 if norm is None else norm for norm in norms]),
            )
            self._sent[round_] = _sent(fields, len(values.clients))
        elif stats:
            self.last[split] = values

    def traffic(self) -> dict[int, tuple[int, int]] | None:
        """Client -> bytes that it sent and was sent; None where a round does not say."""
        found: dict[int, tuple[int, int]] = {}
        for round_, (clients, _) in self._trained.items():
            sent = self._sent[round_]
            if sent is None:
                return None
            each = (*zip(clients, sent.up, strict=True), *((late, 0) for late in sent.late))
            for client, up in each:
                before = found.get(client, (0, 0))
                found[client] = before[0] + up, before[1] + sent.down
        return found if self._trained else None

    def taken_part(self) -> dict[int, int]:
        """Client -> rounds it trained in."""
        counts: Counter[int] = Counter()
        for clients, _ in self._trained.values():
            counts.update(clients)
        return dict(sorted(counts.items()))

    def mean_norm(self) -> dict[int, float]:
        """Client -> mean L2 norm of its updates, over the rounds that have one."""
        sums: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for clients, norms in self._trained.values():
            for client, norm in zip(clients, norms, strict=True):
                if norm >= 0:
                    total = sums[client]
                    total[0] += norm
                    total[1] += 1
        return {client: total / count for client, (total, count) in sorted(sums.items())}
