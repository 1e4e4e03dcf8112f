"""Every path computes the gradients that plain autograd does, and refuses what it cannot do."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hanse.models import Task, squared_error
from hanse.models.execution import why_not
from hanse.models.executors import EXECUTORS, Unchained
from hanse.models.executors.tuned import tuned
from hanse.models.gradient import Batch, BoundGradient

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.models import Loss

K, B, INPUTS, CLASSES = 3, 5, 6, 4
ROUNDING = 1e-12


class Written(nn.Module):
    """As people write it: layers in attributes, functions between."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(INPUTS, 5), nn.Linear(5, 3, bias=False)
        self.out = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.size(0), -1)
        x = F.relu(self.one(x))
        x = torch.tanh(self.two(x))
        out: Tensor = self.out(x)
        return out


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.out = nn.Linear(INPUTS, INPUTS), nn.Linear(INPUTS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x + self.one(x).relu())
        return out


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(INPUTS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x)
        return out if float(self.out.weight.detach().sum()) > 0 else -out


class Options(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.out = nn.Linear(INPUTS, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(F.gelu(self.one(x), approximate="tanh"))
        return out


class Grouped(nn.Module):
    """Looks like a chain by its names; its view mixes the examples of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.out = nn.Linear(2 * INPUTS, 2 * INPUTS), nn.Linear(INPUTS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.one(x.reshape(-1, 2 * INPUTS)).reshape(len(x), -1))
        return out


def layers(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, 5), *parts, nn.Linear(5, CLASSES))


def hooked() -> nn.Module:
    module = layers(nn.ReLU())
    module.register_forward_hook(lambda _module, _inputs, outputs: 2 * outputs)
    return module


def tied() -> nn.Module:
    first, second = nn.Linear(INPUTS, INPUTS), nn.Linear(INPUTS, INPUTS)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second)


def twice() -> nn.Module:
    layer = nn.Linear(INPUTS, INPUTS)
    return nn.Sequential(layer, nn.Tanh(), layer)


def half_frozen() -> nn.Module:
    module = layers(nn.ReLU())
    module[0].weight.requires_grad_(False)  # type: ignore[index]
    return module


CHAINS: dict[str, Callable[[], nn.Module]] = {
    "a single layer": lambda: nn.Linear(INPUTS, CLASSES),
    "softmax regression": lambda: nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, CLASSES)),
    "ReLU": lambda: layers(nn.ReLU()),
    "tanh": lambda: layers(nn.Tanh()),
    "sigmoid": lambda: layers(nn.Sigmoid()),
    "SiLU": lambda: layers(nn.SiLU()),
    "GELU": lambda: layers(nn.GELU()),
    "linear all the way": lambda: layers(nn.Identity(), nn.Dropout(0.0)),
    "a sequence in a sequence": lambda: nn.Sequential(layers(nn.ReLU()), nn.Tanh()),
    "a module of one's own": Written,
}
OTHERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a residual": (Residual, "add"),
    "a decision": (Branching, "traced"),
    "a view that mixes examples": (Grouped, "rest of its batch"),
    "a hook": (hooked, "hooks"),
    "tied weights": (tied, "two names"),
    "a layer used twice": (twice, "called twice"),
    "frozen weights": (half_frozen, "not trained"),
    "a norm": (lambda: layers(nn.LayerNorm(5)), "LayerNorm"),
    "another GELU": (lambda: layers(nn.GELU("tanh")), "GELU"),
    "two functions": (lambda: layers(nn.ReLU(), nn.Tanh()), "follow a linear layer"),
    "a function first": (lambda: nn.Sequential(nn.ReLU(), layers()), "follow a linear layer"),
    "a function with options": (Options, "arguments"),
    "softmax at the end": (lambda: nn.Sequential(layers(), nn.LogSoftmax(1)), "LogSoftmax"),
    "a convolution": (lambda: nn.Sequential(nn.Conv1d(1, 1, 1), nn.Flatten(), layers()), "Conv1d"),
}


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().double()


def batch(task: Task, *, labels: bool = True, shape: tuple[int, ...] = (INPUTS,)) -> Batch:
    """K clients' batches, the last two of them short."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(K, B, *shape, generator=random, dtype=torch.float64)
    counts = torch.tensor([B, B - 1, 1])
    weights = (torch.arange(B) < counts[:, None]) / counts[:, None]
    y = torch.randint(0, CLASSES, (K, B), generator=random)
    return Batch(
        x=x,
        y=y if labels else torch.randn(K, B, CLASSES, generator=random, dtype=torch.float64),
        weights=weights.double(),
        counts=counts,
        buffers=torch.zeros(K, task.buffers.size, dtype=torch.float64),
        keys=np.arange(K, dtype=np.uint64),
        pass_number=0,
        step=0,
    )


def points(task: Task) -> Tensor:
    params, _ = task.initial()
    random = torch.Generator().manual_seed(2)
    nudge = torch.randn(K, len(params), generator=random, dtype=torch.float64)
    return params + 0.1 * nudge


def by_autograd(task: Task, given: Batch, at: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients and losses of a plain copy of the module, one client at a time."""
    gradients, losses = [], []
    for k, count in enumerate(given.counts.tolist()):
        module = task.with_values(at[k], given.buffers[k]).train()
        found = task.loss(module(given.x[k, :count]), given.y[k, :count])
        loss = (found * given.weights[k, :count]).sum()
        named = dict(module.named_parameters())
        loss.backward()  # type: ignore[no-untyped-call]
        flat = {
            n: torch.zeros_like(named[n]) if named[n].grad is None else named[n].grad
            for n in task.layout.names
        }
        gradients.append(task.layout.flatten(flat))  # type: ignore[arg-type]
        losses.append(loss.detach())
    return torch.stack(gradients), torch.stack(losses)


def compare(path: str, task: Task, given: Batch) -> None:
    at = points(task)
    gradient, losses = by_autograd(task, given, at)
    seen = torch.zeros(K, dtype=torch.float64)
    executor = EXECUTORS[path](task)
    bound = BoundGradient(executor, given, seen)
    assert float((bound(at) - gradient).abs().max()) < ROUNDING
    assert float((seen - losses).abs().max()) < ROUNDING
    before = torch.randn_like(at)
    for keep in (1.0, 0.5, 0.0, torch.tensor(0.5, dtype=torch.float64)):
        for scale in (-0.3, torch.tensor(-0.3, dtype=torch.float64)):
            target = before.clone()
            bound.add_to(target, at, scale=scale, keep=keep)
            expected = float(keep) * before + float(scale) * gradient
            assert float((target - expected).abs().max()) < ROUNDING
    moved = at.clone()  # the target is the point itself
    bound.add_to(moved, moved, scale=-0.3, keep=0.9)
    assert float((moved - (0.9 * at - 0.3 * gradient)).abs().max()) < ROUNDING
    shared = at[:1].expand(K, -1)  # all at the same point, which is read and not written
    gradient, _ = by_autograd(task, given, shared)
    assert float((bound(shared) - gradient).abs().max()) < ROUNDING
    executor.clear()


@pytest.mark.parametrize("path", ["module", "vmap", "dense"])
@pytest.mark.parametrize("name", CHAINS)
def test_chains_have_the_gradients_of_autograd_on_every_path(name: str, path: str) -> None:
    task = Task.of(seeded(CHAINS[name]))
    assert why_not("dense", task, *sample(task)) is None
    compare(path, task, batch(task))


@pytest.mark.parametrize("path", ["module", "vmap", "dense"])
@pytest.mark.parametrize("loss", [squared_error, lambda o, y: (o - y).abs().sum(1)])
def test_any_loss_per_example_has_them(loss: Loss, path: str) -> None:
    task = Task.of(seeded(lambda: layers(nn.ReLU())), loss=loss)
    compare(path, task, batch(task, labels=False))


@pytest.mark.parametrize("path", ["module", "vmap", "dense"])
def test_examples_without_a_label_count_for_nothing(path: str) -> None:
    task = Task.of(seeded(lambda: layers(nn.ReLU())))
    given = batch(task)
    given.y[0, 1] = -100
    compare(path, task, given)


@pytest.mark.parametrize("path", ["module", "vmap", "dense"])
def test_labels_may_be_probabilities(path: str) -> None:
    task = Task.of(seeded(lambda: layers(nn.ReLU())))
    given = batch(task, labels=False)
    compare(path, task, given._replace(y=given.y.softmax(-1)))


def sample(task: Task, shape: tuple[int, ...] = (INPUTS,)) -> tuple[Tensor, Tensor]:
    del task
    random = torch.Generator().manual_seed(3)
    x = torch.randn(4, *shape, generator=random, dtype=torch.float64)
    return x, torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_chain_says_why(name: str) -> None:
    make, expected = OTHERS[name]
    task = Task.of(seeded(make))
    shape = (1, INPUTS) if name == "a convolution" else (INPUTS,)
    reason = why_not("dense", task, *sample(task, shape))
    assert reason is not None
    assert expected in reason


def test_an_executor_of_chains_refuses_others() -> None:
    with pytest.raises(Unchained, match="LayerNorm"):
        EXECUTORS["dense"](Task.of(layers(nn.LayerNorm(5))))


# ------------------------------------------------------------------- one client at a time, tuned
def convolutional(*, shared: bool = False, pool: nn.Module | None = None) -> nn.Module:
    relu = nn.ReLU()
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)),
        nn.Conv2d(1, 3, 3, padding=1),
        relu,
        pool or nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2),
        relu if shared else nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 8),
        relu if shared else nn.ReLU(),
        nn.Linear(8, CLASSES),
    )


def large() -> nn.Module:
    """Its two layers in the middle are so large that their gradients are never written."""
    return nn.Sequential(
        nn.Linear(INPUTS, 768),
        nn.Tanh(),
        nn.Linear(768, 768, bias=False),
        nn.ReLU(),
        nn.Sequential(nn.Linear(768, 768), nn.Tanh()),
        nn.Linear(768, CLASSES),
    )


class Viewed(nn.Module):
    """PyTorch's own example: `view` behind a convolution, which wants the channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.out = nn.Conv2d(1, 3, 3), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.convolution(x.view(-1, 1, 6, 6)), 2))
        out: Tensor = self.out(x.view(-1, 12))
        return out


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


class Partly(nn.Module):
    """Calls a part of a sequence, and keeps what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.out = nn.Linear(48 + 12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.features[:2](x.view(-1, 1, 6, 6))
        pooled = self.features[2](whole)
        out: Tensor = self.out(torch.cat([whole.flatten(1), pooled.flatten(1)], dim=1))
        return out


class Stopped(nn.Module):
    """Lets no gradient through."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


TUNED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "convolutions": (convolutional, (36,), 0),
    "one ReLU everywhere": (lambda: convolutional(shared=True), (36,), 0),
    "overlapping pools": (
        lambda: convolutional(pool=nn.MaxPool2d(2, stride=2, padding=1, dilation=1)),
        (36,),
        0,
    ),
    "large layers": (large, (INPUTS,), 2),
    "a view behind a convolution": (Viewed, (36,), 0),
    "a view of one's own in a sequence": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 6, 6)),
            nn.Conv2d(1, 3, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            Flat(),
            nn.Linear(12, CLASSES),
        ),
        (36,),
        0,
    ),
    "a part of a sequence": (Partly, (36,), 0),
    "a large layer that no gradient reaches": (
        lambda: nn.Sequential(
            nn.Linear(INPUTS, 768),
            nn.Linear(768, 768),
            Stopped(),
            nn.Linear(768, CLASSES),
        ),
        (INPUTS,),
        1,
    ),
    "a large layer first": (
        lambda: nn.Sequential(nn.Linear(INPUTS, 100_000), nn.ReLU(), nn.Linear(100_000, CLASSES)),
        (INPUTS,),
        1,
    ),
}


