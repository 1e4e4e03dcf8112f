"""What each compressor promises: where it is right on average, and how far it errs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compression.cases import COLUMNS, LAYOUT, SIZES, TABLE, entered, rows, source

from hanse.compression import (
    Compressor,
    Coordinates,
    Grid,
    HalfPrecision,
    Quantize,
    RandomK,
    Rotate,
    Rotation,
    Sign,
    Support,
    TopK,
)
from hanse.compression.hadamard import hadamard
from hanse.core.errors import StrategyError
from hanse.core.types import Vector, vector

every = pytest.mark.parametrize("name", TABLE)


# ------------------------------------------------------------------------ what holds for all
@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_row_becomes_the_same_bits_in_any_block(name: str, dtype: torch.dtype) -> None:
    values = rows(5, dtype=dtype)
    together = TABLE[name].enter(vector(values), source(5)).lifted()
    assert together.dtype is dtype
    for row in range(5):
        own = source(5)._replace(own=source(5).own[row : row + 1])
        alone = TABLE[name].enter(vector(values[row : row + 1]), own).lifted()
        assert torch.equal(alone[0], together[row])


@every
def test_rows_of_zeros_stay_finite_and_what_is_given_is_left_alone(name: str) -> None:
    values = rows(3)
    values[1] = 0.0
    before = values.clone()
    sent = entered(TABLE[name], values)
    assert torch.equal(values, before)
    assert bool(sent.values.isfinite().all())
    assert float(sent.lifted()[1].abs().max()) == 0.0


@every
def test_the_smallest_numbers_do_not_become_nan(name: str) -> None:
    values = torch.full((1, COLUMNS), 5e-324, dtype=torch.float64)
    assert bool(entered(TABLE[name], values).lifted().isfinite().all())


@every
def test_scale_is_left_to_what_comes_behind(name: str) -> None:
    values, factors = rows(3), torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    plain = TABLE[name].enter(vector(values), source(3))
    scaled = TABLE[name].enter(Vector(values, factors), source(3))
    assert torch.equal(scaled.values, plain.values)
    assert torch.equal(scaled.lifted(), plain.scaled(factors).lifted())


@every
def test_what_contracts_never_leaves_out_more_than_it_was_given(name: str) -> None:
    if not TABLE[name].contracts:
        return
    for round_ in range(20):
        values = rows(5) * 10.0 ** (round_ - 10)
        left = (values - entered(TABLE[name], values, round_).lifted()).norm(dim=1)
        assert bool((left <= values.norm(dim=1) * (1 + 1e-12)).all())


def test_what_is_not_said_to_contract_does_not() -> None:
    broken = {}
    for name, compressor in TABLE.items():
        if not compressor.contracts:
            values = torch.zeros(200, COLUMNS, dtype=torch.float64)
            values[:, 0], values[:, 1:] = 1.0, 0.01
            left = (values - entered(compressor, values).lifted()).norm(dim=1)
            broken[name] = bool((left > values.norm(dim=1)).any())
    assert broken["bits-1"]
    assert broken["bits-2"]
    assert broken["random"]


# ------------------------------------------------------------------------ right on average
UNBIASED = [
    *(f"bits-{bits}" for bits in (1, 2, 3, 8, 16)),
    "bits-tensor", "bits-public", "random", "rotate", "rotate-2",
]  # fmt: skip
DRAWS = 4000


def is_unbiased(compressor: Compressor, row: torch.Tensor) -> bool:
    """Whether no coordinate is five standard errors away: by chance, once in 10,000 tests.

    What happens so seldom that it may not have been seen is allowed for.
    """
    shared = isinstance(compressor, RandomK)  # the same draws for all clients of a round
    many = row.expand(1 if shared else 200, -1).contiguous()
    found = torch.cat([entered(compressor, many, n).lifted() for n in range(DRAWS // len(many))])
    error = 5 * found.std(0) / math.sqrt(DRAWS)
    unseen = 10 / DRAWS * (found - found.mean(0)).abs().max()
    return bool(((found.mean(0) - row).abs() <= error + unseen + 1e-12).all())


@pytest.mark.parametrize("name", UNBIASED)
def test_it_is_right_on_average(name: str) -> None:
    assert is_unbiased(TABLE[name], rows(1)[0].clamp(-2.5, 2.5))


class Planted(Compressor):
    """Rounds up a little too often."""

    contracts = False

    def enter(self, sent: Vector, source: object) -> Vector:
        found = Quantize(4).enter(sent, source)  # type: ignore[arg-type]
        grid = found.space[-1]
        assert isinstance(grid, Grid)
        more = torch.from_numpy(np.random.default_rng(0).random(found.values.shape) < 0.02)
        return found._replace(values=(found.values + more).clamp(-grid.most, grid.most))


def test_a_planted_bias_is_found() -> None:
    row = rows(1)[0].clamp(-2.5, 2.5)
    assert not is_unbiased(Planted(), row)
    assert not is_unbiased(Quantize(4, "nearest"), row)
    assert not is_unbiased(TopK(0.5), row)


# ------------------------------------------------------------------------------- how far it errs
@pytest.mark.parametrize("bits", range(2, 17))
def test_rounding_errs_by_a_step_or_half_of_one(bits: int) -> None:
    values = rows(5)
    step = values.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    for rounding, most in (("stochastic", 1.0), ("nearest", 0.5)):
        found = entered(Quantize(bits, rounding), values).lifted()  # type: ignore[arg-type]
        assert bool(((found - values).abs() <= most * step * (1 + 1e-9)).all())
        assert bool((found[values == 0] == 0).all())


def test_one_bit_is_plus_or_minus_the_peak() -> None:
    values = rows(4)
    found = entered(Quantize(1), values).lifted()
    assert torch.equal(found.abs(), values.abs().amax(dim=1, keepdim=True).expand_as(found))


def test_tensors_and_runs_have_steps_of_their_own() -> None:
    values = rows(3)
    by_tensor = entered(Quantize(4, "nearest", per="tensor"), values).lifted()
    by_run = entered(Quantize(4, "nearest", per=64), values).lifted()
    start = 0
    for size in SIZES:
        part = values[:, start : start + size]
        step = part.abs().amax(dim=1, keepdim=True) / 7
        assert bool(((by_tensor[:, start : start + size] - part).abs() <= 0.5001 * step).all())
        start += size
    for start in range(0, COLUMNS, 64):
        part = values[:, start : start + 64]
        step = part.abs().amax(dim=1, keepdim=True) / 7
        assert bool(((by_run[:, start : start + 64] - part).abs() <= 0.5001 * step).all())


def test_a_public_limit_cuts_off_and_has_one_step_for_all_clients() -> None:
    values = rows(3)
    sent = entered(Quantize(8, "nearest", limit=1.0), values)
    (grid,) = sent.space
    assert isinstance(grid, Grid)
    assert grid.common
    assert grid.linear
    assert float((sent.lifted() - values.clamp(-1, 1)).abs().max()) <= 0.5001 / 127
    whole = sent.values.sum(0)
    assert float((grid.lift(whole) - sent.lifted().sum(0)).abs().max()) < 1e-12
    assert not Grid(8, torch.ones(3, 1)).common


@settings(max_examples=100, deadline=None)
@given(st.integers(1, COLUMNS), st.integers(0, 2**32))
def test_the_largest_are_sent_and_the_rest_is_bounded(count: int, seed: int) -> None:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, COLUMNS)))
    sent = entered(TopK(count=count), values)
    found = sent.lifted()
    kept = found != 0
    assert torch.equal(found[kept], values[kept])
    assert int(kept.sum()) == 2 * count
    for row in range(2):
        rest = values[row][~kept[row]].abs()
        assert not len(rest) or float(rest.max()) <= float(values[row][kept[row]].abs().min())
    left = (values - found).square().sum(1)
    assert bool((left <= (1 - count / COLUMNS) * values.square().sum(1) + 1e-12).all())
    (support,) = sent.space
    assert isinstance(support, Support)
    assert bool((support.chosen.diff(dim=1) > 0).all())


def test_the_largest_of_each_tensor_are_sent() -> None:
    values = rows(3)
    found = entered(TopK(0.1, per="tensor"), values).lifted() != 0
    counts = [int(part.sum()) for part in torch.split(found[0], list(SIZES))]
    assert counts == [7, 1, 1 if float(values[0, 80]) else 0, 12]


def test_random_coordinates_are_shared_in_a_round_and_drawn_anew_in_the_next() -> None:
    values = rows(4)
    first, second = (entered(RandomK(0.1), values, n) for n in (1, 2))
    (here,), (there,) = first.space, second.space
    assert isinstance(here, Coordinates)
    assert isinstance(there, Coordinates)
    assert here.common
    assert here.linear
    assert len(set(here.chosen.tolist())) == 20
    assert here.chosen.tolist() != there.chosen.tolist()
    # A sum inside, lifted with its factor, is the sum of what was lifted.
    inside = here.lift(first.values.sum(0))
    assert float((inside - first.lifted().sum(0)).abs().max()) < 1e-12
    kept = here.chosen
    assert torch.equal(first.values, values[:, kept])
    assert torch.allclose(inside[kept], values[:, kept].sum(0) * COLUMNS / 20)


def test_every_coordinate_is_drawn_as_often() -> None:
    seen = np.zeros(COLUMNS)
    for round_ in range(2000):
        (space,) = entered(RandomK(count=20), rows(1), round_).space
        assert isinstance(space, Coordinates)
        seen[space.chosen.numpy()] += 1
    expected = 2000 * 20 / COLUMNS
    deviation = math.sqrt(expected * (1 - 20 / COLUMNS))
    assert float(np.abs(seen - expected).max()) < 5 * deviation


def test_signs_are_scaled_so_that_nothing_is_nearer() -> None:
    values = rows(4) + 0.1
    sent = entered(Sign(), values)
    assert set(sent.values.reshape(-1).tolist()) == {-1.0, 1.0}
    found = sent.lifted()
    assert torch.equal(found.sign(), values.sign())
    left = (found - values).norm(dim=1)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert bool(((found * factor - values).norm(dim=1) > left).all())


def test_zeros_get_a_sign_by_chance() -> None:
    values = torch.zeros(1, 10_000, dtype=torch.float64)
    values[0, 0] = 1.0
    signs = Sign().enter(vector(values), source(1)).values[0, 1:]
    assert abs(float(signs.mean())) < 5 / math.sqrt(len(signs))


# ------------------------------------------------------------------------------- rotations
def sylvester(size: int) -> torch.Tensor:
    """The Hadamard matrix by its recursion."""
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    half = sylvester(size // 2)
    return torch.cat([torch.cat([half, half], 1), torch.cat([half, -half], 1)])


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_the_transform_is_that_of_the_matrix(size: int) -> None:
    values = torch.from_numpy(np.random.default_rng(size).normal(size=(3, 4 * size)))
    found = hadamard(values.clone(), size)
    matrix = sylvester(size) / math.sqrt(size)
    expected = torch.cat([part @ matrix for part in torch.split(values, size, dim=1)], 1)
    assert float((found - expected).abs().max()) < 1e-13
    assert float((hadamard(found, size) - values).abs().max()) < 1e-13


@pytest.mark.parametrize("block", [16, 4096, None])
def test_a_rotation_keeps_norms_and_is_undone(block: int | None) -> None:
    values = rows(4)
    sent = entered(Rotate(block), values)
    (space,) = sent.space
    assert isinstance(space, Rotation)
    assert torch.allclose(sent.values.norm(dim=1), values.norm(dim=1))
    assert float((sent.lifted() - values).abs().max()) < 1e-13
    assert sent.values.shape[1] == (208 if block == 16 else 256)
    assert space.isometric == (COLUMNS % space.block == 0)
    assert Rotation(0, 64, 16).isometric


def test_a_rotation_evens_out_what_quantising_suffers_from() -> None:
    values = torch.zeros(50, 4096, dtype=torch.float64)
    values[:, 0], values[:, 1:] = (
        1.0,
        0.01 * torch.randn(4095, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    )
    errors = [
        float((c.enter(vector(values), source(50)).lifted() - values).square().sum())
        for c in (Quantize(2), Rotate() >> Quantize(2))
    ]
    assert errors[1] < errors[0] / 4


def test_half_precision_is_what_torch_rounds_to_and_does_not_overflow() -> None:
    values = rows(3) * 1e5
    found = entered(HalfPrecision(), values).lifted()
    assert torch.equal(found, values.clamp(-65504, 65504).half().double())
    assert float(found.abs().max()) == 65504
    assert torch.equal(
        entered(HalfPrecision("bfloat16"), values).lifted(), values.bfloat16().double()
    )


# ------------------------------------------------------------------------------- chains
def test_a_chain_quantises_what_was_kept_and_no_zeros() -> None:
    values = rows(4)
    values[:, 3] = 100.0
    found = entered(TopK(count=30) >> Quantize(4, "nearest"), values)
    assert found.values.shape == (4, 30)
    # Runs of the kept values have steps of their own: the outlier spoils only its own.
    fine = entered(TopK(count=30) >> Quantize(4, "nearest", per=5), values).lifted()
    kept = entered(TopK(count=30), values).lifted()
    assert float((fine - kept).norm()) < float((found.lifted() - kept).norm())


def test_chains_of_chains_are_chains() -> None:
    one, two, three = TopK(0.1), Rotate(), Quantize(8)
    assert (one >> two) >> three == one >> (two >> three)
    assert repr(one >> three).startswith("Chain(stages=(TopK(fraction=0.1")
    assert (one >> three).shortens
    assert not (two >> three).shortens
    assert (one >> Quantize(8, "nearest")).contracts
    assert not (one >> three).contracts


def test_two_of_a_chain_draw_apart() -> None:
    values = rows(1)
    sent = entered(RandomK(0.5) >> RandomK(0.5), values)
    outer, inner = sent.space
    assert isinstance(outer, Coordinates)
    assert isinstance(inner, Coordinates)
    assert outer.key != inner.key


# ------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (TopK, "TopK(fraction=None, count=None)"),
        (lambda: TopK(0.1, 5), "TopK(fraction=0.1, count=5)"),
        (lambda: TopK(0.0), "TopK(fraction=0.0)"),
        (lambda: TopK(1.5), "TopK(fraction=1.5)"),
        (lambda: TopK(float("nan")), "TopK(fraction=nan)"),
        (lambda: TopK(True), "TopK(fraction=True)"),
        (lambda: TopK(count=0), "TopK(count=0)"),
        (lambda: TopK(count=2.0), "TopK(count=2.0)"),  # type: ignore[arg-type]
        (lambda: TopK(0.1, per="layer"), "TopK(per='layer')"),  # type: ignore[arg-type]
        (lambda: RandomK(-0.1), "RandomK(fraction=-0.1)"),
        (lambda: Quantize(0), "Quantize(bits=0)"),
        (lambda: Quantize(17), "Quantize(bits=17)"),
        (lambda: Quantize(True), "Quantize(bits=True)"),
        (lambda: Quantize(4.0), "Quantize(bits=4.0)"),  # type: ignore[arg-type]
        (lambda: Quantize(4, "down"), "rounding='down'"),  # type: ignore[arg-type]
        (lambda: Quantize(1, "nearest"), "Sign()"),
        (lambda: Quantize(4, per=0), "per=0"),
        (lambda: Quantize(4, per="column"), "per='column'"),  # type: ignore[arg-type]
        (lambda: Quantize(4, limit=0.0), "limit=0.0"),
        (lambda: Quantize(4, limit=math.inf), "limit=inf"),
        (lambda: Quantize(4, per=8, limit=1.0), "one of the two"),
        (lambda: Sign(per=-1), "Sign(per=-1)"),
        (lambda: Rotate(48), "Rotate(block=48)"),
        (lambda: Rotate(0), "Rotate(block=0)"),
        (lambda: HalfPrecision("float8"), "HalfPrecision('float8')"),  # type: ignore[arg-type]
        (lambda: TopK(0.1) >> Quantize, "a chain with <class"),  # type: ignore[operator]
        (lambda: TopK(0.1) >> 8, "a chain with 8"),  # type: ignore[operator]
    ],
)
def test_what_cannot_be_meant_is_refused(make: object, said: str) -> None:
    with pytest.raises(StrategyError) as caught:
        make()  # type: ignore[operator]
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "late", [TopK(0.5, per="tensor"), Quantize(4, per="tensor"), Sign(per="tensor")]
)
def test_what_was_shortened_has_no_tensors_any_more(late: Compressor) -> None:
    with pytest.raises(StrategyError, match="has no tensors"):
        entered(TopK(0.5) >> late, rows(1))
    with pytest.raises(StrategyError, match="has no tensors"):
        late.enter(vector(torch.ones(1, 7)), source(1, layout=LAYOUT))
