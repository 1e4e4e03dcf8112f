"""Noise for single examples in a few silos: from each by itself, or from all together.

    python -m benchmarks.secagg.silos [--seeds 3] [--rounds 40] [--epsilon 4]

Seven people's smartwatches as silos, softmax regression in double precision, FedSGD with a gradient
over all examples in each round. Each private run is charged to a ledger. Prints a table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import hanse
from hanse.data import PoissonSteps, standardise, watch
from hanse.layers import Weighted
from hanse.local import FullGradientStep
from hanse.privacy import Budget, noise_multiplier
from hanse.privacy.ledger import Ledger

if TYPE_CHECKING:
    from hanse.data import Federation

CLIP, RATE, DELTA = 1.0, 1.0, 1e-5


def strategies(z: float, examples: float, silos: int) -> dict[str, hanse.Strategy]:
    """By name; all move the model by the same mean gradient, but for clipping and noise.

    Args:
        z: the noise multiplier.
        examples: of all silos together, a public number.
        silos: how many there are.
    """
    alone = hanse.ExampleDP(CLIP, z, examples / silos, "os", exact=True)
    together = hanse.DistributedExampleDP(CLIP, z, survivors=silos, divisor=examples, noise="os")
    return {
        "FedSGD, secure sums": hanse.fedsgd_secagg(lr=RATE),
        "noise from each silo by itself": hanse.Strategy(
            FullGradientStep(PoissonSteps(1.0, 1)),
            (Weighted("uniform"),),
            server=hanse.ServerSGD(RATE),
            examples=alone,
        ),
        "noise from all silos together": hanse.fedsgd_secagg(lr=RATE, examples=together),
    }


def run(chosen: hanse.Strategy, data: Federation, rounds: int, seed: int) -> tuple[float, float]:
    """Test accuracy, and epsilon as the ledger has it."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = None
        if chosen.examples is not None:
            path = Path(folder) / "watch.ledger"
            ledger = Ledger.create(path, "watch", Budget(1e4, DELTA, "rdp"))
        experiment = hanse.Experiment(
            strategy=chosen,
            data=data,
            model=lambda: hanse.models.softmax_regression(30, 7).double(),
            rounds=rounds,
            evaluate_every=rounds,
            seed=seed,
            ledger=None if ledger is None else str(ledger.path),
            per_client="simulation",
        )
        *_, last = hanse.rounds(experiment)
        spent = 0.0 if ledger is None else Ledger.open(ledger.path).spent()
        return last.evaluations["test"].overall["accuracy"], spent


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--epsilon", type=float, default=4.0)
    asked = parser.parse_args()
    data = standardise(watch())
    silos = len(data.train)
    sizes = data.train.sizes(np.arange(silos))
    examples = float(round(int(sizes.sum()), -2))
    z = noise_multiplier(asked.epsilon, DELTA, asked.rounds, accountant="rdp")
    print(f"{silos} silos, {int(sizes.sum())} examples, noise multiplier {z}")
    print("| run | epsilon (ledger) | test accuracy |")
    print("| --- | --- | --- |")
    for name, chosen in strategies(z, examples, silos).items():
        found = [run(chosen, data, asked.rounds, seed) for seed in range(asked.seeds)]
        accuracy = [one[0] for one in found]
        print(
            f"| {name} | {found[0][1]:.3f} | {statistics.fmean(accuracy):.4f} ± "
            f"{statistics.stdev(accuracy):.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
