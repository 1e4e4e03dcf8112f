"""The measurements as tables in Markdown."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.simulation.measure import middle
from benchmarks.simulation.workloads import ENGINES, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.simulation.measure import Measured, Record

NAMES = {
    "hanse": "Hanse",
    "floor": "plain PyTorch loop",
    "pfl": "pfl-research",
    "fedjax": "FedJAX",
    "fluke": "fluke",
    "flower": "Flower",
}


def section(records: Sequence[Record], command: str) -> str:
    """All tables, the machine, and the command."""
    places = list(WORKLOADS)
    ordered = sorted(records, key=lambda record: (record.cores, places.index(record.workload)))
    parts = []
    for cores in sorted({record.cores for record in ordered}):
        parts += [f"### {_cores(cores)} each", ""]
        for record in ordered:
            if record.cores == cores:
                parts += [*detail(record), ""]
    parts += ["### Targets", "", *targets(ordered), ""]
    about = (
        f"Measured with {all_of(record.versions for record in ordered)} on "
        f"{all_of(record.machine for record in ordered)}; "
        f"{all_of(record.date for record in ordered)}."
    )
    return "\n".join([*parts, about, "", f"```console\n{command}\n```"])


def detail(record: Record) -> list[str]:
    """A workload's engines, one a row, and what is missing."""
    rows = []
    for name in ENGINES:
        found = record.engines.get(name)
        if found is not None:
            rows.append(
                [
                    NAMES[name],
                    _seconds(middle(found.seconds)),
                    _seconds(min(min(run) for run in found.seconds)),
                    _ratio(ratio(record, name)),
                    _seconds(statistics.mean(value for run in found.cpu for value in run)),
                    f"{found.memory:.0f}",
                    _seconds(found.first),
                    f"{found.difference:.0e}",
                    "" if found.exact_difference is None else f"{found.exact_difference:.0e}",
                    _amount(found),
                ]
            )
    titles = [
        *("engine", "seconds a round", "least", "÷ Hanse"),
        *("CPU seconds", "memory, MB", "first", "apart", "in float64", "rounds"),
    ]
    lines = [f"**{WORKLOADS[record.workload].title}**", "", *table(titles, rows)]
    notes = [f"{NAMES[name]} {why}." for name, why in record.missing.items()]
    fewer = [NAMES[name] for name, one in record.engines.items() if 0 < one.threads < record.cores]
    if fewer:
        notes.append(f"Faster with one thread than with {record.cores}: {', '.join(fewer)}.")
    if "hanse" in record.engines and record.workers != record.cores:
        notes.append(f"Hanse ran with {record.workers} worker processes.")
    return [*lines, *(["", " ".join(notes)] if notes else [])]


def targets(records: Sequence[Record]) -> list[str]:
    """What was meant to be reached, beside what was."""
    columns = [name for name in ENGINES if name not in {"hanse", "fluke"}]
    rows = []
    for record in records:
        workload = WORKLOADS[record.workload]
        row = [workload.title, str(record.cores)]
        for name in columns:
            goal, reached = workload.targets.get(name), ratio(record, name)
            if goal is None or reached is None:
                row.append(_ratio(reached) or "–")
            else:
                verdict = "met" if reached >= goal else "**missed**"
                row.append(f"{_ratio(reached)} of {goal:g}: {verdict}")
        rows.append(row)
    return table(["time ÷ Hanse's", "cores", *(NAMES[name] for name in columns)], rows)


def ratio(record: Record, name: str) -> float | None:
    """How many times as long as Hanse's an engine's round takes.

    The median over the interleavings of the ratio of medians: both sides of a ratio were measured
    one after the other, so that a machine that is slow for a while slows both.
    """
    ours, theirs = record.engines.get("hanse"), record.engines.get(name)
    if ours is None or theirs is None:
        return None
    pairs = zip(theirs.seconds, ours.seconds, strict=True)
    return statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table whose first column is text and whose others are numbers."""
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def write(page: Path, part: str, text: str) -> None:
    """Replace what is between the page's markers of this part."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page} lacks the markers {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def _cores(count: int) -> str:
    return {1: "One core", 2: "Two cores"}.get(count, f"{count} cores")


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _amount(found: Measured) -> str:
    return f"{len(found.seconds)} × {max(map(len, found.seconds))}"


def all_of(found: Iterable[str]) -> str:
    """The different ones of these words."""
    return " and ".join(sorted(set(found)))
