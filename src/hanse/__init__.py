"""Hanse: federated learning in Python and PyTorch.

```python
import hanse

experiment = hanse.Experiment(
    strategy=hanse.fedavg(lr=0.1, local_epochs=2),
    data=hanse.data.standardise(hanse.data.watch()),
    model=lambda: hanse.models.softmax_regression(30, 7),
    rounds=20,
)
for round in hanse.rounds(experiment):
    print(round.number, round.train_loss, round.evaluations["test"].overall)
```

Names are loaded when they are first used, so that `import hanse` costs nothing before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hanse import (
        aggregation,
        compression,
        core,
        data,
        layers,
        local,
        models,
        report,
        selection,
        server,
        wire,
    )
    from hanse.aggregation import DropOuts, SecureSum
    from hanse.auditing import Audit, audit
    from hanse.comparison import compare
    from hanse.compression import HalfPrecision, Quantize, RandomK, Rotate, Sign, TopK
    from hanse.core.errors import (
        BudgetError,
        ConfigError,
        DataError,
        DivergenceError,
        HanseError,
        LedgerError,
        ModelError,
        ProtocolError,
        RunError,
        StrategyError,
        WireError,
        WorkerError,
    )
    from hanse.decision import decision_table, strategies_for
    from hanse.experiment import Experiment
    from hanse.layers import (
        AdaptiveClip,
        ClientDP,
        Compress,
        CompressedBroadcast,
        DistributedDP,
        DistributedExampleDP,
        ErrorFeedback,
        LocalDP,
        Normalized,
        Weighted,
    )
    from hanse.models import Execution
    from hanse.privacy import BinaryTree, ExampleDP, Toeplitz
    from hanse.runs import export, load, resume, run
    from hanse.selection import Full, Poisson, Separated, Stragglers, Uniform
    from hanse.server import ServerAdagrad, ServerAdam, ServerSGD, ServerYogi
    from hanse.strategies import (
        compressed_fedavg,
        dp_fedavg,
        dp_ftrl,
        dp_sgd,
        fedavg,
        fedavg_secagg,
        feddyn,
        fednova,
        fedprox,
        fedsgd,
        fedsgd_secagg,
        fedsgd_topk,
        ldp_fedavg,
        mimelite,
        scaffold,
    )
    from hanse.strategy import Strategy
    from hanse.sweeps import sweep
    from hanse.training import Round, rounds

__all__ = [
    "AdaptiveClip",
    "Audit",
    "BinaryTree",
    "BudgetError",
    "ClientDP",
    "Compress",
    "CompressedBroadcast",
    "ConfigError",
    "DataError",
    "DistributedDP",
    "DistributedExampleDP",
    "DivergenceError",
    "DropOuts",
    "ErrorFeedback",
    "ExampleDP",
    "Execution",
    "Experiment",
    "Full",
    "HalfPrecision",
    "HanseError",
    "LedgerError",
    "LocalDP",
    "ModelError",
    "Normalized",
    "Poisson",
    "ProtocolError",
    "Quantize",
    "RandomK",
    "Rotate",
    "Round",
    "RunError",
    "SecureSum",
    "Separated",
    "ServerAdagrad",
    "ServerAdam",
    "ServerSGD",
    "ServerYogi",
    "Sign",
    "Stragglers",
    "Strategy",
    "StrategyError",
    "Toeplitz",
    "TopK",
    "Uniform",
    "Weighted",
    "WireError",
    "WorkerError",
    "aggregation",
    "audit",
    "compare",
    "compressed_fedavg",
    "compression",
    "core",
    "data",
    "decision_table",
    "dp_fedavg",
    "dp_ftrl",
    "dp_sgd",
    "export",
    "fedavg",
    "fedavg_secagg",
    "feddyn",
    "fednova",
    "fedprox",
    "fedsgd",
    "fedsgd_secagg",
    "fedsgd_topk",
    "layers",
    "ldp_fedavg",
    "load",
    "local",
    "mimelite",
    "models",
    "report",
    "resume",
    "rounds",
    "run",
    "scaffold",
    "selection",
    "server",
    "strategies_for",
    "sweep",
    "wire",
]

_PACKAGES = (
    "aggregation",
    "compression",
    "core",
    "data",
    "layers",
    "local",
    "models",
    "report",
    "selection",
    "server",
    "wire",
)
_HOMES = {
    "aggregation": ("DropOuts", "SecureSum"),
    "auditing": ("Audit", "audit"),
    "comparison": ("compare",),
    "compression": ("HalfPrecision", "Quantize", "RandomK", "Rotate", "Sign", "TopK"),
    "core.errors": (
        "BudgetError",
        "ConfigError",
        "DataError",
        "DivergenceError",
        "HanseError",
        "LedgerError",
        "ModelError",
        "ProtocolError",
        "RunError",
        "StrategyError",
        "WireError",
        "WorkerError",
    ),
    "decision": ("decision_table", "strategies_for"),
    "experiment": ("Experiment",),
    "layers": (
        "AdaptiveClip",
        "ClientDP",
        "Compress",
        "CompressedBroadcast",
        "DistributedDP",
        "DistributedExampleDP",
        "ErrorFeedback",
        "LocalDP",
        "Normalized",
        "Weighted",
    ),
    "models": ("Execution",),
    "runs": ("export", "load", "resume", "run"),
    "privacy": ("BinaryTree", "ExampleDP", "Toeplitz"),
    "selection": ("Full", "Poisson", "Separated", "Stragglers", "Uniform"),
    "server": ("ServerAdagrad", "ServerAdam", "ServerSGD", "ServerYogi"),
    "strategies": (
        "compressed_fedavg",
        "dp_fedavg",
        "dp_ftrl",
        "dp_sgd",
        "fedavg",
        "fedavg_secagg",
        "feddyn",
        "fednova",
        "fedprox",
        "fedsgd",
        "fedsgd_secagg",
        "fedsgd_topk",
        "ldp_fedavg",
        "mimelite",
        "scaffold",
    ),
    "strategy": ("Strategy",),
    "sweeps": ("sweep",),
    "training": ("Round", "rounds"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name in _PACKAGES:
        return importlib.import_module(f"hanse.{name}")
    if name not in _HOME_OF:
        message = f"module 'hanse' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(f"hanse.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
