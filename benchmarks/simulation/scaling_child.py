"""One process of the scaling measurements; `benchmarks.simulation.scaling` starts it.

    cohort N          rounds of N of 10,000 clients, when asked for (see `protocol`)
    population        1,000,000 lazy clients, 1000 a round
    first WORKLOAD    the first round after `import torch`

The last two print one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.simulation.processes import forget_peak, peak_rss, rss
from benchmarks.simulation.protocol import Conversation
from benchmarks.simulation.workloads import WORKLOADS, make_data

if TYPE_CHECKING:
    from benchmarks.simulation.workloads import Workload

CLIENTS = 10_000
POPULATION = 1_000_000
A_ROUND = 1000
ROUNDS = 20
_POOL = 4096  # examples that all lazy clients share
_MANY = 1_000_000


def cohort(count: int) -> None:
    """Train `count` of the same clients in every round."""
    import hanse
    from benchmarks.simulation.engines.hanse import federation

    workload = replace_clients(WORKLOADS["logistic-regression"], CLIENTS)
    conversation = Conversation()
    for done in hanse.rounds(
        hanse.Experiment(
            strategy=hanse.fedavg(lr=workload.rate, local_epochs=1, batch_size=workload.batch),
            data=federation(make_data(workload, np.dtype(np.float32))),
            model=lambda: hanse.models.softmax_regression(784, 10),
            rounds=_MANY,
            participation=hanse.Uniform(count=count),
            evaluate_every=_MANY,
        )
    ):
        if done.number == 0:
            forget_peak()  # of reading and checking the data
        else:
            conversation.done(dict)


def replace_clients(workload: Workload, clients: int) -> Workload:
    """The workload with another number of clients."""
    from dataclasses import replace

    return replace(workload, clients=clients)


def population() -> dict[str, float]:
    """Seconds to the first round, memory before and after the last one."""
    began = time.perf_counter()
    import torch

    imported = time.perf_counter()
    import hanse

    random = np.random.default_rng(0)
    x = random.standard_normal((_POOL, 784), dtype=np.float32)
    y = random.integers(0, 10, _POOL)

    def size(client: int) -> int:
        return 10 + client % 21

    def load(client: int) -> dict[str, np.ndarray[Any, Any]]:
        first = client * 37 % (_POOL - 30)
        rows = slice(first, first + size(client))
        return {"x": x[rows], "y": y[rows]}

    experiment = hanse.Experiment(
        strategy=hanse.fedavg(lr=0.1, local_epochs=1, batch_size=10),
        data=hanse.data.Federation(hanse.data.LazyClients(POPULATION, load, size)),
        model=lambda: hanse.models.softmax_regression(784, 10),
        rounds=ROUNDS,
        participation=hanse.Uniform(count=A_ROUND),
        evaluate_every=ROUNDS,
    )
    found: dict[str, float] = {"import": imported - began, "torch": float(torch.get_num_threads())}
    seconds = []
    for done in hanse.rounds(experiment):
        if done.number == 0:
            found["ready"] = time.perf_counter() - began
            found["before"] = rss(os.getpid())
        else:
            seconds.append(done.seconds)
        if done.number == 1:
            found["first"] = time.perf_counter() - began
            found["after first"] = rss(os.getpid())
    found["round"] = float(np.median(seconds))
    found["after"] = rss(os.getpid())
    found["peak"] = peak_rss(os.getpid())
    return found


def first(name: str) -> dict[str, float]:
    """Seconds from the end of `import torch` to the end of the first round."""
    workload = WORKLOADS[name]
    data = make_data(workload, np.dtype(np.float32))
    began = time.perf_counter()
    import torch

    imported = time.perf_counter()
    import hanse
    from benchmarks.simulation.engines.hanse import federation
    from benchmarks.simulation.models import build

    torch.manual_seed(0)
    experiment = hanse.Experiment(
        strategy=hanse.fedavg(lr=workload.rate, local_epochs=1, batch_size=workload.batch),
        data=federation(data),
        model=build(workload),
        participation=hanse.Full(),
    )
    for done in hanse.rounds(experiment):
        if done.number == 1:
            break
    return {"import": imported - began, "first": time.perf_counter() - imported}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["cohort", count]:
            cohort(int(count))
        case ["population"]:
            print(json.dumps(population()))
        case ["first", name]:
            print(json.dumps(first(name)))
        case _:
            sys.exit(__doc__)
