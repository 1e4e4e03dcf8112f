"""What cannot be meant by a comparison, a sweep or an event log; see `test_bad_input`."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli_w
from tests.bad_input.test_bad_input import FOLDER, OWN, SMALL, Bad
from tests.comparison.conftest import write_run
from tests.runs.small_runs import experiment

import hanse
from hanse import ConfigError, HanseError, RunError
from hanse.cli.comparing import compare_runs, sweep_file
from hanse.config import read_experiment, with_overrides
from hanse.config.grid import base_of
from hanse.report import to_tensorboard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IN = Path("..") / FOLDER
CURVES = ((0.1, 0.1, 0.1, 0.1), (0.5, 0.5, 0.5, 0.5))


def compared(*names: str, **options: str) -> Callable[[], object]:
    return lambda: hanse.compare(*(IN / name for name in names), **options)


def swept(*over: str, out: str = "swept", **options: object) -> Callable[[], object]:
    """A sweep by the command line, of which nothing is to be run."""

    def do() -> None:
        given = {"overrides": [], "seeds": 1, "by": None, "target": None, **options}
        sweep_file(IN / "small.toml", over, out=Path(out), **given)  # type: ignore[arg-type]

    return do


def works(*over: str, **options: object) -> Callable[[], object]:
    """A sweep that goes through."""
    return swept(*over, out=str(IN / "works"), **options)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The lock of a folder, as another process would hold it."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def in_use() -> None:
    _write_sweep("fedavg")
    with held(IN / "sweep"):
        swept("strategy.lr=0.1,0.2", out=str(IN / "sweep"))()


def cell_in_use() -> None:
    works("strategy.lr=0.1")()
    run = IN / "works/strategy.lr=0.2/seed-0"
    hanse.sweep(IN / "small.toml", {"strategy.lr": [0.2]}, IN / "works")
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "status": "running"}))
    with held(run):
        works("strategy.lr=0.2")()


COMPARE = {
    "one run": Bad(ConfigError, "1 run to", "two or more", compared("a")),
    "no run at all": Bad(
        ConfigError, "0 runs", "two or more", lambda: compare_runs((), None, None, None)
    ),
    "thirteen runs": Bad(ConfigError, "13 runs", "two or more", compared(*["a"] * 13)),
    "the same run twice": Bad(ConfigError, "is there twice", "once", compared("a", "b", "a")),
    "no such run": Bad(RunError, "in/none", "hanse run", compared("a", "none")),
    "a folder without a run": Bad(RunError, "in/taken", "folder of a run", compared("a", "taken")),
    "a damaged record": Bad(RunError, "metrics.jsonl, line 1", "run the", compared("a", "damaged")),
    "a damaged list of clients": Bad(RunError, "clients.jsonl", "restore", compared("a", "short")),
    "a run that was not evaluated": Bad(
        RunError, "new has not been evaluated", "first evaluation", compared("a", "new")
    ),
    "another data set": Bad(
        RunError, "the data set: people and cats", "same data", compared("a", "cats"),
        compared("a", "b"),
    ),
    "other clients": Bad(RunError, "clients' names", "data.seed", compared("a", "strangers")),
    "another split of the same": Bad(
        RunError, "how many examples", "data.seed", compared("a", "uneven")
    ),
    "another metric": Bad(
        RunError, "a: accuracy (cross_entropy); f1: f1", "model.metrics", compared("a", "f1")
    ),
    "a target without a number": Bad(
        ConfigError, "'accuracy'", "accuracy=0.9", compared("a", "b", target="accuracy"),
        compared("a", "b", target="accuracy=0.9"),
    ),
    "a target that is no number": Bad(
        ConfigError, "'accuracy=nan'", "accuracy=0.9", compared("a", "b", target="accuracy=nan")
    ),
    "a target of another metric": Bad(
        ConfigError, "acuracy", "did you mean 'accuracy'",
        compared("a", "b", target="acuracy=0.9"),
    ),
    "a target on clients that there are not": Bad(
        ConfigError, "unseen.accuracy", "test", compared("a", "b", target="unseen.accuracy=0.9"),
        compared("a", "b", target="test.accuracy=0.9"),
    ),
    "a page in place of a folder": Bad(
        RunError, "in/taken", "a file",
        lambda: hanse.compare(IN / "a", IN / "b").write(IN / "taken"),
    ),
}  # fmt: skip

SWEEP = {
    "over nothing": Bad(
        ConfigError, "nothing", "--over", swept(), works("strategy.lr=0.1")
    ),
    "no equals sign": Bad(
        ConfigError, "--over strategy.lr", "--over strategy.lr=", swept("strategy.lr"),
        works("strategy.lr=0.05,0.1"),
    ),
    "no values": Bad(ConfigError, "--over strategy.lr=", "value,value", swept("strategy.lr=")),
    "an empty value": Bad(ConfigError, "0.1,,0.2", "value,value", swept("strategy.lr=0.1,,0.2")),
    "no name": Bad(ConfigError, "--over =1", "table.key", swept("=1,2")),
    "half a name": Bad(ConfigError, "--over .lr=1", "table.key", swept(".lr=1,2")),
    "a value twice": Bad(
        ConfigError, "the value 0.1 twice", "--seeds", swept("strategy.lr=0.1,0.2,0.1"),
        works("strategy.lr=0.1", seeds=2),
    ),
    "a name twice": Bad(
        ConfigError, "strategy.lr is given twice", "one --over strategy.lr=…",
        swept("strategy.lr=0.1", "strategy.lr=0.2"), works("strategy.lr=0.1,0.2"),
    ),
    "a name that is set as well": Bad(
        ConfigError, "strategy.lr is given twice", "no --set strategy.lr",
        swept("strategy.lr=0.1", overrides=["strategy.lr=0.2"]),
    ),
    "an unknown key": Bad(
        ConfigError, "strategy.lrr", "did you mean 'lr'", swept("strategy.lrr=0.1,0.2")
    ),
    "an unknown table": Bad(ConfigError, "[strat]", "strategy", swept("strat.lr=0.1")),
    "a key that no strategy knows": Bad(
        ConfigError, "strategy.mux", "one of",
        swept("strategy.name=fedavg,fedprox", "strategy.mux=1,2"),
        works("strategy.name=fedavg,fedprox", "strategy.mu=1,2"),
    ),
    "an unknown strategy": Bad(
        ConfigError, "'fedpro'", "did you mean 'fedprox'", swept("strategy.name=fedavg,fedpro")
    ),
    "a value that cannot be": Bad(
        HanseError, "lr", "0.1", swept("strategy.lr=0.1,text"),
    ),
    "through a value that is no table": Bad(
        ConfigError, "data.source.x", "data.source=…", swept("data.source.x=1"),
    ),
    "the seed": Bad(
        ConfigError, "run.seed", "--seeds", swept("run.seed=1,2"), works("strategy.lr=0.1", seeds=2)
    ),
    "no seeds": Bad(
        ConfigError, "seeds = 0", "at least 1",
        lambda: hanse.sweep(IN / "small.toml", {"strategy.lr": [0.1]}, "swept", seeds=0),
    ),
    "an axis without values": Bad(
        ConfigError, "strategy.lr without", "strategy.lr=value",
        lambda: hanse.sweep(IN / "small.toml", {"strategy.lr": []}, "swept"),
    ),
    "a metric that nobody computes": Bad(
        ConfigError, "acuracy", "did you mean 'accuracy'", swept("strategy.lr=0.1", by="acuracy"),
        works("strategy.lr=0.1", by="accuracy"),
    ),
    "clients that there are not": Bad(
        ConfigError, "unseen.f1", "one of", swept("strategy.lr=0.1", target="unseen.f1=1")
    ),
    "a folder with something in it": Bad(
        RunError, "in/taken", "another directory",
        swept("strategy.lr=0.1", out=str(IN / "taken")),
    ),
    "a folder that is a run": Bad(
        RunError, "in/a exists", "another directory", swept("strategy.lr=0.1", out=str(IN / "a"))
    ),
    "a sweep of another experiment": Bad(
        RunError, "strategy.name was 'scaffold' and is 'fedavg'", "another directory",
        swept("strategy.lr=0.1", out=str(IN / "sweep")),
    ),
    "a sweep that another process runs": Bad(
        RunError, "in use by another process", "wait", in_use
    ),
    "a cell that another process runs": Bad(
        RunError, "seed-0 is in use by another process", "wait", cell_in_use
    ),
    "a function that makes no experiment": Bad(
        ConfigError, "returned a int", "hanse.Experiment",
        lambda: hanse.sweep(lambda lr: 1, {"lr": [0.1]}, "swept"),  # type: ignore[arg-type, return-value]
    ),
}  # fmt: skip

EVENTS = {
    "of no run": Bad(
        RunError, "in/none", "hanse run", lambda: to_tensorboard(IN / "none", "log")
    ),
    "beside somebody else's": Bad(
        RunError, "events.out.tfevents.1.me", "for each run",
        lambda: to_tensorboard(IN / "a", IN / "events"),
    ),
    "of a run that has not begun, beside somebody else's": Bad(
        RunError, "in/events", "for each run",
        lambda: hanse.run(experiment(), "run", tensorboard=IN / "events"),
    ),
}  # fmt: skip

TABLE = {
    f"{kind}: {name}": bad
    for kind, rows in {"compare": COMPARE, "sweep": SWEEP, "events": EVENTS}.items()
    for name, bad in rows.items()
}


def _write_sweep(strategy: str) -> None:
    """A sweep of the experiment with a strategy."""
    file = with_overrides(read_experiment(IN / "small.toml"), [f"strategy.name={strategy}"])
    base = base_of(file)
    (IN / "sweep/sweep.json").write_text(json.dumps({"format": 1, "base": base}))


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is empty; runs and files to read lie in another beside it."""
    inputs = tmp_path / FOLDER
    for name in ("taken", "sweep", "events"):
        (inputs / name).mkdir(parents=True)
    (inputs / "taken/thesis.tex").write_text("precious")
    (inputs / "own.py").write_text(OWN)
    (inputs / "small.toml").write_text(tomli_w.dumps(SMALL))
    (inputs / "events/events.out.tfevents.1.me").write_bytes(b"")
    for name in ("a", "b", "damaged", "short"):
        write_run(inputs / name, CURVES)
    write_run(inputs / "cats", CURVES, data={"name": "cats"})
    write_run(inputs / "strangers", CURVES, data={"clients": ["w", "x", "y", "z"]})
    write_run(inputs / "uneven", CURVES, data={"train_sizes": [1, 2, 3, 4]})
    write_run(inputs / "f1", CURVES, metric="f1")
    write_run(inputs / "new", [], rounds=3)
    (inputs / "damaged/metrics.jsonl").write_text("[1, 2]\n")
    broken = {"round": 0, "split": "test", "clients": [0], "examples": [], "metrics": {}}
    (inputs / "short/clients.jsonl").write_text(json.dumps(broken) + "\n")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    _write_sweep("scaffold")
    return tmp_path / "out"


@pytest.mark.parametrize("name", TABLE)
def test_what_cannot_be_meant_is_refused_with_a_remedy(empty: Path, name: str) -> None:
    bad = TABLE[name]
    with pytest.raises(bad.kind) as caught:
        bad.does()
    error = caught.value
    assert bad.says in error.found
    assert len(error.why) > 10
    assert bad.instead in error.instead
    assert not list(empty.iterdir())
    assert [p.name for p in (empty.parent / FOLDER / "taken").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", [name for name, bad in TABLE.items() if bad.works])
def test_the_remedy_works(name: str) -> None:
    remedy = TABLE[name].works
    assert remedy is not None
    remedy()
