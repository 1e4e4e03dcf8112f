"""Values from a file as the arguments of a function, checked against its signature."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import sys
import types
import typing
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from hanse.core.errors import ConfigError, did_you_mean
from hanse.core.types import ServerOptimizer
from hanse.data.partition import Scheme
from hanse.local import CosineDecay, ExponentialDecay, Schedule, StepDecay
from hanse.models import Execution
from hanse.privacy import BinaryTree, Correlation, Toeplitz
from hanse.privacy.histogram import PrivateHistogram
from hanse.privacy.statement import Shown
from hanse.selection import Full, Participation, Poisson, Separated, Stragglers, Uniform
from hanse.server import ServerAdagrad, ServerAdam, ServerSGD, ServerYogi

Component = Callable[..., Any]

SCHEDULES: Mapping[str, Component] = {
    "cosine": CosineDecay,
    "exponential": ExponentialDecay,
    "step": StepDecay,
}
SERVERS: Mapping[str, Component] = {
    "adagrad": ServerAdagrad,
    "adam": ServerAdam,
    "sgd": ServerSGD,
    "yogi": ServerYogi,
}
PARTICIPATIONS: Mapping[str, Component] = {
    "full": Full,
    "poisson": Poisson,
    "separated": Separated,
    "uniform": Uniform,
}
CORRELATIONS: Mapping[str, Component] = {"toeplitz": Toeplitz, "tree": BinaryTree}

_TABLES: Mapping[Any, tuple[str, Mapping[str, Component]]] = {
    Schedule: ("schedule", SCHEDULES),
    ServerOptimizer: ("optimizer", SERVERS),
    Participation: ("kind", PARTICIPATIONS),
    Correlation: ("kind", CORRELATIONS),
}
"""Parts that a file writes as a table: the key that names the kind, and the kinds."""


def call(function: Component, values: Mapping[str, Any], where: str, base: Path) -> Any:  # noqa: ANN401
    """Call `function` with the values of a table.

    Args:
        function: whose parameters the keys are.
        values: from the file.
        where: the table's name, for messages.
        base: what relative paths are relative to.

    Raises:
        ConfigError: an unknown or a missing key, or a value of another type.
    """
    return function(**arguments(function, values, where, base))


def arguments(
    function: Component, values: Mapping[str, Any], where: str, base: Path
) -> dict[str, Any]:
    """The keyword arguments that the values of a table stand for."""
    parameters = inspect.signature(function).parameters
    for key, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and key not in values and not variadic:
            raise ConfigError(
                f"[{where}] without {key!r}",
                why=f"{_name(function, where)} cannot do without it",
                instead=f"a line `{key} = …` in [{where}]",
            )
    return arguments_given(function, values, where, base)


def arguments_given(
    function: Component, values: Mapping[str, Any], where: str, base: Path
) -> dict[str, Any]:
    """As `arguments`, but parameters may be missing."""
    parameters, hints = inspect.signature(function).parameters, _hints(function)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in values:
        if key not in parameters and not open_ended:
            raise ConfigError(
                f"{where}.{key} = {values[key]!r}",
                why=f"{_name(function, where)} has no parameter {key!r}",
                instead=did_you_mean(key, parameters),
            )
    return {
        key: convert(value, _worth_saying(hints, parameters, key), f"{where}.{key}", base)
        for key, value in values.items()
    }


def convert(value: Any, hint: Any, where: str, base: Path) -> Any:  # noqa: ANN401 - any parameter
    """A value from a file as what a parameter with the type `hint` takes.

    Raises:
        ConfigError: it is nothing like it.
    """
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if Path in options:  # a text is a path first, so that it is relative to the file
        options = (Path, *(option for option in options if option is not Path))
    for option in options:
        found, result = _try(value, option, where, base)
        if found:
            return result
    raise ConfigError(
        f"{where} = {value!r}",
        why=f"it must be {_words(options)}",
        instead=f"{where.rpartition('.')[2]} = {_example(options)}",
    )


def named(name: str, known: Mapping[str, Component], where: str, base: Path) -> Component:
    """A component by its name, or by `module:function` or `file.py:function`.

    Raises:
        ConfigError: there is no such name, module, file or function.
    """
    if name in known:
        return known[name]
    if ":" not in name:
        raise ConfigError(
            f"{where} = {name!r}",
            why="there is no such name",
            instead=f"{did_you_mean(name, known)}; or your own: 'my_module:function', "
            "'my_file.py:function'",
        )
    source, _, attribute = name.rpartition(":")
    module = _load(source, where, base)
    function = getattr(module, attribute, None)
    if not callable(function):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(
            f"{where} = {name!r}",
            why=f"{source} has no function {attribute!r}",
            instead=did_you_mean(attribute, public),
        )
    return typing.cast("Component", function)


def anchored(value: Any, base: Path) -> Any:  # noqa: ANN401 - whatever TOML can hold
    """A value whose names `file.py:function`, however deep, work from any folder."""
    if isinstance(value, Mapping):
        return {key: anchored(part, base) for key, part in value.items()}
    if isinstance(value, list):
        return [anchored(part, base) for part in value]
    source, colon, attribute = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return f"{(base / source).resolve()}{colon}{attribute}" if source.endswith(".py") else value


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever TOML can hold
    """A part or a value as TOML can hold it; raises `TypeError` for what it cannot."""
    for key, table in _TABLES.values():
        for name, kind in table.items():
            if type(value) is kind:
                fields = {k: plain(v) for k, v in vars(value).items() if v is not None}
                return {key: name, **fields}
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    raise TypeError(type(value).__name__)


def _try(value: Any, option: Any, where: str, base: Path) -> tuple[bool, Any]:  # noqa: ANN401
    origin = typing.get_origin(option)
    if option in _TABLES:
        return _table(value, option, where, base)
    if isinstance(option, type) and dataclasses.is_dataclass(option) and isinstance(value, dict):
        return True, call(option, value, where, base)
    if isinstance(value, bool):  # Python counts it among the integers
        return option in (bool, Any), value
    if option is float and isinstance(value, int):
        return True, float(value)
    if option is Path and isinstance(value, str):
        return True, base / value
    if origin in (list, tuple, Sequence, Iterable) and isinstance(value, list):
        kind = (*typing.get_args(option), Any)[0]
        return True, tuple(convert(v, kind, f"{where}[{n}]", base) for n, v in enumerate(value))
    return _fits(value, option), None if option is type(None) else value


def _fits(value: Any, option: Any) -> bool:  # noqa: ANN401 - any parameter
    if option is Any:
        return True
    if typing.get_origin(option) is Literal:
        return value in typing.get_args(option)
    if option is type(None):
        return bool(value == "all")
    return isinstance(option, type) and isinstance(value, option)


def _table(value: Any, option: Any, where: str, base: Path) -> tuple[bool, Any]:  # noqa: ANN401
    key, table = _TABLES[option]
    if isinstance(value, str) and value in table and option is not Schedule:
        value = {key: value}
    if not isinstance(value, Mapping):
        return False, None
    if key not in value:
        raise ConfigError(
            f"{where} = {dict(value)!r}",
            why=f"nothing says which {key} it is",
            instead=f"{key} = one of: {', '.join(table)}",
        )
    name = value[key]
    component = named(str(name), table, f"{where}.{key}", base)
    rest = {k: v for k, v in value.items() if k != key}
    return True, call(component, rest, where, base)


def _worth_saying(
    hints: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], key: str
) -> Any:  # noqa: ANN401 - any annotation
    """A parameter's type, without the `None` that leaving it out means anyway."""
    hint = hints.get(key, Any)
    if not _is_union(hint) or key not in parameters or parameters[key].default is not None:
        return hint
    return Union[tuple(o for o in typing.get_args(hint) if o is not type(None))]  # noqa: UP007 - of a tuple


