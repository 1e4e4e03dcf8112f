"""FedJAX with its compiling backend; weights are carried between PyTorch's layout and Haiku's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import haiku as hk
import jax
import numpy as np

from benchmarks.simulation.protocol import Session
from benchmarks.simulation.workloads import make_data

jax.tree_map = jax.tree_util.tree_map  # FedJAX 0.0.17 calls it by the name that JAX removed

import fedjax  # noqa: E402 - after the name above is there
from fedjax.algorithms import fed_avg  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from benchmarks.simulation.workloads import Workload

    Array = NDArray[np.floating]
    Params = Mapping[str, Mapping[str, Any]]


def forward(workload: Workload) -> Callable[[Mapping[str, Any]], Any]:
    """The workload's model: convolution, ReLU and pooling in the order of the PyTorch model."""

    def pool(x: Any) -> Any:  # noqa: ANN401 - an array of JAX
        return hk.max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    # A line for each layer: Haiku numbers them as they are made, and a nested call makes the outer
    # one first.
    def run(batch: Mapping[str, Any]) -> Any:  # noqa: ANN401
        x, relu = batch["x"], jax.nn.relu
        match workload.name:
            case "logistic-regression":
                return hk.Linear(10)(x)
            case "mlp":
                x = relu(hk.Linear(200)(x))
                x = relu(hk.Linear(200)(x))
                return hk.Linear(10)(x)
            case "cifar-cnn":
                x = relu(hk.Conv2D(32, 3, padding="VALID")(x))
                x = pool(relu(hk.Conv2D(64, 3, padding="VALID")(x)))
                x = relu(hk.Linear(128)(hk.Flatten()(x)))
                return hk.Linear(10)(x)
            case "mcmahan-cnn":
                x = pool(relu(hk.Conv2D(32, 5)(x)))
                x = pool(relu(hk.Conv2D(64, 5)(x)))
                x = relu(hk.Linear(512)(hk.Flatten()(x)))
                return hk.Linear(62)(x)
        raise KeyError(workload.name)

    return run


class InOrder(fedjax.ClientDataset):  # type: ignore[misc]
    """A client whose batches come in the order of its examples, the last one as short as it is.

    `shuffle_repeat_batch`, which FedJAX's FedAvg calls, fills the last batch up with other
    examples. This is `batch` in its place, which compiles a step for each size of a last batch,
    and then is faster than `padded_batch`, which masks what is missing.
    """

    def shuffle_repeat_batch(self, hparams: fedjax.ShuffleRepeatBatchHParams) -> Any:  # noqa: ANN401 - FedJAX's own iterable
        return self.batch(batch_size=hparams.batch_size)


class Layout:
    """Where each of PyTorch's arrays is in Haiku's parameters, and how its axes lie there."""

    def __init__(self, torch_weights: Mapping[str, Array], params: Params) -> None:
        """Pair the layers in their order: both number them as they are called."""
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in torch_weights))
        modules = sorted(params, key=_place)
        if len(layers) != len(modules):
            message = f"layers {layers} and {modules}"
            raise ValueError(message)
        self._pairs = list(zip(layers, modules, strict=True))
        self._last_maps = 0  # channels of the last convolution, which the first dense layer reads
        self._first_dense = ""
        for layer in layers:
            weight = torch_weights[f"{layer}.weight"]
            if weight.ndim == 4:
                self._last_maps = len(weight)
            elif not self._first_dense:
                self._first_dense = layer

    def to_haiku(self, weights: Mapping[str, Array]) -> Params:
        """PyTorch's arrays as Haiku's parameters."""
        found = {}
        for layer, module in self._pairs:
            w = weights[f"{layer}.weight"]
            if w.ndim == 4:
                w = w.transpose(2, 3, 1, 0)  # OIHW -> HWIO
            elif self._reads_maps(layer):
                side = self._side(w.shape[1])
                w = w.reshape(len(w), self._last_maps, side, side).transpose(2, 3, 1, 0)
                w = w.reshape(-1, w.shape[-1])  # channels first -> channels last
            else:
                w = w.T
            found[module] = {
                "w": jax.numpy.asarray(w),
                "b": jax.numpy.asarray(_bias(weights, layer)),
            }
        return found

    def to_torch(self, params: Params) -> dict[str, Array]:
        """Haiku's parameters as PyTorch's arrays."""
        found = {}
        for layer, module in self._pairs:
            w = np.array(params[module]["w"])
            if w.ndim == 4:
                w = w.transpose(3, 2, 0, 1)
            elif self._reads_maps(layer):
                side = self._side(w.shape[0])
                w = w.reshape(side, side, self._last_maps, -1).transpose(3, 2, 0, 1)
                w = w.reshape(len(w), -1)
            else:
                w = w.T
            found[f"{layer}.weight"] = np.ascontiguousarray(w)
            found[f"{layer}.bias"] = np.array(params[module]["b"])
        return found

    def _reads_maps(self, layer: str) -> bool:
        return bool(self._last_maps) and layer == self._first_dense

    def _side(self, features: int) -> int:
        return round((features / self._last_maps) ** 0.5)


def _bias(weights: Mapping[str, Array], layer: str) -> Array:
    return weights[f"{layer}.bias"]


def _place(module: str) -> tuple[bool, int]:
    """Convolutions come first, and each kind is numbered: linear, linear_1, linear_2."""
    kind, _, number = module.partition("_") if "conv" not in module else module.partition("d_")
    return "conv" not in kind, int(number or 0)


def main() -> None:
    session = Session()
    workload = session.workload
    data = make_data(workload, session.dtype)
    x = data.x
    if x.ndim == 4:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    clients = [InOrder({"x": x[data.rows(k)], "y": data.y[data.rows(k)]}) for k in range(len(data))]
    model = fedjax.create_model_from_haiku(
        hk.transform(forward(workload)),
        {"x": x[:1], "y": data.y[:1]},
        lambda batch, scores: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], scores),
        {"loss": fedjax.metrics.CrossEntropyLoss()},
    )
    batches = fedjax.ShuffleRepeatBatchHParams(batch_size=workload.batch, num_epochs=1)
    algorithm = fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(workload.rate),
        fedjax.optimizers.sgd(1.0),
        batches,
    )
    with np.load(session.initial) as file:
        initial = {name: file[name] for name in file.files}
    layout = Layout(initial, model.init(jax.random.PRNGKey(0)))
    state = algorithm.init(layout.to_haiku(initial))
    number = 0
    while True:
        keys = jax.random.split(jax.random.PRNGKey(number), len(clients))
        cohort = [(k, clients[k], keys[k]) for k in range(len(clients))]
        state, _ = algorithm.apply(state, cohort)
        jax.block_until_ready(state.params)
        number += 1
        session.done(lambda state=state: layout.to_torch(state.params))


if __name__ == "__main__":
    main()
