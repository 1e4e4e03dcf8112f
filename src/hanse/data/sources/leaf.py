"""The JSON files of LEAF, a benchmark of federated data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hanse.core.errors import DataError
from hanse.data.arrays import federation_from_arrays
from hanse.data.sources.division import listed
from hanse.data.sources.targets import check_task, labels_of_numbers, labels_of_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from hanse.data.federation import Federation

Arrays = dict[str, tuple["NDArray[Any]", "NDArray[Any]"]]

ATTRIBUTION = (
    "in the format of LEAF (S. Caldas et al., LEAF: a benchmark for federated settings, "
    "arXiv:1812.01097)"
)
_NAMES = {" ": "space", "\n": "newline", "\t": "tab", "\r": "carriage return"}


def from_leaf(
    path: str | Path,
    *,
    text: Literal["characters"] | None = None,
    vocabulary: str | None = None,
    classes: Sequence[str] | None = None,
    task: Literal["classification", "regression"] | None = None,
    name: str | None = None,
    attribution: str = "",
) -> Federation:
    """Read a data set in the format of LEAF.

    `path/train/*.json` and, if there are any, `path/test/*.json` hold objects with "users" (their
    names), "num_samples" (how many examples each has) and "user_data" (for each name, lists "x" and
    "y"), as LEAF's `preprocess.sh` writes them (Caldas et al., arXiv:1812.01097). One file at a
    time is in memory as JSON.

    Args:
        path: the folder with "train" and "test", or the one that has it as "data".
        text: "characters" if x are texts of one length and y is the character that follows (as
            in LEAF's Shakespeare): both become numbers of `vocabulary`. None: x are numbers.
        vocabulary: the characters, in the order of their numbers; None: those in the data, sorted.
        classes: the labels' names in the order of their numbers; None: the labels, sorted.
        task: what y is, where its type does not say it: texts and whole numbers are labels, other
            numbers a quantity.
        name: what to call the federation; None: as the folder.
        attribution: whom the data comes from.

    Returns:
        x: float32, or int64 [characters]. `test` if the users of both folders are the same ones
        (LEAF's split "by sample"); `unseen` if no user is in both (split "by user").

    Raises:
        DataError: a file is no such JSON, numbers of examples do not match, a user is missing or
            there twice, examples have several shapes, or x are texts and `text` does not say how
            to read them.
    """
    check_task(task, classes)
    if text not in (None, "characters"):
        raise DataError(
            f"text = {text!r}",
            why="it says how texts become numbers",
            instead="text = 'characters', a number for each character",
        )
    root = _root(Path(path))
    train = _users(root / "train", text)
    test = _users(root / "test", text) if (root / "test").is_dir() else {}
    named = _label(train, test, classes, task) if text is None else _encode(train, test, vocabulary)
    shared = set(train) & set(test)
    if shared and (set(train) != set(test)):
        only = sorted(set(train) ^ shared or set(test) ^ shared)
        raise DataError(
            f"user {only[0]!r} is only in {'train' if only[0] in train else 'test'}, while "
            f"{min(shared)!r} is in both",
            why="the users that are tested are those that train, or none of them",
            instead="LEAF's split by sample (-t sample) or by user (-t user); drop users with few "
            "examples before (-k 2)",
        )
    return federation_from_arrays(
        train,
        test={user: test[user] for user in train} if shared else None,
        unseen=test if test and not shared else None,
        classes=named,
        name=root.resolve().name if name is None else name,
        attribution=attribution or ATTRIBUTION,
    )


def _root(path: Path) -> Path:
    for folder in (path, path / "data"):
        if (folder / "train").is_dir():
            return folder
    raise DataError(
        f"{path} has no folder 'train'" if path.is_dir() else f"{path} is not a folder",
        why="LEAF's data lie in train/*.json and test/*.json",
        instead="the folder that preprocess.sh wrote, such as leaf/data/femnist/data",
    )


def _users(folder: Path, text: str | None) -> Arrays:
    """Each user's inputs and targets, as numbers or as texts."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataError(
            f"{folder} has no .json files",
            why="LEAF's data lie in train/*.json and test/*.json",
            instead="the folder that preprocess.sh wrote, such as leaf/data/femnist/data",
        )
    found: Arrays = {}
    first: tuple[str, tuple[int, ...]] | None = None
    for file in files:
        for user, x, y in _in_file(file):
            if user in found:
                raise DataError(
                    f"user {user!r} is in {file} and before it",
                    why="clients are told apart by their names",
                    instead="one entry for each user: merge them, or give one another name",
                )
            where = f"user {user!r} in {file}"
            found[user] = _inputs(x, where, text), _targets(y, where)
            shape = found[user][0].shape[1:]
            if first is not None and shape != first[1]:
                raise DataError(
                    f"{where} has inputs of shape {list(shape)}, {first[0]} has {list(first[1])}",
                    why="all inputs have one shape",
                    instead="pad or cut them before",
                )
            first = first or (where, shape)
    return found


def _in_file(file: Path) -> Iterator[tuple[str, list[Any], list[Any]]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _bad(file, f"cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise _bad(file, f"is a {type(content).__name__}")
    for key, kind in (("users", list), ("num_samples", list), ("user_data", dict)):
        if not isinstance(content.get(key), kind):
            raise _bad(file, f"has no {kind.__name__} {key!r}")
    users, counts, data = content["users"], content["num_samples"], content["user_data"]
    if len(users) != len(counts) or not users:
        raise _bad(file, f"has {len(users)} users and {len(counts)} num_samples")
    for user, count in zip(users, counts, strict=True):
        if not isinstance(user, str) or user not in data:
            raise _bad(file, f"has the user {user!r}, and no user_data of that name")
        yield user, *_of_user(file, user, count, data[user])
    more = sorted(set(data) - set(users))
    if more:
        raise _bad(file, f"has user_data of {more[0]!r}, who is not among the users")


def _of_user(file: Path, user: str, count: object, own: object) -> tuple[list[Any], list[Any]]:
    if not isinstance(own, dict) or not all(isinstance(own.get(key), list) for key in "xy"):
        raise _bad(file, f"has user_data of {user!r} without lists 'x' and 'y'")
    x, y = own["x"], own["y"]
    if (len(x), len(y)) != (count, count):
        raise _bad(
            file, f"has num_samples {count} for user {user!r}, who has {len(x)} x and {len(y)} y"
        )
    if not x:
        raise _bad(file, f"has the user {user!r} with no examples")
    return x, y


def _bad(file: Path, found: str) -> DataError:
    return DataError(
        f"{file} {found}",
        why='LEAF\'s files hold {"users": [names], "num_samples": [counts], "user_data": {name: '
        '{"x": [...], "y": [...]}}}',
        instead="write it again with LEAF's preprocess.sh, or correct it",
    )


def _inputs(x: list[Any], where: str, text: str | None) -> NDArray[Any]:
    if text is not None:
        return _characters(x, where)
    try:
        array = np.array(x)
    except ValueError as error:
        raise DataError(
            f"{where} has inputs of several shapes",
            why="all inputs have one shape",
            instead="pad or cut them before",
        ) from error
    if array.dtype.kind in "US":
        raise DataError(
            f"{where} has texts as inputs: {x[0]!r:.60}",
            why="a model computes with numbers",
            instead="text = 'characters' for texts of one length; otherwise turn them into numbers "
            "before (for images, from_image_folder)",
        )
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{where} has inputs that are no numbers: {x[0]!r:.60}",
            why="a model computes with numbers, or with lists of them",
            instead="turn them into lists of numbers before",
        )
    return array.astype(np.float32)


def _characters(x: list[Any], where: str) -> NDArray[Any]:
    """[N, length] the code points of texts of one length."""
    strange = [one for one in x if not isinstance(one, str)]
    if strange:
        raise DataError(
            f"{where} has the input {strange[0]!r:.60}, with text = 'characters'",
            why="it is no text",
            instead="leave `text` out for inputs of numbers",
        )
    lengths = {len(one) for one in x}
    if len(lengths) > 1 or 0 in lengths:
        raise DataError(
            f"{where} has texts of {min(lengths)} to {max(lengths)} characters",
            why="all inputs have one shape",
            instead="pad or cut them to one length before",
        )
    return np.array(x).view(np.uint32).reshape(len(x), -1)


def _targets(y: list[Any], where: str) -> NDArray[Any]:
    kinds = {type(one) for one in y}
    if kinds == {str}:
        return np.array(y)
    found = f"of the types {', '.join(sorted(kind.__name__ for kind in kinds))}"
    if kinds <= {int, float, bool}:
        array = np.array(y, np.float64 if float in kinds else np.int64)
        if np.isfinite(array).all():
            return array
        found = "with NaN or an infinity"
    raise DataError(
        f"{where} has targets {found}",
        why="targets are all texts, or all (finite) numbers",
        instead="one label or one number for each example",
    )


def _label(
    train: Arrays,
    test: Arrays,
    classes: Sequence[str] | None,
    task: Literal["classification", "regression"] | None,
) -> tuple[str, ...] | None:
    """Turn everybody's targets into labels or quantities, in place."""
    every = [(group, user) for group in (train, test) for user in group]
    kinds = {group[user][1].dtype.kind for group, user in every}
    if "U" in kinds and len(kinds) > 1:
        raise DataError(
            "some users have texts as targets, and some have numbers",
            why="all targets are of one kind",
            instead="write all of them as texts, or all as numbers",
        )
    together = np.concatenate([group[user][1] for group, user in every])
    y: NDArray[Any]
    named: tuple[str, ...] | None
    given: dict[str, Any] = {"column": "y", "classes": classes, "task": task}
    if "U" in kinds:
        values, codes = np.unique(together, return_inverse=True)
        y, named = labels_of_texts(codes, values.tolist(), **given)
    else:
        y, named = labels_of_numbers(together.astype(np.float64), whole="f" not in kinds, **given)
    start = 0
    for group, user in every:
        x, own = group[user]
        group[user] = x, y[start : start + len(own)]
        start += len(own)
    return named


def _encode(train: Arrays, test: Arrays, vocabulary: str | None) -> tuple[str, ...]:
    """Turn everybody's characters into numbers of the vocabulary, in place."""
    every = [(group, user) for group in (train, test) for user in group]
    for group, user in every:
        x, y = group[user]
        if y.dtype.kind != "U" or y.dtype.itemsize != 4 or "" in y:
            raise DataError(
                f"user {user!r} has the target {y[0]!r}, with text = 'characters'",
                why="the target is the one character that follows",
                instead="leave `text` out for targets of another kind",
            )
        group[user] = x, y.view(np.uint32)
    present = np.unique(np.concatenate([np.unique(a) for g, u in every for a in g[u]]))
    if vocabulary is None:
        known = present
    else:
        known = np.array([ord(character) for character in vocabulary], np.uint32)
        lacking = [chr(code) for code in present if code not in known]
        if lacking or len(set(vocabulary)) < len(vocabulary):
            raise DataError(
                f"a vocabulary of {len(vocabulary)} characters without {listed(lacking)}"
                if lacking
                else "a vocabulary with a character twice",
                why="every character in the data has one number",
                instead="all characters once, or leave `vocabulary` out",
            )
    order = np.argsort(known, kind="stable")
    for group, user in every:
        x, y = (order[np.searchsorted(known[order], part)] for part in group[user])
        group[user] = x.astype(np.int64), y.astype(np.int64)
    return tuple(_NAMES.get(chr(code), chr(code)) for code in known)
