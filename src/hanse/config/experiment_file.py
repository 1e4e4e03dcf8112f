"""An experiment file: `[data]`, `[model]`, `[strategy]`, `[run]`, as docs/cli.md describes."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from hanse import data as sources
from hanse import models, strategies
from hanse.aggregation import SecureSum
from hanse.config.binding import (
    Component,
    anchored,
    arguments,
    arguments_given,
    call,
    convert,
    named,
    plain,
)
from hanse.core.errors import ConfigError, did_you_mean
from hanse.data import Federation, PoissonSteps
from hanse.experiment import Experiment, build_model
from hanse.layers import ClientDP, DistributedDP, LocalDP, Weighted
from hanse.models import Task
from hanse.privacy import ExampleDP
from hanse.strategies.compression import compressed
from hanse.strategies.private import protecting_examples
from hanse.strategies.secured import secured
from hanse.strategy import Partial, Strategy

if TYPE_CHECKING:
    from torch import nn

    from hanse.models import Execution
    from hanse.privacy.histogram import PrivateHistogram
    from hanse.privacy.statement import Shown
    from hanse.selection import Participation, Stragglers

SOURCES: Mapping[str, Component] = {
    "cifar-10": functools.partial(sources.idx_federation, "cifar-10"),
    "digits": sources.digits,
    "fashion-mnist": functools.partial(sources.idx_federation, "fashion-mnist"),
    "huggingface": sources.from_huggingface,
    "idx": sources.idx_federation,
    "images": sources.from_image_folder,
    "leaf": sources.from_leaf,
    "mnist": functools.partial(sources.idx_federation, "mnist"),
    "npz": sources.from_npz_folder,
    "shakespeare": sources.shakespeare,
    "smartwatch": sources.watch,
    "synthetic": sources.synthetic,
    "table": sources.from_table,
}
MODELS: Mapping[str, Component] = {
    "char_lstm": models.char_lstm,
    "cnn": models.cnn,
    "mlp": models.mlp,
    "softmax_regression": models.softmax_regression,
}
STRATEGIES: Mapping[str, Component] = {
    name: getattr(strategies, name) for name in strategies.__all__
}
LOSSES: Mapping[str, Component] = {
    "binary_cross_entropy": models.binary_cross_entropy,
    "cross_entropy": models.cross_entropy,
    "next_token": models.next_token,
    "squared_error": models.squared_error,
}
METRICS: Mapping[str, Component] = {
    "absolute_error": models.absolute_error,
    "accuracy": models.accuracy,
    "binary_accuracy": models.binary_accuracy,
    "next_token_accuracy": models.next_token_accuracy,
}
LOCALS: Mapping[str, Component] = {"batch-norm": models.batch_norm}
"""What stays with the clients, by a name instead of globs."""
PARTS: Mapping[str, tuple[str, Mapping[str, Component], tuple[str, ...]]] = {
    "data": ("source", SOURCES, ("feature_noise", "feature_rotations", "standardise")),
    "model": ("name", MODELS, ("loss", "metrics", "local")),
    "strategy": (
        "name",
        STRATEGIES,
        (
            "client_dp",
            "compression",
            "distributed_dp",
            "example_dp",
            "local_dp",
            "partial",
            "secure_sum",
        ),
    ),
}
"""For each section the key that names its component, the components, and what goes with any."""
_PRIVATE: Mapping[str, type[ClientDP | LocalDP]] = {"client_dp": ClientDP, "local_dp": LocalDP}
_SECTIONS = ("name", "data", "model", "strategy", "run")


@dataclass(frozen=True)
class ExperimentFile:
    """The content of an experiment file.

    Attributes:
        content: the tables, as TOML has them.
        base: the folder that relative paths are relative to.
    """

    content: Mapping[str, Any]
    base: Path

    def federation(self) -> Federation:
        """The data that `[data]` describes.

        Raises:
            HanseError: it cannot be had.
        """
        return _data(self._section("data"), self.base)

    def experiment(self, federation: Federation | None = None) -> Experiment:
        """The experiment that the file describes.

        Args:
            federation: the data that `[data]` describes, where they are loaded already.

        Raises:
            HanseError: something in it cannot be meant.
        """
        federation = self.federation() if federation is None else federation
        model_table = self._section("model")
        model, options = _model(_guessed(model_table, federation, self.base), self.base)
        return Experiment(
            strategy=_strategy(self._section("strategy"), self.base),
            data=federation,
            model=model,
            name=self._name(),
            **options,
            **arguments(_run_options, self._section("run"), "run", self.base),
        )

    def resolved(self) -> str:
        """The file as text, every default of its parts written out and every path absolute."""
        content: dict[str, Any] = {"name": self._name()}
        for section, (key, known, apart) in PARTS.items():
            name, given = _named(self._section(section), section, key)
            function = named(name, known, f"{section}.{key}", self.base)
            own = {k: v for k, v in given.items() if k in apart}
            rest = {k: v for k, v in given.items() if k not in apart}
            content[section] = {
                key: anchored(name, self.base),
                **anchored(own, self.base),
                **_written_out(function, rest, section, self.base),
            }
        content["run"] = _written_out(_run_options, self._section("run"), "run", self.base)
        return tomli_w.dumps(content)

    def with_guesses(self, federation: Federation) -> ExperimentFile:
        """The file with what `[model]` leaves to be read off the data written out."""
        model = _guessed(self._section("model"), federation, self.base)
        return ExperimentFile({**self.content, "model": model}, self.base)

    def task(self) -> Task:
        """The model alone; the data are loaded only if something must be read off them.

        Raises:
            HanseError: something in `[model]` cannot be meant.
        """
        table = self._section("model")
        if _left_open(table, self.base):
            table = _guessed(table, self.federation(), self.base)
        model, options = _model(table, self.base)
        run = arguments(_run_options, self._section("run"), "run", self.base)
        return Task.of(build_model(model, run.get("seed", 0)), **options)

    def _name(self) -> str:
        """What the experiment is called; its runs lie in a folder of this name."""
        name = self.content.get("name", "experiment")
        if not isinstance(name, str) or not name.strip(". ") or "/" in name or "\0" in name:
            raise ConfigError(
                f"name = {name!r}",
                why="runs lie in a folder of this name",
                instead='a text without slashes, such as name = "first-try"',
            )
        return name

    def _section(self, name: str) -> Mapping[str, Any]:
        for key in self.content:
            if key not in _SECTIONS:
                raise ConfigError(
                    f"[{key}] in the experiment file",
                    why="nothing reads it, so it would be ignored silently",
                    instead=did_you_mean(key, _SECTIONS),
                )
        found = self.content.get(name, {} if name == "run" else None)
        if not isinstance(found, Mapping):
            raise ConfigError(
                f"the experiment file has no [{name}]" if found is None else f"{name} = {found!r}",
                why=f"a run needs its {name}",
                instead=f"a table: [{name}]",
            )
        return found


def read_experiment(path: Path) -> ExperimentFile:
    """Read an experiment file.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}",
            why="the experiment is described there",
            instead="the path of an experiment file, such as examples/smartwatch.toml",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not TOML: {error}",
            why="experiment files are written in TOML (https://toml.io)",
            instead='for example: [strategy] on a line, and name = "fedavg" on the next',
        ) from error
    return ExperimentFile(content, path.resolve().parent)


