"""fluke, by its own Client, Server and FedAvg: clients one after another, in one process."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import TYPE_CHECKING

import torch

from benchmarks.simulation.models import build, load_weights, mean_loss, weights_of
from benchmarks.simulation.protocol import Session
from benchmarks.simulation.workloads import make_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_MANY = 1_000_000


class Stub(types.ModuleType):
    """Stands in for torchvision, which fluke imports for its zoo of data sets alone.

    PyPI's wheel of it is built for CUDA and does not import beside the CPU build of PyTorch.
    """

    __path__: list[str] = []  # noqa: RUF012 - what makes a module a package

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def stub_torchvision() -> None:
    for part in (
        "",
        ".datasets",
        ".io",
        ".models",
        ".transforms",
        ".transforms.functional",
        ".transforms.v2",
    ):
        name = f"torchvision{part}"
        sys.modules[name] = Stub(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)


stub_torchvision()

from fluke import DDict, FlukeENV  # noqa: E402 - after the stub
from fluke.client import Client  # noqa: E402
from fluke.config import OptimizerConfigurator  # noqa: E402
from fluke.data import FastDataLoader  # noqa: E402
from fluke.server import Server  # noqa: E402


class Reporter:
    """Tells the session of every round; every other event passes by."""

    def __init__(self, session: Session, server: Server) -> None:
        self._session = session
        self._server = server

    def end_round(self, *_unused: object, **_named: object) -> None:
        self._session.done(lambda: weights_of(self._server.model))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_unused, **_named: None


class MeanLoss(torch.nn.Module):
    """The workload's loss, as the module that fluke asks for."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._loss = loss

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._loss(outputs, targets)


def main() -> None:
    session = Session()
    torch.set_num_threads(session.threads)
    session.threads_by(torch.set_num_threads)
    workload = session.workload
    FlukeENV().set_seed(0)
    FlukeENV().set_device("cpu")
    FlukeENV().set_save_options(None, 0, False)
    data = make_data(workload, session.dtype)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    clients = []
    for k in range(len(data)):
        loader = FastDataLoader(
            *(x[data.rows(k)], y[data.rows(k)]),
            num_labels=workload.classes,
            batch_size=workload.batch,
            shuffle=False,
            skip_singleton=False,  # a last batch of one example counts too
        )
        optimizer = OptimizerConfigurator(
            optimizer_cfg=DDict(name=torch.optim.SGD, lr=workload.rate),
            scheduler_cfg=DDict(name=torch.optim.lr_scheduler.StepLR, step_size=1, gamma=1.0),
        )
        clients.append(
            Client(
                index=k,
                train_set=loader,
                test_set=None,
                optimizer_cfg=optimizer,
                loss_fn=MeanLoss(mean_loss(workload)),
                local_epochs=1,
            )
        )
    model = load_weights(build(workload), session.initial)
    server = Server(model, None, clients, weighted=True)
    for client in clients:
        client.set_channel(server.channel)
    server.attach(Reporter(session, server))
    server.fit(n_rounds=_MANY, eligible_perc=1.0, finalize=False)


if __name__ == "__main__":
    main()
