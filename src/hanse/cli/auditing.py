"""The command that tries to break a promise of privacy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hanse.auditing import Audit
from hanse.auditing import audit as attack
from hanse.auditing.page import check_name, write_audit
from hanse.config import read_experiment, with_overrides

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hanse.privacy import Accountant

BROKEN = 1  # the exit code


def audit(
    path: Path,
    overrides: Sequence[str],
    canaries: int | None,
    delta: float,
    seed: int,
    accountant: Accountant | None,
    out: Path | None,
    *,
    last_model: bool,
    silent: bool,
) -> int:
    """`hanse privacy audit`; the exit code."""
    console = Console(highlight=False)
    if out is not None:
        check_name(out)
    experiment = with_overrides(read_experiment(path), list(overrides)).experiment()
    with console.status("looking at the experiment") as status:
        found = attack(
            experiment,
            canaries=canaries,
            delta=delta,
            seed=seed,
            sees="last-model" if last_model else "rounds",
            silent=silent,
            accountant=accountant,
            progress=lambda done: status.update(f"round {done} of {experiment.rounds}"),
        )
    _show(console, found)
    if out is not None:
        write_audit(found, out)
        console.print(f"written: {out}", markup=False, soft_wrap=True)
    return BROKEN if found.broken else 0


def _show(console: Console, found: Audit) -> None:
    console.print(found.facts, markup=False)
    table = Table()
    table.add_column("epsilon", justify="right")
    table.add_column("what it is")
    for number, words in _rows(found):
        table.add_row(number, Text(words))
    console.print(table)
    style = "bold red" if found.broken else ""
    for line in found.verdict:
        console.print(Text(line, style=style))
    for line in found.notes:
        console.print(Text(f"Note: {line}", style="dim"))


def _rows(found: Audit) -> list[tuple[str, str]]:
    guesses = found.guesses
    estimated = "none", "one-shot estimate: canaries are told apart without any noise"
    if found.estimate is not None:
        low, high = found.estimate.low, found.estimate.high
        words = f"one-shot estimate (95 %: {low:.2f} to {high:.2f}); proves nothing"
        estimated = f"{found.estimate.epsilon:.2f}", words
    bound = (
        f"one-run audit, a lower bound at {100 * found.confidence:g} %: {guesses.right:,} of "
        f"{guesses.made:,} guesses right"
    )
    return [
        (f"{found.claimed:.2f}", f"claimed: {found.accountant}, an upper bound"),
        (f"{found.bound:.2f}", bound),
        estimated,
        (f"{found.most:.2f}", "the most that this audit could have shown"),
    ]
