"""What travels: scales, spaces, and lifting them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hanse.core.types import Summed, Vector, vector


class Padded(NamedTuple):
    """Stands for a vector with `zeros` more columns."""

    zeros: int
    linear: bool = True
    isometric: bool = True
    common: bool = True

    def lift(self, values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(*values.shape[:-1], self.zeros)], dim=-1)


class Doubled(NamedTuple):
    """Stands for twice the vector."""

    linear: bool = True
    isometric: bool = False
    common: bool = True

    def lift(self, values: Tensor) -> Tensor:
        return 2 * values


class Squared(NamedTuple):
    """Stands for the squares: not linear."""

    linear: bool = False
    isometric: bool = False
    common: bool = True

    def lift(self, values: Tensor) -> Tensor:
        return values.square()


ROWS = torch.arange(6.0).reshape(2, 3) + 1


def test_a_row_is_its_scale_times_its_values() -> None:
    scaled = vector(ROWS).scaled(torch.tensor([2.0, 3.0])).scaled(torch.tensor([1.0, 0.5]))
    assert torch.equal(scaled.lifted(), ROWS * torch.tensor([[2.0], [1.5]]))
    assert scaled.values is ROWS


def test_scaling_a_vector_leaves_the_given_one() -> None:
    one = vector(ROWS)
    one.scaled(torch.tensor([5.0, 5.0]))
    assert torch.equal(one.scale, torch.ones(2))


def test_the_space_entered_last_is_left_first() -> None:
    # Squared, then padded and doubled differ by order: 2 * x^2 is not (2 * x)^2.
    entered = Vector(ROWS, torch.tensor([1.0, 2.0]), (Padded(1), Squared(), Doubled()))
    expected = (2 * ROWS * torch.tensor([[1.0], [2.0]])).square()
    assert torch.equal(entered.lifted(), torch.cat([expected, torch.zeros(2, 1)], dim=1))
    summed = Summed(ROWS[0], (Padded(1), Squared(), Doubled())).lifted()
    assert torch.equal(summed.values, torch.cat([(2 * ROWS[0]).square(), torch.zeros(1)]))
    assert summed.space == ()
