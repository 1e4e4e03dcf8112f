"""One engine as a process, which trains when the driver asks for rounds.

The peak of the device's memory comes back beside the weights, under a name of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import hanse
from benchmarks.gpu.ceilings import synchronise
from benchmarks.simulation.engines.floor import as_hanse, with_values
from benchmarks.simulation.engines.hanse import federation
from benchmarks.simulation.models import (
    build,
    load_weights,
    loss_per_sequence,
    mean_loss,
    weights_of,
)
from benchmarks.simulation.protocol import Conversation
from benchmarks.simulation.workloads import WORKLOADS, make_data
from hanse.core.device import placed
from hanse.engines import InProcess
from hanse.engines.capture import CudaCapture, DirectCapture
from hanse.engines.on_device import Place
from hanse.experiment import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.simulation.workloads import Data, Workload

    Model = Callable[[], torch.nn.Module]

PEAK = "peak memory"
ENGINES = ("hanse", "hanse-anew", "hanse-bfloat16", "loop")
_MANY = 1_000_000


def main() -> None:
    conversation = Conversation()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("initial", type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--clients", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    workload = smaller(WORKLOADS[options.workload], options.clients)
    data = make_data(workload, np.dtype(np.float32))
    device = torch.device(options.device)
    if options.engine == "loop":
        going = loop(workload, data, options.initial, device)
    else:
        going = rounds(options.engine, workload, data, options.initial, device)
    for model in going:
        synchronise(device)
        conversation.done(lambda model=model: {**weights_of(model().cpu()), PEAK: peak(device)})


def smaller(workload: Workload, clients: int | None) -> Workload:
    """The workload with fewer clients."""
    if clients is None:
        return workload
    return dataclasses.replace(workload, clients=min(workload.clients, clients))


def peak(device: torch.device) -> Any:  # noqa: ANN401 - an array of one number
    """MB of the device's memory at most so far."""
    most = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return np.array(most / 2**20)


def rounds(
    engine: str, workload: Workload, data: Data, initial: pathlib.Path, device: torch.device
) -> Iterator[Model]:
    """Hanse's rounds; on the processor, what would be a graph is called each time."""
    options: dict[str, Any] = {"loss": loss_per_sequence} if workload.is_text else {}
    experiment = hanse.Experiment(
        strategy=hanse.fedavg(lr=workload.rate, local_epochs=1, batch_size=workload.batch),
        data=federation(data),
        model=load_weights(build(workload), initial),
        rounds=_MANY,
        seed=0,
        participation=hanse.Full(),
        device=str(device),
        **options,
    )
    prepared = prepare(experiment)
    here, execution = prepared.engine, prepared.engine.execution
    if engine == "hanse-bfloat16":
        execution = dataclasses.replace(execution, precision="bfloat16")
    capture = DirectCapture() if device.type == "cpu" else CudaCapture(prepared.device)
    place = Place(prepared.device, None if engine == "hanse-anew" else capture)
    chosen = InProcess(here.strategy, here.task, here.data, execution, place)
    print(f"{engine}: {execution}", flush=True)
    for done in hanse.rounds(dataclasses.replace(prepared, engine=chosen)):
        if done.number > 0:
            yield done.model


def loop(
    workload: Workload, data: Data, initial: pathlib.Path, device: torch.device
) -> Iterator[Model]:
    """FedAvg as a plain PyTorch loop on the device, its data there, on Hanse's batches."""
    x, y = (torch.from_numpy(field).to(device) for field in (data.x, data.y))
    rows, loss, total = as_hanse(data, workload), mean_loss(workload), len(data.y)
    model = load_weights(build(workload), initial).to(device)
    parameters = list(model.parameters())
    current = [value.detach().clone() for value in parameters]
    number = 0
    with placed(device):
        while True:
            number += 1
            sums = [torch.zeros_like(value) for value in current]
            for client in range(len(data)):
                with_values(model, current)
                optimizer = torch.optim.SGD(parameters, lr=workload.rate, foreach=True)
                for chosen in rows(number, client):
                    there = chosen.to(device)
                    optimizer.zero_grad()
                    loss(model(x[there]), y[there]).backward()
                    optimizer.step()
                with torch.no_grad():
                    for summed, value in zip(sums, parameters, strict=True):
                        summed.add_(value, alpha=data.size(client) / total)
            current = sums
            yield functools.partial(with_values, model, sums)


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference of a weight."""
    return max(float(np.abs(one[key] - other[key]).max()) for key in one if key != PEAK)


if __name__ == "__main__":
    main()
