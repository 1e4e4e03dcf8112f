"""Synthetic clients, each with a distribution and a linear model of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import DataError
from hanse.core.rng import derive, generator
from hanse.data.partitioned import partitioned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.core.rng import Keys
    from hanse.data.federation import Federation

FEATURES, CLASSES = 60, 10
_FEWEST = 50  # examples that every client has


def synthetic(
    alpha: float,
    beta: float,
    clients: int = 30,
    *,
    seed: int = 0,
    test_fraction: float = 0.1,
) -> Federation:
    """Synthetic(alpha, beta): inputs of 60 numbers, ten classes, sizes from 50 to thousands.

    Client k draws u_k ~ N(0, alpha) and B_k ~ N(0, beta); a centre v_k whose 60 numbers are
    N(B_k, 1); inputs x ~ N(v_k, Sigma), Sigma diagonal with j^-1.2 (j = 1, ..., 60); and a model
    W_k, b_k whose numbers are N(u_k, 1), which labels them: y = argmax(W_k x + b_k). It has
    50 + floor(s) examples, log s ~ N(4, 2). Second arguments of N are standard deviations, but for
    Sigma, as in the authors' program (their paper does not say).

    u_k adds the same to the scores of all classes, so `alpha` changes no label; it is kept, since
    the data set is known by its two numbers. What makes clients differ is `beta`, and that each
    has a model of its own at any `alpha`.

    Source: Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, section 5.1,
    after Shamir et al., ICML 2014. They hold out a tenth of each client's examples, as here.

    Args:
        alpha: how much the clients' models differ, at least 0.
        beta: how much the centres of their inputs differ, at least 0.
        clients: K. A client's examples do not depend on how many others there are.
        seed: another seed, other clients.
        test_fraction: the part of its own examples that each client keeps as `test`; 0: none.

    Returns:
        x: float32 [60]; `train` and `test` are the same clients.

    Raises:
        DataError: a deviation that is none, no clients, or a fraction that is none.
    """
    for name, deviation in (("alpha", alpha), ("beta", beta)):
        if not 0 <= deviation < math.inf:
            raise DataError(
                f"synthetic({name}={deviation})",
                why="it is the standard deviation of what clients differ in",
                instead=f"a number of at least 0, such as {name}=1",
            )
    if isinstance(clients, bool) or not isinstance(clients, int) or clients < 1:
        raise DataError(
            f"synthetic(clients={clients})",
            why="it is the number of clients, one or more",
            instead="clients=30, as in the paper",
        )
    drawn = [_client(alpha, beta, derive(seed, "synthetic", k)) for k in range(clients)]
    ends = np.cumsum([len(y) for _, y in drawn])
    return partitioned(
        np.concatenate([x for x, _ in drawn]),
        np.concatenate([y for _, y in drawn]),
        np.split(np.arange(ends[-1]), ends[:-1]),
        test_fraction=test_fraction,
        seed=seed,
        classes=[str(label) for label in range(CLASSES)],
        name=f"synthetic({alpha:g}, {beta:g})",
    )


def _client(alpha: float, beta: float, key: Keys) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    numbers = generator(key)
    size = _FEWEST + int(numbers.lognormal(4, 2))
    shift, middle = numbers.normal(0, alpha), numbers.normal(0, beta)
    centre = numbers.normal(middle, 1, FEATURES)
    weight = numbers.normal(shift, 1, (FEATURES, CLASSES))
    bias = numbers.normal(shift, 1, CLASSES)
    deviation = np.arange(1, FEATURES + 1) ** -0.6  # the root of j^-1.2
    x = numbers.normal(centre, deviation, (size, FEATURES))
    return x.astype(np.float32), np.argmax(x @ weight + bias, axis=1)
