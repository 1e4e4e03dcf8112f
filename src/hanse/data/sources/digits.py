"""scikit-learn's handwritten digits: a small image data set without a download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import DataError
from hanse.core.rng import derive
from hanse.data.partition import Scheme, shuffled, split
from hanse.data.partitioned import partitioned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.data.federation import Federation

ATTRIBUTION = (
    "Digits: E. Alpaydin and C. Kaynak, Optical recognition of handwritten digits, UCI Machine "
    "Learning Repository (CC BY 4.0), as shipped with scikit-learn"
)


def digits(
    clients: int = 10,
    partition: Scheme = "dirichlet",
    *,
    seed: int = 0,
    alpha: float = 0.5,
    min_size: int = 10,
    shards_per_client: int = 2,
    labels_per_client: int = 2,
    sigma: float = 1.0,
    test_fraction: float = 0.0,
    unseen_fraction: float = 0.2,
    images: bool = False,
) -> Federation:
    """1,797 handwritten digits of 8 × 8 pixels, split over clients.

    Args:
        clients: K.
        partition: "iid", "dirichlet", "shards", "labels", "quantity" or "lognormal"; see
            `hanse.data.partition`.
        seed: another seed, another test set and another partition.
        alpha: of "dirichlet" and "quantity".
        min_size: of "dirichlet", "quantity" and "lognormal"; 0: clients may have no examples.
        shards_per_client: of "shards".
        labels_per_client: of "labels".
        sigma: of "lognormal".
        test_fraction: the part of its own examples that each client keeps as `test`; 0: none.
        unseen_fraction: the part of all digits that no client has: `unseen`, one client
            "test set".
        images: x as [1, 8, 8] instead of [64].

    Returns:
        x: float32 in 0 to 1.

    Raises:
        DataError: if scikit-learn is not installed, or the digits cannot be split so.
    """
    x, y = _load()
    if not 0 < unseen_fraction < 1:
        raise DataError(
            f"digits(unseen_fraction={unseen_fraction})",
            why="it is the part of the digits that no client has",
            instead="write a number between 0 and 1, for example 0.2",
        )
    order = shuffled(len(x), derive(seed, "digits"))
    rest, held = np.split(order, [len(x) - max(round(unseen_fraction * len(x)), 1)])
    if images:
        x = x.reshape(-1, 1, 8, 8)
    return partitioned(
        x[rest],
        y[rest],
        split(
            y[rest],
            clients,
            partition,
            seed=seed,
            alpha=alpha,
            min_size=min_size,
            shards_per_client=shards_per_client,
            labels_per_client=labels_per_client,
            sigma=sigma,
        ),
        holdout=(x[held], y[held]),
        test_fraction=test_fraction,
        seed=seed,
        classes=tuple("0123456789"),
        name="digits",
        attribution=ATTRIBUTION,
        may_be_empty=min_size == 0,
    )


def _load() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digits come with scikit-learn, which is not installed",
            why="it is an optional dependency",
            instead="pip install 'hanse[sklearn]'",
        ) from error
    stored = load_digits()
    return (stored.data / 16).astype(np.float32), stored.target.astype(np.int64)
