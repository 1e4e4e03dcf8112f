"""Hanse, by the interface that its users have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import hanse
from benchmarks.simulation.models import build, load_weights, loss_per_sequence, weights_of
from benchmarks.simulation.protocol import Session
from benchmarks.simulation.workloads import make_data

if TYPE_CHECKING:
    from benchmarks.simulation.workloads import Data

_MANY = 1_000_000


def federation(data: Data) -> hanse.data.Federation:
    """The clients, without a second copy of their examples."""
    fields = {"x": torch.from_numpy(data.x), "y": torch.from_numpy(data.y)}
    names = tuple(f"client {k}" for k in range(len(data)))
    return hanse.data.Federation(hanse.data.PackedClients(fields, data.offsets, names))


def experiment(session: Session) -> hanse.Experiment:
    """Everyone trains for one epoch in every round; nobody is evaluated."""
    workload, workers = session.workload, session.workers
    options: dict[str, Any] = {"loss": loss_per_sequence} if workload.is_text else {}
    if workers > 1:
        options["workers"] = workers
    return hanse.Experiment(
        strategy=hanse.fedavg(lr=workload.rate, local_epochs=1, batch_size=workload.batch),
        data=federation(make_data(workload, session.dtype)),
        model=load_weights(build(workload), session.initial),
        rounds=_MANY,
        seed=0,
        participation=hanse.Full(),
        **options,
    )


def main() -> None:
    session = Session()
    for done in hanse.rounds(experiment(session)):
        if done.number > 0:
            session.done(lambda done=done: weights_of(done.model()))


if __name__ == "__main__":
    main()
