"""What secure aggregation costs, beside the floor and beside Flower's SecAgg+.

    python -m benchmarks.secagg --write docs/secure-aggregation.md

Sessions are run by `hanse.secagg.Run`, all clients in this process, and the sum is checked. The
floor is the keystream alone: the bytes of all masks that a party must make, divided by the rate of
AES-128 in counter mode, which is measured between the sessions. All times are processor time of one
thread. Flower's are taken by `benchmarks/secagg/flower.py` with an interpreter that has `flwr`
(that of `benchmarks.simulation.environments`, or `--flower PYTHON`); without one its columns are
empty.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.simulation.environments import ROOT, is_ready, python_of
from benchmarks.simulation.measure import machine
from benchmarks.simulation.tables import write
from hanse.secagg import Assumptions, Run, Session, Stage, plan
from hanse.secagg.primitives import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hanse.secagg import Outcome
    from hanse.secagg.ring import Words

_BLOCK = 1 << 18  # bytes
_INPUTS = 8  # different vectors


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        clients: n.
        length: words of a vector.
        dropout: the part of the clients that is gone before it masks.
        server: what the ring's degree is computed for; `""` is the complete graph.
        flower: whether Flower is measured beside it.
        sessions: how often.
    """

    clients: int
    length: int
    dropout: float
    server: str = ""
    flower: bool = False
    sessions: int = 3

    @property
    def gone(self) -> int:
        return round(self.dropout * self.clients)

    @property
    def assumptions(self) -> Assumptions:
        if self.server == "":
            return Assumptions()
        kind = "malicious" if self.server == "malicious" else "honest-but-curious"
        return Assumptions(0.1, 0.1, kind)

    def session(self) -> Session:
        if self.server == "":
            return Session.complete(range(self.clients), length=self.length, width=32)
        found = plan(self.clients, self.assumptions)
        cohort, seed = range(self.clients), bytes(range(32))
        return Session.planned(cohort, found, seed=seed, length=self.length, width=32)


CASES = [
    *(Case(n, 1_000_000, d, flower=True) for n in (50, 100) for d in (0.0, 0.1, 0.3)),
    Case(1000, 100_000, 0.1, "honest-but-curious", sessions=1),
    Case(1000, 100_000, 0.1, "malicious", sessions=1),
]


def keystream_rate(seconds: float = 0.3) -> float:
    """Bytes of AES-128-CTR in a second of processor time, into one buffer that stays in cache."""
    zeros, room = bytes(_BLOCK), bytearray(_BLOCK + 15)
    cipher, made = stream(os.urandom(32)), 0
    start = time.process_time()
    while time.process_time() - start < seconds:
        for _ in range(16):
            cipher.update_into(zeros, room)
            made += _BLOCK
    return made / (time.process_time() - start)


@dataclass(frozen=True)
class Row:
    """What one case came to; seconds are of the median session."""

    case: Case
    degree: int
    threshold: int
    client: float
    server: float
    client_floor: float
    server_floor: float
    overhead: float  # bytes a client sends beside the vector
    down: float  # bytes it receives
    flower_client: float | None = None
    flower_server: float | None = None


def measure(case: Case) -> Row:
    """Run the sessions of a case, and measure the keystream before and after each."""
    rng = np.random.default_rng(0)
    inputs = [rng.integers(0, 2**16, case.length, dtype=np.uint32) for _ in range(_INPUTS)]
    rates, clients, servers = [keystream_rate()], [], []
    session, outcome, gone = case.session(), None, set[int]()
    for number in range(case.sessions):
        session = case.session()
        generator = np.random.default_rng(number)
        gone = set(generator.choice(case.clients, case.gone, replace=False).tolist())
        run = Run(session, lambda c: inputs[c % _INPUTS], case.assumptions, keep_transcript=False)
        outcome = run.to_end(dict.fromkeys(gone, Stage.MASK))
        _check(outcome, inputs, gone, case.clients)
        rates.append(keystream_rate())
        stages = [outcome.client_seconds[c] for c in outcome.survivors]
        clients.append(statistics.median(sum(seconds.values()) for seconds in stages))
        servers.append(sum(outcome.server_seconds.values()))
    assert outcome is not None  # noqa: S101 - there is a session at least
    rate = statistics.median(rates)
    client_masks, server_masks = _masks(session, gone)
    up = statistics.median(outcome.bytes_up[c] for c in outcome.survivors)
    return Row(
        case,
        session.degree,
        session.threshold,
        statistics.median(clients),
        statistics.median(servers),
        client_masks * session.vector_bytes / rate,
        server_masks * session.vector_bytes / rate,
        up - session.vector_bytes,
        statistics.median(outcome.bytes_down[c] for c in outcome.survivors),
    )


