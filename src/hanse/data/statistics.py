"""Means and deviations of inputs over clients, from sums that each computes for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.data.federation import Federation, map_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.data.clients import ClientData, Ids

# Sums of squares in float64 tell a deviation from rounding to about 1e-7 of the mean.
_CONSTANT = 1e-14


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """What one client, or the sum of clients, says about its inputs.

    Attributes:
        count: how many numbers each entry of the sums adds up.
        total: the sum of each feature, float64.
        squares: the sum of each feature's squares, float64, of the same shape.
    """

    count: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        """The statistics of both together."""
        return FeatureStatistics(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of each feature."""
        return self.total / self.count

    @property
    def std(self) -> NDArray[np.float64]:
        """The standard deviation (of the population) of each feature; exactly 0 if constant.

        The squares are of the inputs as they are, not shifted: clients would have to agree on a
        shift first. In float64 this loses digits only where a mean is large beside its deviation
        (a thousand times: 6 of 16 digits), and a feature counts as constant from 1e7 times on.
        """
        of_squares = self.squares / self.count
        variance = of_squares - self.mean**2
        return np.sqrt(np.where(variance > _CONSTANT * of_squares, variance, 0.0))


def client_statistics(x: Tensor, *, per_channel: bool = False) -> FeatureStatistics:
    """What one client computes from its own inputs and sends.

    It reveals how many examples the client has, and each feature's sum and sum of squares over
    them: for a client with a single example, that example. Where this is too much, add the sums
    up under secure aggregation, which hides all but the sum over clients.

    Args:
        x: [n, ...] the client's inputs.
        per_channel: sums over all but x's second dimension ([n, C, ...] to [C]) instead of over
            its first ([n, ...] to [...]).
    """
    exact = x.detach().to(torch.float64)
    dims = [d for d in range(exact.ndim) if d != 1] if per_channel else [0]
    total = exact.sum(dim=dims)
    squares = exact.square().sum(dim=dims)
    count = exact.numel() // max(total.numel(), 1)
    return FeatureStatistics(count, total.numpy(), squares.numpy())


def federated_statistics(
    clients: ClientData, ids: Ids | None = None, *, per_channel: bool = False
) -> FeatureStatistics:
    """Add up clients' own statistics, one client after another; rows never leave a client.

    Args:
        clients: whose inputs `"x"` count.
        ids: which of them; None: all.
        per_channel: see `client_statistics`.
    """
    everyone = np.arange(len(clients)) if ids is None else ids
    parts = (_of_client(clients, int(k), per_channel) for k in everyone)
    summed = next(parts)
    for part in parts:
        summed = summed + part
    return summed


def standardise(federation: Federation, *, per_channel: bool = False) -> Federation:
    """Give every feature mean 0 and deviation 1 over the training clients.

    Mean and deviation come from the sums that the training clients send (`client_statistics` says
    what those reveal), never from pooled rows, `test` or `unseen`; the same numbers are then
    applied to all three. A feature that is constant over the training clients becomes 0 there.

    Args:
        federation: whose inputs to standardise; integer inputs become float32.
        per_channel: one mean and deviation a channel of x [n, C, ...], as for images and signals.
    """
    statistics = federated_statistics(federation.train, per_channel=per_channel)
    mean, std = statistics.mean, statistics.std
    scale = np.where(std > 0, std, 1.0)

    def apply(x: Tensor) -> Tensor:
        floats = x if x.dtype.is_floating_point else x.to(torch.float32)
        shape = (1, -1, *[1] * (x.ndim - 2)) if per_channel else (1, *mean.shape)
        centre, width = (torch.from_numpy(v).to(floats.dtype).reshape(shape) for v in (mean, scale))
        return (floats - centre) / width

    return map_inputs(federation, apply)


def _of_client(clients: ClientData, client: int, per_channel: bool) -> FeatureStatistics:  # noqa: FBT001
    fields, starts, sizes = clients.block(np.array([client]))
    rows = slice(int(starts[0]), int(starts[0] + sizes[0]))
    return client_statistics(fields["x"][rows], per_channel=per_channel)
