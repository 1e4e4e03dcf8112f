"""A grid of experiment files: `--over a.b=1,2` times `--over c.d=x,y`."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanse.config.binding import Component, anchored, named
from hanse.config.experiment_file import (
    PARTS,
    ExperimentFile,
    value_of,
    with_values,
)
from hanse.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPEN, _SHUT = "[{(", ")}]"


@dataclass(frozen=True)
class GridCell:
    """A cell: the values that it has of the grid's, and the file with them.

    Attributes:
        settings: by name, in the order of the axes; without those that mean nothing to its parts.
        file: the experiment.
    """

    settings: Mapping[str, Any]
    file: ExperimentFile


def axis(text: str) -> tuple[str, list[Any]]:
    """The name and the values of `a.b=1,2,3`; each value is read as `--set` reads it.

    Raises:
        ConfigError: no name, or a value that is missing.
    """
    name, equals, values = text.partition("=")
    name = name.strip()
    parts = [part.strip() for part in _split(values)]
    if not equals or not all(part.strip() for part in name.split(".")) or not all(parts):
        raise ConfigError(
            f"--over {text}",
            why="it names no values" if not equals or not values.strip() else "a value is missing",
            instead="--over table.key=value,value, such as --over strategy.lr=0.05,0.1",
        )
    return name, [value_of(part) for part in parts]


def _split(text: str) -> Iterator[str]:
    """The parts between commas that are in no brackets and no quotes."""
    depth, quote, part = 0, "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        depth += 0 if quote else (letter in _OPEN) - (letter in _SHUT)
        if letter == "," and not depth and not quote:
            yield part
            part = ""
        else:
            part += letter
    yield part


def check_axes(over: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a grid without cells, or with the same cell twice.

    Raises:
        ConfigError: no axis, one without values, or a value twice.
    """
    if not over:
        raise ConfigError(
            "a sweep over nothing",
            why="there is one experiment only",
            instead="--over strategy.lr=0.05,0.1, or `hanse run` with --seeds",
        )
    for name, values in over.items():
        if not values:
            raise ConfigError(
                f"{name} without values",
                why="a grid has a row for each",
                instead=f"{name}=value,value",
            )
        for number, value in enumerate(values):
            if any(_same(value, before) for before in values[:number]):
                raise ConfigError(
                    f"{name} has the value {value!r} twice",
                    why="the cell would be there twice",
                    instead="each value once; --seeds repeats cells with other seeds",
                )


def _same(one: object, other: object) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def grid(file: ExperimentFile, over: Mapping[str, Sequence[Any]]) -> list[GridCell]:
    """Every combination of the values, the last axis changing fastest.

    Where strategies (models, data sources) are swept over, a key of their table that one of them
    does not know is left out of its cells, and of cells that are the same then, one is kept.

    Raises:
        ConfigError: as `check_axes`; or an axis names no component.
    """
    check_axes(over)
    found: dict[str, GridCell] = {}
    for values in itertools.product(*over.values()):
        chosen = dict(zip(over, values, strict=True))
        changed = with_values(file, chosen)
        content, dropped = dict(changed.content), set()
        for section in PARTS:
            foreign = _foreign(changed, section, over)
            dropped |= {f"{section}.{key}" for key in foreign}
            if foreign:
                table = changed.content[section]
                content[section] = {k: v for k, v in table.items() if k not in foreign}
        settings = {
            name: value
            for name, value in chosen.items()
            if ".".join(name.split(".")[:2]) not in dropped
        }
        kept = ExperimentFile(content, file.base)
        found.setdefault(json.dumps(content, sort_keys=True, default=str), GridCell(settings, kept))
    return list(found.values())


def _foreign(file: ExperimentFile, section: str, over: Mapping[str, Sequence[Any]]) -> set[str]:
    """The keys that the section's component does not know, but another of the grid's does."""
    key, known, common = PARTS[section]
    table = file.content.get(section)
    names = over.get(f"{section}.{key}")
    if names is None or not isinstance(table, Mapping):
        return set()
    where = f"{section}.{key}"
    own = _parameters(named(str(table[key]), known, where, file.base))
    if own is None:
        return set()
    others = [_parameters(named(str(name), known, where, file.base)) for name in names]
    return {
        entry
        for entry in table
        if entry not in {*own, *common, key}
        and any(parameters is None or entry in parameters for parameters in others)
    }


def _parameters(component: Component) -> set[str] | None:
    """The names of the parameters; None where it takes any."""
    parameters = inspect.signature(component).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return set(parameters)


def base_of(file: ExperimentFile) -> dict[str, Any]:
    """What a sweep starts from, as JSON has it; how many processes it takes is no part of it."""
    content = {key: anchored(value, file.base) for key, value in file.content.items()}
    if isinstance(content.get("run"), Mapping):
        content["run"] = {k: v for k, v in content["run"].items() if k != "workers"}
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain
