"""Client by client: the numbers of each, and the figures that show how they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.report.charts import Bar, BarChart, Point, Scatter, Strip, StripRow, bars, scatter, strip
from hanse.report.charts.points import MOST_DOTS, tenths
from hanse.report.figure import MOST_CLIENTS, Figure, Key, Table, share_bounds, tick_format
from hanse.report.quantities import client_stats, mean
from hanse.report.words import NARROW_SPACE, metric_name, quantity, shorten, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hanse.report.records import Experiment, RunRecord, Split

MOST_BARS = 20
_WORST_BARS = 12
_WORST_SHOWN = 50
_TIP = 48
_SEVERAL = 100
_FEW_FOR_SCATTER = 5


@dataclass(frozen=True)
class ClientRow:
    """One client on one split and metric; means over seeds where the clients are the same.

    Attributes:
        name: its name.
        examples: examples it was evaluated on.
        federated: of the federated model.
        alone: of the model it trains alone; for unseen clients the mean over those models.
        pooled: of a model trained on all data in one place.
        gain: federated minus alone.
        worse: whether the federated model serves it worse than training alone.
        sent: bytes that it sent in all rounds; None where not written down.
        received: bytes that it was sent.
    """

    name: str
    examples: int
    federated: float | None
    alone: float | None
    pooled: float | None
    gain: float | None
    worse: bool
    sent: float | None = None
    received: float | None = None


@dataclass(frozen=True)
class ClientTable:
    """The clients of a split.

    Attributes:
        split: the split.
        metric: the metric.
        lower_is_better: whether less of it is better.
        rows: all clients, the worst-served first, those without a number last.
        shown: the rows that the page lists.
        note: what the page does not list; empty where nothing.
    """

    split: Split
    metric: str
    lower_is_better: bool
    rows: tuple[ClientRow, ...]
    shown: tuple[ClientRow, ...]
    note: str

    @property
    def kinds(self) -> tuple[tuple[str, str, str], ...]:
        """(attribute, CSS class, name) of the models that have numbers here."""
        named = (
            ("federated", "federated", "Federated"),
            ("alone", "alone", "Alone"),
            ("pooled", "pooled", "Pooled"),
        )
        return tuple(
            kind for kind in named if any(getattr(row, kind[0]) is not None for row in self.rows)
        )

    @property
    def traffic(self) -> bool:
        """Whether it is known what clients sent."""
        return any(row.sent is not None for row in self.rows)


def client_table(experiment: Experiment, split: Split) -> ClientTable | None:
    """The clients of a split by the primary metric; None where no client was evaluated."""
    metric = experiment.primary
    lower = experiment.lower_is_better(metric)
    rows = _rows(experiment, split, metric, lower=lower)
    if not any(row.federated is not None for row in rows):
        return None
    rows.sort(key=lambda row: _rank(row.federated, lower=lower))
    shown, note = rows, ""
    if len(rows) > MOST_CLIENTS:
        shown = rows[:_WORST_SHOWN]
        note = f"The {len(shown)} clients served worst, of {len(rows):,}."
    elif len(experiment.runs) > 1 and not experiment.same_clients:
        note = "Each seed divides the data anew, so its clients are listed on their own."
    elif len(experiment.runs) > 1:
        note = f"Means over {len(experiment.runs)} seeds."
    return ClientTable(split, metric, lower, tuple(rows), tuple(shown), note)


def _rank(value: float | None, *, lower: bool) -> tuple[bool, float]:
    """A sort key: the worst first, None last."""
    return (value is None, 0.0 if value is None else -value if lower else value)


def _rows(experiment: Experiment, split: Split, metric: str, *, lower: bool) -> list[ClientRow]:
    """A row for each client, or for each client of each seed where seeds have other clients."""
    merged = experiment.same_clients
    several = len(experiment.runs) > 1
    gathered: dict[tuple[int, int], list[tuple[int, Sequence[float | None]]]] = {}
    for place, run in enumerate(experiment.runs):
        values = run.federated(split)
        if values is None or metric not in values.metrics:
            continue
        baselines = [run.baselines.get(kind, {}).get(split) for kind in ("local", "pooled")]
        known = [found.by_client(metric) if found else {} for found in baselines]
        each = zip(values.clients, values.examples, values.metrics[metric], strict=True)
        for client, examples, value in each:
            numbers = (value, *(found.get(client) for found in known))
            gathered.setdefault((0 if merged else place, client), []).append((examples, numbers))
    rows = []
    for (place, client), entries in gathered.items():
        run = experiment.runs[place]
        name = run.info.data.client_name(split, client)
        federated, alone, pooled = (mean(numbers[k] for _, numbers in entries) for k in range(3))
        sent, received = _traffic(experiment.runs if merged else (run,), split, client)
        gain = None if federated is None or alone is None else federated - alone
        rows.append(
            ClientRow(
                name=f"seed {run.info.seed}: {name}" if several and not merged else name,
                examples=entries[0][0],
                federated=federated,
                alone=alone,
                pooled=pooled,
                gain=gain,
                worse=gain is not None and (gain > 0 if lower else gain < 0),
                sent=sent,
                received=received,
            )
        )
    return rows


def _traffic(
    runs: Sequence[RunRecord], split: Split, client: int
) -> tuple[float | None, float | None]:
    """What a client that trains sent and was sent in a run, in bytes; means over the runs."""
    known = [run.traffic.get(client, (0, 0)) for run in runs if run.traffic is not None]
    if split != "test" or not known:
        return None, None
    return mean(up for up, _ in known), mean(down for _, down in known)


def tooltip(table: ClientTable, row: ClientRow) -> str:
    """A client in a line; a short one where there are hundreds."""
    many = len(table.rows) > _SEVERAL
    parts = [
        f"{name.lower()} {quantity(table.metric, value)}"
        for key, _, name in table.kinds[: 1 if many else None]
        if (value := getattr(row, key)) is not None
    ]
    examples = "" if many else f" ({whole(row.examples)} examples)"
    return f"{shorten(row.name, _TIP)}: {', '.join(parts)}{examples}"


def client_figures(table: ClientTable) -> list[Figure]:
    """The figures of a split: how clients are spread, who they are, and whether size matters."""
    if len(table.rows) == 1:
        return []
    found = [_strip(table), _bars(table)]
    sizes = {row.examples for row in table.rows if row.federated is not None}
    if len(sizes) >= _FEW_FOR_SCATTER:
        found.append(_scatter(table))
    return found


def _strip(table: ClientTable) -> Figure:
    """The distribution over clients of the federated model and of the baselines."""
    rows, cells = [], []
    for key, style, name in table.kinds:
        values: list[float | None] = [getattr(row, key) for row in table.rows]
        stats = client_stats(values, range(len(values)))
        if stats is None:
            continue
        write = _writer(table)
        points = tuple(
            Point(value, tooltip(table, row) if len(values) <= MOST_DOTS else "")
            for row, value in zip(table.rows, values, strict=True)
            if value is not None
        )
        rows.append(StripRow(name, f"mean {write(stats.mean)}", style, points, stats.mean))
        best = stats.low if table.lower_is_better else stats.high
        cells.append(
            (name, whole(stats.count), write(stats.mean), write(stats.std).replace("%", "pts"),
             write(stats.worst(lower_is_better=table.lower_is_better)), write(stats.q10),
             write(stats.median), write(stats.q90), write(best))
        )  # fmt: skip
    title = f"{metric_name(table.metric)} over clients"
    many = len(table.rows) > MOST_DOTS
    caption = (
        "How many clients have which value; the line is their mean."
        if many
        else "A dot is a client; the line is the mean over clients, each counting once."
    ) + (f" {table.note}" if table.note and not many else "")
    chart = Strip(
        key=f"strip-{table.split}",
        title=title,
        description=caption,
        x_label=metric_name(table.metric).lower() + _better(table),
        rows=tuple(rows),
        x_format=tick_format(table.metric),
        bounds=share_bounds(table.metric),
    )
    head = ("Model", "Clients", "Mean", "Std", "Worst", "10 %", "Median", "90 %", "Best")
    return Figure(
        chart.key, title, caption, (), strip(chart), Table(head, tuple(cells)),
    )  # fmt: skip


def _bars(table: ClientTable) -> Figure:
    """A bar for each client, with marks for the baselines."""
    known = [row for row in table.rows if row.federated is not None]
    shown = known if len(known) <= MOST_BARS else known[:_WORST_BARS]
    marks = [(key, style, name) for key, style, name in table.kinds if key != "federated"]
    many = len(table.rows) > len(shown)
    title = "The clients served worst" if many else "Client by client"
    count = f"The {len(shown)} of {len(table.rows):,} clients served worst" if many else "Clients"
    chart = BarChart(
        key=f"bars-{table.split}",
        title=title,
        description=f"{count}, the worst first.",
        x_label=metric_name(table.metric).lower() + _better(table),
        bars=tuple(
            Bar(
                name=row.name,
                value=row.federated or 0.0,
                tip=tooltip(table, row),
                style="federated",
                marks=tuple(
                    (style, value)
                    for key, style, _ in marks
                    if (value := getattr(row, key)) is not None
                ),
            )
            for row in shown
        ),
        x_format=tick_format(table.metric),
        ceiling=share_bounds(table.metric)[1],
    )
    legend = [Key("Federated", "federated", "bar")]
    legend += [Key(name, style, "tick") for _, style, name in marks]
    cells = tuple(
        (row.name, *(_writer(table)(getattr(row, key)) for key, *_ in table.kinds)) for row in shown
    )
    head = ("Client", *(name for *_, name in table.kinds))
    return Figure(
        chart.key, title, f"{count}, the worst first.", tuple(legend), bars(chart),
        Table(head, cells),
    )  # fmt: skip


def _scatter(table: ClientTable) -> Figure:
    """Examples against the metric: whether it is the small clients that are served worse."""
    write = _writer(table)
    rows = [row for row in table.rows if row.federated is not None]
    many = len(rows) > MOST_DOTS
    points = tuple(
        Point(
            x=float(row.examples),
            y=row.federated or 0.0,
            tip="" if many else tooltip(table, row),
            style="worse" if row.worse else "federated",
        )
        for row in rows
    )
    name = metric_name(table.metric).lower()
    title = f"Examples and {name}"
    caption = (
        f"A tenth of the clients, by their number of examples: the median {name} and the middle "
        f"80{NARROW_SPACE}%."
        if many
        else f"Each client’s evaluation examples against its {name}."
    )
    chart = Scatter(
        key=f"scatter-{table.split}",
        title=f"Examples against {name}",
        description=caption,
        x_label="examples of the client (log)",
        points=points,
        x_format=lambda value: f"{value:,.0f}",
        y_format=tick_format(table.metric),
        bounds=share_bounds(table.metric),
    )
    if many:
        head: tuple[str, ...] = ("Examples", "Clients", "10 %", "Median", "90 %")
        cells: tuple[tuple[str, ...], ...] = tuple(
            (
                f"{ten.fewest:,.0f} to {ten.most:,.0f}",
                whole(ten.clients),
                write(ten.low),
                write(ten.median),
                write(ten.high),
            )
            for ten in tenths(points)
        )
    else:
        head = ("Client", "Examples", metric_name(table.metric))
        cells = tuple((row.name, whole(row.examples), write(row.federated)) for row in rows)
    worse = any(row.worse for row in rows) and not many
    legend = (
        (Key("Client", "federated", "dot"), Key("Worse than alone", "worse", "dot"))
        if worse
        else ()
    )
    return Figure(chart.key, title, caption, legend, scatter(chart), Table(head, cells))


def _writer(table: ClientTable) -> Callable[[float | None], str]:
    """How values of the table's metric are written."""
    return lambda value: quantity(table.metric, value)


def _better(table: ClientTable) -> str:
    """Which way is good."""
    return " (less is better)" if table.lower_is_better else ""
