"""One table of what cannot be meant: each is refused by name, with a remedy that works.

A row says what is done, which error it is, what of the input `found` repeats, what `instead`
proposes, and that proposal put into practice. Nothing is ever written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tomli_w
import torch
from tests.runs.small_runs import CLASSES, FEATURES, experiment, federation, people
from torch import nn

import hanse
from hanse import (
    ConfigError,
    DataError,
    Execution,
    HanseError,
    ModelError,
    Poisson,
    RunError,
    StrategyError,
    Uniform,
    Weighted,
    fedavg,
    fedprox,
    fedsgd,
    scaffold,
)
from hanse.cli.running import report_run, run_file
from hanse.config import read_experiment, with_overrides
from hanse.data import Federation, LazyClients, federation_from_arrays
from hanse.experiment import prepare
from hanse.local import SGD, CosineDecay, ExponentialDecay, LocalSGD, StepDecay
from hanse.models import accuracy, cross_entropy, mlp
from hanse.storage import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

NAN = float("nan")
FOLDER = Path("in")  # beside the current folder `out`, which must stay empty


@dataclass(frozen=True)
class Bad:
    """Something that cannot be meant."""

    kind: type[HanseError]
    says: str
    instead: str
    does: Callable[[], object]
    works: Callable[[], object] | None = None


# ------------------------------------------------------------------- ways to say something
def made(**changes: Any) -> Callable[[], object]:  # noqa: ANN401 - the experiment's own fields
    """An experiment in Python, started as a run."""
    return lambda: hanse.run(experiment(**changes), "run")


def fine(**changes: Any) -> Callable[[], object]:  # noqa: ANN401 - the experiment's own fields
    """An experiment in Python that goes through a round."""
    return lambda: list(hanse.rounds(experiment(**{"rounds": 1, **changes})))


def wide(module: Callable[[], object]) -> Callable[[], object]:
    return made(model=module)


SMALL: dict[str, Any] = {
    "data": {"source": "own.py:people"},
    "model": {"name": "mlp", "hidden": [4]},
    "strategy": {"name": "fedavg"},
    "run": {"rounds": 1},
}
OWN = """
from hanse.data import Federation
from tests.runs.small_runs import federation


def people() -> Federation:
    return federation()


def a_list() -> list[int]:
    return [1, 2, 3]
"""


def write(**sections: Any) -> Path:  # noqa: ANN401 - whatever TOML can hold
    content = {k: v for k, v in {**SMALL, **sections}.items() if v is not None}
    (Path("..") / FOLDER / "experiment.toml").write_text(tomli_w.dumps(content))
    return Path("..") / FOLDER / "experiment.toml"


def filed(*overrides: str, **sections: Any) -> Callable[[], object]:  # noqa: ANN401 - as `write`
    """An experiment in a file, run by the command line."""
    return lambda: run_file(write(**sections), list(overrides), Path("run"), None, baselines=False)


def fine_file(*overrides: str, **sections: Any) -> Callable[[], object]:  # noqa: ANN401 - as `write`
    return lambda: prepare(
        with_overrides(read_experiment(write(**sections)), list(overrides)).experiment()
    )


def read(name: str) -> Callable[[], object]:
    """Another file, run by the command line."""
    return lambda: run_file(Path("..") / FOLDER / name, [], Path("run"), None, baselines=False)


def arrays(**changes: object) -> dict[str, Any]:
    """The people's arrays, some of them changed."""
    return {**people(), **{name.replace("_", " "): value for name, value in changes.items()}}


def data(*groups: Any, **options: Any) -> Callable[[], object]:  # noqa: ANN401 - whatever is wrong
    """A federation from arrays, in a run."""
    return lambda: hanse.run(experiment(data=federation_from_arrays(*groups, **options)), "run")


X, Y = people()["person 0"]
LONGER = federation((9, 9, 9, 9, 9, 9))


