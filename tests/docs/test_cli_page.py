"""docs/cli.md describes what the code takes, all of it and nothing else."""

from __future__ import annotations

import inspect
import tomllib
from typing import TYPE_CHECKING, Any

import click
import pytest
from tests.docs.pages import (
    BASE,
    as_toml,
    blocks,
    experiment_of,
    hanse,
    headings,
    merged,
    squeeze,
    tables,
)

from hanse.cli.app import app
from hanse.config import binding, experiment_file
from hanse.models import Execution
from hanse.privacy.histogram import PrivateHistogram
from hanse.selection import Stragglers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

PAGE = tables("cli.md")

# ---------------------------------------------------------------------------- commands


def commands(group: click.Command, path: str = "hanse") -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, f"{path} {name}")
    else:
        yield path, group


def signature(path: str, command: click.Command) -> str:
    arguments = [p.name or "" for p in command.params if isinstance(p, click.Argument)]
    return " ".join([path, *map(str.upper, arguments)])


COMMANDS = {signature(path, command): command for path, command in commands(app)}


def test_every_command_is_described_and_no_other() -> None:
    described = [heading for heading in headings("cli.md") if heading.startswith("hanse ")]
    assert sorted(described) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_described_and_no_other(command: str) -> None:
    options = {
        option
        for parameter in COMMANDS[command].params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    described = {row[0].split()[0] for row in PAGE.get(command, [])}
    assert described == options


# -------------------------------------------------------------------------------- keys


def kinds() -> dict[str, tuple[Callable[..., Any], set[str]]]:
    """Each heading that lists the keys of a component: the component, and what it leaves out."""
    found: dict[str, tuple[Callable[..., Any], set[str]]] = {}
    of: tuple[tuple[str, Mapping[str, Callable[..., Any]]], ...] = (
        ("Source", experiment_file.SOURCES),
        ("Model", experiment_file.MODELS),
        ("Strategy", experiment_file.STRATEGIES),
        ("Schedule", binding.SCHEDULES),
        ("Optimiser", binding.SERVERS),
        ("Participation", binding.PARTICIPATIONS),
        ("Correlation", binding.CORRELATIONS),
    )
    for kind, components in of:
        found |= {f"{kind} {name}": (one, set()) for name, one in components.items()}
    mnist, _ = found.pop("Source mnist")
    for alike in ("Source fashion-mnist", "Source cifar-10"):
        assert keys_of(mnist) == keys_of(found.pop(alike)[0])
    found["Sources mnist, fashion-mnist and cifar-10"] = (mnist, set())
    found["Source idx"] = (found["Source idx"][0], set(keys_of(mnist)))  # "All keys of mnist, and:"
    found["Execution"] = (Execution, set())
    found["Stragglers"] = (Stragglers, set())
    found["Private histogram"] = (PrivateHistogram, set())
    found["[run]"] = (experiment_file._run_options, set())  # noqa: SLF001 - the keys of the table
    return found


def keys_of(component: Callable[..., Any]) -> dict[str, str]:
    """The keys that a component takes, and their defaults as the page writes them."""
    return {
        name: default_of(parameter)
        for name, parameter in inspect.signature(component).parameters.items()
    }


def default_of(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return "required"
    if parameter.default is None:
        return "none"
    try:
        return toml_value(binding.plain(parameter.default))
    except TypeError:  # a default that TOML has no word for
        return "–"


def toml_value(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k} = {toml_value(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    return as_toml({"x": value}).removeprefix("x = ").strip()


KINDS = kinds()


def test_every_kind_is_described_and_no_other() -> None:
    parts = ("Source", "Model ", "Strategy ", "Schedule ", "Optimiser ")
    prefixes = (*parts, "Participation ", "Correlation ")
    described = {h for h in headings("cli.md") if h.startswith(prefixes)}
    assert described == {h for h in KINDS if h.startswith(prefixes)}


@pytest.mark.parametrize("heading", KINDS)
def test_every_key_is_described_with_its_default_and_no_other(heading: str) -> None:
    component, elsewhere = KINDS[heading]
    expected = {k: v for k, v in keys_of(component).items() if k not in elsewhere}
    assert {row[0]: row[2] for row in PAGE.get(heading, [])} == expected


def test_losses_and_metrics_are_described_and_no_other() -> None:
    rows = PAGE["Losses and metrics"]
    described = {kind: {name for name, k, _ in rows if k == kind} for kind in ("loss", "metric")}
    assert described["loss"] == set(experiment_file.LOSSES)
    assert described["metric"] == set(experiment_file.METRICS)


def test_tables_have_the_keys_that_are_understood_with_every_kind() -> None:
    assert {row[0] for row in PAGE["Top level"]} == {"name"}
    assert {row[0] for row in PAGE["[data]"]} == {
        "source", "feature_noise", "feature_rotations", "standardise",
    }  # fmt: skip
    assert {row[0] for row in PAGE["[model]"]} == {"name", "loss", "metrics", "local"}
    assert {row[0] for row in PAGE["[strategy]"]} == {
        "name", "client_dp", "compression", "distributed_dp", "example_dp", "local_dp", "partial",
        "secure_sum",
    }  # fmt: skip


# Keys whose value cannot be guessed from the page.
EXAMPLES: Mapping[tuple[str, str], object] = {
    ("[run]", "participation"): "full",
    ("[run]", "evaluate_every"): 5,
    ("[run]", "evaluation_clients"): 5,
    ("[run]", "execution"): {"path": "module", "block": 1},
    ("[run]", "ledger"): "people.ledger",
    ("[run]", "delta"): 1e-3,
    ("[run]", "per_client"): "simulation",
    ("[run]", "stragglers"): {"fraction": 0.5},
    ("Stragglers", "fraction"): 0.5,
    ("Participation uniform", "fraction"): 0.5,
    ("Participation uniform", "count"): 2,
    ("Participation poisson", "rate"): 0.5,
    ("Strategy compressed_fedavg", "fraction"): 0.1,
    ("Strategy compressed_fedavg", "broadcast_bits"): 8,
    ("Participation separated", "separation"): 3,
    ("Participation separated", "most"): 2,
    ("Correlation toeplitz", "rounds"): 9,
    ("Correlation toeplitz", "bands"): 3,
    ("Correlation tree", "rounds"): 9,
    ("Strategy dp_ftrl", "rounds"): 100,
    ("Strategy dp_ftrl", "bands"): 3,
    ("Strategy fedsgd", "lr"): 0.1,
    ("Strategy fedsgd_topk", "lr"): 0.1,
    ("Strategy fedsgd_topk", "bits"): 8,
    ("Strategy fedsgd_topk", "server"): {"optimizer": "adam"},
    ("Strategy mimelite", "beta2"): 0.99,
    ("Strategy fedsgd", "server"): {"optimizer": "adam"},
    ("Strategy fedsgd_secagg", "lr"): 0.1,
    ("Strategy fedsgd_secagg", "examples"): {"survivors": 5, "divisor": 50.0},
    ("Strategy fedsgd_secagg", "server"): {"optimizer": "adam"},
    **{
        (f"Strategy {name}", key): value
        for name in ("fedavg_secagg", "fedsgd_secagg")
        for key, value in (("secure", {"drops": 0.1}), ("privacy", {"survivors": 5}))
    },
    ("Schedule step", "lr"): 0.1,
    ("Schedule exponential", "lr"): 0.1,
    ("Schedule cosine", "lr"): 0.1,
    ("Schedule cosine", "rounds"): 10,
    ("Model softmax_regression", "inputs"): 30,
    ("Model softmax_regression", "classes"): 7,
    ("Model char_lstm", "classes"): 30,
    ("Source shakespeare", "directory"): ".",
    ("Source synthetic", "alpha"): 1.0,
    ("Source synthetic", "beta"): 1.0,
    ("Model mlp", "inputs"): 30,
    ("Model mlp", "classes"): 7,
    ("Execution", "path"): "vmap",
    ("Execution", "block"): 2,
}


def table_with(heading: str, values: dict[str, object]) -> dict[str, Any]:
    """A file's tables in which the component of a heading has these values."""
    kind, _, name = heading.partition(" ")
    match kind:
        case "Source":
            return {"data": {"source": name, **values}}
        case "Model" | "Strategy":
            return {kind.lower(): {"name": name, **values}}
        case "Schedule":
            return {"strategy": {"lr": {"schedule": name, **values}}}
        case "Optimiser":
            return {"strategy": {"server": {"optimizer": name, **values}}}
        case "Participation":
            return {"run": {"participation": {"kind": name, **values}}}
        case "Correlation":
            return {"strategy": {"client_dp": {"correlation": {"kind": name, **values}}}}
        case "Execution" | "Stragglers" | "Private":
            return {"run": {"per_client" if kind == "Private" else kind.lower(): values}}
    return {"run": values}


NEED_FILES = (
    "Sources mnist",
    *(f"Source {name}" for name in ("huggingface", "idx", "images", "leaf", "npz", "table")),
)
BUILT = [
    (heading, row[0])
    for heading, rows in PAGE.items()
    if heading in KINDS and not heading.startswith(NEED_FILES)
    for row in rows
    if heading != "Model cnn"  # the smartwatch's data are no images
]


@pytest.mark.parametrize(("heading", "key"), BUILT)
def test_every_key_is_understood_in_a_file(heading: str, key: str, tmp_path: Path) -> None:
    rows = {row[0]: row[2] for row in PAGE[heading]}
    values: dict[str, object] = {}
    for name, default in rows.items():
        required = default == "required" and kind_needs(heading, name)
        if name == key or required:
            example = EXAMPLES.get((heading, name))
            values[name] = tomllib.loads(f"x = {default}")["x"] if example is None else example
    file = experiment_of(as_toml(merged(BASE, table_with(heading, values))), tmp_path)
    assert key in file.resolved()


def kind_needs(heading: str, key: str) -> bool:
    return not heading.startswith("Model") or key not in {"inputs", "classes"}


# -------------------------------------------------------------------------- exit codes


def test_exit_codes_are_the_described_ones(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(as_toml(BASE), encoding="utf-8")
    codes = {
        "--version": 0,
        f"data inspect {file}": 0,
        "run": 2,
        f"run {file} --sets run.rounds=1": 2,
        f"run {tmp_path}/none.toml": 2,
        f"run {file} --set strategy.lrr=1": 2,
        f"run {file} --set strategy.lr=1e30 --out {tmp_path}/diverged": 3,
    }
    assert {line: hanse(line)[0] for line in codes} == codes
    assert {int(row[0]) for row in PAGE["Exit codes"]} == {0, 1, 2, 3, 130}


def test_the_example_of_a_message_is_what_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(as_toml(BASE), encoding="utf-8")
    example = next(b.content for b in blocks("cli.md") if b.content.startswith("error: "))
    _, printed = hanse(f"run {file} --set strategy.lrr=0.1")
    assert squeeze(printed) == squeeze(example)
