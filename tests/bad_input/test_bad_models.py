"""Modules that clients cannot train: each is refused by the name of the part."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.bad_input import test_bad_input as table
from tests.bad_input.test_bad_input import Bad, filed, fine, made
from tests.runs.small_runs import CLASSES, FEATURES
from torch import Tensor, nn

import hanse
from hanse import ConfigError, ModelError, fedavg

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

empty = table.empty


def before(part: Callable[[], nn.Module], width: int = FEATURES) -> Callable[[], nn.Module]:
    """A model with this part in front."""
    return lambda: nn.Sequential(part(), nn.Linear(width, CLASSES))


def linear() -> nn.Linear:
    return nn.Linear(FEATURES, 4)


class Own(nn.Module):
    """A linear layer and one more tensor."""

    def __init__(self, **tensors: Any) -> None:  # noqa: ANN401 - whatever is wrong
        super().__init__()
        self.out = nn.Linear(FEATURES, CLASSES)
        for name, value in tensors.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x)
        return out


class Tied(nn.Module):
    """Two parameters on the same memory, or one with two names."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        if twice:
            self.other.weight = nn.Parameter(self.one.weight.data.T)
        else:
            self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.other(self.one(x))
        return out


class Counter(nn.Module):
    """Keeps something from call to call."""

    def __init__(self, start: Tensor, *, replaces: bool = False) -> None:
        super().__init__()
        self.out, self.replaces = nn.Linear(FEATURES, CLASSES), replaces
        self.register_buffer("calls", start)

    def forward(self, x: Tensor) -> Tensor:
        if self.replaces:
            self.calls = self.get_buffer("calls") + 1
        else:
            self.get_buffer("calls").add_(1)
        out: Tensor = self.out(x)
        return out


class Embedded(nn.Module):
    """Numbers as words."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(50, CLASSES, sparse=sparse)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.words(x.abs().long().clamp(max=49)).mean(1)
        return out


def old_weight_norm() -> Any:  # noqa: ANN401 - what torch declares
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is what people still have
        module = nn.utils.weight_norm(linear())
    module(torch.zeros(1, FEATURES))
    return module


def weight_norm() -> Any:  # noqa: ANN401 - what torch declares
    return nn.utils.parametrizations.weight_norm(linear())


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return linear()


class Recurrent(nn.Module):
    """An LSTM that passes on its outputs only."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(FEATURES, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)[0]
        return out


def fake_quantised() -> nn.Module:
    return torch.ao.quantization.FakeQuantize()  # type: ignore[no-untyped-call]


def initialised() -> nn.Module:
    module = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, CLASSES))
    module(torch.zeros(1, FEATURES))
    return module


WHOLE = fedavg(batch_size=None)

