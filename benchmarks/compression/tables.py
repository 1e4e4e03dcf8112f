"""The results as tables in Markdown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.compression.settings import DATA, LAST, ROUNDS, SEEDS, SETTINGS, plan
from benchmarks.simulation.tables import all_of, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.compression.settings import Record


@dataclass(frozen=True)
class Line:
    """A setting on one data set.

    Attributes:
        share: bytes of a message, of an uncompressed one's.
        accuracy: the mean of the last rounds, by seed.
        gap: to the uncompressed run with the same seed, in points, by seed.
    """

    setting: str
    message: float
    share: float
    accuracy: tuple[float, ...]
    gap: tuple[float, ...]


def lines(records: Sequence[Record], data: str) -> list[Line]:
    """The settings of which there is a finished run beside an uncompressed one."""
    latest = {(r.setting, r.seed): r for r in records if r.data == data}
    plain = {seed: latest[PLAIN, seed] for seed in SEEDS if (PLAIN, seed) in latest}
    found = []
    for setting in SETTINGS:
        pairs = [(latest[setting, s], plain[s]) for s in plain if (setting, s) in latest]
        if not pairs:
            continue
        accuracy = tuple(_percent(one) for one, _ in pairs)
        found.append(
            Line(
                setting,
                statistics.mean(one.up / one.messages for one, _ in pairs),
                sum(one.up / one.messages for one, _ in pairs)
                / sum(base.up / base.messages for _, base in pairs),
                accuracy,
                tuple(a - _percent(b) for a, (_, b) in zip(accuracy, pairs, strict=True)),
            )
        )
    return found


PLAIN = next(iter(SETTINGS))
SHARE, POINTS = 0.02, 1.0


def section(records: Sequence[Record]) -> str:
    """A table for each data set, where they were measured, and the command."""
    parts: list[str] = []
    for data, title in DATA.items():
        found = lines(records, data)
        if not found:
            continue
        rows = [
            [
                line.setting,
                f"{line.message:,.0f}",
                f"{100 * line.share:.2f} %",
                spread(line.accuracy),
                "" if line.setting == PLAIN else spread(line.gap, "+"),
                str(len(line.accuracy)),
            ]
            for line in found
        ]
        titles = ["clients send", "bytes a message", "of all", "accuracy, %", "points", "seeds"]
        parts += [f"**{title}**", "", *table(titles, rows), "", _target(found), ""]
        parts += [_picture(data, title), ""]
    runs, planned = len({r.cell for r in records}), len(list(plan()))
    if runs < planned:
        parts += [f"Not finished: {runs} of {planned} runs. The last column tells how many.", ""]
    about = (
        f"Means over the last {LAST} of {ROUNDS} rounds, ± the standard deviation over seeds; "
        "points: less the uncompressed run of the same seed. "
        f"Measured with {all_of(r.versions for r in records)} on "
        f"{all_of(r.machine for r in records)}; one thread; "
        f"{all_of(r.date for r in records)}; {len(records)} runs, "
        f"{sum(r.minutes for r in records):.0f} minutes of one core in all."
    )
    command = [
        "<!-- not run: it takes long -->",
        "```console",
        "$ hanse data fetch mnist",
        "$ hanse data fetch fashion-mnist",
        "$ python -m benchmarks.compression --write docs/compression.md",
        "```",
    ]
    return "\n".join([*parts, about, "", *command])


def _target(found: Sequence[Line]) -> str:
    """What takes less than a fiftieth of the bytes, and loses less than a point."""
    good = [
        f"{line.setting} ({100 * line.share:.2f} % of the bytes, "
        f"{statistics.mean(line.gap):+.2f} points)"
        for line in found
        if line.share < SHARE and statistics.mean(line.gap) > -POINTS
    ]
    said = "; ".join(good) or "nothing of this"
    return f"Below {100 * SHARE:g} % of the bytes and within {POINTS:g} point: {said}."


def _picture(data: str, title: str) -> str:
    return f"![Accuracy against bytes: {title}](images/compression-{data}.svg)"


def _percent(record: Record) -> float:
    """The mean accuracy of the last rounds; none where training diverged before."""
    return 100 * statistics.mean(record.accuracies) if record.accuracies else 0.0


def spread(values: Sequence[float], sign: str = "") -> str:
    """The mean, and the standard deviation where there are several."""
    mean = f"{statistics.mean(values):{sign}.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
