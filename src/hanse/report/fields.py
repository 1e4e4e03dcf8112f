"""JSON read with suspicion: every value is checked, and every complaint names its place."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, cast

import numpy as np

from hanse.core.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hanse.report.quantities import Number

# Control characters and lone surrogates cannot be written into an HTML file, and directional
# controls would let a name rearrange the sentence that it stands in.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_NUMBERS = {int, float, type(None)}
# Whole numbers that every program reads alike; more clients than this are no population.
_MOST = 2**53
_WHOLE = "a whole number from 0 to 2**53"


def clean(text: str, most: int) -> str:
    """`text` on one line or more, printable, cut with an ellipsis after `most` characters."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return _UNPRINTABLE.sub("\ufffd", cut)


def parse(text: str | bytes, where: str) -> Fields:
    """The JSON object in `text`.

    Raises:
        RunError: where it is not JSON, or not an object.
    """
    try:
        value: object = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{where} is not JSON: {error}",
            why="the report is computed from this file and does not guess what is missing",
            instead="restore the file, or run the experiment again",
        ) from error
    return Fields.of(value, where)


def lines(path: Path) -> Iterator[Fields]:
    """The JSON objects of a JSONL file, a line at a time; none where the file is absent.

    A last line without a line break that is not JSON is what a killed process leaves behind: it
    is passed over.

    Raises:
        RunError: where any other line is not a JSON object.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                fields = parse(line, f"{path}, line {number}")
            except RunError:
                if line.endswith(b"\n"):
                    raise
                return
            yield fields


@dataclass(frozen=True)
class Fields:
    """A JSON object and the place it was read from, for messages."""

    values: Mapping[str, object]
    where: str

    @classmethod
    def of(cls, value: object, where: str) -> Fields:
        """`value` as an object.

        Raises:
            RunError: where it is something else.
        """
        if not isinstance(value, dict):
            raise RunError(
                f"{where} holds {_shown(value)}",
                why="an object in braces belongs there",
                instead='write {"key": value, ...}, or run the experiment again',
            )
        return cls(cast("dict[str, object]", value), where)

    def fail(self, key: str, wanted: str) -> NoReturn:
        """Complain that `key` is not `wanted`."""
        raise RunError(
            f"{self.where}: {key!r} is {_shown(self.values.get(key))}",
            why=f"it has to be {wanted}",
            instead="restore the file, or run the experiment again",
        )

    def has(self, key: str) -> bool:
        """Whether `key` is there and not null."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str = "", most: int = 500) -> str:
        """A text, cut after `most` characters."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fail(key, "a text")
        return clean(value, most)

    def whole(self, key: str) -> int | None:
        """A whole number from 0 to 2**53; None for null or nothing."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
            self.fail(key, _WHOLE)
        return value

    def needed_whole(self, key: str) -> int:
        """A whole number from 0 to 2**53 that must be there."""
        value = self.whole(key)
        if value is None:
            self.fail(key, _WHOLE)
        return value

    def number(self, key: str) -> float | None:
        """A number; None for null, nothing, or what is not finite."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(key, "a number or null")
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:
            return None

    def inner(self, key: str) -> Fields | None:
        """An object; None for null or nothing."""
        value = self.values.get(key)
        return None if value is None else Fields.of(value, f"{self.where}: {key!r}")

    def items(self, key: str) -> list[object]:
        """A list; empty for null or nothing."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(key, "a list")
        return cast("list[object]", value)

    def texts(self, key: str, most: int) -> tuple[str, ...]:
        """A list of texts, each cut after `most` characters."""
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            self.fail(key, "a list of texts")
        return tuple(clean(cast("str", value), most) for value in values)

    def objects(self, key: str) -> Iterator[Fields]:
        """A list of objects."""
        for place, value in enumerate(self.items(key)):
            yield Fields.of(value, f"{self.where}: {key}[{place}]")

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers from 0 to 2**53."""
        values = self.items(key)
        # A set of types first: these lists have up to 100,000 items, on many lines.
        found = cast("list[int]", values)
        if not set(map(type, values)) <= {int} or (
            found and not 0 <= min(found) <= max(found) <= _MOST
        ):
            self.fail(key, "a list of whole numbers from 0 to 2**53")
        return tuple(found)

    def numbers(self, key: str) -> tuple[Number, ...]:
        """A list of numbers, None for null and for what is not finite."""
        values = self.items(key)
        if not set(map(type, values)) <= _NUMBERS:
            self.fail(key, "a list of numbers and nulls")
        try:
            found = np.array(values, dtype=np.float64)  # null becomes NaN
        except OverflowError:
            self.fail(key, "a list of numbers that a computer can hold")
        if np.isfinite(found).all():
            return tuple(found.tolist())
        return tuple(value if math.isfinite(value) else None for value in found.tolist())


def _shown(value: object) -> str:
    """A value as JSON, short enough for a message."""
    return clean(json.dumps(value, default=repr), 60)