ROWS: dict[str, Bad] = {
    "a lazy layer": Bad(
        ModelError,
        "'0' (LazyLinear)",
        "call the model on one example",
        made(model=before(lambda: nn.LazyLinear(4), 4)),
        fine(model=initialised),
    ),
    "SyncBatchNorm": Bad(
        ModelError,
        "'0' (SyncBatchNorm)",
        "nn.BatchNorm2d",
        made(model=before(lambda: nn.SyncBatchNorm(FEATURES))),
        fine(model=before(lambda: nn.BatchNorm1d(FEATURES)), strategy=WHOLE),
    ),
    "spectral norm": Bad(
        ModelError,
        "_SpectralNorm",
        "weight_norm",
        made(model=before(lambda: nn.utils.parametrizations.spectral_norm(linear()), 4)),
        fine(model=before(weight_norm, 4)),
    ),
    "spectral norm as it was": Bad(
        ModelError,
        "'0' (Linear)",
        "weight_norm",
        made(model=before(lambda: nn.utils.spectral_norm(linear()), 4)),
    ),
    "weight norm as it was": Bad(
        ModelError,
        "'0' (",
        "nn.utils.parametrizations.weight_norm",
        made(model=before(old_weight_norm, 4)),
        fine(model=before(weight_norm, 4)),
    ),
    "a sparse embedding": Bad(
        ModelError,
        "'words' (Embedding)",
        "sparse=False",
        made(model=lambda: Embedded(sparse=True)),
        fine(model=lambda: Embedded(sparse=False)),
    ),
    "complex parameters": Bad(
        ModelError,
        "'0.weight' of a Linear is complex64",
        "torch.complex(re, im)",
        made(model=before(lambda: nn.Linear(FEATURES, 4, dtype=torch.complex64), 4)),
    ),
    "a sparse parameter": Bad(
        ModelError,
        "'table' of a Own is sparse",
        "to_dense()",
        made(model=lambda: Own(table=nn.Parameter(torch.eye(3).to_sparse()))),
        fine(model=lambda: Own(table=nn.Parameter(torch.eye(3)))),
    ),
    "no values": Bad(
        ModelError,
        "'0.weight' of a Linear is on the device 'meta'",
        'outside of torch.device("meta")',
        made(model=before(on_meta, 4)),
        fine(model=before(linear, 4)),
    ),
    "half precision": Bad(
        ModelError,
        "'weight' torch.float16",
        "model.float()",
        made(model=lambda: nn.Linear(FEATURES, CLASSES).half()),
        fine(model=lambda: nn.Linear(FEATURES, CLASSES).half().float()),
    ),
    "a model for several cards": Bad(
        ModelError,
        "the model (DataParallel)",
        "model.module",
        made(model=lambda: nn.DataParallel(nn.Linear(FEATURES, CLASSES))),
        fine(model=lambda: nn.DataParallel(nn.Linear(FEATURES, CLASSES)).module),
    ),
    "a quantised part": Bad(
        ModelError,
        "'0' (FakeQuantize)",
        "quantise what is trained",
        made(model=before(fake_quantised)),
    ),
    "two parameters on the same memory": Bad(
        ModelError,
        "'one.weight' and 'other.weight'",
        "other.weight = one.weight",
        made(model=lambda: Tied(twice=True)),
        fine(model=lambda: Tied(twice=False)),
    ),
    "a counter": Bad(
        ModelError,
        "'calls' of a Counter changes it, and it is int64",
        "register_buffer",
        made(model=lambda: Counter(torch.tensor(0))),
        fine(model=lambda: Counter(torch.tensor(0.0))),
    ),
    "a buffer that is replaced": Bad(
        ModelError,
        "'calls' of a Counter puts another tensor in its place",
        "self.calls.copy_(…)",
        made(model=lambda: Counter(torch.tensor(0.0), replaces=True)),
    ),
    "an LSTM between layers": Bad(
        ModelError,
        "'0' (LSTM) returns a tuple",
        "self.lstm(x)[0]",
        made(model=before(lambda: nn.LSTM(FEATURES, 4), 4)),
        fine(model=before(Recurrent, 4)),
    ),
    "an LSTM as a model": Bad(
        ModelError,
        "the model (LSTM) returns a tuple",
        "forward that returns a tensor",
        made(model=lambda: nn.LSTM(FEATURES, CLASSES)),
    ),
    "a computed tensor": Bad(
        ModelError,
        "the model (Own) cannot be copied",
        "detached",
        made(model=lambda: Own(scale=torch.ones(1, requires_grad=True) * 2)),
        fine(model=lambda: Own(scale=torch.ones(1) * 2)),
    ),
    "no BatchNorm to keep": Bad(
        ModelError,
        "Sequential without a BatchNorm",
        "nn.BatchNorm1d",
        made(model=before(linear, 4), local=hanse.models.batch_norm),
        fine(
            model=before(lambda: nn.BatchNorm1d(FEATURES)),
            local=hanse.models.batch_norm,
            strategy=WHOLE,
        ),
    ),
    "no BatchNorm to keep in a file": Bad(
        ModelError, "without a BatchNorm", "nn.BatchNorm1d", filed("model.local=batch-norm")
    ),
    "a slip in a file": Bad(
        ConfigError,
        "model.local = 'batch_norm'",
        "'batch-norm'",
        filed("model.local=batch_norm"),
    ),
    "a class as what stays": Bad(
        ConfigError,
        "BatchNorm1d",
        "hanse.models.batch_norm",
        made(local=nn.BatchNorm1d),
    ),
    "a function that finds a text": Bad(
        ModelError,
        "returns 'head.*'",
        "hanse.models.batch_norm",
        made(local=lambda module: "head.*"),
        fine(local=lambda module: ("2.*",)),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_it_is_refused_by_name_with_a_remedy(
    empty: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(table.TABLE, name, ROWS[name])
    table.test_what_cannot_be_meant_is_refused_with_a_remedy(empty, name)


@pytest.mark.parametrize("name", [name for name, bad in ROWS.items() if bad.works])
def test_the_remedy_works(name: str) -> None:
    remedy = ROWS[name].works
    assert remedy is not None
    remedy()
