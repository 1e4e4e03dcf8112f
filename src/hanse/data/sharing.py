"""Public examples that every client trains on besides its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import DataError
from hanse.core.rng import derive, hash_grid
from hanse.data.clients import PackedClients, SharedClients
from hanse.data.federation import Federation, pooled
from hanse.data.packing import as_tensors, check_alike, signature

if TYPE_CHECKING:
    from hanse.data.clients import ClientData, Ids
    from hanse.data.packing import Examples
    from hanse.data.partition import Labels

_PUBLIC = "public"


def share(
    federation: Federation,
    public: Examples | ClientData,
    *,
    portion: float = 1.0,
    seed: int = 0,
) -> Federation:
    """Let every training client train on public examples besides its own.

    A client is then as large as its own examples and its public ones together, wherever clients
    are weighted by examples, and an epoch goes over both, in random order. Public examples must
    not be among those that the federation is judged on, which cannot be checked here.

    Source: Zhao et al., "Federated learning with non-IID data", arXiv:1806.00582, 2018, section 4,
    without their warm-up of the model on the public examples: their alpha is `portion`, and their
    beta the ratio of the public examples to all the clients' own.

    Args:
        federation: whose training clients get them; `test` and `unseen` stay as they are.
        public: arrays by field name (`{"x": [N, ...], "y": [N, ...]}`), with the federation's
            fields, or clients, whose examples are put together. Floats take the federation's
            precision.
        portion: the part of the public examples that a client draws, rounded, at least one; each
            client draws for itself, once for all rounds.
        seed: another seed, other draws.

    Returns:
        The federation; the public examples lie in memory once.

    Raises:
        DataError: another kind of examples than the clients have, no label of the federation's, a
            portion that is none, or clients that have public examples already.
    """
    if isinstance(portion, bool) or not isinstance(portion, int | float) or not 0 < portion <= 1:
        raise DataError(
            f"share(portion={portion!r})",
            why="it is the part of the public examples that each client trains on",
            instead="a number above 0 and at most 1, such as portion=0.5",
        )
    if isinstance(federation.train, SharedClients):
        raise DataError(
            f"share() of {federation.name!r}, whose clients have public examples already",
            why="each client's examples and the public ones would be mixed twice",
            instead="one call, with all public examples together",
        )
    packed = _packed(public, federation)
    # A federation of its own, which checks labels and numbers.
    packed = _checked(replace(federation, train=packed, test=None, unseen=None))
    first = {name: value.unsqueeze(0) for name, value in federation.example.items()}
    check_alike(signature(first), federation.train.name(0), signature(packed.fields), _PUBLIC)
    count = max(int(portion * len(packed.fields["y"]) + 0.5), 1)
    return replace(federation, train=SharedClients(federation.train, packed, count, seed))


def set_aside(labels: Labels, fraction: float, seed: int) -> tuple[Ids, Ids]:
    """Choose public examples, as many of each label, and return the rest.

    Args:
        labels: [N] integers.
        fraction: of all examples, above 0 and below 1.
        seed: another seed, other examples.

    Returns:
        The rows of the public examples, and those of the others, both ascending.

    Raises:
        DataError: a fraction that is none, or a label with too few examples.
    """
    whole = isinstance(fraction, bool) or not isinstance(fraction, int | float)
    if whole or not 0 < fraction < 1:
        raise DataError(
            f"public={fraction!r}",
            why="it is the part of the training examples that are set aside for all clients",
            instead="a number between 0 and 1, such as public=0.05",
        )
    known, counts = np.unique(labels, return_counts=True)
    each = max(round(fraction * len(labels) / len(known)), 1)
    if each >= int(counts.min()):
        scarce = int(counts.argmin())
        most = (int(counts.min()) - 1) * len(known) / len(labels)
        raise DataError(
            f"public={fraction}: {each} examples of each label, and there are {counts.min()} of "
            f"the label {known[scarce]}",
            why="as many of each label are set aside, and clients need some too",
            instead=f"a smaller part, such as public={0.5 * most:.2g}",
        )
    bits = hash_grid(derive(seed, _PUBLIC), np.arange(len(labels), dtype=np.uint64))
    chosen = [np.flatnonzero(labels == label) for label in known]
    public = np.sort(np.concatenate([rows[np.argsort(bits[rows])[:each]] for rows in chosen]))
    return public, np.setdiff1d(np.arange(len(labels)), public)


def _packed(public: object, federation: Federation) -> PackedClients:
    if isinstance(public, Mapping):
        fields = as_tensors(public, _PUBLIC)
        packed = PackedClients.from_arrays({_PUBLIC: fields})
    elif all(hasattr(public, method) for method in ("block", "sizes", "name")):
        packed = replace(pooled(public), names=(_PUBLIC,))  # type: ignore[arg-type]
    else:
        raise DataError(
            f"public examples of type {type(public).__name__}: {public!r:.80}",
            why="they are examples as clients have them",
            instead='share(federation, {"x": …, "y": …}), or clients: PackedClients.from_arrays(…)',
        )
    kinds = {name: value.dtype for name, value in federation.example.items()}
    cast = {
        name: field.to(kinds[name])
        if name in kinds and field.dtype.is_floating_point and kinds[name].is_floating_point
        else field
        for name, field in packed.fields.items()
    }
    return replace(packed, fields=cast)


def _checked(federation: Federation) -> PackedClients:
    assert isinstance(federation.train, PackedClients)  # noqa: S101 - for the type checker
    return federation.train
