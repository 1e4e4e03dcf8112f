"""What every partition refuses, and the random order that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hanse.core.errors import DataError
from hanse.core.rng import Keys, hash_grid

if TYPE_CHECKING:
    from hanse.data.clients import Ids

Labels = NDArray[np.integer[Any]]


def shuffled(n: int, key: Keys) -> Ids:
    """The numbers 0 to n - 1 in a random order that only the key decides.

    By sorting hashes: unlike a generator's permutations, the order is the same with any NumPy.
    """
    return np.argsort(hash_grid(key, np.arange(n, dtype=np.uint64)), kind="stable")


def cut(totals: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers in proportion to shares: `[R, K]`, whose rows sum to `totals` `[R]`.

    Args:
        totals: `[R]`.
        shares: `[R, K]`, rows that sum to 1 up to rounding.
    """
    ends = np.cumsum(shares, axis=1)
    ends[:, -1] = 1.0  # no example may be lost to rounding
    cuts = np.floor(np.minimum(ends, 1.0) * totals[:, None]).astype(np.int64)
    return np.diff(cuts, axis=1, prepend=0)


def check_labels(scheme: str, labels: Labels) -> Labels:
    """Labels as an array.

    Raises:
        DataError: if they are no integers, one for each example.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise DataError(
            f"{scheme} of labels of shape {list(array.shape)}, type {array.dtype}",
            why="examples are sorted by their one integer label",
            instead="give labels as [N] integers; for quantities use iid or natural",
        )
    return array


def check_counts(
    scheme: str, n: int, clients: int, min_size: int = 1, *, empty: bool = False
) -> None:
    """Refuse numbers of clients that n examples do not suffice for.

    Args:
        scheme: for the message.
        n: how many examples there are.
        clients: K.
        min_size: how many each gets at least.
        empty: whether clients without examples may be asked for, by `min_size=0`.

    Raises:
        DataError: if a count is too small, or there are too few examples.
    """
    for name, value, least in (("clients", clients, 1), ("min_size", min_size, 1 - empty)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise DataError(
                f"{scheme}({name}={value!r})",
                why="there is at least one client, and a client's examples are counted",
                instead=f"write a whole number, {name}={least} or more",
            )
    if n < 1:
        raise DataError(
            f"{scheme} of no examples",
            why="there is nothing to give out",
            instead="find data first",
        )
    if clients * min_size > n:
        ways = [f"min_size={n // clients} or less"] * (n // clients >= 1 - empty and min_size > 1)
        raise DataError(
            f"{scheme} of {n} examples for {clients} clients of at least {min_size}",
            why="every example is given out once",
            instead=f"write {', or '.join([f'clients={n // min_size} or fewer', *ways])}"
            if n >= min_size
            else f"write {ways[0]}"
            if ways
            else "find more data",
        )


def check_positive(scheme: str, name: str, value: float, example: str) -> None:
    """Refuse what is no positive, finite number.

    Raises:
        DataError: if it is none.
    """
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 0 < value < np.inf:
        raise DataError(
            f"{scheme}({name}={value})",
            why=f"{name} is a positive number",
            instead=f"write {example}",
        )
