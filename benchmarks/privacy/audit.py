"""Audits sound and broken private runs, over some seeds, and prints what was found.

    python -m benchmarks.privacy.audit --seeds 20

Every run is audited with 1000 canaries at delta 1e-5. A sound one must keep its bound below the
claim with every seed, a grossly broken one exceed it with every seed; if not, the exit code is 1. A
run that is broken by a factor of two is shown, too: the estimate sees it, the bound does not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import hanse
from benchmarks.privacy.broken import BUGS, SUBTLE
from hanse.auditing.canaries import Canaries
from hanse.auditing.statistics import best_guesses, one_shot
from hanse.data import Federation, PackedClients
from hanse.models import Execution
from hanse.privacy import GaussianEvent, epsilon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hanse import Strategy

DELTA = 1e-5
FEATURES, HIDDEN, CLASSES = 40, 64, 10


@dataclass(frozen=True)
class Case:
    """A run to be audited.

    Attributes:
        strategy: what is done.
        rounds: how many rounds.
        participation: who takes part.
        sees: what the attacker sees.
        broken: whether it breaks its promise.
        gross: whether the bound is expected to show that.
    """

    strategy: Strategy
    rounds: int = 1
    participation: Any = hanse.Full()
    sees: Any = "rounds"
    broken: bool = False
    gross: bool = True


@dataclass(frozen=True)
class Line:
    """What the seeds of one case gave: claim, bounds, estimates, and seconds an audit took."""

    claimed: float
    bounds: tuple[float, ...]
    estimates: tuple[float, ...]
    seconds: float = 0.0


def people(clients: int = 100, examples: int = 10) -> Federation:
    """Clients with random examples: an audit looks at its canaries, not at them."""
    numbers = np.random.default_rng(0)
    return Federation(
        PackedClients.from_arrays(
            [
                {
                    "x": numbers.normal(size=(examples, FEATURES)).astype(np.float32),
                    "y": numbers.integers(0, CLASSES, examples),
                }
                for _ in range(clients)
            ]
        )
    )


def model() -> torch.nn.Module:
    """A perceptron of 3,274 parameters."""
    return torch.nn.Sequential(
        torch.nn.Linear(FEATURES, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
    )


def experiment(case: Case, seed: int) -> hanse.Experiment:
    """The experiment of a case."""
    return hanse.Experiment(
        case.strategy,
        people(),
        model,
        rounds=case.rounds,
        participation=case.participation,
        seed=seed,
        execution=Execution("dense", 64),
    )


def sound() -> dict[str, Case]:
    """Runs that keep what they promise."""
    poisson, half = hanse.Poisson(0.2), hanse.Uniform(fraction=0.5)
    dp = hanse.dp_fedavg
    adam, over = hanse.ServerAdam(0.01), hanse.ServerSGD(0.5, momentum=0.9)
    scaffold = hanse.scaffold().replace(layers=(hanse.ClientDP(0.5, 1.0, side_scale=0.1),))
    return {
        "1 round, all clients, z = 1": Case(dp(noise_multiplier=1.0)),
        "1 round, all clients, z = 0.5": Case(dp(noise_multiplier=0.5)),
        "20 rounds, all clients, z = 4.5": Case(dp(noise_multiplier=4.5), 20),
        "the same, who sees the last model": Case(dp(noise_multiplier=4.5), 20, sees="last-model"),
        "20 rounds, Poisson(0.2), z = 1": Case(dp(noise_multiplier=1.0), 20, poisson),
        "the same, momentum at the server": Case(
            dp(noise_multiplier=1.0, server=over), 20, poisson
        ),
        "1 round, Uniform(0.5), z = 2": Case(dp(noise_multiplier=2.0), 1, half),
        "5 rounds, adaptive clip, z = 2.2": Case(dp(noise_multiplier=2.2, clip="adaptive"), 5),
        "per-layer clip, z = 1": Case(dp(noise_multiplier=1.0, clipping="per-layer")),
        "SCAFFOLD, z = 1": Case(scaffold),
        "Adam at the server, last model": Case(
            dp(noise_multiplier=1.0, server=adam), sees="last-model"
        ),
    }


def broken() -> dict[str, Case]:
    """Runs with a bug in the layer that is to protect."""
    return {
        f"{name}{words}": Case(
            hanse.dp_fedavg().replace(layers=(layer(0.5, 1.0),)),
            5 if name.endswith("5 rounds") else 1,
            sees=sees,
            broken=True,
            gross=name != SUBTLE,
        )
        for name, layer in BUGS.items()
        for words, sees in (("", "rounds"), (", last model", "last-model"))
    }


def audited(case: Case, seeds: int) -> Line:
    """One case with some seeds."""
    began = time.perf_counter()
    found = [
        hanse.audit(experiment(case, seed), delta=DELTA, seed=seed + 1000, sees=case.sees)
        for seed in range(seeds)
    ]
    estimates = tuple(float("inf") if x.estimate is None else x.estimate.epsilon for x in found)
    seconds = (time.perf_counter() - began) / seeds
    return Line(found[0].claimed, tuple(x.bound for x in found), estimates, seconds)


def gaussian(z: float, seeds: int, *, signed: bool, columns: int = 20_000) -> Line:
    """The Gaussian mechanism itself, without any training: sums of directions, and noise."""
    bounds, estimates = [], []
    for seed in range(seeds):
        canaries = Canaries(0, 1000, seed, signed=signed)
        coins = canaries.coins(canaries.ids)
        sent = torch.zeros(columns, dtype=torch.float64)
        for ids in np.array_split(canaries.ids, 10):
            weights = canaries.coins(ids) * (2.0 if signed else 1.0) - (1.0 if signed else 0.0)
            sent += torch.from_numpy(weights) @ canaries.directions(ids, columns)
        noise = np.random.default_rng(seed).normal(0, z, columns)
        products = canaries.products(sent + torch.from_numpy(noise))
        bounds.append(best_guesses(coins, products, DELTA, 0.95).bound)
        estimate = one_shot(coins, products, DELTA)
        estimates.append(float("inf") if estimate is None else estimate.epsilon)
    event = GaussianEvent(z / (2 if signed else 1))
    return Line(epsilon([event], DELTA), tuple(bounds), tuple(estimates))


def lines(seeds: int) -> Iterator[tuple[str, Line, Case | None]]:
    """Every line of the table: its name, what was found, and the run, if there was one."""
    yield "the Gaussian mechanism, z = 1", gaussian(1.0, seeds, signed=False), None
    yield "the same, a client replaced", gaussian(1.0, seeds, signed=True), None
    for name, case in {**sound(), **broken()}.items():
        yield name, audited(case, seeds), case


def as_it_should_be(line: Line, case: Case | None) -> bool:
    """Whether the bounds are above the claim where they should be, and nowhere else."""
    above = [bound > line.claimed for bound in line.bounds]
    if case is None or not case.broken:
        return not any(above)
    return all(above) or not case.gross


def row(name: str, line: Line, *, leaks: bool) -> str:
    """A row of the table."""
    over = sum(bound > line.claimed for bound in line.bounds)
    bounds = f"{np.median(line.bounds):.2f} ({min(line.bounds):.2f}–{max(line.bounds):.2f})"
    estimates = f"{np.median(line.estimates):.2f}"
    if np.isfinite(line.estimates).all():
        estimates += f" ({min(line.estimates):.2f}–{max(line.estimates):.2f})"
    found = f"{over} of {len(line.bounds)}"
    name = f"**{name}**" if leaks else name
    seconds = f"{line.seconds:.1f}" if line.seconds else ""
    return f"| {name} | {line.claimed:.2f} | {bounds} | {estimates} | {found} | {seconds} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write all numbers here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| run | claimed | bound, median (range) | estimate | bound above claim | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    wrong, kept = [], {}
    for name, line, case in lines(given.seeds):
        print(row(name, line, leaks=case is not None and case.broken), flush=True)
        kept[name] = dataclasses.asdict(line)
        if not as_it_should_be(line, case):
            wrong.append(name)
    if given.json is not None:
        given.json.write_text(json.dumps(kept, indent=1) + "\n")
    if wrong:
        sys.exit(f"not as it should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
