"""Whose account a run is on, and what it has released: asked whenever it goes on."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING

from hanse import records
from hanse.core.errors import RunError
from hanse.privacy.statement import Releases
from hanse.spending import HISTOGRAM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from hanse.experiment import Prepared
    from hanse.privacy.ledger import Ledger
    from hanse.round import FederationState
    from hanse.spending import Spending
    from hanse.storage import RunDirectory


def name_in_ledger(path: Path) -> str:
    """A name that no other run has, wherever both were started, and that a moved run keeps."""
    return f"{path} #{secrets.token_hex(4)}"


def check_account(prepared: Prepared, run: RunDirectory) -> None:
    """Refuse to go on with a run on another account, or on one that has been put back.

    Raises:
        RunError: the run was charged to another ledger, or to none.
        LedgerError: the ledger has lost entries since.
    """
    known = (run.about().get("privacy") or {}).get("ledger")
    charged = prepared.charged
    ours = None if charged is None else charged.ledger.identity
    if (known or {}).get("identity") != ours:
        raise _other_ledger(run, known, charged)
    if charged is not None:
        receipt = records.last_receipt(run.metrics(), charged.ledger.dataset)
        if receipt is not None:
            charged.ledger.verify(receipt)


def account_of(
    prepared: Prepared, run: RunDirectory, state: FederationState | None
) -> tuple[str, Releases]:
    """What the ledger calls a run, and what it has released so far.

    A round that was computed and is not in the checkpoint has been released, or may have been, if
    its noise was the operating system's. The ledger knows of each; without one, the record does,
    and one more is assumed for a process that was killed.

    """
    about, done = run.about(), run.metrics()
    known = (about.get("privacy") or {}).get("ledger")
    charged, rounds_ = prepared.charged, 0 if state is None else state.round
    if charged is not None and known is not None:
        return known["run"], _charged_to(charged.ledger, known["run"])
    if prepared.privacy is None or not prepared.privacy.protects:
        return prepared.experiment.name, _repeatable(done, rounds_)
    found = records.last_releases(done) or Releases()
    # What it had released before records were taken back.
    kept = (about.get("privacy") or {}).get("released") or asdict(found)
    found = Releases(*(max(known, kept[name]) for name, known in asdict(found).items()))
    killed = about["status"] == "running" and bool(done)
    return prepared.experiment.name, Releases(found.rounds + killed, found.histograms)


def keep_account(prepared: Prepared, run: RunDirectory, before: Releases) -> None:
    """Write down what a run has released, before the records that say so are taken back."""
    if prepared.privacy is None or not prepared.privacy.protects or prepared.charged is not None:
        return
    run.update(privacy={**(run.about().get("privacy") or {}), "released": asdict(before)})


def _repeatable(done: Sequence[Mapping[str, Any]], rounds_: int) -> Releases:
    """What was released up to a round by a run that releases the same when it is done again."""
    upto = [record for record in done if record["round"] <= rounds_]
    return records.last_releases(upto) or Releases(rounds_)


def _charged_to(ledger: Ledger, name: str) -> Releases:
    """What a run was charged for."""
    names = [entry.run for entry in ledger.entries() if entry.kind == "charge"]
    histograms = sum(str(other).startswith(f"{name}{HISTOGRAM}") for other in names)
    return Releases(names.count(name), histograms)


def _other_ledger(
    run: RunDirectory, known: Mapping[str, Any] | None, charged: Spending | None
) -> RunError:
    was = "no ledger" if known is None else f"the ledger of {known['dataset']!r}"
    now = "none" if charged is None else f"{charged.ledger.path}, another one"
    return RunError(
        f"{run.path} is charged to {was}, and is to go on with {now}",
        why="what its rounds have cost is counted there, and would be counted as nothing here",
        instead="the ledger that it was started with (a copy that has every entry will do), or a "
        "new run directory",
    )
