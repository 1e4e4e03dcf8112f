"""Flower's simulation with Ray: each client's training is a task of one of the actors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import ray
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.simulation.engines import flower_client
from benchmarks.simulation.models import build, load_weights
from benchmarks.simulation.protocol import Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flwr.app import Message, MetricRecord

_MANY = 1_000_000


class Reported(FedAvg):  # type: ignore[misc]
    """FedAvg that tells the session of every round."""

    def __init__(self, session: Session) -> None:
        clients = session.workload.clients
        super().__init__(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=clients,
            min_available_nodes=clients,
        )
        self._session = session

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            message = "no client answered"
            raise RuntimeError(message)
        try:
            self._session.done(lambda: _as_numpy(arrays))
        except SystemExit:
            # This is a thread of Flower's, whose main thread waits for an end that is far.
            ray.shutdown()
            os._exit(0)
        return arrays, metrics


def _as_numpy(arrays: ArrayRecord) -> dict[str, object]:
    return {name: value.numpy().copy() for name, value in arrays.to_torch_state_dict().items()}


def main() -> None:
    session = Session()
    app = ServerApp()

    @app.main()
    def serve(grid: Grid, context: Context) -> None:  # noqa: ARG001 - Flower passes both
        model = load_weights(build(session.workload), session.initial)
        Reported(session).start(
            grid=grid,
            initial_arrays=ArrayRecord(model.state_dict()),
            train_config=ConfigRecord(
                {"workload": session.workload.name, "dtype": session.dtype.name}
            ),
            num_rounds=_MANY,
        )

    run_simulation(
        app,
        flower_client.app,
        num_supernodes=session.workload.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {
                "num_cpus": session.threads,
                "logging_level": "error",
                "include_dashboard": False,
            },
        },
    )


if __name__ == "__main__":
    main()
