"""pfl-research with its PyTorch backend: clients one after another, in one process."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

from benchmarks.simulation.models import build, load_weights, mean_loss, weights_of
from benchmarks.simulation.protocol import Session
from benchmarks.simulation.workloads import make_data

if TYPE_CHECKING:
    from torch import Tensor, nn

    from benchmarks.simulation.workloads import Workload

_MANY = 1_000_000


class Reporter(TrainingProcessCallback):  # type: ignore[misc]
    """Tells the session of every round."""

    def __init__(self, session: Session, module: nn.Module) -> None:
        self._session = session
        self._module = module

    def after_central_iteration(self, *_unused: object, **_named: object) -> tuple[bool, Metrics]:
        self._session.done(lambda: weights_of(self._module))
        return False, Metrics()


def with_loss(module: nn.Module, workload: Workload) -> nn.Module:
    """The module with the methods that pfl calls: its examples do, `loss` with `train()`."""
    mean = mean_loss(workload)

    # pfl passes `eval` by its name.
    def loss(self: nn.Module, x: Tensor, y: Tensor, eval: bool = False) -> Tensor:  # noqa: A002, FBT001, FBT002
        self.train(not eval)
        return mean(self(x), y)

    def metrics(self: nn.Module, x: Tensor, y: Tensor, eval: bool = True) -> dict[str, Any]:  # noqa: A002, FBT001, FBT002
        with torch.no_grad():
            return {"loss": Weighted(loss(self, x, y, eval).item() * len(x), len(x))}

    module.loss = types.MethodType(loss, module)
    module.metrics = types.MethodType(metrics, module)
    return module


def main() -> None:
    session = Session()
    torch.set_num_threads(session.threads)
    session.threads_by(torch.set_num_threads)
    workload = session.workload
    data = make_data(workload, session.dtype)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    # Made once: pfl keeps a data set's batches after its first epoch.
    clients = [
        Dataset(raw_data=[x[data.rows(k)], y[data.rows(k)]], user_id=str(k))
        for k in range(len(data))
    ]
    module = with_loss(load_weights(build(workload), session.initial), workload)
    federated = FederatedDataset(
        clients.__getitem__, get_user_sampler("minimize_reuse", list(range(len(clients))))
    )
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=_MANY,
            evaluation_frequency=_MANY,
            train_cohort_size=len(clients),
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(
            training_data=federated, val_data=federated, postprocessors=[WeightByDatapoints()]
        ),
        model=PyTorchModel(
            model=module,
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(module.parameters(), 1.0),
        ),
        model_train_params=NNTrainHyperParams(
            local_learning_rate=workload.rate,
            local_num_epochs=1,
            local_batch_size=workload.batch,
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=10_000),
        callbacks=[Reporter(session, module)],
        send_metrics_to_platform=False,
    )


if __name__ == "__main__":
    main()
