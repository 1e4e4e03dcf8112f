"""`Ledger`: charge, then release."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hanse.core.errors import BudgetError, ConfigError, LedgerError
from hanse.privacy.events import Budget, GaussianEvent
from hanse.privacy.ledger import database
from hanse.privacy.ledger.entries import COLUMNS, Account, Entry, Receipt, follow
from hanse.privacy.ledger.search import most_that_fit

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from hanse.privacy.ledger.entries import Kind

Accountant = Callable[[Sequence[GaussianEvent], float, Literal["rdp", "pld"]], float]
"""What events cost together: `(events, delta, accountant) -> epsilon`, as
`hanse.privacy.accounting.epsilon`. It must not fall when an event is added."""


class Ledger:
    """What has been spent on a data set, in a file that several processes may charge.

    ```python
    ledger = Ledger.open("people.ledger", dataset="people")
    receipt = ledger.charge(event, run="runs/first", round=3)  # returns when it is on the disk
    ...  # release what the event stands for
    ```

    Attributes:
        path: the file.
        dataset: whose budget it is.
    """

    def __init__(self, path: Path, accountant: Accountant | None, wait: float) -> None:
        """See `create` and `open`."""
        self.path = path
        self._accountant = _accountant if accountant is None else accountant
        self._wait = wait
        # What has been read and checked, so that a charge reads only what is new.
        self._account = self._examined()

    @classmethod
    def create(
        cls,
        path: str | Path,
        dataset: str,
        budget: Budget,
        *,
        accountant: Accountant | None = None,
        wait: float = 60.0,
    ) -> Ledger:
        """Begin the ledger of a data set.

        Args:
            path: a file that does not exist, in a directory that does.
            dataset: the name of the data set.
            budget: what may be spent on it, by all runs together.
            accountant: as for `open`.
            wait: as for `open`.

        Raises:
            ConfigError: the name cannot be kept.
            LedgerError: there is something at `path`, or it cannot be written.
        """
        path = Path(path)
        first = _entry(
            "create", 1, 0.0, dataset=_text("dataset", dataset), accountant=budget.accountant,
            budget_epsilon=float(budget.epsilon), budget_delta=float(budget.delta),
        )  # fmt: skip
        database.create(path, first.chained(""))
        return cls(path, accountant, wait)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        dataset: str | None = None,
        accountant: Accountant | None = None,
        wait: float = 60.0,
    ) -> Ledger:
        """Open a ledger, and check all of it as `verify` does.

        Args:
            path: the file.
            dataset: whose ledger it has to be; None if any will do.
            accountant: what computes epsilon; None for `hanse.privacy.accounting.epsilon`.
            wait: for how many seconds a charge waits for other processes.

        Raises:
            LedgerError: there is none, it is damaged or was changed, or is another data set's.
        """
        ledger = cls(Path(path), accountant, wait)
        if dataset is not None and dataset != ledger.dataset:
            raise LedgerError(
                f"{path} is the ledger of {ledger.dataset!r}, not of {dataset!r}",
                why="what is spent on one data set says nothing about another",
                instead=f"the ledger of {dataset!r}",
            )
        return ledger

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        return self._account.dataset

    def account(self) -> Account:
        """What the entries add up to now: events, budget, last entry.

        Raises:
            LedgerError: the ledger cannot be read, or is not what it was.
        """
        with self._transaction("DEFERRED") as connection:
            self._account = self._caught_up(connection)
        return self._account

    @property
    def identity(self) -> str:
        """The hash of the first entry, which no other ledger has, and each copy of this one."""
        return self._account.first

    @property
    def budget(self) -> Budget:
        """What may be spent, as it was raised last."""
        return self.account().budget

    def spent(self) -> float:
        """The epsilon of all events together, at the budget's delta; 0 if there are none."""
        account = self.account()
        return self._epsilon(account.budget, account.events())

    def remaining(self) -> float:
        """The budget's epsilon less what has been spent.

        Costs do not add up: an event may cost less, or more, than by itself. Ask `rounds_left`.
        """
        account = self.account()
        return account.budget.epsilon - self._epsilon(account.budget, account.events())

    def rounds_left(self, event: GaussianEvent, most: int = 1_000_000) -> int:
        """How many times more an event can be charged, and at most `most`."""
        account = self.account()
        budget = account.budget

        def cost(times: int) -> float:
            also = replace(event, count=event.count * times) if times else None
            return self._epsilon(budget, account.events(also))

        return most_that_fit(cost, budget.epsilon, most)

    def check(self, event: GaussianEvent) -> None:
        """See whether the ledger's accountant can add an event to the others; nothing is charged.

        Raises:
            ConfigError: it has no proof for such an event, or none beside the others.
        """
        account = self.account()
        self._epsilon(account.budget, account.events(_plain(event)))

    def charge(self, event: GaussianEvent, *, run: str, round: int) -> Receipt:  # noqa: A002 - the field's word
        """Charge an event before it is released.

        In one transaction it is computed what all events cost with this one, and the charge is
        written, or refused. It is on the disk when this returns; release only then. A round that is
        done again draws new noise, so it is charged again; the entry is marked as a repetition.

        Args:
            event: what will be released.
            run: what releases it.
            round: in which of its rounds, from 0 on.

        Returns:
            A receipt, to be kept with what is released.

        Raises:
            BudgetError: there is not enough left. Nothing was charged.
            ConfigError: `run` or `round` cannot be kept.
            LedgerError: the ledger cannot be written or trusted. Release nothing.
        """
        event = _plain(event)
        run, number = _text("run", run), _whole("round", round)
        with self._transaction("IMMEDIATE") as connection:
            account = self._caught_up(connection)
            epsilon = self._epsilon(account.budget, account.events(event))
            if not epsilon <= account.budget.epsilon:
                spent = self._epsilon(account.budget, account.events())
                raise _over_budget(self.path, account, f"round {number} of {run}", epsilon, spent)
            query = "SELECT count(*) FROM entries WHERE run = ? AND round = ?"
            (repetition,) = connection.execute(query, (run, number)).fetchone()
            last = account.last
            entry = _entry(
                "charge", last.number + 1, float(epsilon), run=run, round=number,
                repetition=repetition, **asdict(event),
            ).chained(last.hash)  # fmt: skip
            database.append(connection, entry)
        self._account = follow(account, [entry])
        return self._account.receipt()

    def raise_budget(self, epsilon: float, reason: str) -> Receipt:
        """Raise the budget, on the record.

        Args:
            epsilon: all that may be spent from now on, above the present budget.
            reason: why.

        Raises:
            ConfigError: it is no more than before, or there is no reason.
            LedgerError: the ledger cannot be written or trusted.
        """
        reason = _text("reason", reason)
        with self._transaction("IMMEDIATE") as connection:
            account = self._caught_up(connection)
            now = account.budget.epsilon
            if not now < epsilon < math.inf:
                raise ConfigError(
                    f"raising a budget of epsilon={now:g} to {epsilon!r}",
                    why="a budget is only ever raised; what may be spent was promised",
                    instead=f"a number above {now:g}: all that may be spent, not what is added",
                )
            last = account.last
            entry = _entry(
                "raise", last.number + 1, last.epsilon, budget_epsilon=float(epsilon), reason=reason
            ).chained(last.hash)
            database.append(connection, entry)
        self._account = follow(account, [entry])
        return self._account.receipt()

    def entries(self) -> list[Entry]:
        """All entries, checked, in their order.

        Raises:
            LedgerError: as for `verify`.
        """
        with self._transaction("DEFERRED") as connection:
            found = list(database.entries(connection, self.path))
        follow(None, found)
        return found

    def verify(self, receipt: Receipt | None = None) -> Receipt:
        """Read all of the file anew: pages, table, triggers, chain; and compare it with a receipt.

        Args:
            receipt: of this ledger, from earlier. Without one, a ledger whose last entries were
                removed by somebody who knew how looks like one that never had them.

        Returns:
            A receipt of the present state.

        Raises:
            LedgerError: what is wrong.
        """
        account = self._examined()
        if receipt is not None:
            self._compare(account, receipt)
        self._account = account
        return account.receipt()

    def receipt(self) -> Receipt:
        """That the ledger has come to its last entry; keep it where the ledger is not."""
        return self.account().receipt()

    def to_json(self) -> str:
        """All entries and a receipt as JSON, the same text for the same entries."""
        found = self.entries()
        about = {
            "format": "hanse privacy ledger",
            "version": database.VERSION,
            "receipt": asdict(follow(None, found).receipt()),
            "entries": [entry.row() for entry in found],
        }
        return json.dumps(about, indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """All entries as a table; what an entry does not have is empty."""
        import csv
        import io

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(entry.row().values() for entry in self.entries())
        return text.getvalue()

    # ------------------------------------------------------------------------------- reading
    @contextlib.contextmanager
    def _transaction(self, mode: str) -> Iterator[sqlite3.Connection]:
        """A transaction, committed when what is inside went through."""
        with database.opened(self.path, self._wait) as connection:
            connection.execute(f"BEGIN {mode}")
            yield connection
            connection.execute("COMMIT")

    def _examined(self) -> Account:
        """Everything, from the first page and the first entry on."""
        with self._transaction("DEFERRED") as connection:
            database.examine(connection, self.path)
            return follow(None, database.entries(connection, self.path))

    def _caught_up(self, connection: sqlite3.Connection) -> Account:
        """The account, with the entries that came since; the last one known must still be there."""
        known = self._account
        new = database.entries(connection, self.path, known.last.number)
        if next(new, None) != known.last:
            raise _rolled_back(f"{self.path} has lost entry {known.last.number}, or has another")
        return follow(known, new)

    def _compare(self, account: Account, receipt: Receipt) -> None:
        if receipt.dataset != account.dataset:
            raise LedgerError(
                f"a receipt of {receipt.dataset!r} for the ledger of {account.dataset!r}",
                why="one was taken for the other",
                instead=f"a receipt of {account.dataset!r}, or the ledger of {receipt.dataset!r}",
            )
        if account.last.number < receipt.entries:
            raise _rolled_back(
                f"{self.path} has {account.last.number} entries, the receipt {receipt.entries}"
            )
        if self.entries()[receipt.entries - 1].hash != receipt.head:
            raise _rolled_back(f"{self.path} has another entry {receipt.entries} than the receipt")

    def _epsilon(self, budget: Budget, events: Sequence[GaussianEvent]) -> float:
        return self._accountant(events, budget.delta, budget.accountant) if events else 0.0


def _accountant(
    events: Sequence[GaussianEvent], delta: float, accountant: Literal["rdp", "pld"]
) -> float:
    from hanse.privacy.accounting import epsilon  # its packages are an extra: others need none

    return epsilon(events, delta, accountant)


def _entry(kind: Kind, number: int, epsilon: float, **columns: object) -> Entry:
    """An entry of here and now, without its hash."""
    common = {
        "kind": kind,
        "number": number,
        "epsilon": epsilon,
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "host": platform.node(),
        "pid": os.getpid(),
        "version": version("hanse"),
        "hash": "",
    }
    return Entry.of({**dict.fromkeys(COLUMNS), **common, **columns})


def _plain(event: GaussianEvent) -> GaussianEvent:
    """The event with numbers as the file keeps them, so that what is hashed is what is read."""
    return replace(
        event,
        noise_multiplier=float(event.noise_multiplier),
        rate=float(event.rate),
        population=_whole("population", event.population),
        count=_whole("count", event.count),
    )


def _text(name: str, value: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigError(
            f"a {name} of {value!r}",
            why="a ledger is read by people, for years",
            instead=f"a {name} of one line of printable text",
        )
    return str(value)


def _whole(name: str, value: int) -> int:
    if not 0 <= value < 2**63 or value != int(value):
        raise ConfigError(
            f"a {name} of {value!r}",
            why="a ledger keeps whole numbers from 0 to 2^63 - 1",
            instead=f"a {name} in this range",
        )
    return int(value)


def _over_budget(
    path: Path, account: Account, what: str, epsilon: float, spent: float
) -> BudgetError:
    budget = account.budget
    enough = f"--epsilon {_rounded_up(epsilon)} " if math.isfinite(epsilon) else ""
    return BudgetError(
        f"{what} would bring {account.dataset!r} to epsilon {_rounded_up(epsilon)}; its budget is "
        f"{budget.epsilon:g} at delta {budget.delta:g}, of which {spent:.4g} is spent",
        why="what is released cannot be taken back; nothing was charged",
        instead="stop here (what was released before is paid for), or release with more noise; "
        "whoever answers for the data may raise the budget, and the run be resumed: "
        f"`hanse privacy ledger raise {shlex.quote(str(path))} {enough}--reason …`",
    )


def _rounded_up(epsilon: float) -> str:
    """At least `epsilon`, with few digits."""
    if not math.isfinite(epsilon):
        return str(epsilon)
    digits = max(3 - math.floor(math.log10(epsilon)), 0) if epsilon > 0 else 0
    return f"{math.ceil(epsilon * 10**digits + 1e-9) / 10**digits:.{digits}f}"


def _rolled_back(found: str) -> LedgerError:
    return LedgerError(
        found,
        why="the file was replaced, by an older copy for example: charges are missing",
        instead="the file with all its entries; otherwise what is missing has to count as spent",
    )
