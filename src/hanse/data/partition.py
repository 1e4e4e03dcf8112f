"""Split a data set that lies in one place into clients, as simulations do.

A partition is a list of K index arrays; every example appears in exactly one of them. It depends
on its arguments and an integer seed only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hanse.core.errors import DataError, did_you_mean
from hanse.core.rng import Keys, derive, generator, hash_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hanse.data.clients import Ids

Labels = NDArray[np.integer[Any]]
Scheme = Literal["iid", "dirichlet", "shards"]

_ATTEMPTS = 100


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
    _check_counts("iid", n, clients)
    order = shuffled(n, derive(seed, "iid"))
    return [np.sort(part) for part in np.array_split(order, clients)]


def dirichlet(
    labels: Labels, clients: int, alpha: float, seed: int, min_size: int = 1
) -> list[Ids]:
    """Give each client its own mixture of labels, and its own size.

    For each label, the shares of the K clients are drawn from a symmetric Dirichlet distribution
    (Yurochkin et al., "Bayesian nonparametric federated learning of neural networks", ICML 2019,
    section 4). A small `alpha` gives a label to few clients; a large one approaches `iid`. Hsu et
    al. (arXiv:1909.06335) draw the shares of labels for each client instead, at equal sizes.

    Args:
        labels: [N] integers.
        clients: K.
        alpha: the concentration, above 0.
        seed: another seed, another partition.
        min_size: shares are drawn again, up to 100 times, until all clients have this many.

    Returns:
        K ascending index arrays.

    Raises:
        DataError: if the request is impossible, or was not met in 100 draws; the message then
            says which `alpha` would do.
    """
    labels = _check_labels("dirichlet", labels)
    _check_counts("dirichlet", len(labels), clients, min_size)
    if not 0 < alpha < np.inf:
        raise DataError(
            f"dirichlet(alpha={alpha})",
            why="the concentration of a Dirichlet distribution is a positive number",
            instead="write alpha=0.5 for clients with mostly a few labels, alpha=100 for near iid",
        )
    _, numbered, totals = np.unique(labels, return_inverse=True, return_counts=True)
    for attempt in range(_ATTEMPTS):
        shares = _shares(totals, clients, alpha, seed, attempt)
        if int(shares.sum(axis=0).min()) >= min_size:
            break
    else:
        raise _too_skewed(totals, clients, alpha, seed, min_size)
    # Examples in random order, then by label: the next so many of each label are a client's.
    order = shuffled(len(labels), derive(seed, "dirichlet", "examples"))
    order = order[np.argsort(numbered[order], kind="stable")]
    owners = np.repeat(np.tile(np.arange(clients), len(totals)), shares.ravel())
    order = order[np.lexsort((order, owners))]
    return np.split(order, np.cumsum(shares.sum(axis=0))[:-1])


def shards(labels: Labels, clients: int, shards_per_client: int = 2, *, seed: int) -> list[Ids]:
    """Sort by label, cut into equal shards, and deal those: few labels a client.

    McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
    AISTATS 2017, section 3. If the number of shards does not divide N, some shards have one
    example more. A shard that lies across the border of two labels holds both.

    Args:
        labels: [N] integers.
        clients: K.
        shards_per_client: how many shards each client gets.
        seed: another seed, another partition.

    Returns:
        K ascending index arrays.

    Raises:
        DataError: if there are fewer examples than shards, or a count is below 1.
    """
    labels = _check_labels("shards", labels)
    _check_counts("shards", len(labels), clients)
    if not 1 <= shards_per_client * clients <= len(labels):
        raise DataError(
            f"shards(clients={clients}, shards_per_client={shards_per_client}) of {len(labels)} "
            "examples",
            why="every shard has at least one example, and every client at least one shard",
            instead=f"write shards_per_client between 1 and {len(labels) // clients}",
        )
    cut = np.array_split(np.argsort(labels, kind="stable"), clients * shards_per_client)
    dealt = shuffled(len(cut), derive(seed, "shards")).reshape(clients, -1)
    return [np.sort(np.concatenate([cut[shard] for shard in hand])) for hand in dealt]


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


def split(
    labels: Labels,
    clients: int,
    partition: Scheme,
    *,
    seed: int,
    alpha: float = 0.5,
    min_size: int = 1,
    shards_per_client: int = 2,
) -> list[Ids]:
    """Partition by the name of a scheme; arguments of other schemes are ignored.

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
    raise DataError(
        f"partition={partition!r}",
        why="there is no such way to split a data set",
        instead=did_you_mean(str(partition), ("iid", "dirichlet", "shards")),
    )


def shuffled(n: int, key: Keys) -> Ids:
    """The numbers 0 to n - 1 in a random order that only the key decides.

    By sorting hashes: unlike a generator's permutations, the order is the same with any NumPy.
    """
    return np.argsort(hash_grid(key, np.arange(n, dtype=np.uint64)), kind="stable")


def _shares(
    totals: NDArray[np.int64], clients: int, alpha: float, seed: int, attempt: int
) -> NDArray[np.int64]:
    """How many examples of each label each client gets: [C, K], rows sum to `totals`."""
    source = generator(derive(seed, "dirichlet", "shares", attempt))
    ends = np.cumsum(source.dirichlet(np.full(clients, alpha), size=len(totals)), axis=1)
    ends[:, -1] = 1.0  # the sum of K shares is 1 up to rounding, and no example may be lost
    cuts = np.floor(np.minimum(ends, 1.0) * totals[:, None]).astype(np.int64)
    return np.diff(cuts, axis=1, prepend=0)


def _too_skewed(
    totals: NDArray[np.int64], clients: int, alpha: float, seed: int, min_size: int
) -> DataError:
    ways = [f"fewer clients than {clients}"] + ["a smaller min_size"] * (min_size > 1)
    for double in range(1, 12):
        enough = alpha * 2**double
        if int(_shares(totals, clients, enough, seed, 0).sum(axis=0).min()) >= min_size:
            ways.insert(0, f"alpha={enough:g} or more")
            break
    return DataError(
        f"dirichlet(clients={clients}, alpha={alpha:g}, min_size={min_size}) of {totals.sum()} "
        "examples",
        why=f"in {_ATTEMPTS} draws some client was always left with fewer than {min_size}",
        instead=f"write {', or '.join(ways)}",
    )


def _check_labels(scheme: str, labels: Labels) -> Labels:
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise DataError(
            f"{scheme} of labels of shape {list(array.shape)}, type {array.dtype}",
            why="examples are sorted by their one integer label",
            instead="give labels as [N] integers; for quantities use iid or natural",
        )
    return array


def _check_counts(scheme: str, n: int, clients: int, min_size: int = 1) -> None:
    if clients < 1 or min_size < 1:
        raise DataError(
            f"{scheme}(clients={clients}, min_size={min_size})",
            why="there is at least one client, and each has at least one example",
            instead="write whole numbers, 1 or more",
        )
    if clients * min_size > n:
        raise DataError(
            f"{scheme} of {n} examples for {clients} clients of at least {min_size}",
            why="every example is given out once",
            instead=f"write clients={n // min_size} or fewer"
            if n >= min_size
            else "find more data",
        )
