"""A first experiment file for somebody's own data: guesses, each with its reason beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tomli_w

from hanse.config.experiment_file import ExperimentFile
from hanse.core.errors import ConfigError
from hanse.data.sources.arrow import NUMERIC, SAID, check_column
from hanse.data.sources.division import SPLITS, listed
from hanse.data.sources.image_folder import IMAGES
from hanse.data.sources.table_facts import MANY, ColumnFacts, table_facts
from hanse.data.sources.table_files import kind_of_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hanse.data import Federation

_FEW = 20  # different texts that are categories
_LARGE = 200  # clients, of which only some take part in a round
_COHORT = 20
_ROUNDS = 50
_COLUMN = 44  # where reasons begin
_WIDTH = 100  # of a line with its reason beside it; a longer reason stands above
_INDICES = ("", "__index_level_0__")


class Line(NamedTuple):
    """A key of the file, its value, and why it is so; a line that is off is a comment."""

    key: str
    value: Any
    why: str = ""
    off: bool = False


def beginning(path: Path, out: Path, client: str | None, target: str | None) -> str:
    """The text of an experiment file for these data.

    The data are read once or twice, so that what cannot be used is refused here.

    Args:
        path: a table, or a folder that one of the sources reads.
        out: where the text is going to be written: the path in it is relative to that.
        client: the column that says whose a row is, of tables and of Hugging Face's data sets.
        target: the column to predict, of these.

    Raises:
        ConfigError: nothing is known to read such data, or a column is not named.
        DataError: the data cannot be used.
    """
    source = source_of(path)
    base = out.resolve().parent
    where = Path(os.path.relpath(path.resolve(), base)).as_posix()
    lines = [Line("source", source), Line("path", where)]
    if source == "huggingface":
        lines[1] = Line("dataset", where)
    if source == "table":
        lines += _of_table(path, client, target)
    elif source == "huggingface":
        lines += _of_huggingface(path, client, target)
    elif client is not None or target is not None:
        raise ConfigError(
            f"--client or --target with the source {source}",
            why="clients and labels of such data are told from their folders and files",
            instead=f"hanse init {path}",
        )
    federation = ExperimentFile({"data": {n.key: n.value for n in lines}}, base).federation()
    lines += _of_federation(source, federation, lines)
    data = _table("data", lines)
    model = _table("model", _model(federation))
    strategy = _table("strategy", _strategy(federation))
    run = _table("run", _run(federation))
    name = tomli_w.dumps({"name": name_of(path)})
    return (
        "# What is guessed has its reason beside it: read it once, and correct it.\n"
        f"{name}\n{data}\n{model}\n{strategy}\n{run}"
    )


def name_of(path: Path) -> str:
    """What an experiment on these data is called."""
    return path.resolve().name.partition(".")[0].strip() or "experiment"


def source_of(path: Path) -> str:
    """The source that reads a file or a folder, told from the names in it.

    Raises:
        ConfigError: there is none.
    """
    if kind_of_file(path) is not None and not path.is_dir():
        return "table"
    if path.is_dir():
        signs: tuple[tuple[str, Sequence[str]], ...] = (
            ("huggingface", ("dataset_dict.json", "dataset_info.json")),
            ("leaf", ("train/*.json", "data/train/*.json")),
            ("npz", ("*.npz",)),
        )
        for source, patterns in signs:
            if any(next(path.glob(pattern), None) for pattern in patterns):
                return source
        files = (file for file in path.rglob("*") if file.is_file())
        for file in files:
            if kind_of_file(file) is not None:
                return "table"
            if file.suffix.lower() in IMAGES:
                return "images"
    raise ConfigError(
        f"{path} holds nothing that a source reads"
        if path.exists()
        else f"there is no file or folder {path}",
        why="known are tables (.parquet, .csv), folders of them, folders of images or of .npz "
        "files, LEAF's folders, and data sets saved by Hugging Face's `datasets`",
        instead="the path of one of these; or a function of your own as a source, which is a file "
        "to write by hand",
    )


def _of_table(path: Path, client: str | None, target: str | None) -> list[Line]:
    delimiter = _delimiter(path)
    facts, decimal = table_facts(path, delimiter), "."
    if delimiter == ";":  # where commas are in numbers, they cannot be between columns
        other = table_facts(path, delimiter, ",")
        if _numbers_in(other) > _numbers_in(facts):
            facts, decimal = other, ","
    columns = ", ".join(column for column in facts if column not in _INDICES)
    if target is None:
        raise _unnamed("target", "the column to predict", path, client, columns)
    several = path.is_dir() and len([f for f in path.rglob("*") if kind_of_file(f)]) > 1
    if client is None and not several:
        raise _unnamed("client", "the column that says whose a row is", path, target, columns)
    check_column(target, list(facts), "target", str(path))
    lines = [] if delimiter is None else [Line("delimiter", delimiter)]
    lines += [Line("decimal", decimal)] if decimal != "." else []
    if client is not None:
        check_column(client, list(facts), "client", str(path))
        lines.append(Line("client", client))
    lines += _target(target, facts[target])
    rest = {c: f for c, f in facts.items() if c not in (client, target)}
    split = next((c for c, f in rest.items() if _is_split(f)), None)
    if split is not None:
        lines.append(Line("split", split, f"it says {' and '.join(rest.pop(split).values or ())}"))
    ignored = {c: why for c, f in rest.items() if (why := _not_an_input(c, f))}
    if ignored:
        reasons = "; ".join(f"{column!r} {why}" for column, why in ignored.items())
        lines.append(Line("ignore", list(ignored), reasons))
    texts = [c for c, f in rest.items() if f.kind == "text" and c not in ignored]
    if texts:
        lines.append(Line("categorical", texts, "texts: a column of 0 and 1 for each"))
    return lines


def _numbers_in(facts: Mapping[str, ColumnFacts]) -> int:
    return sum(one.kind in NUMERIC for one in facts.values())


def _delimiter(path: Path) -> str | None:
    """What the first row of a CSV file seems to be separated by, if not by a comma."""
    if path.suffix.lower() != ".csv":
        return None
    with path.open("rb") as file:
        first = file.readline(1 << 16)
    found = max((b",", b";", b"\t", b"|"), key=first.count)
    return None if found == b"," else found.decode()


def _target(target: str, facts: ColumnFacts) -> list[Line]:
    few = facts.values is not None
    if facts.kind == "whole number" and not few:
        why = f"more than {MANY} different whole numbers: a quantity"
        return [Line("target", target), Line("task", "regression", why)]
    if facts.kind == "number" and facts.whole and few:
        why = "whole numbers, written with a point: labels"
        return [Line("target", target), Line("task", "classification", why)]
    if facts.kind == "number":
        return [Line("target", target, "numbers: a quantity")]
    labels = f": {listed(list(facts.values))}" if facts.values else ""
    return [Line("target", target, f"labels{labels}")]


def _is_split(facts: ColumnFacts) -> bool:
    values = set(facts.values or ()) if facts.kind == "text" else set()
    return "train" in values and values <= set(SPLITS)


def _not_an_input(column: str, facts: ColumnFacts) -> str:
    """Why a column is left out; empty if it need not be."""
    if column in _INDICES:
        return "is what pandas numbers rows with"
    if facts.missing:
        return f"has no value in {facts.missing:,} rows"
    if facts.kind in ("date", "list", "other"):
        return f"has {SAID[facts.kind]} in each row"
    if facts.numbering and facts.kind == "whole number":
        return "has another whole number in every row"
    if facts.kind == "text" and (facts.values is None or len(facts.values) > _FEW):
        return f"has more than {_FEW} different texts"
    return ""


def _of_huggingface(path: Path, client: str | None, target: str | None) -> list[Line]:
    if target is None:
        raise _unnamed("target", "the column to predict", path, client, "those of your data set")
    lines = [Line("target", target)]
    if client is None:
        why = "no column says whose a row is, so rows are dealt out at random"
        return [*lines, Line("clients", 10, why)]
    return [*lines, Line("client", client)]


def _of_federation(source: str, federation: Federation, given: Sequence[Line]) -> list[Line]:
    """What can be said of clients once they have been read."""
    train = federation.train
    sizes = train.sizes(np.arange(len(train)))
    lines = []
    if len(train) > 2 and source not in ("npz", "leaf"):
        last = train.name(len(train) - 1)
        why = f"clients that never train; there are {len(train):,}"
        lines.append(Line("unseen", [last], why, off=True))
    divided = any(line.key == "split" for line in given)
    if federation.test is None and not divided and source not in ("npz", "leaf"):
        single = int((sizes == 1).sum())
        if single:
            why = f"{single:,} clients have a single row, and none to be tested on"
            lines.append(Line("min_examples", 2, why))
        if federation.unseen is None:
            why = "rows at random: where they are near copies of each other, split them yourself"
            lines.append(Line("test_fraction", 0.2, why))
    if len(federation.input_shape) == 1 and federation.dtype.is_floating_point:
        lines.append(Line("standardise", True, "mean 0 and deviation 1 over all training clients"))
    return lines


def _model(federation: Federation) -> list[Line]:
    shape = federation.input_shape
    if not federation.dtype.is_floating_point:
        raise ConfigError(
            f"inputs of whole numbers, {list(shape)} each, such as texts that were tokenised",
            why="which model reads them cannot be guessed",
            instead="a file written by hand, with a model of yours: docs/bring-your-own-data.md",
        )
    if federation.classes is None:
        outputs = int(np.prod(federation.example["y"].shape))
        return [
            Line("name", "mlp"),
            Line("hidden", [], "no hidden layer: a linear model"),
            Line("classes", outputs, "outputs"),
            Line("loss", "squared_error"),
            Line("metrics", ["absolute_error"]),
        ]
    square = len(shape) == 3 and shape[1] == shape[2] and shape[1] >= 16
    if square:
        return [Line("name", "cnn"), Line("channels", shape[0]), Line("side", shape[1])]
    return [Line("name", "softmax_regression", 'or "mlp", with hidden layers')]


def _strategy(federation: Federation) -> list[Line]:
    lr, why = 0.1, ""
    if federation.classes is None:
        # Steps on a squared error shrink it if lr is below 1 / (the sum of squares of the inputs).
        inputs = int(np.prod(federation.input_shape)) + 1
        lr, why = float(f"{0.5 / inputs:.1g}"), f"0.5 / ({inputs - 1} inputs + 1), which is safe"
    elif len(federation.input_shape) == 3:
        lr = 0.05
    return [Line("name", "fedavg"), Line("lr", lr, why), Line("local_epochs", 1)]


def _run(federation: Federation) -> list[Line]:
    lines = [Line("rounds", _ROUNDS)]
    if len(federation.train) > _LARGE:
        why = f"of {len(federation.train):,} clients, in each round"
        lines += [Line("participation", {"kind": "uniform", "count": _COHORT}, why)]
        lines += [Line("evaluate_every", 10)]
    return lines


def _table(name: str, lines: Sequence[Line]) -> str:
    rows = [f"[{name}]"]
    for key, value, why, off in lines:
        row = f"{'# ' if off else ''}{key} = {_inline(value)}"
        beside = f"{row:<{_COLUMN}} # {why}" if why else row
        rows += [beside] if len(beside) <= _WIDTH else [f"# {why}:", row]
    return "\n".join(rows) + "\n"


def _inline(value: object) -> str:
    """A value on one line of TOML."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_inline(v)}' for key, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def _unnamed(option: str, what: str, path: Path, other: str | None, columns: str) -> ConfigError:
    name = {"target": "client", "client": "target"}[option]
    given = f"--{name} {other}" if other else f"--{name} …"
    return ConfigError(
        f"hanse init {path} without --{option}",
        why=f"it names {what}, which cannot be guessed",
        instead=f"hanse init {path} {given} --{option} COLUMN, one of: {columns}",
    )
