"""From a data set in one place and a partition of it to a federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from hanse.core.errors import DataError
from hanse.core.rng import derive, hash_grid
from hanse.data.clients import Ids, PackedClients
from hanse.data.federation import Federation
from hanse.data.packing import Array, as_tensors, empty_client, offsets_of


def partitioned(
    x: Array,
    y: Array,
    indices: Sequence[Ids] | Mapping[str, Ids],
    *,
    holdout: tuple[Array, Array] | None = None,
    test_fraction: float = 0.0,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    name: str = "federation",
    attribution: str = "",
    may_be_empty: bool = False,
) -> Federation:
    """Make a federation of a data set that lies in one place.

    Args:
        x: [N, ...] inputs.
        y: [N, ...] targets.
        indices: K clients' examples; in a sequence clients are named "client 0", "client 1", ...
        holdout: inputs and targets that no client has: `unseen`, as one client "test set".
        test_fraction: the part of each client's own examples that it keeps as `test`, rounded, at
            least one and not all of them; 0: no `test`.
        seed: another seed, other examples in `test`.
        classes: the labels' names, if this is classification.
        name: what to call the federation.
        attribution: whom the data comes from.
        may_be_empty: whether clients may have no examples (see `PackedClients`); one with a single
            example then has none to be tested on.

    Returns:
        The federation; examples that no client has in `indices` are dropped.

    Raises:
        DataError: if an example belongs to two clients, does not exist, or a client cannot spare
            one for `test`.
    """
    if isinstance(indices, Mapping):
        names, parts = tuple(indices), list(indices.values())
    else:
        names, parts = tuple(f"client {k}" for k in range(len(indices))), list(indices)
    fields = as_tensors({"x": x, "y": y}, "the whole data set")
    _check_indices(parts, names, len(fields["x"]), may_be_empty=may_be_empty)
    kept, tested = parts, None
    if test_fraction:
        least = 0 if may_be_empty else 1
        kept, tested = _hold_out(parts, names, test_fraction, seed, least)

    def clients(of: Sequence[Ids]) -> PackedClients:
        rows = torch.from_numpy(np.concatenate(of))
        sizes = np.array([len(part) for part in of])
        gathered = {field: values[rows] for field, values in fields.items()}
        return PackedClients(gathered, offsets_of(sizes), names, may_be_empty)

    unseen = None
    if holdout is not None:
        unseen = PackedClients.from_arrays({"test set": {"x": holdout[0], "y": holdout[1]}})
    return Federation(
        train=clients(kept),
        test=None if tested is None else clients(tested),
        unseen=unseen,
        classes=None if classes is None else tuple(classes),
        name=name,
        attribution=attribution,
    )


def _hold_out(
    parts: Sequence[Ids], names: Sequence[str], fraction: float, seed: int, least: int
) -> tuple[list[Ids], list[Ids]]:
    if not 0 < fraction < 1:
        raise DataError(
            f"test_fraction={fraction}",
            why="it is the part of a client's examples that are kept from training",
            instead="write a number between 0 and 1, for example test_fraction=0.2",
        )
    key = derive(seed, "test")
    kept, tested = [], []
    for name, part in zip(names, parts, strict=True):
        if len(part) < 2 * least:
            raise DataError(
                f"client {name!r} has {len(part)} example, test_fraction={fraction}",
                why="it needs one example to train on and another to test on",
                instead="write test_fraction=0, or split into clients of at least 2 examples",
            )
        count = max(min(max(round(fraction * len(part)), 1), len(part) - 1), 0)
        shuffled = part[np.argsort(hash_grid(key, part.astype(np.uint64)), kind="stable")]
        tested.append(np.sort(shuffled[:count]))
        kept.append(np.sort(shuffled[count:]))
    return kept, tested


def _check_indices(
    parts: Sequence[Ids], names: Sequence[str], n: int, *, may_be_empty: bool
) -> None:
    uses = np.zeros(n, np.int64)
    for name, part in zip(names, parts, strict=True):
        if not len(part):
            if may_be_empty:
                continue
            raise empty_client(name)
        if int(part.min()) < 0 or int(part.max()) >= n:
            raise DataError(
                f"client {name!r} has examples {int(part.min())} to {int(part.max())} of {n}",
                why=f"examples are numbered 0 to {n - 1}",
                instead="make the partition from labels of this data set",
            )
        np.add.at(uses, part, 1)
        if int(uses[part].max()) > 1:
            raise DataError(
                f"client {name!r} has an example twice, or one that another client has",
                why="a copy in two places would be trained on by one and tested on by the other",
                instead="give every example to one client",
            )
