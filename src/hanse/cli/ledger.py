"""The commands about privacy ledgers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hanse.core.errors import ConfigError
from hanse.privacy.events import Budget
from hanse.privacy.ledger import Ledger, Receipt
from hanse.storage import write_atomically, writing

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from hanse.privacy.events import GaussianEvent
    from hanse.privacy.ledger import Entry

_MOST = 100_000  # rounds left are counted up to here


def create(
    path: Path, dataset: str, epsilon: float, delta: float, accountant: Literal["pld", "rdp"]
) -> None:
    """`hanse privacy ledger create`."""
    ledger = Ledger.create(path, dataset, Budget(epsilon, delta, accountant))
    click.echo(f"{path}: epsilon {epsilon:g} at delta {delta:g} for {ledger.dataset!r}")


def show(path: Path) -> None:
    """`hanse privacy ledger show`."""
    ledger = Ledger.open(path)
    account = ledger.account()
    console = Console(highlight=False)
    table = Table()
    for heading in ("#", "when (UTC)", "what", "round", "event", "epsilon after"):
        right = heading in {"#", "round", "epsilon after"}
        whole = heading.startswith("when")
        table.add_column(Text(heading), justify="right" if right else "left", no_wrap=whole)
    for entry in ledger.entries():
        when = entry.time[:19].replace("T", " ")
        number = "" if entry.round is None else str(entry.round)
        row = (str(entry.number), when, _what(entry), number, _event_of(entry))
        table.add_row(*map(Text, row), Text(f"{entry.epsilon:.4f}"))
    console.print(table)
    budget, spent = account.budget, ledger.spent()
    lines = [
        f"data set: {account.dataset}",
        f"budget: epsilon {budget.epsilon:g} at delta {budget.delta:g}, by {budget.accountant}",
        f"spent: epsilon {spent:.4f}",
        f"left: epsilon {budget.epsilon - spent:.4f}",
    ]
    if account.last_event is not None:
        left = ledger.rounds_left(account.last_event, _MOST)
        more = f"{left} or more" if left == _MOST else str(left)
        lines.append(f"rounds left like the last one ({_described(account.last_event)}): {more}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def verify(path: Path, receipt: Path | None) -> None:
    """`hanse privacy ledger verify`."""
    earlier = None if receipt is None else Receipt.from_json(_read(receipt))
    found = Ledger.open(path).verify(earlier)
    goes_on = "" if earlier is None else f", and goes on from the receipt of {earlier.entries}"
    click.echo(f"{path} is whole: {_counted(found.entries)}{goes_on}; head {found.head}")


def export(path: Path, out: Path) -> None:
    """`hanse privacy ledger export`."""
    if out.suffix not in {".json", ".csv"}:
        raise ConfigError(
            f"{out} to export to",
            why="its name does not say in which format",
            instead="a name that ends in .json (with a receipt) or .csv (a table)",
        )
    ledger = Ledger.open(path)
    text = ledger.to_json() if out.suffix == ".json" else ledger.to_csv()
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, text)
    click.echo(f"{out}: {_counted(ledger.receipt().entries)}")


def raise_budget(path: Path, epsilon: float, reason: str) -> None:
    """`hanse privacy ledger raise`."""
    ledger = Ledger.open(path)
    ledger.raise_budget(epsilon, reason)
    click.echo(f"{path}: epsilon {epsilon:g} may be spent on {ledger.dataset!r} from now on")


def _counted(entries: int) -> str:
    return "1 entry" if entries == 1 else f"{entries} entries"


def _what(entry: Entry) -> str:
    if entry.kind == "create":
        return f"created for {entry.dataset}"
    if entry.kind == "raise":
        return f"raised: {entry.reason}"
    return f"{entry.run} (again)" if entry.repetition else str(entry.run)


def _event_of(entry: Entry) -> str:
    if entry.kind == "charge":
        return _described(entry.event)
    return f"budget {entry.budget_epsilon:g}"


def _described(event: GaussianEvent) -> str:
    sampling = {"none": "", "poisson": f", Poisson {event.rate:.4g}"}.get(
        event.sampling, f", {round(event.rate * event.population)} of {event.population}"
    )
    times = f", {event.count} times" if event.count > 1 else ""
    return f"noise {event.noise_multiplier:.4g}{sampling}{times}, {event.adjacency}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the receipt {path}",
            why=f"it cannot be read: {error.strerror or error}",
            instead="a .json file that `hanse privacy ledger export` wrote",
        ) from error