def _check(outcome: Outcome, inputs: Sequence[Words], gone: set[int], clients: int) -> None:
    expected = np.zeros_like(outcome.total)
    for client in set(range(clients)) - gone:
        expected += inputs[client % _INPUTS]
    if (outcome.total != expected).any() or len(outcome.survivors) != clients - len(gone):
        raise SystemExit("the sum is wrong")


def _masks(session: Session, gone: set[int]) -> tuple[float, int]:
    """The masks that a client and the server must make."""
    survivors = len(session.cohort) - len(gone)
    pairs = sum(len(set(session.graph.neighbours(c).tolist()) - gone) for c in gone)
    return session.degree + 1, survivors + pairs


def with_flower(row: Row, python: Path | None) -> Row:
    """The row with Flower's seconds in the same session."""
    if python is None or not row.case.flower:
        return row
    script = Path(__file__).with_name("flower.py")
    numbers = [row.case.clients, row.case.length, row.case.gone, row.threshold]
    answer = subprocess.run(
        [str(python), str(script), *map(str, numbers)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"},
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    return Row(**{**vars(row), "flower_client": found["client"], "flower_server": found["server"]})


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


TITLES = [
    "clients, words",
    "graph",
    "gone",
    "client, ms",
    "× floor",
    "server, s",
    "× floor",
    "Flower's client",
    "Flower's server",
    "kB sent beside the vector",
    "kB received",
]
HEAD = [_row(TITLES), _row(["---"] * len(TITLES))]


def line(row: Row) -> str:
    """A row as Markdown."""
    case = row.case
    graph = "complete" if row.degree == case.clients - 1 else f"k = {row.degree}, {case.server}"
    cells = [
        f"{case.clients}, {case.length:,}",
        f"{graph}, t = {row.threshold}",
        f"{case.dropout:.0%}",
        f"{1e3 * row.client:.0f}",
        f"{row.client / row.client_floor:.2f}",
        f"{row.server:.2f}",
        f"{row.server / row.server_floor:.2f}",
        _times(row.flower_client, row.client),
        _times(row.flower_server, row.server),
        f"{row.overhead / 1e3:.1f}",
        f"{row.down / 1e3:.1f}",
    ]
    return _row(cells)


def _times(theirs: float | None, ours: float) -> str:
    return "" if theirs is None else f"{theirs:.2f} s ({theirs / ours:.0f}×)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--clients", type=int, nargs="*", help="only rows with so many")
    add("--flower", type=Path, help="an interpreter that has flwr")
    add("--write", type=Path, metavar="PAGE", help="put the table between this page's markers")
    options = parser.parse_args()
    python = options.flower or (python_of("flower") if is_ready("flower") else None)
    before = os.getloadavg()[0]
    lines = list(HEAD)
    print(*HEAD, sep="\n", flush=True)
    for case in CASES:
        if options.clients and case.clients not in options.clients:
            continue
        lines.append(line(with_flower(measure(case), python)))
        print(lines[-1], flush=True)
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    load = f"load {before:.1f} to {os.getloadavg()[0]:.1f}"
    lines += ["", f"{machine()}; {date}; {load}; AES-128-CTR {_rate()} GB/s; {_flwr(python)}."]
    print(lines[-1])
    if options.write:
        write(ROOT / options.write, "secagg", "\n".join(lines))


def _flwr(python: Path | None) -> str:
    if python is None:
        return "no Flower"
    code = "from importlib.metadata import version; print('flwr', version('flwr'))"
    command = [str(python), "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _rate() -> str:
    return f"{keystream_rate() / 1e9:.1f}"


if __name__ == "__main__":
    main()
