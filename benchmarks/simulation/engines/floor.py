"""The floor: FedAvg as a plain PyTorch loop, with nothing around it.

With `--plan hanse` it takes its batches from Hanse's plan, to compare the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from benchmarks.simulation.models import build, load_weights, mean_loss, weights_of
from benchmarks.simulation.protocol import Session
from benchmarks.simulation.workloads import make_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from benchmarks.simulation.workloads import Data, Workload

    Rows = Callable[[int, int], Iterable[slice | Tensor]]


def in_order(data: Data, batch: int) -> Rows:
    """A client's batches, in the order of its examples, whatever the round."""

    def rows(_number: int, client: int) -> list[slice]:
        start, stop = data.rows(client).start, data.rows(client).stop
        return [slice(first, min(first + batch, stop)) for first in range(start, stop, batch)]

    return rows


def as_hanse(data: Data, workload: Workload) -> Rows:
    """A client's batches in a round as Hanse draws them."""
    import numpy as np

    from hanse.core.rng import derive
    from hanse.data import Epochs, plan

    def rows(number: int, client: int) -> list[Tensor]:
        key = derive(derive(0, "round", number), "clients")
        own = derive(derive(key, np.array([client])), "pass", 0)
        sizes, starts = np.array([data.size(client)]), data.offsets[client : client + 1]
        steps = plan(Epochs(1, workload.batch), sizes, starts, own)
        return [step.rows[0, : int(step.counts[0])] for step in steps]

    return rows


def main() -> None:
    session = Session()
    torch.set_num_threads(session.threads)
    session.threads_by(torch.set_num_threads)
    workload = session.workload
    data = make_data(workload, session.dtype)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    rows = as_hanse(data, workload) if session.plan == "hanse" else in_order(data, workload.batch)
    loss = mean_loss(workload)
    model = load_weights(build(workload), session.initial)
    parameters = list(model.parameters())
    current = [value.detach().clone() for value in parameters]
    total = len(y)
    number = 0
    while True:
        number += 1
        sums = [torch.zeros_like(value) for value in current]
        for client in range(len(data)):
            with torch.no_grad():
                for value, received in zip(parameters, current, strict=True):
                    value.copy_(received)
            optimizer = torch.optim.SGD(parameters, lr=workload.rate)
            for chosen in rows(number, client):
                optimizer.zero_grad()
                loss(model(x[chosen]), y[chosen]).backward()
                optimizer.step()
            with torch.no_grad():
                for summed, value in zip(sums, parameters, strict=True):
                    summed.add_(value, alpha=data.size(client) / total)
        current = sums
        session.done(lambda sums=sums: weights_of(with_values(model, sums)))


def with_values(model: torch.nn.Module, values: list[Tensor]) -> torch.nn.Module:
    """The model, holding these parameters."""
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)
    return model


if __name__ == "__main__":
    main()
