"""Partitions by name, as sources and experiment files ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from hanse.core.errors import DataError, did_you_mean
from hanse.data.partition.by_label import dirichlet, labels_per_client, shards
from hanse.data.partition.by_size import iid, lognormal, quantity

if TYPE_CHECKING:
    from hanse.data.clients import Ids
    from hanse.data.partition.checks import Labels

Scheme = Literal["iid", "dirichlet", "shards", "labels", "quantity", "lognormal"]


def split(
    labels: Labels,
    clients: int,
    partition: Scheme,
    *,
    seed: int,
    alpha: float = 0.5,
    min_size: int = 1,
    shards_per_client: int = 2,
    labels_per_client: int = 2,
    sigma: float = 1.0,
) -> list[Ids]:
    """Partition by the name of a scheme; arguments of other schemes are ignored.

    Args:
        labels: [N] integers; "iid", "quantity" and "lognormal" only count them.
        clients: K.
        partition: "iid", "dirichlet", "shards", "labels" (`labels_per_client`), "quantity" or
            "lognormal".
        seed: another seed, another partition.
        alpha: of "dirichlet" and "quantity".
        min_size: of "dirichlet", "quantity" and "lognormal".
        shards_per_client: of "shards".
        labels_per_client: of "labels".
        sigma: of "lognormal".

    Returns:
        K ascending index arrays.

    Raises:
        DataError: if there is no such scheme, or the scheme refuses.
    """
    match partition:
        case "iid":
            return iid(len(labels), clients, seed)
        case "dirichlet":
            return dirichlet(labels, clients, alpha, seed, min_size)
        case "shards":
            return shards(labels, clients, shards_per_client, seed=seed)
        case "labels":
            return _labels(labels, clients, labels_per_client, seed)
        case "quantity":
            return quantity(len(labels), clients, alpha, seed, min_size)
        case "lognormal":
            return lognormal(len(labels), clients, sigma, seed, min_size)
    raise DataError(
        f"partition={partition!r}",
        why="there is no such way to split a data set",
        instead=did_you_mean(str(partition), get_args(Scheme)),
    )


def _labels(labels: Labels, clients: int, each: int, seed: int) -> list[Ids]:
    return labels_per_client(labels, clients, each, seed=seed)
