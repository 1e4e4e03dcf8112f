"""The entries of a ledger: how they are chained, and what they add up to.

Nothing here touches a file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from hanse.core.errors import ConfigError, LedgerError
from hanse.privacy.events import Budget, GaussianEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hanse.privacy.events import Adjacency, Sampling

Kind = Literal["create", "charge", "raise"]

COLUMNS: dict[str, type] = {
    "number": int,
    "kind": str,
    "time": str,
    "host": str,
    "pid": int,
    "version": str,
    "dataset": str,
    "budget_epsilon": float,
    "budget_delta": float,
    "accountant": str,
    "reason": str,
    "run": str,
    "round": int,
    "repetition": int,
    "noise_multiplier": float,
    "sampling": str,
    "rate": float,
    "population": int,
    "adjacency": str,
    "count": int,
    "epsilon": float,
    "hash": str,
}
"""The columns of an entry, in the order in which they are hashed, and `hash` at last."""

_ALWAYS = ("number", "kind", "time", "host", "pid", "version", "epsilon", "hash")
_EVENT = tuple(field.name for field in fields(GaussianEvent))
_FILLED: dict[str, tuple[str, ...]] = {
    "create": (*_ALWAYS, "dataset", "budget_epsilon", "budget_delta", "accountant"),
    "charge": (*_ALWAYS, "run", "round", "repetition", *_EVENT),
    "raise": (*_ALWAYS, "budget_epsilon", "reason"),
}
"""The columns that an entry of each kind has; the others are null."""


@dataclass(frozen=True)
class Entry:
    """A row of a ledger. What an entry of its kind does not have is None.

    Attributes:
        number: 1, 2, 3, … without a gap.
        kind: `"create"` (always the first entry and no other), `"charge"` or `"raise"`.
        time: in UTC, as ISO 8601 writes it; by the clock of the machine, which may be wrong.
        host: the machine that wrote it.
        pid: the process that wrote it.
        version: Hanse's version.
        epsilon: what all charges up to this one cost, as it was computed then. For information:
            what has been spent is always computed anew from the events.
        hash: SHA-256 over the hash before it and all other columns, see `chained`.
        dataset: whose budget it is (create).
        budget_epsilon: the budget from here on (create, raise).
        budget_delta: the budget's delta (create).
        accountant: the budget's accountant (create).
        reason: why more may be spent (raise).
        run: what spent it (charge).
        round: in which round (charge).
        repetition: how many charges of the same run and round there are before it (charge): above 0
            where a round was done again, after a crash for example.
        noise_multiplier: this and the following are the event's (charge), see `GaussianEvent`.
        sampling: see `GaussianEvent`.
        rate: see `GaussianEvent`.
        population: see `GaussianEvent`.
        adjacency: see `GaussianEvent`.
        count: see `GaussianEvent`.
    """

    number: int
    kind: Kind
    time: str
    host: str
    pid: int
    version: str
    epsilon: float
    hash: str = ""
    dataset: str | None = None
    budget_epsilon: float | None = None
    budget_delta: float | None = None
    accountant: str | None = None
    reason: str | None = None
    run: str | None = None
    round: int | None = None
    repetition: int | None = None
    noise_multiplier: float | None = None
    sampling: Sampling | None = None
    rate: float | None = None
    population: int | None = None
    adjacency: Adjacency | None = None
    count: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, object]) -> Entry:
        """An entry of a row that was read.

        Raises:
            ValueError: it has not the columns of its kind, or a value of another type.
        """
        needed = _FILLED.get(str(row["kind"]), ())
        for name, kind in COLUMNS.items():
            expected = kind if name in needed else type(None)
            if type(row[name]) is not expected:
                raise ValueError(f"its {name} is {row[name]!r}")
        return cls(**cast("dict[str, Any]", dict(row)))

    @property
    def event(self) -> GaussianEvent:
        """What a charge is for."""
        values = {name: getattr(self, name) for name in _EVENT}
        return GaussianEvent(**values)

    def row(self) -> dict[str, object]:
        """The values of all columns, in their order."""
        return {name: getattr(self, name) for name in COLUMNS}

    def chained(self, before: str) -> Entry:
        """The entry with its hash.

        The hash is SHA-256 over an array in JSON, without blanks, in ASCII: the hash of the entry
        before, then the values of all columns but `hash`, in their order. Numbers are the shortest
        decimals that give the same double, as Python writes them.

        Args:
            before: the hash of the entry before, 64 hexadecimal digits; empty for the first one.
        """
        values = [before, *(value for name, value in self.row().items() if name != "hash")]
        text = json.dumps(values, separators=(",", ":"), allow_nan=False)
        return replace(self, hash=hashlib.sha256(text.encode("ascii")).hexdigest())


@dataclass(frozen=True)
class Receipt:
    """Says that a ledger had come to a certain entry: whoever keeps it can prove a rollback.

    Attributes:
        dataset: whose ledger.
        entries: how many entries there were.
        head: the hash of the last of them, which stands for all.
        epsilon: what had been spent.
    """

    dataset: str
    entries: int
    head: str
    epsilon: float

    def to_json(self) -> str:
        """A line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Receipt:
        """Read a receipt, or that of an exported ledger.

        Raises:
            ConfigError: it is none.
        """
        try:
            found = json.loads(text)
            found = found.get("receipt", found)
            receipt = cls(**{field.name: found[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            receipt = None
        if receipt is None or not _is_receipt(receipt):
            raise ConfigError(
                "a receipt that is none",
                why="it needs dataset, entries, head and epsilon, as JSON",
                instead="a .json file that `hanse privacy ledger export` wrote",
            )
        return receipt


def _is_receipt(found: Receipt) -> bool:
    types = {"dataset": str, "entries": int, "head": str, "epsilon": float}
    return (
        all(type(getattr(found, name)) is kind for name, kind in types.items())
        and found.entries >= 1
    )


@dataclass(frozen=True)
class Account:
    """What the entries of a ledger add up to.

    Attributes:
        dataset: whose budget it is.
        budget: as it was raised last.
        charged: each different event, as if it had happened once, and how often it did.
        last: the last entry.
        last_event: what was charged last, happening once.
        first: the hash of the first entry.
    """

    dataset: str
    budget: Budget
    charged: Mapping[GaussianEvent, int]
    last: Entry
    last_event: GaussianEvent | None = None
    first: str = ""

    def events(self, also: GaussianEvent | None = None) -> list[GaussianEvent]:
        """All that was released, equal events as one with a count; as if `also` were charged."""
        charged = dict(self.charged)
        if also is not None:
            once = replace(also, count=1)
            charged[once] = charged.get(once, 0) + also.count
        return [replace(event, count=count) for event, count in charged.items()]

    def receipt(self) -> Receipt:
        """That the ledger has come to here."""
        last = self.last
        return Receipt(self.dataset, last.number, last.hash, last.epsilon)


def follow(account: Account | None, entries: Iterable[Entry]) -> Account:
    """Add the next entries to an account.

    Args:
        account: what was read before; None for the first entry.
        entries: in their order.

    Raises:
        LedgerError: an entry is missing, was changed, or cannot stand where it does.
    """
    charged = dict(account.charged) if account else {}
    for entry in entries:
        number, before = (account.last.number, account.last.hash) if account else (0, "")
        if entry.number != number + 1:
            raise _broken(f"entry {number + 1} is missing: entry {entry.number} is in its place")
        if entry.hash != entry.chained(before).hash:
            raise _broken(f"entry {entry.number} is not what was written")
        if (entry.kind == "create") != (account is None):
            raise _broken(f"entry {entry.number} is of kind {entry.kind!r}")
        try:
            account = _added(account, entry, charged)
        except ConfigError as error:
            raise _broken(f"entry {entry.number} has {error.found}") from error
    if account is None:
        raise _broken("there is no entry")
    return account


def _added(account: Account | None, entry: Entry, charged: dict[GaussianEvent, int]) -> Account:
    """An account with one more entry; a charge is added to `charged`, which is the account's."""
    if account is None:
        values = (entry.budget_epsilon, entry.budget_delta, entry.accountant)
        budget = Budget(*cast("Any", values))
        return Account(str(entry.dataset), budget, charged, entry, first=entry.hash)
    if entry.kind == "raise":
        budget = replace(account.budget, epsilon=cast("float", entry.budget_epsilon))
        return replace(account, budget=budget, last=entry)
    once = replace(entry.event, count=1)
    charged[once] = charged.get(once, 0) + entry.event.count
    return replace(account, charged=charged, last=entry, last_event=once)


def _broken(found: str) -> LedgerError:
    return LedgerError(
        found,
        why="entries are chained by their hashes, so one was changed, deleted or added by hand, "
        "or the disk is damaged",
        instead="restore the file from a backup that is as new as your last receipt; what cannot "
        "be accounted for has to count as spent",
    )