def _hints(function: Component) -> dict[str, Any]:
    """The parameters' types; one that cannot be looked up is not checked."""
    function = getattr(function, "func", function)  # of a functools.partial
    target = function.__init__ if inspect.isclass(function) else function
    # Annotations that a module imports for the type checker only are looked up here.
    known = {t.__name__: t for t in (*_TABLES, Execution, Sequence, Iterable, Path)}
    known |= {"Scheme": Scheme, "Stragglers": Stragglers}
    known |= {"Shown": Shown, "PrivateHistogram": PrivateHistogram}
    found: dict[str, Any] = {}
    for name, annotation in getattr(target, "__annotations__", {}).items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        with contextlib.suppress(NameError, TypeError):
            scope = getattr(target, "__globals__", {})
            found |= typing.get_type_hints(one, globalns=scope, localns=known)
    return found


def _load(source: str, where: str, base: Path) -> types.ModuleType:
    try:
        if not source.endswith(".py"):
            if not all(part.isidentifier() for part in source.split(".")):
                raise ModuleNotFoundError(f"{source!r} cannot be the name of a module")
            return importlib.import_module(source)
        path = (base / source).resolve()
        # A file may be called as a module of Python is: json.py must not replace json.
        name = f"hanse-file-{zlib.crc32(bytes(path)):08x}.{path.stem}"
        stamp = path.stat().st_mtime_ns
        known = sys.modules.get(name)
        if known is not None and vars(known).get("_hanse_stamp") == stamp:
            return known  # several parts of one file are of one module
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None  # noqa: S101 - a path that ends in .py has a loader
        assert spec.loader is not None  # noqa: S101 - as above
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        vars(module)["_hanse_stamp"] = stamp
    except (ImportError, OSError, SyntaxError) as error:
        raise ConfigError(
            f"{where} names {source!r}: {error}",
            why="it could not be imported",
            instead="a module on Python's path, or a file beside the experiment file "
            "('my_file.py:function')",
        ) from error
    return module


def _required(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    hints = _hints(kind)
    fields = dataclasses.fields(kind)
    return {f.name: hints.get(f.name, Any) for f in fields if f.default is dataclasses.MISSING}


def _is_union(hint: Any) -> bool:  # noqa: ANN401 - any annotation
    return typing.get_origin(hint) in (Union, types.UnionType)


def _name(function: Component, where: str) -> str:
    function = getattr(function, "func", function)  # of a functools.partial
    name = str(getattr(function, "__name__", function))
    return f"[{where}]" if name.startswith("_") else name


def _words(options: Iterable[Any]) -> str:
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    found = []
    for option in options:
        if option in _TABLES:
            key, table = _TABLES[option]
            found.append(f"a table with {key} = one of {', '.join(table)}")
        elif typing.get_origin(option) is Literal:
            found.append(f"one of {', '.join(map(repr, typing.get_args(option)))}")
        elif option is type(None):
            found.append('"all"')
        elif dataclasses.is_dataclass(option):
            keys = " and ".join(_required(option))
            fields = (field.name for field in dataclasses.fields(option))
            found.append(f"a table with {keys or 'any of ' + ', '.join(fields)}")
        elif typing.get_origin(option) is not None:
            found.append("a list")
        else:
            found.append(names.get(option, str(getattr(option, "__name__", option))))
    return " or ".join(found)


def _example(options: Sequence[Any]) -> str:
    examples = {float: "0.1", int: "10", bool: "true", str: '"a text"', Path: '"a/path"'}
    first = options[0]
    if typing.get_origin(first) is Literal:
        return repr(typing.get_args(first)[0]).replace("'", '"')
    if first in _TABLES:
        key, table = _TABLES[first]
        return f'{{{key} = "{next(iter(table))}"}}'
    if typing.get_args(first) == (str,):
        return '["a text"]'
    if dataclasses.is_dataclass(first):
        # The smallest whole number is allowed wherever a whole number is.
        parts = ((n, "1" if h is int else _example((h,))) for n, h in _required(first).items())
        return f"{{{', '.join(f'{name} = {value}' for name, value in parts)}}}"
    return examples.get(first, "[1, 2]")
