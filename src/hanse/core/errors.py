"""Every error Hanse raises on purpose.

```
HanseError
├── ConfigError      an experiment file, an option or an argument cannot be meant
├── DataError        a data set, a partition or a client's examples cannot be used
├── ModelError       a model, a loss or a metric does not fit the data or the engine
├── StrategyError    the parts of a strategy do not fit together
├── WorkerError      a worker process ends whenever it tries to do its work
├── RunError         a run directory, a checkpoint or a resumption cannot be trusted
├── BudgetError      a release would cost more privacy than a data set has left
├── LedgerError      a privacy ledger cannot be read, written or trusted
├── WireError        bytes that arrived are no message, or a message cannot be written as bytes
├── ProtocolError    a message, or a party, does not keep to a protocol
└── DivergenceError  training left the region where its numbers mean anything
```
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class HanseError(Exception):
    """An error that says what was found, why it cannot work, and what to write instead.

    Args:
        found: what was found, with the offending value.
        why: why it cannot work.
        instead: what to write or do instead.
    """

    def __init__(self, found: str, *, why: str, instead: str) -> None:
        """Keep the three parts, so that programs can show them apart."""
        super().__init__(found, why, instead)
        self.found = found
        self.why = why
        self.instead = instead

    def __str__(self) -> str:
        """The three parts, a line each."""
        return f"{self.found}\n  why: {self.why}\n  instead: {self.instead}"


class ConfigError(HanseError):
    """An experiment file, an option or an argument cannot be meant."""


class DataError(HanseError):
    """A data set, a partition or a client's examples cannot be used."""


class ModelError(HanseError):
    """A model, a loss or a metric does not fit the data or the engine."""


class StrategyError(HanseError):
    """The parts of a strategy do not fit together."""


class WorkerError(HanseError):
    """A worker process ends whenever it tries to do its work."""


class RunError(HanseError):
    """A run directory, a checkpoint or a resumption cannot be trusted."""


class BudgetError(HanseError):
    """A release would cost more privacy than a data set has left."""


class LedgerError(HanseError):
    """A privacy ledger cannot be read, written or trusted."""


class WireError(HanseError):
    """Bytes that arrived are no message, or a message cannot be written as bytes."""


class ProtocolError(HanseError):
    """A message, or a party, does not keep to a protocol."""


class DivergenceError(HanseError):
    """Training left the region where its numbers mean anything."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A phrase that lists `known`, the nearest to `word` first where one is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    listed = ", ".join(names)
    return f"did you mean {near[0]!r}? Known: {listed}" if near else f"one of: {listed}"
