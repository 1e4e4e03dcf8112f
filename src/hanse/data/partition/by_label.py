"""Partitions by label: clients that have a few labels, or labels in shares of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import DataError
from hanse.core.rng import derive, generator
from hanse.data.partition.checks import (
    Labels,
    check_counts,
    check_labels,
    check_positive,
    cut,
    shuffled,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.data.clients import Ids

_ATTEMPTS = 100


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
        min_size: shares are drawn again, up to 100 times, until all clients have this many; 0:
            some may have none.

    Returns:
        K ascending index arrays.

    Raises:
        DataError: if the request is impossible, or was not met in 100 draws; the message then
            says which `alpha` would do.
    """
    labels = check_labels("dirichlet", labels)
    check_counts("dirichlet", len(labels), clients, min_size, empty=True)
    advised = "alpha=0.5 for clients with mostly a few labels, alpha=100 for near iid"
    check_positive("dirichlet", "alpha", alpha, advised)
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
    labels = check_labels("shards", labels)
    check_counts("shards", len(labels), clients)
    if not 1 <= shards_per_client * clients <= len(labels):
        raise DataError(
            f"shards(clients={clients}, shards_per_client={shards_per_client}) of {len(labels)} "
            "examples",
            why="every shard has at least one example, and every client at least one shard",
            instead=f"write shards_per_client between 1 and {len(labels) // clients}",
        )
    pieces = np.array_split(np.argsort(labels, kind="stable"), clients * shards_per_client)
    dealt = shuffled(len(pieces), derive(seed, "shards")).reshape(clients, -1)
    return [np.sort(np.concatenate([pieces[shard] for shard in hand])) for hand in dealt]


def labels_per_client(labels: Labels, clients: int, count: int, *, seed: int) -> list[Ids]:
    """Give each client exactly so many labels, and divide each label among those who have it.

    Li et al., "Federated learning on non-IID data silos: an experimental study", ICDE 2022,
    "quantity-based label imbalance", there written #C = count: a client's first label goes round,
    its others are drawn at random, and a label's examples are divided equally. With fewer clients
    than labels, labels go round until each has a client, so that none is lost.

    Args:
        labels: [N] integers.
        clients: K.
        count: how many labels each client has.
        seed: another seed, another partition.

    Returns:
        K ascending index arrays.

    Raises:
        DataError: if there are fewer labels than `count`, labels that no client would have, or
            labels with fewer examples than clients that have them.
    """
    labels = check_labels("labels", labels)
    check_counts("labels", len(labels), clients)
    kinds, numbered, totals = np.unique(labels, return_inverse=True, return_counts=True)
    _check_label_counts(totals, clients, count)
    has = _dealt_labels(len(kinds), clients, count, seed)
    owners = has.sum(axis=0)
    short = np.flatnonzero(owners > totals)
    if len(short):
        label = short[0]
        fewer = min(clients, int(totals.min()))
        more = max(count, -(-len(kinds) // fewer))
        raise DataError(
            f"label {kinds[label]} has {totals[label]} examples, and {owners[label]} of {clients} "
            f"clients with {count} labels each would have it",
            why="whoever has a label has at least one example of it",
            instead=f"write clients={fewer}"
            + (f" and labels_per_client={more}" if more > count else "")
            + ", or leave rare labels out",
        )
    order = shuffled(len(labels), derive(seed, "labels", "examples"))
    order = order[np.argsort(numbered[order], kind="stable")]
    hands: list[list[Ids]] = [[] for _ in range(clients)]
    for label, examples in enumerate(np.split(order, np.cumsum(totals)[:-1])):
        who = np.flatnonzero(has[:, label])
        for client, part in zip(who, np.array_split(examples, len(who)), strict=True):
            hands[client].append(part)
    return [np.sort(np.concatenate(hand)) for hand in hands]


def _dealt_labels(kinds: int, clients: int, count: int, seed: int) -> NDArray[np.bool_]:
    """Which client has which label, [K, C]: `count` labels each, and no label without a client."""
    has = np.zeros((clients, kinds), bool)
    turn = np.arange(max(clients, kinds))
    has[turn % clients, shuffled(kinds, derive(seed, "labels", "first"))[turn % kinds]] = True
    # The labels that a client does not have yet, in a random order of its own.
    draws = generator(derive(seed, "labels", "others")).random((clients, kinds))
    draws[has] = -1.0
    chosen = np.argsort(draws, axis=1, kind="stable")[:, :count]
    np.put_along_axis(has, chosen, values=True, axis=1)
    return has


def _check_label_counts(totals: NDArray[np.int64], clients: int, count: int) -> None:
    kinds = len(totals)
    whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
    if not whole or not 1 <= count <= kinds:
        raise DataError(
            f"labels_per_client={count!r} of {kinds} labels",
            why="a client has at least one label, and each only once",
            instead=f"write labels_per_client between {max(-(-kinds // clients), 1)} and {kinds}",
        )
    if clients * count < kinds:
        least = -(-kinds // clients)
        raise DataError(
            f"{clients} clients with labels_per_client={count}, of {kinds} labels",
            why=f"{kinds - clients * count} labels at least would belong to no client",
            instead=f"write labels_per_client={least} or more, or clients={-(-kinds // count)} or "
            "more",
        )


def _shares(
    totals: NDArray[np.int64], clients: int, alpha: float, seed: int, attempt: int
) -> NDArray[np.int64]:
    """How many examples of each label each client gets: [C, K], rows sum to `totals`."""
    source = generator(derive(seed, "dirichlet", "shares", attempt))
    return cut(totals, source.dirichlet(np.full(clients, alpha), size=len(totals)))


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
