"""What the page says of results, in Markdown."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.simulation.tables import all_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.fidelity.grid import Grid, Record


def page_section(grid: Grid, records: Sequence[Record]) -> str:
    """The benchmark's own tables, where they were measured, and the command."""
    seeds = {grid.tuning_seed, *grid.seeds}
    used = [
        record
        for record in records
        if record.settings in grid.settings and record.rate in grid.rates and record.seed in seeds
    ]
    about = (
        f"Measured with {all_of(record.versions for record in used)} on "
        f"{all_of(record.machine for record in used)}; one thread; "
        f"execution: {all_of(record.execution for record in used)}; "
        f"{all_of(record.date for record in used)}; {len(used)} runs, "
        f"{sum(record.minutes for record in used):.0f} minutes of one core in all."
    )
    command = [f"$ python -m benchmarks.fidelity {grid.name} --write docs/fidelity.md"]
    if grid.fetch is not None:
        command.insert(0, f"$ hanse data fetch {grid.fetch}")
    console = ["<!-- not run: it takes long -->", "```console", *command, "```"]
    lines = [*grid.section(grid, used), "", about, "", *console]
    return "\n".join(lines)


def rounds(records: Sequence[Record], target: float | None) -> str:
    """The mean number of rounds to the target and the seeds' standard deviation.

    Where a run missed the target: how many rounds it had, and how many of the runs reached it.
    """
    reached = [n for n in (record.rounds_to(target) for record in records) if n is not None]
    if not records:
        return ""
    if not reached:
        return f"> {min(record.rounds for record in records)}"
    mean = f"{statistics.mean(reached):.1f}" if len(reached) > 1 else str(reached[0])
    if len(reached) < len(records):
        return f"{mean} ({len(reached)} of {len(records)})"
    return f"{mean} ± {statistics.stdev(reached):.1f}" if len(reached) > 1 else mean


def mean_rounds(records: Sequence[Record], target: float | None) -> float | None:
    """The mean number of rounds; what missed the target counts as infinitely many."""
    if not records:
        return None
    found = (record.rounds_to(target) for record in records)
    return statistics.mean(float("inf") if n is None else n for n in found)


def percent(values: Sequence[float]) -> str:
    """The mean and the standard deviation of accuracies, in percent."""
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


def claims(found: Iterable[tuple[str, bool | None]]) -> list[str]:
    """What the paper says, and whether it is so here; `None`: not measured."""
    return [f"- {'Yes' if holds else 'No'}: {text}." for text, holds in found if holds is not None]
