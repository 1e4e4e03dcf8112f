"""Whose rows are whose: from a name for each row to the three groups of a federation."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hanse.core.errors import DataError
from hanse.core.rng import derive, hash_grid
from hanse.data.clients import LazyClients, PackedClients
from hanse.data.federation import Federation
from hanse.data.packing import check_names, offsets_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from hanse.data.packing import Examples

Int64s = NDArray[np.int64]

SPLITS = ("train", "test", "unseen")
TRAIN, TEST, UNSEEN = range(3)

_LISTED = 5  # names in a message


@dataclass(frozen=True, eq=False)
class Group:
    """Some clients and their rows.

    Attributes:
        names: K names.
        sizes: [K] how many rows each client has.
        rows: the rows of the data set, one client after another.
    """

    names: tuple[str, ...]
    sizes: Int64s
    rows: Int64s

    def lazy(self, load: Callable[[Int64s], Examples]) -> LazyClients:
        """Clients whose rows are read by `load` when they are needed."""
        offsets = offsets_of(self.sizes)
        return LazyClients(
            count=len(self.names),
            load=lambda k: load(self.rows[offsets[k] : offsets[k + 1]]),
            size=self.sizes,
            namer=lambda k: self.names[k],
        )


@dataclass(frozen=True, eq=False)
class Division:
    """Which rows of a data set each client trains on, is tested on, or is held out with."""

    train: Group
    test: Group | None = None
    unseen: Group | None = None

    @property
    def groups(self) -> tuple[Group | None, Group | None, Group | None]:
        """The groups in the order of `SPLITS`."""
        return self.train, self.test, self.unseen

    @property
    def order(self) -> Int64s:
        """All rows that are used: those of `train`, then of `test`, then of `unseen`."""
        return np.concatenate([group.rows for group in self.groups if group is not None])

    def packed(
        self,
        fields: Mapping[str, Tensor],
        classes: tuple[str, ...] | None,
        name: str,
        attribution: str,
    ) -> Federation:
        """A federation in memory.

        Args:
            fields: each [N, ...], its rows as in `order`; groups share their memory.
            classes: as of `Federation`.
            name: as of `Federation`.
            attribution: as of `Federation`.
        """
        made: list[PackedClients | None] = []
        start = 0
        for group in self.groups:
            if group is None:
                made.append(None)
                continue
            stop = start + len(group.rows)
            part = {field: values[start:stop] for field, values in fields.items()}
            made.append(PackedClients(part, offsets_of(group.sizes), group.names))
            start = stop
        train, test, unseen = made
        assert train is not None  # noqa: S101 - for the type checker: there is always a train group
        return Federation(train, test, unseen, classes, name, attribution)

    def lazy(
        self,
        load: Callable[[Int64s], Examples],
        classes: tuple[str, ...] | None,
        name: str,
        attribution: str,
    ) -> Federation:
        """A federation whose clients are read when they are needed.

        Args:
            load: gives the fields of some rows; it must give the same at every call.
            classes: as of `Federation`.
            name: as of `Federation`.
            attribution: as of `Federation`.
        """
        train, test, unseen = (None if g is None else g.lazy(load) for g in self.groups)
        assert train is not None  # noqa: S101 - for the type checker: there is always a train group
        return Federation(train, test, unseen, classes, name, attribution)


def divide(
    owners: Int64s,
    names: Sequence[str],
    *,
    split: NDArray[np.int8] | None = None,
    unseen: Sequence[str] = (),
    test_fraction: float = 0.0,
    min_examples: int = 1,
    seed: int = 0,
) -> Division:
    """Divide the rows of a data set.

    Args:
        owners: [N] the number of each row's client.
        names: the clients' names, each of which owns a row. Clients come in their natural order:
            "client 2" before "client 10".
        split: [N] what each row is for, a number of `SPLITS`; None: `train`.
        unseen: clients that are held out with all their rows, whatever `split` says of them.
        test_fraction: the part of each training client's rows that it keeps for `test`, chosen as
            `hanse.data.partitioned` does: rounded, at least one and not all of them; 0: none.
        min_examples: training clients with fewer rows are left out.
        seed: another seed, other rows in `test`.

    Raises:
        DataError: if the rows cannot be divided so, with the name of a client.
    """
    _check_numbers(split, unseen, test_fraction, min_examples)
    check_names(names)
    order = sorted(range(len(names)), key=lambda k: _natural(names[k]))
    names = [names[k] for k in order]
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    owners = rank[owners]

    out = np.zeros(len(names), bool)
    out[_numbers(unseen, names)] = True
    part = np.zeros(len(owners), np.int8) if split is None else split.copy()
    part[out[owners]] = UNSEEN
    counts = np.bincount(owners[part != UNSEEN], minlength=len(names))
    small = counts < min_examples
    if min_examples > 1:
        part[small[owners] & (part != UNSEEN)] = -1
    if not np.any(part == TRAIN):
        raise _nobody(counts, min_examples)
    if test_fraction:
        part[_tested(owners, part == TRAIN, names, test_fraction, seed)] = TEST
    _check_groups(owners, part, names)
    train, test, held = (_group(owners, part == number, names) for number in range(3))
    assert train is not None  # noqa: S101 - for the type checker: there are rows to train on
    return Division(train, test, held)


def near(word: str, known: Sequence[str]) -> str:
    """A phrase with the known name nearest to `word`, or the first few."""
    found = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {found[0]!r}?" if found else f"one of {listed(known)}"


def listed(names: Sequence[str]) -> str:
    """The first few of some names, for a message."""
    rest = f", … ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(repr(name) for name in names[:_LISTED]) + rest


def _natural(name: str) -> tuple[str | int, ...]:
    """What sorts numbers within names by their size; texts and numbers alternate."""
    parts = re.split(r"([0-9]+)", name)
    return (*(int(p) if n % 2 else p for n, p in enumerate(parts)), name)


def _group(owners: Int64s, mine: NDArray[np.bool_], names: Sequence[str]) -> Group | None:
    rows = np.flatnonzero(mine)
    if not len(rows):
        return None
    rows = rows[np.argsort(owners[rows], kind="stable")]
    numbers, sizes = np.unique(owners[rows], return_counts=True)
    return Group(tuple(names[k] for k in numbers), sizes.astype(np.int64), rows)


def _numbers(unseen: Sequence[str], names: Sequence[str]) -> list[int]:
    known = {name: number for number, name in enumerate(names)}
    for name in unseen:
        if name not in known:
            raise DataError(
                f"unseen = {list(unseen)}: there is no client {name!r}",
                why="clients that are held out are named as in the data",
                instead=near(str(name), names),
            )
    return [known[name] for name in unseen]


def _tested(
    owners: Int64s, mine: NDArray[np.bool_], names: Sequence[str], fraction: float, seed: int
) -> Int64s:
    """The rows that clients keep for testing."""
    rows = np.flatnonzero(mine)
    own = owners[rows]
    counts = np.bincount(own, minlength=len(names))
    alone = np.flatnonzero(counts == 1)
    if len(alone):
        raise DataError(
            f"client {names[alone[0]]!r} has a single example, with test_fraction = {fraction}"
            + (f" (as have {len(alone) - 1} others)" if len(alone) > 1 else ""),
            why="it needs one example to train on and another to test on",
            instead="min_examples = 2 to leave such clients out, or test_fraction = 0",
        )
    hashes = hash_grid(derive(seed, "test"), rows.astype(np.uint64))
    shuffled = np.lexsort((rows, hashes, own))  # client by client, in an order of their own
    place = np.arange(len(rows)) - offsets_of(counts)[own[shuffled]]
    keep = np.clip(np.round(fraction * counts), 1, np.maximum(counts - 1, 1))
    return rows[shuffled[place < keep[own[shuffled]]]]


def _check_numbers(
    split: NDArray[np.int8] | None, unseen: Sequence[str], test_fraction: float, min_examples: int
) -> None:
    if isinstance(unseen, str):
        raise DataError(
            f"unseen = {unseen!r}",
            why="it is a list of the names of clients",
            instead=f"unseen = [{unseen!r}]",
        )
    if not 0 <= test_fraction < 1:
        raise DataError(
            f"test_fraction = {test_fraction}",
            why="it is the part of a client's examples that are kept from training",
            instead="a number between 0 and 1, such as test_fraction = 0.2",
        )
    if isinstance(min_examples, bool) or min_examples < 1:
        raise DataError(
            f"min_examples = {min_examples}",
            why="a client without examples can neither train nor be tested",
            instead="a whole number of at least 1, such as min_examples = 2",
        )
    if test_fraction and split is not None and np.any(split == TEST):
        raise DataError(
            f"test_fraction = {test_fraction}, and rows that are marked for testing",
            why="either says which examples a client is tested on",
            instead="one of the two: test_fraction = 0, or no rows marked for testing",
        )


def _check_groups(owners: Int64s, part: NDArray[np.int8], names: Sequence[str]) -> None:
    """Refuse clients in two groups that exclude each other, and groups that lack a client."""
    trains, tests, held = (
        np.bincount(owners[part == number], minlength=len(names)) > 0 for number in range(3)
    )
    both = np.flatnonzero((trains | tests) & held)
    if len(both):
        raise DataError(
            f"client {names[both[0]]!r} has rows to train or test on and rows marked 'unseen'",
            why="a client that trains is not unseen, and its score would flatter",
            instead=f"mark them 'test', or hold the client out: unseen = [{names[both[0]]!r}]",
        )
    strangers = np.flatnonzero(tests & ~trains)
    if len(strangers):
        found = [names[k] for k in strangers.tolist()]
        raise DataError(
            f"client {found[0]!r} has rows to test on and none to train on"
            + (f" (as have {len(found) - 1} others)" if len(found) > 1 else ""),
            why="'test' holds other examples of the clients that train",
            instead=f"hold such clients out: unseen = [{listed(found)}]",
        )
    untested = np.flatnonzero(trains & ~tests)
    if tests.any() and len(untested):
        found = [names[k] for k in untested.tolist()]
        raise DataError(
            f"client {found[0]!r} has rows to train on and none to test on, unlike others"
            + (f" (as have {len(found) - 1} others)" if len(found) > 1 else ""),
            why="'test' has the same clients as 'train'",
            instead="give every client rows to test on, or leave the rows for testing out and "
            "write test_fraction = 0.2",
        )


def _nobody(counts: Int64s, min_examples: int) -> DataError:
    if min_examples > 1 and counts.any():
        return DataError(
            f"no client has min_examples = {min_examples} rows; the largest has {counts.max()}",
            why="somebody must train",
            instead=f"min_examples = {counts.max()} or less",
        )
    return DataError(
        "no client is left to train on",
        why="all clients are held out as unseen, or no row is marked 'train'",
        instead="hold fewer clients out, and mark rows 'train'",
    )