class NoOutput(nn.Module):
    """Returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), x


def _broken(value: float) -> nn.Module:
    module = nn.Linear(FEATURES, CLASSES)
    nn.init.constant_(module.bias, value)
    return module


def _mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 4), nn.Linear(4, CLASSES).double())


def _norm(momentum: float | None) -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 4), nn.BatchNorm1d(4, momentum=momentum), nn.Linear(4, CLASSES)
    )


def _frozen() -> nn.Module:
    return nn.Linear(FEATURES, CLASSES).requires_grad_(False)


WHOLE = fedavg(batch_size=None)

# ----------------------------------------------------------------------------- the table
NUMBERS: dict[str, Bad] = {
    "a negative rate": Bad(
        StrategyError, "-0.1", "0.1", lambda: fedavg(lr=-0.1), lambda: fedavg(lr=0.1)
    ),
    "a rate of zero": Bad(StrategyError, "0", "0.1", lambda: fedavg(lr=0)),
    "a rate of NaN": Bad(StrategyError, "nan", "0.1", lambda: fedprox(lr=NAN)),
    "an infinite rate": Bad(StrategyError, "inf", "0.1", lambda: scaffold(lr=float("inf"))),
    "a text as a rate": Bad(
        StrategyError,
        "'0.1'",
        "CosineDecay(lr=0.1, rounds=100)",
        lambda: fedavg(lr="0.1"),  # type: ignore[arg-type]
        lambda: fedavg(lr=CosineDecay(lr=0.1, rounds=100)),
    ),
    "true as a rate": Bad(StrategyError, "True", "0.1", lambda: fedavg(lr=True)),
    "a server's rate of zero": Bad(
        StrategyError, "server lr is 0", "0.1", lambda: fedavg(server=hanse.ServerAdam(lr=0))
    ),
    "momentum 1": Bad(
        StrategyError,
        "momentum is 1.0",
        "0.9",
        lambda: fedavg(momentum=1.0),
        lambda: fedavg(momentum=0.9),
    ),
    "a negative momentum": Bad(StrategyError, "-0.1", "0.9", lambda: fedavg(momentum=-0.1)),
    "a negative weight decay": Bad(
        StrategyError,
        "-0.01",
        "0.01",
        lambda: fedavg(weight_decay=-0.01),
        lambda: fedavg(weight_decay=0.01),
    ),
    "a negative mu": Bad(
        StrategyError, "mu is -1", "0.01", lambda: fedprox(mu=-1), lambda: fedprox(mu=0.01)
    ),
    "beta 1": Bad(StrategyError, "1.0", "0.9", lambda: hanse.ServerYogi(beta2=1.0)),
    "a schedule that starts at zero": Bad(
        StrategyError, "0.0", "0.1", lambda: CosineDecay(0.0, rounds=3)
    ),
    "a schedule that falls infinitely often": Bad(
        StrategyError,
        "every=0",
        "every=10",
        lambda: StepDecay(0.1, every=0),
        lambda: StepDecay(0.1, every=10),
    ),
    "a decay of NaN": Bad(StrategyError, "nan", "0.1", lambda: ExponentialDecay(0.1, NAN)),
    "no epochs": Bad(
        StrategyError,
        "count=0",
        "1 or more",
        lambda: fedavg(local_epochs=0),
        lambda: fedavg(local_epochs=1),
    ),
    "half an epoch": Bad(
        StrategyError,
        "count=0.5",
        "whole",
        lambda: fedavg(local_epochs=0.5),  # type: ignore[arg-type]
    ),
    "batches of nothing": Bad(
        StrategyError, "batch_size=0", "1 or more", lambda: fedavg(batch_size=0)
    ),
    "true as a batch": Bad(StrategyError, "True", "whole", lambda: fedavg(batch_size=True)),
    "a fraction of zero": Bad(
        ConfigError, "fraction=0", "0.1", lambda: Uniform(fraction=0), lambda: Uniform(fraction=0.1)
    ),
    "a fraction above one": Bad(ConfigError, "1.5", "0.1", lambda: Uniform(fraction=1.5)),
    "a fraction of NaN": Bad(ConfigError, "nan", "0.1", lambda: Uniform(fraction=NAN)),
    "a fraction and a count": Bad(
        ConfigError, "count=3", "Uniform(count=10)", lambda: Uniform(0.5, 3)
    ),
    "neither fraction nor count": Bad(
        ConfigError,
        "None",
        "Uniform(fraction=0.1)",
        Uniform,
        lambda: Uniform(fraction=0.1),
    ),
    "a cohort of nobody": Bad(ConfigError, "count=0", "count=10", lambda: Uniform(count=0)),
    "a probability of zero": Bad(
        ConfigError, "rate=0", "0.01", lambda: Poisson(0), lambda: Poisson(0.01)
    ),
    "a cohort larger than the population": Bad(
        ConfigError,
        "count=7",
        "count=6",
        made(participation=Uniform(count=7)),
        fine(participation=Uniform(count=6)),
    ),
    "no rounds": Bad(ConfigError, "rounds = 0", "rounds = 10", made(rounds=0), fine(rounds=10)),
    "true as rounds": Bad(ConfigError, "rounds = True", "whole number", made(rounds=True)),
    "rounds as a float": Bad(ConfigError, "rounds = 2.0", "whole number", made(rounds=2.0)),
    "a negative seed": Bad(ConfigError, "seed = -1", "seed = 0", made(seed=-1), fine(seed=0)),
    "true as a seed": Bad(ConfigError, "seed = True", "seed = 0", made(seed=True)),
    "evaluations every zeroth round": Bad(
        ConfigError, "evaluate_every = 0", "= 10", made(evaluate_every=0), fine(evaluate_every=10)
    ),
    "checkpoints every zeroth round": Bad(
        ConfigError, "checkpoint_every = 0", "= 10", made(checkpoint_every=0)
    ),
    "nobody evaluated": Bad(
        ConfigError, "evaluation_clients = 0", "= 10", made(evaluation_clients=0)
    ),
    "blocks of nobody": Bad(
        ModelError, "0 clients", "16", lambda: Execution("vmap", 0), lambda: Execution("vmap", 16)
    ),
    "a path that there is not": Bad(
        ModelError,
        "'warp'",
        "'vmap'",
        lambda: Execution("warp", 4),  # type: ignore[arg-type]
        lambda: Execution("vmap", 4),
    ),
    "no classes in a model": Bad(ModelError, "classes=0", "classes=10", lambda: mlp(3, 0)),
    "true as inputs": Bad(ModelError, "inputs=True", "inputs=10", lambda: mlp(True, 3)),
}

PARTS: dict[str, Bad] = {
    "both rates of FedSGD": Bad(
        StrategyError,
        "lr=0.1",
        "fedsgd(lr=0.1)",
        lambda: fedsgd(lr=0.1, server=hanse.ServerAdam(0.01)),
        lambda: fedsgd(lr=0.1),
    ),
    "SCAFFOLD's third option": Bad(
        StrategyError,
        "option=3",
        "option=2",
        lambda: scaffold(option=3),  # type: ignore[arg-type]
        lambda: scaffold(option=2),
    ),
    "SCAFFOLD's second option with momentum": Bad(
        StrategyError,
        "momentum=0.9",
        "option=1",
        lambda: scaffold(momentum=0.9),
        lambda: scaffold(momentum=0.9, option=1),
    ),
    "a weighting that there is not": Bad(
        StrategyError,
        "'size'",
        "'examples'",
        lambda: fedavg(weighting="size"),  # type: ignore[arg-type]
        lambda: fedavg(weighting="examples"),
    ),
    "a part that there is not": Bad(
        StrategyError,
        "replace(sevrer=…)",
        "did you mean 'server'?",
        lambda: fedavg().replace(sevrer=hanse.ServerAdam()),
        lambda: fedavg().replace(server=hanse.ServerAdam()),
    ),
    "a layer that is alone": Bad(
        StrategyError,
        "Weighted",
        '(Weighted("examples"),)',
        made(strategy=hanse.Strategy(LocalSGD(), layers=Weighted())),  # type: ignore[arg-type]
        fine(strategy=hanse.Strategy(LocalSGD(), layers=(Weighted("examples"),))),
    ),
    "a text as a layer": Bad(
        StrategyError,
        "'weighted'",
        'Weighted("examples")',
        made(strategy=fedavg().then("weighted")),  # type: ignore[arg-type]
        fine(strategy=fedavg().then()),
    ),
    "an optimiser as local training": Bad(
        StrategyError,
        "SGD(lr=0.1",
        "LocalSGD(SGD(0.1))",
        made(strategy=hanse.Strategy(SGD(0.1))),  # type: ignore[arg-type]
        fine(strategy=hanse.Strategy(LocalSGD(SGD(0.1)))),
    ),
    "a text as a server": Bad(
        StrategyError,
        "'adam'",
        "ServerAdam(lr=0.01)",
        made(strategy=fedavg(server="adam")),  # type: ignore[arg-type]
        fine(strategy=fedavg(server=hanse.ServerAdam(lr=0.01))),
    ),
    "a class as a server": Bad(
        StrategyError,
        "ServerAdam",
        "ServerAdam(lr=0.01)",
        made(strategy=fedavg(server=hanse.ServerAdam)),  # type: ignore[arg-type]
    ),
    "a path as an experiment": Bad(
        ConfigError,
        "'e.toml'",
        "hanse.config.read_experiment(Path('experiment.toml')).experiment()",
        lambda: hanse.run("e.toml", "run"),  # type: ignore[arg-type]
        lambda: prepare(read_experiment(write()).experiment()),
    ),
    "no strategy": Bad(
        ConfigError,
        "'fedavg'",
        "hanse.fedavg(lr=0.1)",
        made(strategy="fedavg"),
        fine(strategy=fedavg(lr=0.1)),
    ),
    "a function as a strategy": Bad(
        ConfigError, "function", "hanse.fedavg(lr=0.1)", made(strategy=fedavg)
    ),
    "no federation": Bad(ConfigError, "[1, 2]", "federation_from_arrays", made(data=[1, 2])),
    "a setting that there is not": Bad(
        ConfigError,
        "'cross-sillo'",
        "did you mean 'cross-silo'?",
        made(setting="cross-sillo"),
        fine(setting="cross-silo"),
    ),
    "no setting": Bad(ConfigError, "None", '"cross-silo"', made(setting=None)),
    "a number as participation": Bad(
        ConfigError,
        "0.5",
        "Uniform(fraction=0.1)",
        made(participation=0.5),
        fine(participation=Uniform(fraction=0.1)),
    ),
    "a class as participation": Bad(
        ConfigError,
        "Full",
        "Full()",
        made(participation=hanse.Full),
        fine(participation=hanse.Full()),
    ),
    "a text as execution": Bad(
        ConfigError,
        "'vmap'",
        'Execution("module", 1)',
        made(execution="vmap"),
        fine(execution=Execution("module", 1)),
    ),
    "a number as a name": Bad(ConfigError, "3", '"first-try"', made(name=3)),
    "FedSGD with what stays local": Bad(
        StrategyError,
        "2.bias",
        "fedavg",
        made(strategy=fedsgd(), local=("2.bias",)),
        fine(strategy=fedavg(), local=("2.bias",)),
    ),
}

MODELS: dict[str, Bad] = {
    "no module": Bad(ModelError, "5", "nn.Linear(30, 7)", made(model=5)),
    "a function that makes none": Bad(ModelError, "int", "returns a module", made(model=lambda: 5)),
    "a class that needs arguments": Bad(
        ModelError,
        "Linear",
        "lambda: nn.Linear(30, 7)",
        made(model=nn.Linear),
        fine(model=lambda: nn.Linear(FEATURES, CLASSES)),
    ),
    "a function that needs arguments": Bad(
        ModelError, "'classes'", "without arguments", made(model=lambda classes: None)
    ),
    "nothing to train": Bad(
        ModelError, "Flatten", "at least one parameter", made(model=nn.Flatten())
    ),
    "all of it frozen": Bad(ModelError, "Linear", "requires_grad is true", made(model=_frozen)),
    "weights that are not finite": Bad(
        ModelError,
        "'bias'",
        "finite",
        made(model=lambda: _broken(NAN)),
        fine(model=lambda: _broken(0.0)),
    ),
    "weights of two types": Bad(
        ModelError,
        "torch.float64",
        "model.float()",
        made(model=_mixed),
        fine(model=lambda: _mixed().float()),
    ),
    "BatchNorm that counts": Bad(
        ModelError,
        "BatchNorm1d with momentum=None",
        "momentum=0.1",
        made(model=lambda: _norm(None), strategy=WHOLE),
        fine(model=lambda: _norm(0.1), strategy=WHOLE),
    ),
    "BatchNorm in blocks": Bad(
        ModelError,
        "'vmap'",
        "path 'module'",
        made(model=lambda: _norm(0.1), strategy=WHOLE, execution=Execution("vmap", 4)),
        fine(model=lambda: _norm(0.1), strategy=WHOLE, execution=Execution("module", 4)),
    ),
    "a model for other inputs": Bad(
        ModelError,
        "[n, 3]",
        "takes this shape",
        made(model=lambda: nn.Linear(5, CLASSES)),
        fine(model=lambda: nn.Linear(3, CLASSES)),
    ),
    "a model of two outputs": Bad(ModelError, "tuple", "returns a tensor", made(model=NoOutput)),
    "too few outputs": Bad(
        ModelError,
        "[4, 2]",
        "as many outputs as there are classes",
        made(model=lambda: nn.Linear(FEATURES, 2)),
        fine(model=lambda: nn.Linear(FEATURES, 3)),
    ),
    "too few outputs for a label that comes late": Bad(
        ModelError,
        "'person 5' has the label 2",
        "as many outputs as there are classes",
        made(
            model=lambda: nn.Linear(FEATURES, 2),
            data=federation_from_arrays(
                {
                    name: (x, np.full(len(x), 2 if name == "person 5" else 1))
                    for name, (x, _) in people().items()
                }
            ),
        ),
    ),
    "a loss of another shape": Bad(
        ModelError,
        "[4, 3]",
        "[n]",
        made(loss=lambda outputs, targets: outputs),
        fine(loss=lambda outputs, targets: outputs.mean(dim=1)),
    ),
    "a loss that cannot be called": Bad(
        ModelError,
        "'str' object",
        "cross_entropy",
        made(loss="cross_entropy"),
        fine(loss=cross_entropy),
    ),
    "a loss of whole batches in blocks": Bad(
        ModelError,
        "vmap",
        "'module'",
        made(loss=nn.functional.cross_entropy, execution=Execution("vmap", 4)),
        fine(loss=nn.functional.cross_entropy, execution=Execution("module", 1)),
    ),
    "metrics without names": Bad(
        ConfigError,
        "list",
        '{"accuracy": hanse.models.accuracy}',
        made(metrics=[accuracy]),
        fine(metrics={"accuracy": hanse.models.accuracy}),
    ),
    "a metric called loss": Bad(
        ConfigError, "'loss'", '"accuracy"', made(metrics={"loss": accuracy})
    ),
    "a metric that cannot be called": Bad(
        ConfigError, "'hits': 3", "hanse.models.accuracy", made(metrics={"hits": 3})
    ),
    "a pattern that matches nothing": Bad(
        ModelError,
        "'2.weigth'",
        "did you mean '2.weight'?",
        made(local=("2.weigth",)),
        fine(local=("2.weight",)),
    ),
    "a pattern that is not in a tuple": Bad(
        ConfigError, "'2.*'", "local=('2.*',)", made(local="2.*"), fine(local=("2.*",))
    ),
    "a number as a pattern": Bad(ConfigError, "1", '("head.*",)', made(local=(1,))),
}

DATA: dict[str, Bad] = {
    "one client's labels as floats": Bad(
        DataError,
        "float32",
        "same fields, example shapes and types",
        data(arrays(person_2=(X, Y.astype(np.float32))), classes=["a", "b", "c"]),
    ),
    "all labels as floats": Bad(
        DataError,
        "float32 with classes ('a', 'b', 'c')",
        "classes=None",
        data({k: (x, y.astype(np.float32)) for k, (x, y) in people().items()}, classes="abc"),
    ),
    "NaN in a feature": Bad(
        DataError,
        "client 'person 3' has NaN or an infinity in 'x', first in its example 1",
        "drop",
        data(arrays(person_3=(np.array([[0, 0, 0], [0, NAN, 0]]), np.array([0, 1])))),
    ),
    "an infinite test feature": Bad(
        DataError,
        "'person 1'",
        "drop",
        data(people(), arrays(person_1=(np.full((1, 3), np.inf), np.array([0])))),
    ),
    "a client without examples": Bad(
        DataError,
        "'person 4' has no examples",
        "leave this client out",
        data(arrays(person_4=(np.zeros((0, 3)), np.zeros(0, np.int64)))),
        lambda: federation_from_arrays({k: v for k, v in people().items() if k != "person 4"}),
    ),
    "no clients": Bad(DataError, "no clients", "'anna'", data({})),
    "two clients of one name": Bad(
        DataError,
        "'anna'",
        "its own name",
        lambda: hanse.data.PackedClients(
            {"x": torch.zeros(2, 3), "y": torch.zeros(2)}, np.array([0, 1, 2]), ("anna", "anna")
        ),
    ),
    "clients of different shapes": Bad(
        DataError,
        "'person 1' has {'x': '[2]",
        "example shapes",
        data(arrays(person_1=(np.zeros((3, 2)), np.zeros(3, np.int64)))),
    ),
    "more inputs than labels": Bad(
        DataError,
        "{'x': 3, 'y': 2}",
        "same first dimension",
        data(arrays(person_1=(np.zeros((3, 3)), np.zeros(2, np.int64)))),
    ),
    "labels as texts": Bad(
        DataError,
        "'person 1' has 'y'",
        "number the labels",
        data(arrays(person_1=(np.zeros((2, 3)), np.array(["a", "b"])))),
    ),
    "a label that is no class": Bad(
        DataError,
        "'person 1' has the label 3",
        "number the labels from 0",
        data(arrays(person_1=(np.zeros((2, 3)), np.array([0, 3]))), classes=["a", "b", "c"]),
        lambda: federation_from_arrays(
            arrays(person_1=(np.zeros((2, 3)), np.array([0, 2]))), classes=["a", "b", "c"]
        ),
    ),
    "test clients in another order": Bad(
        DataError,
        "'person 5' in test",
        "the same order",
        data(people(), dict(reversed(people().items()))),
        lambda: federation_from_arrays(people(), people()),
    ),
    "fewer test clients": Bad(
        DataError,
        "6 clients in train, 1 in test",
        "the same clients",
        data(people(), {"person 0": (X, Y)}),
    ),
    "an unseen client that trains": Bad(
        DataError,
        "'person 0' is in train and in unseen",
        "take it out",
        data(people(), None, {"person 0": (X, Y)}),
    ),
    "a lazy client without examples": Bad(
        DataError,
        "'client 0' has no examples",
        "leave this client out",
        made(
            data=Federation(
                LazyClients(2, lambda k: {"x": np.zeros((0, 3)), "y": np.zeros(0, np.int64)})
            )
        ),
    ),
    "a partition with an example twice": Bad(
        DataError,
        "'client 1' has an example twice",
        "one client",
        lambda: hanse.data.partitioned(X, Y, [np.array([0, 1]), np.array([1, 2])]),
        lambda: hanse.data.partitioned(X, Y, [np.array([0, 1]), np.array([2])]),
    ),
    "a folder without clients": Bad(
        DataError,
        "empty has no .npz files",
        "numpy.savez('anna.npz', x=x, y=y)",
        filed(data={"source": "npz", "path": "empty"}),
    ),
    "a folder that is none": Bad(
        DataError,
        "nix is not a folder",
        "numpy.savez",
        filed(data={"source": "npz", "path": "nix"}),
    ),
    "a pickle in a client's file": Bad(
        DataError,
        "pickles/anna.npz cannot be read",
        "of numbers",
        filed(data={"source": "npz", "path": "pickles"}),
    ),
}

FILES: dict[str, Bad] = {
    "no such file": Bad(ConfigError, "nix.toml", "examples/smartwatch.toml", read("nix.toml")),
    "no TOML": Bad(ConfigError, "prose.txt is not TOML", "[strategy]", read("prose.txt")),
    "not even text": Bad(ConfigError, "bytes.bin is not TOML", "[strategy]", read("bytes.bin")),
    "a folder": Bad(ConfigError, "empty cannot be read", "path of an experiment", read("empty")),
    "a section that there is not": Bad(
        ConfigError, "[stratgy]", "did you mean 'strategy'?", filed(stratgy={"name": "fedavg"})
    ),
    "a section that is missing": Bad(
        ConfigError, "no [strategy]", "[strategy]", filed(strategy=None), fine_file()
    ),
    "a section that is a text": Bad(
        ConfigError, "strategy = 'fedavg'", "[strategy]", filed("strategy=fedavg")
    ),
    "a value outside the sections": Bad(
        ConfigError, "rounds", "Known: data, model, name, run, strategy", filed("rounds=3")
    ),
    "a strategy without a name": Bad(
        ConfigError, "[strategy] without 'name'", "fedavg", filed(strategy={"lr": 0.1})
    ),
    "a strategy that there is not": Bad(
        ConfigError,
        "'fedavgg'",
        "did you mean 'fedavg'?",
        filed("strategy.name=fedavgg"),
        fine_file("strategy.name=fedavg"),
    ),
    "a model that there is not": Bad(
        ConfigError,
        "'mpl'",
        "did you mean 'mlp'?",
        filed("model.name=mpl"),
        fine_file("model.name=mlp"),
    ),
    "data that there is not": Bad(
        ConfigError,
        "'smartwach'",
        "did you mean 'smartwatch'?",
        filed("data.source=smartwach"),
        fine_file("data={source='smartwatch'}", "model={name='softmax_regression'}"),
    ),
    "a loss that there is not": Bad(
        ConfigError,
        "'crossentropy'",
        "did you mean 'cross_entropy'?",
        filed("model.loss=crossentropy"),
        fine_file("model.loss=cross_entropy"),
    ),
    "a metric that there is not": Bad(
        ConfigError,
        "'acuracy'",
        "did you mean 'accuracy'?",
        filed("model.metrics=['acuracy']"),
        fine_file("model.metrics=['accuracy']"),
    ),
    "a parameter that there is not": Bad(
        ConfigError, "strategy.learning_rate = 0.1", "one of:", filed("strategy.learning_rate=0.1")
    ),
    "a parameter nearly right": Bad(
        ConfigError,
        "run.round = 3",
        "did you mean 'rounds'?",
        filed("run.round=3"),
        fine_file("run.rounds=3"),
    ),
    "a parameter of another strategy": Bad(
        ConfigError,
        "strategy.mu = 0.1",
        "one of:",
        filed("strategy.mu=0.1"),
        fine_file("strategy.name=fedprox", "strategy.mu=0.1"),
    ),
    "a word where a number belongs": Bad(
        ConfigError,
        "strategy.lr = 'fast'",
        "lr = 0.1",
        filed("strategy.lr=fast"),
        fine_file("strategy.lr=0.1"),
    ),
    "a fraction where a whole number belongs": Bad(
        ConfigError,
        "run.rounds = 1.5",
        "rounds = 10",
        filed("run.rounds=1.5"),
        fine_file("run.rounds=10"),
    ),
    "true where a whole number belongs": Bad(
        ConfigError,
        "strategy.local_epochs = True",
        "= 10",
        filed("strategy.local_epochs=true"),
        fine_file("strategy.local_epochs=10"),
    ),
    "one where true belongs": Bad(
        ConfigError,
        "data.standardise = 1",
        "true",
        filed("data.standardise=1"),
        fine_file("data.standardise=true"),
    ),
    "no where false belongs": Bad(
        ConfigError, "data.standardise = 'no'", "true", filed("data.standardise=no")
    ),
    "a number where a list belongs": Bad(
        ConfigError,
        "model.hidden = 4",
        "[1, 2]",
        filed("model.hidden=4"),
        fine_file("model.hidden=[1, 2]"),
    ),
    "a word in a list of numbers": Bad(
        ConfigError,
        "model.hidden[1] = 'four'",
        "10",
        filed("model.hidden=[3, 'four']"),
        fine_file("model.hidden=[3, 10]"),
    ),
    "a text where a list of texts belongs": Bad(
        ConfigError,
        "model.local = '2.*'",
        'local = ["2.*"]',
        filed("model.local='2.*'"),
        fine_file("model.local=['3.*']"),
    ),
    "a choice that there is not": Bad(
        ConfigError,
        "strategy.weighting = 'size'",
        'weighting = "examples"',
        filed("strategy.weighting=size"),
        fine_file('strategy.weighting="examples"'),
    ),
    "SCAFFOLD's third option in a file": Bad(
        ConfigError,
        "strategy.option = 3",
        "option = 1",
        filed("strategy.name=scaffold", "strategy.option=3"),
        fine_file("strategy.name=scaffold", "strategy.option=1"),
    ),
    "a setting that there is not": Bad(
        ConfigError,
        "run.setting = 'cross'",
        'setting = "cross-silo"',
        filed("run.setting=cross"),
        fine_file('run.setting="cross-silo"'),
    ),
    "a server that there is not": Bad(
        ConfigError,
        "'adm'",
        'server = {optimizer = "adagrad"}',
        filed("strategy.server=adm"),
        fine_file('strategy.server={optimizer = "adagrad"}'),
    ),
    "a server without its kind": Bad(
        ConfigError,
        "strategy.server = {'lr': 0.1}",
        "optimizer = one of",
        filed("strategy.server={lr = 0.1}"),
        fine_file("strategy.server={optimizer = 'sgd', lr = 0.1}"),
    ),
    "a server's parameter that there is not": Bad(
        ConfigError,
        "strategy.server.beta3 = 0.9",
        "beta2",
        filed("strategy.server={optimizer = 'adam', beta3 = 0.9}"),
        fine_file("strategy.server={optimizer = 'adam', beta2 = 0.9}"),
    ),
    "a schedule that there is not": Bad(
        ConfigError,
        "'cosin'",
        "did you mean 'cosine'?",
        filed("strategy.lr={schedule = 'cosin', lr = 0.1}"),
        fine_file("strategy.lr={schedule = 'cosine', lr = 0.1, rounds = 3}"),
    ),
    "a schedule without its rounds": Bad(
        ConfigError,
        "[strategy.lr] without 'rounds'",
        "`rounds = …` in [strategy.lr]",
        filed("strategy.lr={schedule = 'cosine', lr = 0.1}"),
    ),
    "a schedule without its kind": Bad(
        ConfigError,
        "{'lr': 0.1}",
        "schedule = one of: cosine, exponential, step",
        filed("strategy.lr={lr = 0.1}"),
    ),
    "participation without a size": Bad(
        ConfigError,
        "fraction=None and count=None",
        "Uniform(fraction=0.1)",
        filed("run.participation=uniform"),
        fine_file("run.participation={kind = 'uniform', fraction = 0.1}"),
    ),
    "a word as execution": Bad(
        ConfigError,
        "run.execution = 'vmap'",
        'execution = {path = "module", block = 1}',
        filed("run.execution=vmap"),
        fine_file('run.execution={path = "module", block = 1}'),
    ),
    "a key of another section": Bad(
        ConfigError, "run.name = 'x'", "rounds, seed, setting", filed("run.name=x")
    ),
    "blocks of nobody in a file": Bad(
        ModelError,
        "0 clients",
        "16",
        filed("run.execution={path = 'vmap', block = 0}"),
        fine_file("run.execution={path = 'vmap', block = 16}"),
    ),
    "a path that there is not in a file": Bad(
        ConfigError,
        "run.execution.path = 'warp'",
        'path = "module"',
        filed("run.execution={path = 'warp', block = 4}"),
    ),
    "a file that is missing": Bad(
        ConfigError, "'nix.py'", "beside the experiment file", filed("strategy.name=nix.py:make")
    ),
    "a function that is missing": Bad(
        ConfigError,
        "'own.py:poeple'",
        "did you mean 'people'?",
        filed("data.source=own.py:poeple"),
        fine_file("data.source=own.py:people"),
    ),
    "a module that is missing": Bad(
        ConfigError,
        "'no_such_module'",
        "beside the experiment file",
        filed("strategy.name=no_such_module:make"),
    ),
    "a module without a name": Bad(
        ConfigError, "''", "beside the experiment file", filed("strategy.name=:make")
    ),
    "a file that is no Python": Bad(
        ConfigError, "'prose.py'", "a module on Python's path", filed("strategy.name=prose.py:make")
    ),
    "a source of something else": Bad(
        ConfigError,
        "'own.py:a_list' returned a list",
        "federation_from_arrays",
        filed("data.source=own.py:a_list"),
    ),
    "a strategy of something else": Bad(
        ConfigError,
        "'own.py:a_list' returned a list",
        "Strategy(local=…)",
        filed("strategy.name=own.py:a_list"),
    ),
    "a model of something else": Bad(
        ModelError, "list", "returns a module", filed("model={name='own.py:a_list'}")
    ),
    "a name with a slash": Bad(
        ConfigError,
        "name = '../../x'",
        'name = "first-try"',
        filed("name=../../x"),
        fine_file("name=first-try"),
    ),
    "a number as a name in a file": Bad(
        ConfigError, "name = 3", 'name = "first-try"', filed("name=3")
    ),
    "a subject that there is not": Bad(
        DataError,
        "unseen_subjects=(11,)",
        "1",
        filed(data={"source": "smartwatch", "unseen_subjects": [11]}),
    ),
}

RUNS: dict[str, Bad] = {
    "a folder that is no run": Bad(
        RunError,
        "empty is not a run directory",
        "as `hanse run` printed it",
        lambda: hanse.resume(Path("..") / FOLDER / "empty", experiment()),
    ),
    "a run that there is not": Bad(
        RunError, "nix", "`hanse run` printed", lambda: hanse.resume("nix", experiment())
    ),
    "a report of no run": Bad(
        RunError,
        "empty",
        "the folder of a run",
        lambda: report_run(Path("..") / FOLDER / "empty", None),
    ),
    "a model in no run": Bad(
        RunError,
        "empty/model.safetensors",
        "directory of a finished run",
        lambda: hanse.load(Path("..") / FOLDER / "empty", nn.Linear(3, 3)),
    ),
    "a run in a file": Bad(
        RunError,
        "prose.txt is not a run",
        "directory",
        lambda: RunDirectory.open(Path("..") / FOLDER / "prose.txt"),
    ),
    "a folder that is taken": Bad(
        RunError,
        "taken exists already",
        "--out",
        lambda: hanse.run(experiment(), Path("..") / FOLDER / "taken"),
    ),
}

# Once accepted in silence, or ended by a traceback.
FOUND: dict[str, Bad] = {
    "half a client": Bad(ConfigError, "count=2.5", "count=10", lambda: Uniform(count=2.5)),  # type: ignore[arg-type]
    "true as a count": Bad(ConfigError, "count=True", "count=10", lambda: Uniform(count=True)),
    "true as a fraction": Bad(ConfigError, "True", "0.1", lambda: Uniform(fraction=True)),
    "a text as a fraction": Bad(ConfigError, "'0.5'", "0.1", lambda: Uniform(fraction="0.5")),  # type: ignore[arg-type]
    "a text as a probability": Bad(ConfigError, "'x'", "0.01", lambda: Poisson("x")),  # type: ignore[arg-type]
    "true as a block": Bad(ModelError, "True", "1 or more", lambda: Execution("vmap", True)),
    "a class as a schedule": Bad(
        StrategyError,
        "CosineDecay",
        "CosineDecay(lr=0.1",
        lambda: fedavg(lr=CosineDecay),  # type: ignore[arg-type]
    ),
    "a text as a schedule's rounds": Bad(
        StrategyError,
        "rounds='2'",
        "rounds",
        lambda: CosineDecay(0.1, "2"),  # type: ignore[arg-type]
    ),
    "half a layer": Bad(ModelError, "hidden=5", "hidden=", lambda: mlp(4, 3, hidden=5)),  # type: ignore[arg-type]
    "a loss that returns nothing": Bad(
        ModelError, "NoneType", "one loss per example", made(loss=lambda outputs, targets: None)
    ),
    "a loss that returns a float": Bad(
        ModelError, "float", "one loss per example", made(loss=lambda outputs, targets: 1.0)
    ),
    "a metric of another shape": Bad(
        ModelError, "'hits'", "[n]", made(metrics={"hits": lambda outputs, targets: outputs})
    ),
    "weights of half precision": Bad(
        ModelError,
        "torch.bfloat16",
        "model.float()",
        made(model=lambda: nn.Linear(FEATURES, CLASSES).bfloat16()),
    ),
    "a list as clients": Bad(DataError, "list", "PackedClients", lambda: Federation([1])),  # type: ignore[arg-type]
    "nothing as clients": Bad(DataError, "None", "PackedClients", lambda: Federation(None)),  # type: ignore[arg-type]
    "a list as clients' arrays": Bad(
        DataError,
        "list",
        "{'anna'",
        lambda: federation_from_arrays([(X, Y)]),  # type: ignore[arg-type]
    ),
    "inputs without labels": Bad(DataError, "'anna'", "(x, y)", data({"anna": (X,)})),
    "inputs and labels and more": Bad(DataError, "'anna'", "(x, y)", data({"anna": (X, Y, Y)})),
    "an array alone": Bad(DataError, "'anna'", "(x, y)", data({"anna": X})),
    "a number as classes": Bad(
        DataError,
        "classes=3",
        "names",
        lambda: federation_from_arrays(people(), classes=3),  # type: ignore[arg-type]
    ),
    "numbers as names": Bad(DataError, "0", "text", data({0: (X, Y)})),
    "a client without a name": Bad(DataError, "empty", "name of its own", data({"": (X, Y)})),
    "two classes of one name": Bad(
        DataError, "'a'", "its own name", data({"anna": (X, Y)}, classes=("a", "a", "b"))
    ),
    "more outputs than targets": Bad(
        ModelError, f"[4, {CLASSES}]", "one output for each", made(loss=hanse.models.squared_error)
    ),
    "a rate beyond single precision": Bad(
        StrategyError, "1e+40", "a number such as 0.1", lambda: fedavg(lr=1e40)
    ),
    "a file as an experiment": Bad(
        ConfigError,
        "'e.toml'",
        "hanse.Experiment",
        lambda: list(hanse.rounds("e.toml")),  # type: ignore[arg-type]
    ),
}

TABLE = {
    f"{kind}: {name}": bad
    for kind, rows in {
        "number": NUMBERS, "part": PARTS, "model": MODELS, "data": DATA, "file": FILES, "run": RUNS,
        "found": FOUND,
    }.items()
    for name, bad in rows.items()
}  # fmt: skip


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is empty; files to read lie in another beside it."""
    inputs = tmp_path / FOLDER
    for name in ("empty", "taken", "pickles"):
        (inputs / name).mkdir(parents=True)
    (inputs / "own.py").write_text(OWN)
    (inputs / "prose.txt").write_text("Dear Sir or Madam,\n")
    (inputs / "prose.py").write_text("Dear Sir or Madam,\n")
    (inputs / "bytes.bin").write_bytes(b"\xff\xfe\x00")
    (inputs / "taken" / "thesis.tex").write_text("precious")
    objects = np.array([{"a": 1}, None], dtype=object)
    np.savez(inputs / "pickles" / "anna.npz", x=objects, y=np.zeros(2))
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("name", TABLE)
def test_what_cannot_be_meant_is_refused_with_a_remedy(empty: Path, name: str) -> None:
    bad = TABLE[name]
    with pytest.raises(HanseError) as caught:
        bad.does()
    error = caught.value
    assert type(error) is bad.kind
    assert bad.says in error.found
    assert len(error.why) > 10
    assert bad.instead in error.instead
    assert str(error) == f"{error.found}\n  why: {error.why}\n  instead: {error.instead}"
    assert not list(empty.iterdir())
    assert [p.name for p in (empty.parent / FOLDER / "taken").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", [name for name, bad in TABLE.items() if bad.works])
def test_the_remedy_works(name: str) -> None:
    remedy = TABLE[name].works
    assert remedy is not None
    remedy()