@pytest.mark.parametrize("name", TUNED)
def test_a_tuned_copy_has_the_gradients_of_the_module(name: str) -> None:
    make, shape, aims = TUNED[name]
    torch.manual_seed(0)
    task = Task.of(make().double())
    given = batch(task, shape=shape)
    # Areas without ink: ties between the cells of a pool, and inputs of a ReLU that are zero.
    given.x[:, :, : shape[0] // 2] = 0
    assert len(tuned(task).aims) == aims
    compare("module", task, given)


def test_a_large_layer_that_is_used_twice_is_not_fused() -> None:
    layer = nn.Linear(768, 768)
    task = Task.of(
        nn.Sequential(nn.Linear(INPUTS, 768), layer, nn.Tanh(), layer, nn.Linear(768, CLASSES))
    )
    assert not tuned(task).aims


def test_a_large_layer_in_a_module_of_ones_own_is_not_fused() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(768, 768)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x) + F.linear(x, self.layer.weight)
            return out

    task = Task.of(nn.Sequential(nn.Linear(INPUTS, 768), Mine(), nn.Linear(768, CLASSES)))
    assert not tuned(task).aims


@pytest.mark.parametrize("path", ["module", "vmap", "dense"])
def test_the_users_module_is_never_edited(path: Literal["module", "vmap", "dense"]) -> None:
    module = seeded(large if path == "module" else lambda: layers(nn.ReLU()))
    before = copy.deepcopy(module)
    forwards = [part.forward for part in module.modules()]
    task = Task.of(module)
    compare(path, task, batch(task))
    assert [part.forward for part in module.modules()] == forwards
    assert repr(module) == repr(before)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before.state_dict()[name])
    assert all(parameter.grad is None for parameter in module.parameters())
