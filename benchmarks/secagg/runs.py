"""Noise from the server, and noise from the clients within secure sums, at the same epsilon.

    hanse data fetch mnist
    python -m benchmarks.secagg.runs [--seeds 3] [--rounds 30] [--epsilon 8 2]

MNIST over a thousand clients, softmax regression, everybody in every round. Each private run is
charged to a ledger, whose figure is shown. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hanse
from hanse.data import idx_federation
from hanse.privacy import Budget, noise_multiplier
from hanse.privacy.ledger import Ledger

if TYPE_CHECKING:
    from hanse.data import Federation

CLIENTS, CLIP, SURVIVORS, GONE = 1000, 0.5, 900, 0.05
DELTA = 1e-5
LOCAL = {"lr": 0.1, "local_epochs": 2, "batch_size": 10}


@dataclass(frozen=True)
class Row:
    """A kind of run.

    Attributes:
        name: what it is called.
        strategy: what is done.
        private: whether rounds are charged.
    """

    name: str
    strategy: hanse.Strategy
    private: bool = False


def plain_rows() -> list[Row]:
    """Without noise."""
    secure = hanse.SecureSum()
    return [
        Row("FedAvg", hanse.fedavg(weighting="uniform", **LOCAL)),
        Row("FedAvg, secure sums", hanse.fedavg_secagg(secure=secure, **LOCAL)),
    ]


def private_rows(z: float) -> list[Row]:
    """With the same noise multiplier, by whom it may be added."""
    noise = hanse.DistributedDP(CLIP, z, survivors=SURVIVORS, noise="os")
    lossy = hanse.SecureSum(drops=GONE)
    return [
        Row("noise from the server", hanse.dp_fedavg(
            clip=CLIP, noise_multiplier=z, noise="os", **LOCAL), private=True),
        Row("noise from the clients", hanse.fedavg_secagg(privacy=noise, **LOCAL), private=True),
        Row(f"the same, {GONE:.0%} drop out", hanse.fedavg_secagg(
            privacy=noise, secure=lossy, **LOCAL), private=True),
    ]  # fmt: skip


def run(row: Row, data: Federation, rounds: int, seed: int) -> tuple[float, float, float, int]:
    """Test accuracy, epsilon as the ledger has it, seconds a round, and the fewest survivors."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = None
        if row.private:
            path = Path(folder) / "mnist.ledger"
            ledger = Ledger.create(path, "mnist", Budget(1000.0, DELTA, "rdp"))
        experiment = hanse.Experiment(
            strategy=row.strategy,
            data=data,
            model=lambda: hanse.models.softmax_regression(784, 10),
            rounds=rounds,
            participation=hanse.Full(),
            evaluate_every=rounds,
            seed=seed,
            ledger=None if ledger is None else str(ledger.path),
        )
        began, survivors = time.monotonic(), CLIENTS
        for done in hanse.rounds(experiment):
            survivors = min(survivors, int(done.reported.get("survivors", CLIENTS)))
        seconds = (time.monotonic() - began) / rounds
        spent = 0.0 if ledger is None else Ledger.open(ledger.path).spent()
        return done.evaluations["unseen"].overall["accuracy"], spent, seconds, survivors


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--epsilon", type=float, nargs="+", default=[8.0, 2.0])
    asked = parser.parse_args()
    data = idx_federation("mnist", CLIENTS, "dirichlet", alpha=0.5, min_size=10)
    print("| run | epsilon (ledger) | test accuracy | fewest in a sum | s a round |")
    print("| --- | --- | --- | --- | --- |")
    rows = plain_rows()
    for epsilon in asked.epsilon:
        rows += private_rows(noise_multiplier(epsilon, DELTA, asked.rounds, accountant="rdp"))
    for row in rows:
        found = [run(row, data, asked.rounds, seed) for seed in range(asked.seeds)]
        accuracy = [one[0] for one in found]
        spread = statistics.stdev(accuracy) if len(accuracy) > 1 else float("nan")
        print(
            f"| {row.name} | {found[0][1]:.3f} | {statistics.fmean(accuracy):.4f} ± {spread:.4f} "
            f"| {min(one[3] for one in found)} | {statistics.fmean(one[2] for one in found):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
