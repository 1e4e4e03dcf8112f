"""Partitions that do not look at labels: equal sizes, sizes of chosen skew, natural groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hanse.core.errors import DataError
from hanse.core.rng import derive, generator
from hanse.data.partition.checks import check_counts, check_positive, cut, shuffled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hanse.data.clients import Ids


def iid(n: int, clients: int, seed: int) -> list[Ids]:
    """Deal n examples out at random: sizes differ by at most one.

    Args:
        n: how many examples there are.
        clients: K.
        seed: another seed, another partition.

    Returns:
        K ascending index arrays.

    Raises:
        DataError: if there are fewer examples than clients, or no clients.
    """
    check_counts("iid", n, clients)
    order = shuffled(n, derive(seed, "iid"))
    return [np.sort(part) for part in np.array_split(order, clients)]


def quantity(n: int, clients: int, alpha: float, seed: int, min_size: int = 1) -> list[Ids]:
    """Fair samples of very different sizes: the shares are drawn from a Dirichlet distribution.

    Li et al., "Federated learning on non-IID data silos: an experimental study", ICDE 2022,
    "quantity skew". There, shares are drawn again until the smallest client has 10 examples; here
    each client gets `min_size` examples first, and the rest is divided by the shares.

    Args:
        n: how many examples there are.
        clients: K.
        alpha: the concentration, above 0: the smaller, the more sizes differ.
        seed: another seed, another partition.
        min_size: how many examples each client gets at least; 0: some may get none.

    Returns:
        K ascending index arrays.

    Raises:
        DataError: if the request is impossible.
    """
    check_counts("quantity", n, clients, min_size, empty=True)
    check_positive("quantity", "alpha", alpha, "alpha=0.5 for very different sizes")
    source = generator(derive(seed, "quantity", "shares"))
    # Gamma variates with the logarithm of a small one: Dirichlet's own can be all zeros.
    gammas = np.log(source.standard_gamma(alpha + 1.0, clients))
    logs = gammas + np.log1p(-source.random(clients)) / alpha
    return _sized(n, np.exp(logs - logs.max()), seed, "quantity", min_size)


def lognormal(n: int, clients: int, sigma: float, seed: int, min_size: int = 1) -> list[Ids]:
    """Fair samples whose sizes are log-normal: a few large clients and many small ones.

    The logarithms of the shares are normal with deviation `sigma`: about two thirds of the
    clients have between 1 / e^sigma and e^sigma times the median size.

    Args:
        n: how many examples there are.
        clients: K.
        sigma: the deviation of the sizes' natural logarithm, 0 or more; 0: equal sizes.
        seed: another seed, another partition.
        min_size: how many examples each client gets at least, before the rest is divided by the
            shares; 0: some may get none.

    Returns:
        K ascending index arrays.

    Raises:
        DataError: if the request is impossible.
    """
    check_counts("lognormal", n, clients, min_size, empty=True)
    if sigma != 0:
        check_positive("lognormal", "sigma", sigma, "sigma=1, or 0 for equal sizes")
    logs = sigma * generator(derive(seed, "lognormal", "shares")).standard_normal(clients)
    return _sized(n, np.exp(logs - logs.max()), seed, "lognormal", min_size)


def natural(ids: NDArray[Any] | Sequence[object]) -> dict[str, Ids]:
    """Group examples by whom they come from.

    Args:
        ids: [N], each example's person, device or site.

    Returns:
        Ascending index arrays by the ids' text, in the ids' sorted order.

    Raises:
        DataError: if there are no examples, or ids are not a list of N.
    """
    array = np.asarray(ids)
    if array.ndim != 1 or not len(array):
        raise DataError(
            f"natural ids of shape {list(array.shape)}",
            why="every example belongs to one client",
            instead="give one id for each example, [N]",
        )
    names, numbered, counts = np.unique(array, return_inverse=True, return_counts=True)
    groups = np.split(np.argsort(numbered, kind="stable"), np.cumsum(counts)[:-1])
    return dict(zip(map(str, names.tolist()), groups, strict=True))


def _sized(
    n: int, weights: NDArray[np.float64], seed: int, scheme: str, min_size: int
) -> list[Ids]:
    """Random examples, `min_size` for each client and the rest in proportion to weights."""
    clients = len(weights)
    shares = (weights / weights.sum())[None]
    sizes = min_size + cut(np.array([n - clients * min_size]), shares)[0]
    order = shuffled(n, derive(seed, scheme, "examples"))
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]
