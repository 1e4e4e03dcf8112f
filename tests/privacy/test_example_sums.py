"""Sums of gradients clipped example by example: against Opacus and against going one by one."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.small import seeded
from tests.privacy.example_batches import Choosy, Hidden, Own, Tokens, Twice, batch_of, images
from torch import Tensor, nn

from hanse.core.errors import ModelError
from hanse.engines.private import PrivateExecutor
from hanse.models import Execution, Task, cnn, cross_entropy, mlp, squared_error
from hanse.models.executors import EXECUTORS
from hanse.models.per_example import SUMS
from hanse.models.per_example.module import ModuleSums
from hanse.privacy import ExampleDP
from hanse.privacy.examples import _ALLOWANCE, STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from hanse.models import Loss
    from hanse.models.gradient import Batch

CLIP = 0.3


def one_by_one(task: Task, batch: Batch, at: Tensor, clip: float) -> Tensor:
    """The definition: each example's gradient by torch's own autograd, shortened, added up."""
    total = torch.zeros_like(at)
    for row, count in enumerate(batch.counts.tolist()):
        module = task.with_values(at[row], torch.empty(0))
        params = [p for p in module.parameters() if p.requires_grad]
        for place in range(count):
            x, y = batch.x[row, place : place + 1], batch.y[row, place : place + 1]
            found = torch.autograd.grad(task.loss(module(x), y).sum(), params, allow_unused=True)
            parts = [
                (torch.zeros_like(p) if g is None else g).reshape(-1)
                for p, g in zip(params, found, strict=True)
            ]
            gradient = torch.cat(parts)
            norm = gradient.norm()
            if bool(norm.isfinite()):
                total[row] += gradient * min(1.0, clip / max(float(norm), 1e-300))
    return total


def points(task: Task, clients: int) -> Tensor:
    params, _ = task.initial()
    drawn = torch.Generator().manual_seed(1)
    return params + 0.3 * torch.randn(clients, len(params), generator=drawn, dtype=params.dtype)


def numbers(*shape: int) -> Tensor:
    drawn = torch.Generator().manual_seed(2)
    return torch.randn(*shape, generator=drawn, dtype=torch.float64)


def labels(*shape: int) -> Tensor:
    return torch.randint(3, shape, generator=torch.Generator().manual_seed(3))


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor, str]] = {
    "chain": (lambda: mlp(6, 3, (5, 4)), numbers(2, 7, 6), "_Ghostly"),
    "one layer without a bias": (lambda: nn.Linear(6, 3, bias=False), numbers(2, 7, 6), "_Ghostly"),
    "images": (images, numbers(2, 7, 2, 9, 6), "_Ghostly"),
    "words": (Tokens, torch.randint(11, (2, 7, 6)), "_Ghostly"),
    "frozen in part": (
        lambda: nn.Sequential(nn.Linear(6, 5).requires_grad_(False), nn.Tanh(), nn.Linear(5, 3)),
        numbers(2, 7, 6),
        "_Ghostly",
    ),
    "a layer called twice": (Twice, numbers(2, 7, 4), "_Batched"),
    "a weight read behind a layer's back": (Hidden, numbers(2, 7, 4), "_Batched"),
    "a parameter of its own": (Own, numbers(2, 7, 4), "_Batched"),
    "looks at numbers": (Choosy, numbers(2, 7, 4), "_Alone"),
}


@pytest.mark.parametrize("name", MODELS)
def test_sums_are_those_of_one_example_at_a_time(name: str) -> None:
    make, x, way = MODELS[name]
    task = Task.of(seeded(make))
    batch, at = batch_of(x, labels(2, 7), (7, 4)), points(task, 2)
    expected = one_by_one(task, batch, at, CLIP)
    sums = ModuleSums(task)
    found, losses = sums(batch, at, CLIP)
    assert type(sums._way).__name__ == way  # noqa: SLF001 - what it chose
    assert float((found - expected).norm() / expected.norm()) < 1e-4  # the margin of the norms
    again, _ = sums(batch, at, CLIP)
    torch.testing.assert_close(again, found)
    module = task.with_values(at[1], torch.empty(0))
    torch.testing.assert_close(losses[1], task.loss(module(x[1, :4]), labels(2, 7)[1, :4]).sum())
    if way != "_Alone":
        vmapped, _ = SUMS["vmap"](task)(batch, at, CLIP)
        torch.testing.assert_close(vmapped, found)


def test_chains_have_the_same_sums_by_products() -> None:
    for make in (lambda: mlp(6, 3, (5, 4)), lambda: nn.Linear(6, 3, bias=False)):
        task = Task.of(seeded(make))
        batch, at = batch_of(numbers(3, 7, 6), labels(3, 7), (7, 0, 4)), points(task, 3)
        expected, losses = SUMS["module"](task)(batch, at, CLIP)
        for path in ("dense", "vmap"):
            found, lost = SUMS[path](task)(batch, at, CLIP)
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(lost, losses)
        assert not bool(expected[1].any())


def test_large_batches_are_walked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task.of(seeded(images))
    batch, at = batch_of(numbers(1, 9, 2, 9, 6), labels(1, 9)), points(task, 1)
    whole, losses = ModuleSums(task)(batch, at, CLIP)
    monkeypatch.setattr("hanse.models.per_example.module._ROOM", 1000)
    found, lost = ModuleSums(task)(batch, at, CLIP)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(lost, losses)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_opacus_finds_the_same_clipped_sum(kind: str) -> None:
    pytest.importorskip("opacus")
    torch.default_generator.manual_seed(0)
    module, shape = (mlp(784, 10), (784,)) if kind == "mlp" else (cnn(10), (1, 28, 28))
    task = Task.of(module)
    x, y = torch.randn(12, *shape), torch.randint(10, (12,))
    params, _ = task.initial()
    expected = by_opacus(module, x, y, 1.0)
    for path in ("module", "dense") if kind == "mlp" else ("module",):
        batch = batch_of(x.unsqueeze(0), y.unsqueeze(0))
        found, _ = SUMS[path](task)(batch, params.unsqueeze(0), 1.0)
        assert float((found[0] - expected).norm() / expected.norm()) < 1e-4
        exact = PrivateExecutor(task, Execution("module", 1), ExampleDP(1.0, 0, 1.0, exact=True))
        target = torch.zeros_like(params).unsqueeze(0)
        exact.add_to(batch, params.unsqueeze(0), target, 1.0, 1.0)
        # Whole units, rounded towards zero, of a millionth of the clip norm each.
        assert float((target[0] - expected).norm() / expected.norm()) < 2e-3


def by_opacus(module: nn.Module, x: Tensor, y: Tensor, clip: float) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

        sampled: Any = GradSampleModule(module)
        optimizer = DPOptimizer(
            torch.optim.SGD(sampled.parameters(), 0.1),
            noise_multiplier=0.0,
            max_grad_norm=clip,
            expected_batch_size=1,
            loss_reduction="sum",
        )
        cross_entropy(sampled(x), y).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.clip_and_accumulate()
    return torch.cat([p.summed_grad.reshape(-1) for p in sampled.parameters()])


@pytest.mark.parametrize(("kind", "path"), [("mlp", "dense"), ("mlp", "module"), ("cnn", "module")])
def test_single_precision_is_off_by_a_thousandth_of_what_is_allowed_for(
    kind: str, path: str
) -> None:
    torch.default_generator.manual_seed(0)
    module, shape = (mlp(784, 10), (784,)) if kind == "mlp" else (cnn(10, side=16), (1, 16, 16))
    x, y = torch.rand(1, 32, *shape), torch.randint(10, (1, 32))
    moved = []
    for dtype in (torch.float32, torch.float64):
        task = Task.of(copy.deepcopy(module).to(dtype))
        at = task.initial()[0].unsqueeze(0)
        one, other = (
            SUMS[path](task)(batch_of(x[:, :n].to(dtype), y[:, :n]), at, 1.0)[0] for n in (32, 31)
        )
        moved.append(one.double() - other.double())
    assert float((moved[0] - moved[1]).norm()) * STEPS < 1e-3 * _ALLOWANCE


@pytest.mark.parametrize("path", ["module", "vmap", "dense"])
def test_an_empty_batch_moves_nothing_and_keeps_what_is_to_be_kept(path: str) -> None:
    task = Task.of(seeded(lambda: mlp(4, 3, (3,))))
    batch = batch_of(numbers(2, 1, 4), labels(2, 1), (0, 0))
    plain = EXECUTORS[path](task)
    privacy = ExampleDP(noise_multiplier=0)
    for executor in (plain, PrivateExecutor(task, Execution(path, 1), privacy)):  # type: ignore[arg-type]
        target = torch.ones_like(points(task, 2))
        losses = executor.add_to(batch, points(task, 2), target, -1.0, 0.25)
        torch.testing.assert_close(target, torch.full_like(target, 0.25))
        assert not bool(losses.any())


# ------------------------------------------------------------------------- no gradient is too long
SPECIAL = [0.0, float("nan"), float("inf"), -float("inf"), 1e-30, 1e8, -1e12, 1e30, 3e38]
WAYS = {"module": False, "dense": False, "vmap": False, "exact": True}


@settings(max_examples=60, deadline=None)
@given(
    x=st.lists(st.sampled_from(SPECIAL) | st.floats(-1e3, 1e3, width=32), min_size=8, max_size=8),
    clip=st.sampled_from([1e-3, 0.1, 1.0, 1e4]),
    scale=st.sampled_from([0.0, 1e-20, 1.0, 1e10]),
    way=st.sampled_from(list(WAYS)),
    loss=st.sampled_from([cross_entropy, squared_error]),
)
def test_no_example_has_a_clipped_gradient_longer_than_the_clip_norm(
    x: list[float], clip: float, scale: float, way: str, loss: Loss
) -> None:
    task = Task.of(seeded(lambda: mlp(4, 2, (3,))).float(), loss=loss)
    at = points(task, 1) * scale
    inputs = torch.tensor(x, dtype=torch.float32).view(1, 2, 4)
    target = torch.tensor([[0, 1]]) if loss is cross_entropy else torch.ones(1, 2, 2)
    path = way if way in SUMS else "module"
    privacy = ExampleDP(clip, 0, 1.0, exact=WAYS[way])
    for count in (1, 2):
        batch = batch_of(inputs, target, (count,))
        found = torch.zeros_like(at)
        PrivateExecutor(task, Execution(path, 1), privacy).add_to(batch, at, found, 1.0, 1.0)  # type: ignore[arg-type]
        units = found.double() / privacy.unit
        most = count * (STEPS if privacy.exact else privacy.sensitivity(found.shape[1]))
        # The vector is handed over in single precision.
        assert float(units.norm()) <= most * (1 + 1e-6)


def test_whole_numbers_are_within_the_bound_exactly() -> None:
    task = Task.of(seeded(lambda: mlp(4, 2, (3,))).float())
    privacy = ExampleDP(0.7, 0, 1.0, exact=True)
    sums = PrivateExecutor(task, Execution("module", 1), privacy)._exact  # noqa: SLF001 - before it is divided
    assert sums is not None
    for factor in (1e-3, 1.0, 1e3, 1e9, 1e25):
        batch = batch_of(torch.full((1, 1, 4), factor), torch.zeros(1, 1, dtype=torch.int64))
        whole, _ = sums(batch, points(task, 1), privacy)
        numbers_ = [int(v) for v in whole[0].tolist()]
        assert sum(v * v for v in numbers_) <= STEPS**2
        assert all(float(n) == v for n, v in zip(numbers_, whole[0].tolist(), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_an_example_without_a_finite_gradient_is_as_if_it_were_not_there(way: str) -> None:
    task = Task.of(seeded(lambda: mlp(4, 3, (3,))))
    at, x, y = points(task, 1), numbers(1, 5, 4), labels(1, 5)
    rest = batch_of(x[:, [0, 1, 3, 4]], y[:, [0, 1, 3, 4]])
    privacy = ExampleDP(0.7, 0, 1.0, exact=WAYS[way])
    execution = Execution(way if way in SUMS else "module", 1)  # type: ignore[arg-type]
    found = []
    for bad in (float("nan"), float("inf"), 1e308):
        spoiled = x.clone()
        spoiled[0, 2] = bad
        for batch in (batch_of(spoiled, y), rest):
            target = torch.zeros_like(at)
            PrivateExecutor(task, execution, privacy).add_to(batch, at, target, 1.0, 1.0)
            found.append(target)
    for target in found[1:]:
        torch.testing.assert_close(target, found[0], rtol=0, atol=0 if way == "exact" else 1e-7)


def test_a_loss_that_couples_examples_is_refused_by_every_way() -> None:
    task = Task.of(seeded(lambda: mlp(4, 3)), loss=lambda o, y: cross_entropy(o, y).mean())
    batch, at = batch_of(numbers(1, 5, 4), labels(1, 5)), points(task, 1)
    for path in SUMS:
        with pytest.raises(ModelError, match="one loss per example"):
            SUMS[path](task)(batch, at, 1.0)
