"""The decision table in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hanse.decision import (
    command,
    decision_table,
    markdown_table,
    scale_in_words,
    strategies_for,
    traffic,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hanse.decision import Fit
    from hanse.decision_rows import Row


def show_decision(wishes: Mapping[str, Any], *, markdown: bool) -> None:
    """`hanse strategies --table`: all rows, or those that fit what is wished."""
    asked = any(wishes.values())
    fits = strategies_for(**wishes) if asked else ()
    rows = tuple(fit.row for fit in fits) if asked else decision_table()
    if markdown:
        click.echo(markdown_table(rows), nl=False)
        return
    console = Console(highlight=False)
    if asked:
        console.print(_verdict(fits))
    console.print(_table(rows))
    console.print(_costs(rows))
    why = {fit.row.name: fit for fit in fits}
    for row in rows:
        _about(console, row, why.get(row.name))


def _verdict(fits: Iterable[Fit]) -> str:
    there = [fit for fit in fits if fit.fits and fit.row.released]
    planned = [fit.row.name for fit in fits if fit.fits and not fit.row.released]
    if there:
        return f"Of this release, {len(there)} fit{'s' * (len(there) == 1)}; the simplest is first."
    if planned:
        names = ", ".join(planned)
        return f"None of this release fits; {names} would, and are not in it. These come nearest."
    return "None fits. These come nearest."


def _table(rows: Iterable[Row]) -> Table:
    table = Table()
    for heading in ("Strategy", "Privacy", "Scale", "Non-IID", "Best for"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            Text(row.name, style="bold"),
            row.privacy.title(),
            scale_in_words(row),
            row.non_iid.title(),
            Text(row.best_for),
        )
    return table


def _costs(rows: Iterable[Row]) -> Table:
    table = Table(caption="sent: in models, down to a client / up from it", caption_justify="left")
    for heading in ("Strategy", "Clients remember", "Sent", "Partial particip.", "Partial work"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            Text(row.name, style="bold"),
            Text(row.remembers),
            traffic(row),
            row.partial_participation,
            row.partial_work,
        )
    return table


def _about(console: Console, row: Row, fit: Fit | None) -> None:
    console.print(Text.assemble((row.name, "bold"), f" ({row.source})"))
    console.print(Text(_fitted(command(row), console.width), style="dim"), soft_wrap=True)
    if fit is not None:
        said = [*fit.reasons, *(f"but {words}" for words in fit.misses)]
        console.print(Padding(Text("; ".join(said)), (0, 0, 0, 2)))
    console.print(Padding(Text(row.note), (0, 0, 0, 2)))
    console.print(Padding(Text(f"docs/strategies/{row.page}", style="dim"), (0, 0, 0, 2)))


def _fitted(line: str, width: int) -> str:
    """The command on one line, or, where it is too long, on several that a shell takes as one."""
    if len(line) + 2 <= width:
        return f"  {line}"
    return "  " + line.replace(" --set", " \\\n      --set")
