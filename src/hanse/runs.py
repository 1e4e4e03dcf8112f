"""Runs on disk: start, resume, export, load."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from hanse import records
from hanse.baselines import baselines as train_baselines
from hanse.config import read_experiment
from hanse.core.errors import DivergenceError, ModelError, RunError
from hanse.experiment import Experiment, Prepared, prepare
from hanse.models.task import Task
from hanse.report import write as write_report
from hanse.storage import RunDirectory, to_json, write_atomically
from hanse.training import Round, evaluate_all, rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from hanse.round import FederationState

_MODEL = "model.safetensors"


def run(experiment: Experiment, directory: str | Path, *, baselines: bool = False) -> RunDirectory:
    """Run an experiment with metrics, checkpoints and a report in a new directory.

    Args:
        experiment: what to run.
        directory: where; it must not exist, or be empty.
        baselines: also train every client alone, and one model on all data.

    Raises:
        DivergenceError: training diverged; the directory holds the last good checkpoint.
        HanseError: the experiment cannot be run; nothing was written.
    """
    prepared = prepare(experiment)
    target = start(prepared, Path(directory), baselines=baselines)
    for _ in carry_on(prepared, target):
        pass
    finish(prepared, target)
    return target


def resume(directory: str | Path, experiment: Experiment | None = None) -> RunDirectory:
    """Go on with a run after its last checkpoint, to the same bits as if it had never stopped.

    Args:
        directory: the run.
        experiment: as it was started; only `rounds` may differ. `None`: the run's own
            `config.toml`, which runs of an experiment file have.

    Raises:
        RunError: no run, a damaged checkpoint, or another experiment.
    """
    target = RunDirectory.open(Path(directory))
    prepared = prepare(experiment or own_experiment(target))
    for _ in carry_on(prepared, target):
        pass
    finish(prepared, target)
    return target


def own_experiment(run: RunDirectory) -> Experiment:
    """The experiment of a run that was started from a file.

    Raises:
        RunError: it was started from Python.
    """
    path = run.path / "config.toml"
    if not path.is_file():
        raise RunError(
            f"{run.path} has no config.toml",
            why="it was started from Python, where the experiment is defined",
            instead=f"hanse.resume({str(run.path)!r}, experiment) in Python",
        )
    return read_experiment(path).experiment()


def start(
    prepared: Prepared, path: Path, *, config: str | None = None, baselines: bool = False
) -> RunDirectory:
    """Make the directory of a run that is about to begin; `config` is its file as text."""
    about = {**records.about(prepared), "baselines": baselines}
    return RunDirectory.create(path, about, config)


def carry_on(prepared: Prepared, run: RunDirectory) -> Iterator[Round]:
    """The rounds that a run still needs, each recorded before it is yielded.

    Raises:
        DivergenceError: the directory then holds the last good checkpoint and the advice.
    """
    mark = records.fingerprint(prepared)
    with _locked(run):
        state = run.latest(mark)
        run.forget_after(-1 if state is None else state.round)
        seconds = sum(record["seconds"] for record in run.metrics())
        run.update(status="running", rounds=prepared.experiment.rounds, advice=None)
        try:
            for done in rounds(prepared, start=state):
                seconds += done.seconds
                run.append(records.round_record(done), records.client_records(done))
                state = done.state
                if _is_checkpoint(prepared, done.number):
                    run.save(state, mark)
                yield done
        except DivergenceError as error:
            if state is not None:
                run.save(state, mark)
            run.update(status="diverged", advice=f"{error.found}: {error.instead}", seconds=seconds)
            write_report(run.path)
            raise
        run.update(status="trained", seconds=seconds)


def finish(prepared: Prepared, run: RunDirectory) -> None:
    """Write the model, the baselines if wanted, and the report of a run whose rounds are done."""
    with _locked(run):
        state = run.latest(records.fingerprint(prepared))
        assert state is not None  # noqa: S101 - the last round is always checkpointed
        run.write(_MODEL, _model_bytes(prepared.task, state, run.about()))
        if run.about()["baselines"]:
            run.write("baselines.json", _baselines(prepared, state))
        run.update(status="finished")
        write_report(run.path)


def export(prepared: Prepared, run: RunDirectory, out: Path) -> Path:
    """Write the trained model's state dictionary, of the run's last checkpoint, to `out`.

    Raises:
        RunError: no checkpoint, or a damaged one.
    """
    state = run.latest(records.fingerprint(prepared))
    if state is None:
        raise RunError(
            f"{run.path} has no checkpoint yet",
            why="there is no trained model to export",
            instead=f"`hanse resume {run.path}` first",
        )
    write_atomically(out, _model_bytes(prepared.task, state, run.about()))
    return out


def load(path: str | Path, model: nn.Module | Callable[[], nn.Module] | None = None) -> nn.Module:
    """The trained model, in evaluation mode.

    Args:
        path: a run directory, or a file that `hanse export` wrote.
        model: the module that was trained, or a function that makes it; it is not edited. `None`:
            as the `config.toml` of the run directory says.

    Raises:
        RunError: no such run, or no model in it.
        ModelError: the file holds another model's tensors.
    """
    source = Path(path)
    file = source / _MODEL if source.is_dir() else source
    tensors = _read_tensors(file)
    if model is None:
        model = own_experiment(RunDirectory.open(source)).model
    module = Task.of(model if isinstance(model, nn.Module) else model()).module
    expected = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    if expected != found:
        different = sorted(k for k in {*expected, *found} if expected.get(k) != found.get(k))
        name = different[0]
        raise ModelError(
            f"{file} does not fit {type(module).__name__}: {name!r} is {found.get(name)} in the "
            f"file and {expected.get(name)} in the model",
            why="it holds the weights of another model",
            instead="the model that the run trained (run.json and config.toml describe it)",
        )
    module.load_state_dict(tensors)
    return module.eval()


def _is_checkpoint(prepared: Prepared, number: int) -> bool:
    experiment = prepared.experiment
    return number % experiment.checkpoint_every == 0 or number == experiment.rounds


def _model_bytes(task: Task, state: FederationState, about: dict[str, Any]) -> bytes:
    module = task.with_values(state.params, state.buffers)
    named = {k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}
    metadata = {"hanse": str(about["hanse"]), "round": str(state.round), "name": str(about["name"])}
    return save(named, metadata=metadata)


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no iterator
    except (FileNotFoundError, SafetensorError, OSError) as error:
        raise RunError(
            f"{file} is no model: {error}",
            why="a finished run, or `hanse export`, writes one",
            instead="the directory of a finished run, or a file that `hanse export` wrote",
        ) from error


def _baselines(prepared: Prepared, state: FederationState) -> str:
    with_state = {"federated": evaluate_all(prepared, state), **train_baselines(prepared)._asdict()}
    return to_json(
        {
            kind: {
                split: records.evaluation_record(by_split[split]) if split in by_split else None
                for split in ("test", "unseen")
            }
            for kind, by_split in with_state.items()
        }
    )


@contextlib.contextmanager
def _locked(run: RunDirectory) -> Iterator[None]:
    handle = run.lock()
    try:
        yield
    finally:
        os.close(handle)
