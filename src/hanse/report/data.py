"""Figures about the clients themselves: their labels, their part in training, their updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanse.report.charts import Bar, BarChart, HeatMap, Histogram, bars, heat_map, histogram_bars
from hanse.report.charts.maps import STEPS, shade_from
from hanse.report.clients import MOST_BARS
from hanse.report.figure import TENTH_IS_SEVERAL, Figure, Key, Table, tick_format
from hanse.report.quantities import histogram, quantile
from hanse.report.words import NARROW_SPACE, number, shorten, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hanse.report.records import DataInfo, Experiment, RunRecord

MOST_MAP_CLIENTS = 60
_MOST_CLASSES = 40
_BINS = 24


def label_map(data: DataInfo) -> Figure | None:
    """Clients by classes, shaded by the share of a client's training examples."""
    counts = data.label_counts
    if counts is None or not counts[0]:
        return None
    classes = data.classes or tuple(f"class {k}" for k in range(len(counts[0])))
    totals = [sum(row[k] for row in counts) for k in range(len(classes))]
    # The most frequent classes in their own order, and the sum of the others.
    order = sorted(range(len(classes)), key=lambda k: (-totals[k], k))
    cut = len(classes) > _MOST_CLASSES
    kept = sorted(order[: _MOST_CLASSES - 1]) if cut else list(range(len(classes)))
    columns = [classes[k] for k in kept] + (["others"] if cut else [])
    rows = []
    for row in counts[:MOST_MAP_CLIENTS]:
        shown = [row[k] for k in kept]
        rows.append([*shown, sum(row) - sum(shown)] if cut else shown)
    names = [data.client_name("train", client) for client in range(len(rows))]
    notes = []
    if data.public:
        notes.append(f"Each client’s examples include {data.public:,} public ones.")
    if data.population > len(rows):
        notes.append(f"The first {len(rows)} of {data.population:,} clients.")
    if cut:
        notes.append(f"The {len(kept)} most frequent of {len(classes)} classes, and all others.")
    shades = (
        "The stronger the colour, the larger the class’s share of the client’s examples; "
        "a shade begins at the share beside it."
    )
    caption = " ".join([shades, *notes])
    chart = HeatMap(
        key="labels",
        title="Training examples by client and class",
        description=caption,
        rows=tuple(names),
        columns=tuple(columns),
        shares=tuple(tuple(cell / (sum(row) or 1) for cell in row) for row in rows),
    )
    begins = [f"{100 * shade_from(step):.0f}{NARROW_SPACE}%" for step in range(2, STEPS)]
    legend = tuple(
        Key(name, f"heat-{step}", "cell") for step, name in enumerate(["none", "some", *begins])
    )
    cells = tuple(
        (shorten(name, 40), *(whole(cell) for cell in row), whole(sum(row)))
        for name, row in zip(names, rows, strict=True)
    )
    head = ("Client", *(shorten(name, 40) for name in columns), "All")
    return Figure(
        "labels", "Who has which labels", caption, legend, heat_map(chart),
        Table(head, cells, " ".join(notes)),
    )  # fmt: skip


def sizes(data: DataInfo) -> Figure | None:
    """How many training examples each client has; None where unknown."""
    if not data.train_sizes:
        return None
    values = dict(enumerate(map(float, data.train_sizes)))
    ordered = sorted(values.values())
    total, tenth = sum(ordered), -(-len(ordered) // 10)
    caption = (
        f"Between {ordered[0]:,.0f} and {ordered[-1]:,.0f} training examples, in the median "
        f"{quantile(ordered, 0.5):,.4g}."
    )
    if len(ordered) >= TENTH_IS_SEVERAL:
        share = 100 * sum(ordered[-tenth:]) / (total or 1)
        caption += f" The largest tenth of the clients has {share:.0f}{NARROW_SPACE}% of them."
    return _by_client(
        data, "sizes", "How many examples clients have", caption, "examples", values,
        write=lambda value: f"{value:,.0f}", discrete=True,
    )  # fmt: skip


def full_participation(run: RunRecord) -> bool:
    """Whether every client trained in every round that was written down."""
    parts = run.taken_part
    trained = len(run.curves.get("train", {}))
    return len(parts) >= run.info.data.population and all(p == trained for p in parts.values())


def participation(run: RunRecord) -> Figure | None:
    """How often each client took part; None where all did always, or nothing was written down."""
    trained = len(run.curves.get("train", {}))
    if not trained or full_participation(run):
        return None
    everyone = dict.fromkeys(range(run.info.data.population), 0.0)
    parts = everyone | {client: float(rounds) for client, rounds in run.taken_part.items()}
    ordered = sorted(parts.values())
    never = sum(1 for part in ordered if part == 0)
    caption = (
        f"In {trained} rounds of training, a client took part between {ordered[0]:.0f} and "
        f"{ordered[-1]:.0f} times (median {quantile(ordered, 0.5):.0f})."
    )
    if never:
        caption += f" {never:,} of {len(parts):,} never took part."
    return _by_client(
        run.info.data, "participation", "How often clients took part", caption, "rounds", parts,
        write=lambda value: f"{value:,.0f}", discrete=True,
    )  # fmt: skip


def norms(experiment: Experiment) -> Figure | None:
    """The mean size of each client's updates; None where none was written down."""
    run = experiment.first
    if len(experiment.runs) > 1 or len(run.mean_norm) <= 1:
        return None
    return _by_client(
        run.info.data, "norms", "Whose updates are large",
        "The mean L2 norm of each client’s updates.", "mean L2 norm", run.mean_norm,
        write=tick_format("norm"), discrete=False,
    )  # fmt: skip


def _by_client(
    data: DataInfo,
    key: str,
    title: str,
    caption: str,
    label: str,
    values: Mapping[int, float],
    *,
    write: Callable[[float], str],
    discrete: bool,
) -> Figure:
    """A bar for each of a few clients, or how many of many have which value."""
    if len(values) <= MOST_BARS:
        named = [
            (data.client_name("train", client), value)
            for client, value in sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
        ]
        chart = BarChart(
            key, title, caption, label,
            tuple(Bar(name, v, f"{name}: {number(v)} {label}", "federated") for name, v in named),
            write,
        )  # fmt: skip
        show = whole if discrete else None
        cells = tuple((name, show(int(v)) if show else number(v)) for name, v in named)
        return Figure(key, title, caption, (), bars(chart), Table(("Client", label), cells))
    low, high = min(values.values()), max(values.values())
    if discrete:
        step = max(1, -(-int(high - low + 1) // _BINS))
        edges = [low + step * k for k in range(-(-int(high - low + 1) // step) + 1)]
    else:
        edges = [low + (high - low) * k / _BINS for k in range(_BINS + 1)]
    counts = histogram(values.values(), edges[0], edges[-1], len(edges) - 1)
    bins = tuple(zip(edges[:-1], edges[1:], counts, strict=True))
    drawn = Histogram(key, title, caption, f"{label} (height: clients)", bins, write, "federated")
    cells = tuple(
        (write(start) if discrete and end - start == 1
         else f"{write(start)} to {write(end - 1 if discrete else end)}", whole(count))
        for start, end, count in bins
    )  # fmt: skip
    return Figure(
        key, title, caption, (Key("Clients", "federated", "bar"),), histogram_bars(drawn),
        Table((label.capitalize(), "Clients"), cells),
    )  # fmt: skip
