"""One table of compressors, and rows to compress: what holds for all is tested for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.compression import (
    HalfPrecision,
    Quantize,
    RandomK,
    Rotate,
    Sign,
    Source,
    TopK,
)
from hanse.core.layout import ParameterLayout
from hanse.core.rng import derive
from hanse.core.types import Vector, vector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.compression import Compressor

SIZES = (70, 10, 1, 120)
COLUMNS = sum(SIZES)
LAYOUT = ParameterLayout(("a", "b", "c", "d"), ((7, 10), (10,), (), (30, 4)), COLUMNS)

TABLE: Mapping[str, Compressor] = {
    "top": TopK(0.1),
    "top-count": TopK(count=7),
    "top-tensor": TopK(0.1, per="tensor"),
    "top-all": TopK(1.0),
    "random": RandomK(0.1),
    "random-plain": RandomK(count=30, unbiased=False),
    **{f"bits-{bits}": Quantize(bits) for bits in range(1, 17)},
    "nearest-2": Quantize(2, "nearest"),
    "nearest-8": Quantize(8, "nearest"),
    "bits-tensor": Quantize(5, per="tensor"),
    "bits-runs": Quantize(3, "nearest", per=64),
    "bits-public": Quantize(6, limit=2.5),
    "sign": Sign(),
    "sign-tensor": Sign(per="tensor"),
    "sign-runs": Sign(per=50),
    "rotate": Rotate(),
    "rotate-blocks": Rotate(16),
    "rotate-whole": Rotate(None),
    "half": HalfPrecision(),
    "bfloat": HalfPrecision("bfloat16"),
    "top-8": TopK(0.1) >> Quantize(8),
    "top-sign": TopK(0.1) >> Sign(),
    "top-half": TopK(0.05) >> HalfPrecision(),
    "8-top": Quantize(8) >> TopK(0.2),
    "random-top-4": RandomK(0.5) >> TopK(0.2) >> Quantize(4, per=9),
    "rotate-2": Rotate(64) >> Quantize(2),
    "top-rotate-3": TopK(0.3) >> Rotate(16) >> Quantize(3, "nearest"),
}


def rows(count: int = 5, columns: int = COLUMNS, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rows of very unequal numbers, with zeros among them."""
    random = np.random.default_rng(columns)
    drawn = random.normal(size=(count, columns)) ** 3
    drawn[:, ::7] = 0.0
    return torch.from_numpy(drawn).to(dtype)


def source(count: int = 5, round_: int = 1, layout: ParameterLayout = LAYOUT) -> Source:
    """The draws of some clients in a round."""
    return Source(derive(3, round_), derive(5, round_, np.arange(count)), layout)


def entered(compressor: Compressor, values: Tensor, round_: int = 1) -> Vector:
    """What becomes of rows."""
    return compressor.enter(vector(values), source(len(values), round_))
