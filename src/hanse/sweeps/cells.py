"""The cells of a sweep: what is run, and what its folder is called."""

from __future__ import annotations

import dataclasses
import itertools
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanse.comparison.settings import written
from hanse.config.experiment_file import with_values
from hanse.config.grid import base_of, check_axes, grid
from hanse.core.errors import ConfigError
from hanse.experiment import Experiment
from hanse.models import cross_entropy
from hanse.report.records import SPLITS
from hanse.storage import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hanse.config import ExperimentFile
    from hanse.data import Federation
    from hanse.report.records import Split

_LONGEST = 100  # letters of a folder's name
_UNFIT = re.compile(r"[^A-Za-z0-9._+=,-]+")


@dataclass(frozen=True, eq=False)
class Cell:
    """A combination of settings.

    Attributes:
        name: of its folder.
        settings: by name, as texts; an axis that means nothing to it is not there.
        experiment: with a seed.
        config: the experiment file of a seed, given its data; None for cells of a function.
    """

    name: str
    settings: Mapping[str, str]
    experiment: Callable[[int], Experiment]
    config: Callable[[int, Federation], str] | None = None


@dataclass(frozen=True, eq=False)
class Grid:
    """What a sweep is about.

    Attributes:
        axes: the names of what is varied.
        base: what the cells have in common, as JSON has it.
        seed: the first seed.
        cells: all of them.
    """

    axes: tuple[str, ...]
    base: Mapping[str, Any]
    seed: int
    cells: tuple[Cell, ...]

    def measured(self) -> list[tuple[list[Split], list[str]]]:
        """The splits and the metrics that each cell will be evaluated by.

        Every experiment is built for it, so that what cannot be meant is refused before any is
        run, and forgotten again: each may have data of its own.

        Raises:
            HanseError: a cell that cannot be meant.
        """
        return [_measured(cell.experiment(self.seed)) for cell in self.cells]


def cells_of_file(file: ExperimentFile, over: Mapping[str, Sequence[Any]]) -> Grid:
    """The grid over an experiment file.

    Raises:
        ConfigError: an axis that cannot be meant.
    """
    if "run.seed" in over:
        raise ConfigError(
            "--over run.seed",
            why="seeds are repetitions of a cell, and the same in every cell",
            instead="--seeds N",
        )
    federations = _Federations()
    cells = []
    for one in grid(file, over):
        settings = {name: written(value) for name, value in one.settings.items()}

        def config(seed: int, data: Federation, file: ExperimentFile = one.file) -> str:
            return with_values(file, {"run.seed": seed}).with_guesses(data).resolved()

        def experiment(seed: int, file: ExperimentFile = one.file) -> Experiment:
            seeded = with_values(file, {"run.seed": seed})
            return seeded.experiment(federations.of(file))

        cells.append(Cell(_folder(settings), settings, experiment, config))
    seed = cells[0].experiment(_first_seed(file)).seed
    return Grid(tuple(over), base_of(file), seed, tuple(cells))


def _first_seed(file: ExperimentFile) -> Any:  # noqa: ANN401 - it is checked where it is used
    run = file.content.get("run", {})
    return run.get("seed", 0) if isinstance(run, dict) else 0


class _Federations:
    """The data of the last file that was asked for: cells mostly share them."""

    def __init__(self) -> None:
        self._last: tuple[str, Federation] | None = None

    def of(self, file: ExperimentFile) -> Federation:
        key = to_json(file.content.get("data"))
        if self._last is None or self._last[0] != key:
            self._last = None  # two may not fit into memory
            self._last = (key, file.federation())
        return self._last[1]


def cells_of_function(make: Callable[..., Experiment], over: Mapping[str, Sequence[Any]]) -> Grid:
    """The grid over a function that makes an experiment of the values.

    Raises:
        ConfigError: an axis that cannot be meant, or a value whose text differs each time.
    """
    check_axes(over)
    cells = []
    for values in itertools.product(*over.values()):
        chosen = dict(zip(over, values, strict=True))
        settings = {name: _described(name, value) for name, value in chosen.items()}

        def experiment(seed: int, chosen: Mapping[str, Any] = chosen) -> Experiment:
            made = make(**chosen)
            if not isinstance(made, Experiment):
                raise ConfigError(
                    f"the function returned a {type(made).__name__} for {chosen!r:.80}",
                    why="a sweep runs experiments",
                    instead="return hanse.Experiment(…)",
                )
            return dataclasses.replace(made, seed=seed)

        cells.append(Cell(_folder(settings), settings, experiment))
    first = make(**{name: values[0] for name, values in over.items()})
    name = f"{getattr(make, '__module__', '')}:{getattr(make, '__qualname__', '')}"
    seed = first.seed if isinstance(first, Experiment) else 0
    return Grid(tuple(over), {"function": name}, seed, tuple(cells))


def _described(name: str, value: object) -> str:
    plain = isinstance(value, str | bool | int | float | list | tuple | dict)
    text = written(value) if plain else repr(value)
    if " at 0x" in text:
        raise ConfigError(
            f"{name} = {text:.80}",
            why="cells are told apart by their values' texts, and this one differs each time",
            instead='a name, such as "small", that your function makes the object of',
        )
    return text


def _folder(settings: Mapping[str, str]) -> str:
    """What the folder of a cell is called: readable, and never the same for two."""
    whole = ",".join(f"{name}={value}" for name, value in settings.items()) or "base"
    fit = _UNFIT.sub("_", whole)
    if fit == whole and len(fit) <= _LONGEST and not fit.startswith("."):
        return fit
    return f"{fit[:_LONGEST].lstrip('.')}-{zlib.crc32(whole.encode()):08x}"


def _measured(experiment: Experiment) -> tuple[list[Split], list[str]]:
    default = {"accuracy": None} if experiment.loss is cross_entropy else {}
    named = default if experiment.metrics is None else experiment.metrics
    splits = [split for split in SPLITS if getattr(experiment.data, split) is not None]
    return splits, [*named, "loss"]
