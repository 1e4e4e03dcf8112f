"""Kills runs that are charged to a ledger, at random moments, and looks at what is left.

    python -m benchmarks.privacy.run_kills --kills 200

Real `hanse run` and `hanse resume` processes train on the smartwatch data, with noise from the
operating system. Each is killed by SIGKILL, on its way up or some moments after a round; then the
ledger is opened and verified and compared with everything that the run has left on the disk so far:
every round that was recorded and every model in a checkpoint must have a charge of its own. The
next process goes on with the run, until the budget, which is for a whole number of rounds, ends it
with a `BudgetError`. A fresh ledger and run then take their places.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hanse import load
from hanse.core.errors import BudgetError
from hanse.models import softmax_regression
from hanse.privacy import Budget, GaussianEvent, epsilon
from hanse.privacy.histogram import PrivateHistogram
from hanse.privacy.ledger import Ledger
from hanse.spending import HISTOGRAM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DELTA, EVENT = 1e-2, GaussianEvent(8.0, "poisson", 0.5)
NOISY = PrivateHistogram(noise_multiplier=40.0, bins=5)
_PATIENCE = 120.0  # seconds that a loaded machine may take for what takes a few
_BROKE = 2  # the exit status of a HanseError
_EXPERIMENT = """
name = "watch"

[data]
source = "smartwatch"
standardise = true

[model]
name = "softmax_regression"

[strategy]
name = "dp_fedavg"
noise_multiplier = 8.0
noise = "os"

[run]
rounds = 100000
checkpoint_every = {every}
participation = {{kind = "poisson", rate = 0.5}}
ledger = "people.ledger"
execution = {{path = "module", block = 4}}
per_client = {shown}
"""


class Process(Protocol):
    """A command that was started."""

    def kill(self) -> int:
        """End it by SIGKILL; its exit status."""

    def wait(self) -> tuple[int, str]:
        """Wait for it; its exit status, and what it printed."""


@dataclass(frozen=True)
class Started:
    """A process of the operating system."""

    process: subprocess.Popen[str]

    def kill(self) -> int:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        return int(self.process.returncode)

    def wait(self) -> tuple[int, str]:
        printed, _ = self.process.communicate()
        return int(self.process.returncode), printed


def hanse(folder: Path, argv: Sequence[str]) -> Process:
    """`hanse argv` in a folder."""
    command = [sys.executable, "-c", "from hanse.cli.app import main; main()", *argv]
    return Started(
        subprocess.Popen(
            command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    )


@dataclass
class Case:
    """A ledger, a run that is charged to it, and all that the run was ever seen to release.

    Attributes:
        folder: where both are.
        rounds: how many the budget is for.
        name: what the ledger calls the run, once it has begun.
        receipts: (entries, head) of every record that was ever seen, with its round.
        models: of each round, the sums of the different models that were ever seen.
        counts: of each round and split, the different histograms that were ever seen.
    """

    folder: Path
    rounds: int
    name: str = ""
    receipts: dict[tuple[int, str], int] = field(default_factory=dict)
    models: dict[int, set[str]] = field(default_factory=dict)
    counts: dict[tuple[int, str], set[str]] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def ledger(self) -> Path:
        return self.folder / "people.ledger"


@dataclass
class Found:
    """What was found over all kills.

    Attributes:
        kills: how many.
        before: of these before the process had charged anything.
        records: of rounds that were seen on the disk, and some of them dropped again.
        models: that were seen in checkpoints.
        histograms: that were seen.
        charges: of rounds and histograms.
        unused: charges of what was never seen: a kill came between.
        most_unused: in one kill.
        ended: runs that ended because the budget was spent.
        faults: what must not be; in words.
    """

    kills: int = 0
    before: int = 0
    records: int = 0
    models: int = 0
    histograms: int = 0
    charges: int = 0
    unused: int = 0
    most_unused: int = 0
    ended: int = 0
    faults: list[str] = field(default_factory=list)


def begin(folder: Path, rounds: int, every: int, *, histograms: bool = False) -> Case:
    """A ledger with a budget for exactly so many rounds, and an experiment that wants more."""
    shown = '"withheld"'
    per_round = [EVENT]
    if histograms:
        shown = f"{{noise_multiplier = {NOISY.noise_multiplier}, bins = {NOISY.bins}}}"
        per_round += [NOISY.event("add-remove")] * 2  # of training clients, and of unseen ones
    cost = epsilon([dataclasses.replace(one, count=rounds) for one in per_round], DELTA, "rdp")
    folder.mkdir(parents=True)
    Ledger.create(folder / "people.ledger", "watch", Budget(cost, DELTA, "rdp"))
    text = _EXPERIMENT.format(every=every, shown=shown)
    (folder / "experiment.toml").write_text(text, encoding="utf-8")
    return Case(folder, rounds)


def command(case: Case) -> list[str]:
    """What begins the run, or goes on with it."""
    if (case.run / "run.json").is_file():
        return ["resume", "run"]
    shutil.rmtree(case.run, ignore_errors=True)  # a kill came before it was a run
    return ["run", "experiment.toml", "--out", "run"]


def kill(
    case: Case, start: Callable[[Path, Sequence[str]], Process], draw: random.Random, late: float
) -> int:
    """Start the run, and kill it at a random moment; its exit status."""
    early, wait = draw.random() < 0.25, draw.uniform(0.0, late)
    began = time.time_ns()
    process = start(case.folder, command(case))
    if not early:
        _wait_for_a_record(case.run, began)
        wait /= 4
    time.sleep(wait)
    return process.kill()


def _wait_for_a_record(run: Path, began: int) -> None:
    """Until another round is recorded, or the run has ended by itself."""
    path, about, end = run / "metrics.jsonl", run / "run.json", time.monotonic() + _PATIENCE
    smallest = _size(path)
    while time.monotonic() < end:
        size = _size(path)
        smallest = min(smallest, size)  # a run that goes on drops what is in no checkpoint
        if size > smallest:
            return
        if about.is_file() and about.stat().st_mtime_ns > began and _about(run)["advice"]:
            return
        time.sleep(0.0005)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _about(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return found


def look(case: Case, found: Found) -> None:
    """Take in what the run has left on the disk, and compare it with the ledger."""
    _take_in(case)
    ledger = Ledger.open(case.ledger)  # verified
    entries = [entry for entry in ledger.entries() if entry.kind == "charge"]
    rounds = Counter(entry.round for entry in entries if entry.run == case.name)
    histograms = Counter(
        (entry.round, str(entry.run).rpartition(HISTOGRAM)[2])
        for entry in entries
        if HISTOGRAM in str(entry.run)
    )
    if rounds.total() + histograms.total() != len(entries):
        found.faults.append(f"{case.folder.name}: a charge is under another name")
    there = {(entry.number, entry.hash): entry.round for entry in entries}
    for receipt, number in case.receipts.items():
        if there.get(receipt) != number:
            found.faults.append(f"{case.folder.name}: round {number} has lost its charge")
    for number, models in case.models.items():
        if len(models) > rounds[number]:
            found.faults.append(f"{case.folder.name}: {len(models)} models of round {number}")
    for place, counts in case.counts.items():
        if len(counts) > histograms[place]:
            found.faults.append(f"{case.folder.name}: {len(counts)} histograms of {place}")
    if not ledger.spent() <= ledger.budget.epsilon:
        found.faults.append(f"{case.folder.name}: {ledger.spent()} spent")


def _take_in(case: Case) -> None:
    if not (case.run / "run.json").is_file():
        return
    case.name = _about(case.run)["privacy"]["ledger"]["run"]
    metrics = case.run / "metrics.jsonl"
    lines = metrics.read_bytes().split(b"\n")[:-1] if metrics.exists() else []
    for record in map(json.loads, lines):
        number, ledger = record["round"], record["privacy"]["ledger"]
        if not number:
            continue
        case.receipts[ledger["entries"], ledger["head"]] = number
        for split, histogram in (record["histograms"] or {}).items():
            text = json.dumps(histogram["counts"])
            case.counts.setdefault((number, split), set()).add(text)
    for path in (case.run / "checkpoints").glob("round-*/state.safetensors"):
        number = int(path.parent.name.removeprefix("round-"))
        if number:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            case.models.setdefault(number, set()).add(digest)


def finish(case: Case, start: Callable[[Path, Sequence[str]], Process], found: Found) -> None:
    """Let the run go on until its budget is spent, and see how it ends."""
    status, printed = start(case.folder, command(case)).wait()
    look(case, found)
    about, ledger = _about(case.run), Ledger.open(case.ledger)
    charged = ledger.receipt().entries - 1
    last = json.loads((case.run / "metrics.jsonl").read_text().splitlines()[-1])
    model = load(case.run, lambda: softmax_regression(30, 7))
    said = "hanse privacy ledger raise" in " ".join(printed.split())
    right = (
        status == _BROKE
        and said
        and (about["status"], bool(about["advice"])) == ("stopped", True)
        and all(bool(value.isfinite().all()) for value in model.state_dict().values())
        and last["round"] == max(case.models)  # what was recorded last is in a checkpoint, too
    )
    try:
        ledger.charge(EVENT, run="one more", round=0)
        right = False  # it should not have ended yet
    except BudgetError:
        found.ended += right
    if not right:
        found.faults.append(f"{case.folder.name} did not end as it should: {status}, {printed}")
    found.charges += charged
    found.records += len(case.receipts)
    found.models += sum(map(len, case.models.values()))
    found.histograms += sum(map(len, case.counts.values()))


def run_case(
    case: Case,
    kills: int,
    start: Callable[[Path, Sequence[str]], Process],
    draw: random.Random,
    late: float,
    found: Found,
) -> None:
    """So many kills of one run, each looked at, and then its end."""
    for _ in range(kills):
        before = _charges(case)
        seen = len(case.receipts)
        status = kill(case, start, draw, late)
        found.kills += status == -signal.SIGKILL
        look(case, found)
        new = _charges(case) - before
        found.before += not new
        unused = new - _paid(case, len(case.receipts) - seen)
        found.unused += unused
        found.most_unused = max(found.most_unused, unused)
    finish(case, start, found)


def _charges(case: Case) -> int:
    return Ledger.open(case.ledger).receipt().entries - 1


def _paid(case: Case, records: int) -> int:
    """How many charges so many recorded rounds have: with histograms of two splits, three."""
    return records * (3 if case.counts else 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--runs", type=int, default=10, help="that the kills are divided among")
    parser.add_argument("--rounds", type=int, default=300, help="that the budget of each is for")
    parser.add_argument("--late", type=float, default=4.0, help="seconds until a kill, at most")
    parser.add_argument("--folder", type=Path, help="on the disk to try (default: a temporary one)")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found, draw = Found(), random.Random(0)  # noqa: S311 - moments, not secrets
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for one in range(given.runs):
            every, histograms = (1, 3)[one % 2], one % 4 > 1
            case = begin(Path(folder) / f"case-{one}", given.rounds, every, histograms=histograms)
            share = given.kills * (one + 1) // given.runs - given.kills * one // given.runs
            run_case(case, share, hanse, draw, given.late, found)
            print(json.dumps(dataclasses.asdict(found)), flush=True)
    sys.exit(bool(found.faults))


if __name__ == "__main__":
    main()