def with_overrides(file: ExperimentFile, overrides: list[str]) -> ExperimentFile:
    """The file with values changed by `a.b=c`, as `--set` writes them.

    Raises:
        ConfigError: no such form.
    """
    content = copy.deepcopy(dict(file.content))
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = [key.strip() for key in path.split(".")]
        if not equals or not all(keys):
            raise ConfigError(
                f"--set {override}",
                why="it names no value",
                instead="--set table.key=value, such as --set strategy.lr=0.05",
            )
        _put(content, keys, value_of(text), f"--set {override}", "--set ")
    return ExperimentFile(content, file.base)


def with_values(file: ExperimentFile, values: Mapping[str, Any]) -> ExperimentFile:
    """The file with values by their names, `{"strategy.lr": 0.1}`.

    Raises:
        ConfigError: a name leads through a value that is no table.
    """
    content = copy.deepcopy(dict(file.content))
    for name, value in values.items():
        _put(content, name.split("."), copy.deepcopy(value), name)
    return ExperimentFile(content, file.base)


def _put(
    content: dict[str, Any], keys: Sequence[str], value: object, said: str, option: str = ""
) -> None:
    table: Any = content
    for number, key in enumerate(keys[:-1], start=1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(
                said,
                why=f"{key} is {table!r}, not a table",
                instead=f"{option}{'.'.join(keys[:number])}=…",
            )
    table[keys[-1]] = value


def value_of(text: str) -> Any:  # noqa: ANN401 - whatever TOML can hold
    """A value as TOML reads it; what is not TOML is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()  # a word without quotes is a text


def _data(table: Mapping[str, Any], base: Path) -> Federation:
    name, rest = _named(table, "data", "source")
    standardise = convert(rest.pop("standardise", False), bool, "data.standardise", base)
    noise = convert(rest.pop("feature_noise", 0.0), float, "data.feature_noise", base)
    rotations = convert(rest.pop("feature_rotations", 1), int, "data.feature_rotations", base)
    function = named(name, SOURCES, "data.source", base)
    federation = call(function, rest, "data", base)
    if not isinstance(federation, Federation):
        raise ConfigError(
            f"data.source = {name!r} returned a {type(federation).__name__}",
            why="clients' data come as a hanse.data.Federation",
            instead="return federation_from_arrays(…), or partitioned(…)",
        )
    if rotations != 1:
        federation = sources.rotate_by_client(federation, rotations)
    if noise:
        seed = convert(rest.get("seed", 0), int, "data.seed", base)
        federation = sources.noise_by_client(federation, noise, seed=seed)
    return sources.standardise(federation) if standardise else federation


def _left_open(table: Mapping[str, Any], base: Path) -> list[str]:
    """The parameters of the model that are read off the data unless they are given."""
    name, given = _named(table, "model", "name")
    known = inspect.signature(named(name, MODELS, "model.name", base)).parameters
    return [key for key in ("inputs", "classes") if key in known and key not in given]


def _guessed(table: Mapping[str, Any], federation: Federation, base: Path) -> dict[str, Any]:
    guesses = {
        "inputs": math.prod(federation.input_shape),
        "classes": len(federation.classes or ()),
    }
    left = _left_open(table, base)
    return {**table, **{key: guesses[key] for key in left if guesses[key]}}


def _model(table: Mapping[str, Any], base: Path) -> tuple[Callable[[], nn.Module], dict[str, Any]]:
    name, rest = _named(table, "model", "name")
    options = _task_options(rest, base)
    function = named(name, MODELS, "model.name", base)
    bound = arguments(function, rest, "model", base)
    return functools.partial(function, **bound), options


def _task_options(table: dict[str, Any], base: Path) -> dict[str, Any]:
    """Take the loss, the metrics and what stays local out of `[model]`."""
    options: dict[str, Any] = {}
    if "loss" in table:
        options["loss"] = named(str(table.pop("loss")), LOSSES, "model.loss", base)
    if isinstance(table.get("local"), str):
        options["local"] = _local(table.pop("local"), base)
    for key in ("metrics", "local"):
        if key in table:
            options[key] = convert(table.pop(key), Sequence[str], f"model.{key}", base)
    if "metrics" in options:
        options["metrics"] = {
            str(m).rpartition(":")[2]: named(str(m), METRICS, "model.metrics", base)
            for m in options["metrics"]
        }
    return options


def _local(name: str, base: Path) -> Component:
    if name not in LOCALS and ":" not in name:
        raise ConfigError(
            f"model.local = {name!r}",
            why="globs of names come in a list, and a text alone names a way to find them",
            instead=f'local = ["{name}"], or {did_you_mean(name, LOCALS)}',
        )
    return named(name, LOCALS, "model.local", base)


def _strategy(table: Mapping[str, Any], base: Path) -> Strategy:
    name, rest = _named(table, "strategy", "name")
    partial, compression = rest.pop("partial", None), rest.pop("compression", None)
    private = {key: rest.pop(key) for key in _PRIVATE if key in rest}
    secure, distributed = rest.pop("secure_sum", None), rest.pop("distributed_dp", None)
    examples = rest.pop("example_dp", None)
    strategy = call(named(name, STRATEGIES, "strategy.name", base), rest, "strategy", base)
    if not isinstance(strategy, Strategy):
        raise ConfigError(
            f"strategy.name = {name!r} returned a {type(strategy).__name__}",
            why="a run needs a hanse.Strategy",
            instead="return Strategy(local=…), or fedavg(…).then(…)",
        )
    for key, given in private.items():
        layer = convert(given, _PRIVATE[key], f"strategy.{key}", base)
        strategy = _private(strategy, layer, rest.get("weighting"), key)
    if compression is not None:
        strategy = _compressed(strategy, compression, base)
    if secure is not None or distributed is not None:
        strategy = _secured(strategy, secure, distributed, rest.get("weighting"), base)
    if examples is not None:
        strategy = _of_examples(strategy, examples, rest, base)
    if partial is None:
        return strategy
    return strategy.replace(partial=convert(partial, Partial, "strategy.partial", base))


def _compressed(strategy: Strategy, table: object, base: Path) -> Strategy:
    """The strategy with layers that compress, in front of its others."""
    where = "strategy.compression"
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"{where} = {table!r}",
            why="it says what is left out, and of what",
            instead="compression = {fraction = 0.01, bits = 8, error_feedback = true}",
        )
    found: Strategy = call(functools.partial(compressed, strategy), table, where, base)
    return found


def _private(
    strategy: Strategy, layer: ClientDP | LocalDP, weighting: object, key: str
) -> Strategy:
    """The strategy with a `ClientDP` or `LocalDP` in the place of its weights."""
    if weighting not in (None, "uniform"):
        raise _weighted(weighting, key)
    kept = (part for part in strategy.layers if not isinstance(part, Weighted))
    return strategy.replace(layers=(*kept, layer))


def _secured(
    strategy: Strategy, secure: object, distributed: object, weighting: object, base: Path
) -> Strategy:
    """The strategy with a `SecureSum`, and with a `DistributedDP` in the place of its weights."""
    layer, total = None, None
    if distributed is not None:
        layer = convert(distributed, DistributedDP, "strategy.distributed_dp", base)
        if weighting not in (None, "uniform"):
            raise _weighted(weighting, "distributed_dp")
    if secure is not None:
        total = convert(secure, SecureSum, "strategy.secure_sum", base)
    return secured(strategy, total, layer)


def _weighted(weighting: object, key: str) -> ConfigError:
    return ConfigError(
        f"strategy.weighting = {weighting!r} with strategy.{key}",
        why="with differential privacy of clients every client counts the same",
        instead='weighting = "uniform", or no such line',
    )


def _of_examples(
    strategy: Strategy, table: object, given: Mapping[str, object], base: Path
) -> Strategy:
    """The strategy with an `ExampleDP`, and batches that are sampled."""
    for key in ("local_epochs", "batch_size", "chunk", "steps", "rate", "weighting"):
        if key in given and given[key] != "uniform":
            raise ConfigError(
                f"strategy.{key} = {given[key]!r} with strategy.example_dp",
                why="batches are sampled example by example, and every client counts the same",
                instead="example_dp = {rate = 0.1, steps = 10}, and no such line",
            )
    values = convert(table, dict, "strategy.example_dp", base)
    sampling = {key: values[key] for key in ("rate", "steps") if key in values}
    rest = {key: value for key, value in values.items() if key not in sampling}
    work = call(_sampled, sampling, "strategy.example_dp", base)
    privacy = call(ExampleDP, rest, "strategy.example_dp", base)
    return protecting_examples(strategy, privacy, work)


def _sampled(*, rate: float = 0.1, steps: int = 10) -> PoissonSteps:
    return PoissonSteps(rate, steps)


def _run_options(
    *,
    rounds: int = 100,
    seed: int = 0,
    setting: Literal["cross-silo", "cross-device"] = "cross-silo",
    participation: Participation | None = None,
    evaluate_every: int | None = None,
    evaluation_clients: int | None = None,
    execution: Execution | None = None,
    checkpoint_every: int = 1,
    workers: int = 1,
    device: str = "cpu",
    stragglers: Stragglers | None = None,
    ledger: Path | None = None,
    delta: float | None = None,
    per_client: Shown | PrivateHistogram | None = None,
) -> None:
    """The keys of `[run]`, with their types and defaults; only its signature is used."""
    del rounds, seed, setting, participation, evaluate_every, evaluation_clients
    del execution, checkpoint_every, workers, device, stragglers, ledger, delta, per_client


def _named(table: Mapping[str, Any], section: str, key: str) -> tuple[str, dict[str, Any]]:
    if key not in table:
        raise ConfigError(
            f"[{section}] without {key!r}",
            why=f"nothing says which {section} it is",
            instead=f'{key} = "…": {", ".join(PARTS[section][1])}, or your own "file.py:function"',
        )
    return str(table[key]), {k: v for k, v in table.items() if k != key}


def _written_out(
    function: Component, given: Mapping[str, Any], where: str, base: Path
) -> dict[str, Any]:
    """The values of a table with absolute paths, and the defaults of what was not given."""
    found = {}
    for name, value in arguments_given(function, given, where, base).items():
        found[name] = anchored(given[name], base)
        if isinstance(value, Path):
            found[name] = str(value.resolve())
        elif isinstance(given[name], Mapping | str | list):
            with contextlib.suppress(TypeError):  # a part of the user's own stays as it is written
                found[name] = plain(value)
    for name, parameter in inspect.signature(function).parameters.items():
        if name in given or parameter.default in (parameter.empty, None):
            continue
        with contextlib.suppress(TypeError):  # a default that TOML has no word for
            found[name] = plain(parameter.default)
    return found
