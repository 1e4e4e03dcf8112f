"""Which columns of a table are what, and whether they can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.errors import DataError
from hanse.data.sources.arrow import NUMERIC, SAID, Kind, check_column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hanse.data.sources.table_files import TableFile

KEYS: tuple[Kind, ...] = ("text", "whole number", "boolean", "date", "missing")
"""What can name a client, a part of a split, or a category."""

_INDICES = ("", "__index_level_0__")  # what pandas calls the row numbers that it writes


@dataclass(frozen=True)
class Columns:
    """The columns that are read, by what they are for."""

    kinds: Mapping[str, Kind]
    target: str
    client: str | None
    split: str | None
    features: tuple[str, ...]
    categorical: tuple[str, ...]

    @property
    def numeric(self) -> list[str]:
        """The features that are a number in each row."""
        return [column for column in self.features if column not in self.categorical]

    @property
    def keys(self) -> dict[str, Kind]:
        """The columns that are read before the features, and what they are wanted as."""
        texts = [c for c in (self.client, self.split, *self.categorical) if c is not None]
        return {self.target: self.kinds[self.target]} | dict.fromkeys(texts, "text")


def choose_columns(
    files: Sequence[TableFile],
    where: str,
    target: str,
    client: str | None,
    split: str | None,
    features: Sequence[str] | None,
    ignore: Sequence[str],
    categorical: Sequence[str],
) -> Columns:
    """Look the columns up in all files, and refuse what cannot be used.

    Raises:
        DataError: as `hanse.data.from_table` says.
    """
    lists = {"features": features, "ignore": ignore, "categorical": categorical}
    for key, given in lists.items():
        if isinstance(given, str):
            raise DataError(
                f"{key} = {given!r}", why="it is a list of columns", instead=f"{key} = [{given!r}]"
            )
    if client is None and len(files) == 1:
        raise DataError(
            f"{where} without the column of the clients",
            why="every row belongs to a client; without a column, each file is a client",
            instead=f"client = 'hospital', or one of its columns: {', '.join(files[0].columns)}",
        )
    roles = {"target": target, "client": client, "split": split}
    apart = [column for column in roles.values() if column is not None]
    chosen = _inputs(files[0], features, ignore, apart)
    _check_roles(roles, chosen, features, categorical)
    wanted = {**dict.fromkeys(chosen, "features"), **{c: r for r, c in roles.items() if c}}
    for column, role in [*wanted.items(), *((c, "ignore") for c in ignore)]:
        check_column(column, files[0].columns, role, _first(files, where))
    for file in files[1:]:
        for column, role in wanted.items():
            check_column(column, file.columns, role, str(file.path))
        _check_same(files[0], file, [*wanted, *ignore], all_of_them=features is None)
    keys = {c for c in (client, split, *categorical) if c is not None}
    kinds = {column: _common(files, column, key=column in keys) for column in wanted}
    columns = Columns(kinds, target, client, split, tuple(chosen), tuple(categorical))
    _check_kinds(columns, where)
    return columns


def _inputs(
    file: TableFile, features: Sequence[str] | None, ignore: Sequence[str], apart: Sequence[str]
) -> list[str]:
    if features is not None:
        return [column for column in features if column not in ignore]
    found = [column for column in file.columns if column not in (*apart, *ignore)]
    for column in _INDICES:
        if column in found:
            raise DataError(
                f"{file.path} has a column called {column!r}",
                why="pandas writes the numbers of rows so, and they are no feature",
                instead=f"ignore = [{column!r}]; or write the file with index=False",
            )
    return found


def _check_roles(
    roles: Mapping[str, str | None],
    chosen: Sequence[str],
    features: Sequence[str] | None,
    categorical: Sequence[str],
) -> None:
    taken: dict[str, str] = {}
    for role, column in roles.items():
        if column is not None and column in taken:
            raise DataError(
                f"{taken[column]} = {column!r} and {role} = {column!r}",
                why="a column has one purpose",
                instead=f"another column as the {role}",
            )
        if column is not None:
            taken[column] = role
    for column in chosen:
        if column in taken:
            raise DataError(
                f"features with {column!r}, which is the {taken[column]}",
                why="the model would be given what it is to find out"
                if taken[column] == "target"
                else "who an example is from, and what it is for, is no input",
                instead=f"features without {column!r}",
            )
    if not chosen:
        raise DataError(
            "no column is left as a feature" if features is None else "features = []",
            why="a model computes with its inputs",
            instead="features = ['age', …], or leave it out for all other columns",
        )
    if len(set(chosen)) < len(chosen):
        twice = next(column for column in chosen if chosen.count(column) > 1)
        raise DataError(
            f"features with {twice!r} twice" if features else f"two columns called {twice!r}",
            why="columns are told apart by their names",
            instead=f"{twice!r} once" if features else "rename one of them",
        )
    for column in categorical:
        if column not in chosen:
            raise DataError(
                f"categorical = {list(categorical)} with {column!r}, which is no feature",
                why="it says how a feature is read",
                instead=f"one of the features: {', '.join(chosen)}",
            )


def _check_same(
    first: TableFile, file: TableFile, known: Sequence[str], *, all_of_them: bool
) -> None:
    more = [column for column in file.columns if column not in known]
    if all_of_them and more:
        raise DataError(
            f"{file.path} has a column {more[0]!r}, which {first.path.name} has not",
            why="all files of a table have the same columns",
            instead=f"ignore = [{more[0]!r}], or list the features",
        )


def _common(files: Sequence[TableFile], column: str, *, key: bool) -> Kind:
    """What a column holds in all files."""
    found: dict[Kind, TableFile] = {}
    for file in files:
        found.setdefault(file.kinds[column], file)
    kinds = set(found)
    if len(kinds) > 1:
        kinds.discard("missing")
    if len(kinds) == 1:
        return kinds.pop()
    if kinds == {"number", "whole number"}:
        return "number"
    if key and kinds <= set(KEYS):
        return "text"
    one, other = sorted(kinds)[:2]
    raise DataError(
        f"column {column!r} holds {SAID[one]} in {found[one].path}, and {SAID[other]} in "
        f"{found[other].path}",
        why="a column has one type in all files",
        instead="write it with the same type in all of them",
    )


def _check_kinds(columns: Columns, where: str) -> None:
    for role, column in (("client", columns.client), ("split", columns.split)):
        if column is not None and columns.kinds[column] not in KEYS:
            raise DataError(
                f"{where} has {SAID[columns.kinds[column]]} in each row of {column!r}, the {role}",
                why="clients are named by texts or whole numbers"
                if role == "client"
                else "a row says 'train', 'test' or 'unseen'",
                instead=f"another column as the {role}, or data[{column!r}].astype('string')",
            )
    if columns.kinds[columns.target] in ("date", "list", "other"):
        raise DataError(
            f"{where} has {SAID[columns.kinds[columns.target]]} in each row of "
            f"{columns.target!r}, the target",
            why="a target is a label (a text or a whole number) or a quantity",
            instead="another column as the target, or a number made from it",
        )
    for column in columns.categorical:
        if columns.kinds[column] not in KEYS:
            raise DataError(
                f"categorical = {list(columns.categorical)}, and {column!r} holds "
                f"{SAID[columns.kinds[column]]} in each row",
                why="categories are texts or whole numbers",
                instead=f"categorical without {column!r}",
            )
    unusable = {c: columns.kinds[c] for c in columns.numeric if columns.kinds[c] not in NUMERIC}
    if unusable:
        texts = [column for column, kind in unusable.items() if kind == "text"]
        rest = [column for column in unusable if column not in texts]
        found = ", ".join(f"{column!r} ({SAID[kind]})" for column, kind in unusable.items())
        ways = [f"categorical = {texts} to have a column of 0 and 1 for each text"] if texts else []
        ways += [f"ignore = {rest or texts} to do without"]
        raise DataError(
            f"{where} has features that are no numbers: {found}",
            why="a model computes with numbers",
            instead="; ".join(ways),
        )


def _first(files: Sequence[TableFile], where: str) -> str:
    return where if len(files) == 1 else str(files[0].path)
