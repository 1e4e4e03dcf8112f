"""Shakespeare's plays, a client a role: predict the next character of what somebody says."""

from __future__ import annotations

import json
import lzma
from importlib.resources import files
from pathlib import Path  # noqa: TC003 - experiment files read the signature
from typing import TYPE_CHECKING, Literal

import numpy as np

from hanse.core.errors import DataError
from hanse.data.clients import PackedClients
from hanse.data.federation import Federation
from hanse.data.sources.fetch import data_directory
from hanse.data.sources.plays import ATTRIBUTION, CHARACTERS, FILE, plays_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_NAMES = {"\n": "line break", " ": "space"}
_NUMBERS = np.zeros(128, np.int64)
_NUMBERS[[ord(one) for one in CHARACTERS]] = np.arange(len(CHARACTERS))


def shakespeare(
    plays: Literal["bundled", "all"] = "bundled",
    *,
    min_speeches: int = 2,
    length: int = 80,
    test_fraction: float = 0.2,
    directory: str | Path | None = None,
) -> Federation:
    """What the roles of Shakespeare's plays say, a client a role, in windows of characters.

    An example is a window of a role's speeches, one after another: x holds its characters' numbers
    and y, at each place, the number of the character that follows (McMahan et al.,
    "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
    section 3). Windows follow each other without overlap, and what is left at the end, less than a
    window, is dropped. The last windows of each role are its `test`: nothing that comes later in
    the play is trained on, and no character is a target of both.

    Args:
        plays: "bundled": four plays that come with Hanse; "all": all plays, once fetched.
        min_speeches: roles with fewer speeches are left out.
        length: T, characters in a window.
        test_fraction: the part of its windows, rounded, at least one and not all, that a role is
            tested on; 0: no `test`. Roles that cannot spare one are left out.
        directory: where data sets are kept; None: $HANSE_DATA, or `hanse` in the user's cache.

    Returns:
        x and y: int64 [T]; the classes are the characters.

    Raises:
        DataError: if an argument has no meaning, the plays are not there, or nobody is left.
    """
    _check(plays, min_speeches, length, test_fraction)
    least = 2 if test_fraction else 1
    train, test = {}, {}
    for name, speeches in _roles(plays, directory).items():
        said = _NUMBERS[np.frombuffer("\n".join(speeches).encode("ascii"), np.uint8)]
        windows = (len(said) - 1) // length
        if len(speeches) < min_speeches or windows < least:
            continue
        x, y = (said[of : of + windows * length].reshape(-1, length) for of in (0, 1))
        held = min(max(round(test_fraction * windows), 1), windows - 1) if test_fraction else 0
        train[name] = {"x": x[: windows - held], "y": y[: windows - held]}
        test[name] = {"x": x[windows - held :], "y": y[windows - held :]}
    if not train:
        raise DataError(
            f"no role with {min_speeches} speeches and {least} windows of length={length}",
            why="a role needs a window to train on" + ", and another to be tested on" * (least - 1),
            instead="write a smaller length, or a smaller min_speeches",
        )
    return Federation(
        train=PackedClients.from_arrays(train),
        test=PackedClients.from_arrays(test) if test_fraction else None,
        classes=tuple(_NAMES.get(one, one) for one in CHARACTERS),
        name="shakespeare" if plays == "all" else "four plays of Shakespeare",
        attribution=ATTRIBUTION,
    )


def spoken(characters: NDArray[np.integer] | Sequence[int]) -> str:
    """The text of characters' numbers `[T]`, as a window holds them."""
    return "".join(CHARACTERS[int(one)] for one in characters)


def _roles(plays: str, directory: str | Path | None) -> Mapping[str, Sequence[str]]:
    """Each role's speeches, by role and play."""
    if plays == "bundled":
        packed = (files("hanse.data") / "bundled" / f"{FILE}.xz").read_bytes()
        return plays_of(lzma.decompress(packed))
    folder = data_directory(directory) / "shakespeare"
    try:
        return plays_of((folder / FILE).read_bytes())
    except OSError as error:
        raise DataError(
            f"there is no data set in {folder}",
            why="four plays come with Hanse; all of them are fetched once",
            instead="hanse data fetch shakespeare, or plays='bundled'",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise DataError(
            f"{folder / FILE} is damaged: {error}",
            why="it is the JSON file that hanse data fetch made",
            instead="hanse data fetch shakespeare, which replaces what is damaged",
        ) from error


def _check(plays: str, min_speeches: int, length: int, test_fraction: float) -> None:
    if plays not in {"bundled", "all"}:
        raise DataError(
            f"shakespeare(plays={plays!r})",
            why="four plays come with Hanse, and all can be fetched",
            instead="write plays='bundled' or plays='all'",
        )
    for name, value, usual in (("min_speeches", min_speeches, 2), ("length", length, 80)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(
                f"shakespeare({name}={value!r})",
                why="it counts something that every role has",
                instead=f"write a whole number, 1 or more, such as {name}={usual}",
            )
    if not 0 <= test_fraction < 1:
        raise DataError(
            f"shakespeare(test_fraction={test_fraction})",
            why="it is the part of a role's windows that are kept from training",
            instead="write a number from 0 to below 1, for example test_fraction=0.2",
        )
