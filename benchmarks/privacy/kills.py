"""Kills a process that charges a privacy ledger, at random moments, and looks at what is left.

    python -m benchmarks.privacy.kills --kills 200

Each time another process opens the same ledger and charges it without pause. It says which charges
returned. It is killed by SIGKILL, and the ledger is opened and verified: every charge that returned
must be there, and at most one more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hanse.core.errors import BudgetError
from hanse.privacy.events import Budget, GaussianEvent
from hanse.privacy.ledger import Ledger, Receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENT = GaussianEvent(1000.0)


@dataclass(frozen=True)
class Kill:
    """What a kill left.

    Attributes:
        returned: how many charges had returned.
        written: how many there are.
        lost: how many of those that had returned are not there.
        unfinished: whether a transaction was under way: its journal was left.
    """

    returned: int
    written: int
    lost: int
    unfinished: bool


def zcdp(events: Sequence[GaussianEvent], delta: float, _: str) -> float:
    """Bun and Steinke, TCC 2016, propositions 1.3 and 1.6; without sampling."""
    rho = sum(event.count / (2 * event.noise_multiplier**2) for event in events)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def charge_until_over(path: Path, run: str) -> None:
    """Charge until the budget is spent, or until killed; print a receipt as each returns."""
    ledger = Ledger.open(path, accountant=zcdp)
    for number in itertools.count():
        try:
            receipt = ledger.charge(EVENT, run=run, round=number)
        except BudgetError:
            return
        os.write(1, receipt.to_json().encode())


def charging(path: Path, run: str) -> subprocess.Popen[bytes]:
    """Another process that does so."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.privacy.kills",
        "--charge",
        str(path),
        "--run",
        run,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def receipts(printed: bytes) -> list[Receipt]:
    """What a process printed; a line that was cut short had not been printed."""
    return [Receipt.from_json(line) for line in printed.split(b"\n")[:-1]]


def kill(path: Path, run: str, seconds: float) -> Kill:
    """Let a process charge, and kill it so many seconds after its first charge returned."""
    before = len(Ledger.open(path, accountant=zcdp).entries())
    process = charging(path, run)
    first = process.stdout.readline() if process.stdout else b""
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    unfinished = Path(f"{path}-journal").exists()
    found = Ledger.open(path, accountant=zcdp).entries()  # verified
    returned = receipts(first + rest)
    there = {(entry.number, entry.hash) for entry in found}
    lost = sum((receipt.entries, receipt.head) not in there for receipt in returned)
    return Kill(len(returned), len(found) - before, lost, unfinished)


def kills(path: Path, times: int, longest: float, seed: int = 0) -> list[Kill]:
    """So many kills of processes that charge one ledger, at moments up to `longest` seconds."""
    Ledger.create(path, "people", Budget(100.0, 1e-6, "rdp"), accountant=zcdp)
    moments = random.Random(seed)  # noqa: S311 - moments, not secrets
    return [kill(path, f"run {one}", moments.uniform(0, longest)) for one in range(times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--longest", type=float, default=0.1, help="seconds until a kill, at most")
    parser.add_argument("--folder", type=Path, help="on the disk to try (default: a temporary one)")
    parser.add_argument("--charge", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", default="run", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.charge is not None:
        charge_until_over(given.charge, given.run)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = kills(Path(folder) / "people.ledger", given.kills, given.longest)
    total = {
        "kills": len(found),
        "in the middle of a transaction": sum(one.unfinished for one in found),
        "charges that returned": sum(one.returned for one in found),
        "of these lost": sum(one.lost for one in found),
        "charges written that had not returned": sum(one.written - one.returned for one in found),
        "most of these in a kill": max(one.written - one.returned for one in found),
    }
    print(json.dumps(total, indent=1))
    sys.exit(any(one.lost or one.written - one.returned not in {0, 1} for one in found))


if __name__ == "__main__":
    main()
