"""What protecting examples costs in accuracy: the ten smartwatch people, softmax regression.

    python -m benchmarks.privacy.watch

Every person is a client, and all take part in every round. Accuracies are means over people and
seeds, of the last round; epsilon is that of every person's examples, by the tight accountant.
"""

from __future__ import annotations

import argparse
import math
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np

import hanse
from hanse.spending import epsilons

if TYPE_CHECKING:
    from hanse import Strategy

DELTA = 1e-4
RATE, STEPS, DIVISOR = 0.1, 10, 10.0
NOISE = (0.0, 0.5, 1.0, 2.0, 4.0)


def private(noise: float) -> Strategy:
    """The strategy whose noise is looked at."""
    return hanse.dp_sgd(
        lr=0.2, clip=1.0, noise_multiplier=noise, rate=RATE, steps=STEPS, divisor=DIVISOR
    )


def accuracy(strategy: Strategy, rounds: int, seed: int) -> tuple[float, float]:
    """The mean over people, and the worst one's, after the last round."""
    experiment = hanse.Experiment(
        strategy=strategy,
        data=hanse.data.standardise(hanse.data.watch()),
        model=lambda: hanse.models.softmax_regression(30, 7),
        rounds=rounds,
        seed=seed,
        evaluate_every=rounds,
    )
    *_, last = hanse.rounds(experiment)
    by_client = last.evaluations["test"].metrics["accuracy"]
    return float(by_client.mean()), float(by_client.min())


def row(name: str, cost: str, strategy: Strategy, rounds: int, seeds: int) -> str:
    """A row of the table."""
    found = [accuracy(strategy, rounds, seed) for seed in range(seeds)]
    means = [one for one, _ in found]
    spread = stdev(means) if seeds > 1 else math.nan
    worst = mean(worst for _, worst in found)
    return f"| {name} | {cost} | {mean(means):.1%} ± {spread:.1%} | {worst:.1%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    people = len(hanse.data.watch().train)
    sizes = hanse.data.watch().train.sizes(np.arange(people))
    print(f"{people} people with {min(sizes):,} to {max(sizes):,} examples; ", end="")
    print(f"{given.rounds} rounds of {STEPS} steps at rate {RATE}, delta {DELTA:g}\n")
    print("| | epsilon of a person's examples | accuracy | the worst person's |")
    print("| --- | --- | --- | --- |")
    plain = hanse.fedavg(lr=0.1, weighting="uniform")
    print(row("FedAvg, no privacy", "none", plain, given.rounds, given.seeds), flush=True)
    for noise in NOISE:
        strategy, cost = private(noise), "none"
        if noise:
            cost = f"{max(epsilons(strategy, [given.rounds] * people, DELTA)):.2f}"
        name = f"DP-SGD, noise multiplier {noise:g}" if noise else "clipped, without noise"
        print(row(name, cost, strategy, given.rounds, given.seeds), flush=True)


if __name__ == "__main__":
    main()
