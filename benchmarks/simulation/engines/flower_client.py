"""What a client does in Flower's simulation; imported by its actors.

An actor keeps the data and the model between tasks, which spares Flower the reading that its
tutorials do for every client in every round.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.simulation.models import build, mean_loss
from benchmarks.simulation.workloads import WORKLOADS, make_data

if TYPE_CHECKING:
    from torch import Tensor, nn

    from benchmarks.simulation.workloads import Data

app = ClientApp()


@functools.cache
def kept(name: str, dtype: str) -> tuple[Data, Tensor, Tensor, nn.Module]:
    """The data and the model of an actor."""
    torch.set_num_threads(1)
    data = make_data(WORKLOADS[name], np.dtype(dtype))
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    return data, x, y, build(WORKLOADS[name]).to(getattr(torch, dtype))


@app.train()
def train(message: Message, context: Context) -> Message:
    """One epoch in the order of the data."""
    config = message.content["config"]
    workload = WORKLOADS[config["workload"]]
    data, all_x, all_y, model = kept(workload.name, config["dtype"])
    rows = data.rows(context.node_config["partition-id"])
    x, y = all_x[rows], all_y[rows]
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss = mean_loss(workload)
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.rate)
    for first in range(0, len(x), workload.batch):
        chosen = slice(first, first + workload.batch)
        optimizer.zero_grad()
        loss(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    content = {
        "arrays": ArrayRecord(model.state_dict()),
        "metrics": MetricRecord({"num-examples": len(x)}),
    }
    return Message(content=RecordDict(content), reply_to=message)
