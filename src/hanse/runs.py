"""Runs on disk: start, resume, export, load."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hanse import records
from hanse.baselines import baselines as train_baselines
from hanse.baselines import local_sgd
from hanse.config import read_experiment, with_overrides
from hanse.core.errors import (
    BudgetError,
    ConfigError,
    DivergenceError,
    ModelError,
    RunError,
    StrategyError,
)
from hanse.experiment import Experiment, Prepared, build_model, prepare
from hanse.models import Execution
from hanse.models.task import Task
from hanse.report import write as write_report
from hanse.report.tensorboard import EventLog, check_events
from hanse.run_accounts import account_of, check_account, keep_account, name_in_ledger
from hanse.storage import RunDirectory, to_json, write_atomically, writing
from hanse.training import Round, evaluate_all, rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from torch import Tensor, nn

    from hanse.baselines import Baselines
    from hanse.config import ExperimentFile
    from hanse.round import FederationState

_MODEL = "model.safetensors"
_EXECUTION = ("path", "block", "why", "precision")


def run(
    experiment: Experiment,
    directory: str | Path,
    *,
    baselines: bool = False,
    tensorboard: str | Path | None = None,
) -> RunDirectory:
    """Run an experiment with metrics, checkpoints and a report in a new directory.

    Args:
        experiment: what to run.
        directory: where; it must not exist, or be empty.
        baselines: also train every client alone, and one model on all data.
        tensorboard: a directory for event files, written while the run goes on.

    Raises:
        DivergenceError: training diverged; the directory holds the last good checkpoint.
        HanseError: the experiment cannot be run; nothing was written.
    """
    prepared = prepare(experiment)
    if tensorboard is not None:
        check_events(Path(tensorboard))
    target = start(prepared, Path(directory), baselines=baselines)
    for _ in carry_on(prepared, target, tensorboard):
        pass
    finish(prepared, target)
    return target


def resume(
    directory: str | Path,
    experiment: Experiment | None = None,
    *,
    tensorboard: str | Path | None = None,
) -> RunDirectory:
    """Go on with a run after its last checkpoint, to the same bits as if it had never stopped.

    Args:
        directory: the run.
        experiment: as it was started; only `rounds` may differ. `None`: the run's own
            `config.toml`, which runs of an experiment file have.
        tensorboard: as for `run`; the same directory, or another.

    Raises:
        RunError: no run, a damaged checkpoint, or another experiment.
    """
    target = RunDirectory.open(Path(directory))
    prepared = prepare(as_begun(target, experiment or own_experiment(target)))
    for _ in carry_on(prepared, target, tensorboard):
        pass
    finish(prepared, target)
    return target


def as_begun(run: RunDirectory, experiment: Experiment) -> Experiment:
    """The experiment with the path and block that the run began with, if it leaves them open."""
    if experiment.execution is not None:
        return experiment
    engine = run.about()["engine"]
    execution = Execution(**{name: engine[name] for name in _EXECUTION if name in engine})
    return dataclasses.replace(experiment, execution=execution)


def own_experiment(run: RunDirectory) -> Experiment:
    """The experiment of a run that was started from a file.

    Raises:
        RunError: it was started from Python.
    """
    return _own_file(run).experiment()


def _own_file(run: RunDirectory) -> ExperimentFile:
    path = run.path / "config.toml"
    if not path.is_file():
        raise RunError(
            f"{run.path} has no config.toml",
            why="it was started from Python, where the experiment is defined",
            instead=f"hanse.resume({str(run.path)!r}, experiment), hanse.load(…, model) or "
            "hanse.export(…, model) in Python",
        )
    return read_experiment(path)


def own_task(run: RunDirectory) -> Task:
    """The model of a run that was started from a file; its data are not needed.

    Raises:
        RunError: it was started from Python.
    """
    return _own_file(run).task()


def start(
    prepared: Prepared, path: Path, *, config: str | None = None, baselines: bool = False
) -> RunDirectory:
    """Make the directory of a run that is about to begin; `config` is its file as text.

    Raises:
        ConfigError: baselines of a strategy that has none; nothing was written.
        RunError: something is there already, or it cannot be written to.
    """
    _check_repr(prepared)
    if baselines:
        local_sgd(prepared.experiment.strategy)
        _check_baselines(prepared)
    about = {**records.about(prepared), "baselines": baselines}
    if prepared.charged is not None:  # a name that no other run has, wherever both were started
        about["privacy"]["ledger"]["run"] = name_in_ledger(path)
    return RunDirectory.create(path, about, config)


def carry_on(
    prepared: Prepared, run: RunDirectory, tensorboard: str | Path | None = None
) -> Generator[Round, None, None]:
    """The rounds that a run still needs, each recorded before it is yielded.

    Args:
        prepared: the experiment.
        run: its directory.
        tensorboard: a directory for event files, if they are wanted.

    Raises:
        DivergenceError: the directory then holds the last good checkpoint and the advice.
        RunError: another process has the run, it is another experiment's, or cannot be written.
    """
    going = _carry_on(prepared, run)
    log = None if tensorboard is None else EventLog(run.path, Path(tensorboard))
    try:
        for done in going:
            if log is not None:
                log.add(records.round_record(done), records.client_records(done))
            yield done
        if log is not None:  # also where no round was left to do
            log.complete()
    finally:
        going.close()
        if log is not None:
            log.close()


def _carry_on(prepared: Prepared, run: RunDirectory) -> Generator[Round, None, None]:
    mark, last = records.fingerprint(prepared), prepared.experiment.rounds
    with _locked(run):
        run.mend()
        check_account(prepared, run)
        state = run.latest(mark)
        if state is not None and state.round > last:
            raise RunError(
                f"{run.path} has done {state.round} rounds, and is to stop after {last}",
                why="a round that is done cannot be taken back",
                instead=f"rounds = {state.round}, or more to go on",
            )
        name, before = account_of(prepared, run, state)
        keep_account(prepared, run, before)
        run.forget_after(-1 if state is None else state.round)
        seconds = sum(record.get("seconds") or 0.0 for record in run.metrics())
        _keep_rounds(run, last)
        run.update(status="running", rounds=last, advice=None)
        good = None if state is None or int(state.exploded) else state
        if state is None or state.round < last:
            run.remove(_MODEL, "baselines.json")  # of fewer rounds: it would pass for the new one
        going = rounds(prepared, start=state, run=name, before=before)
        try:
            for done in going:
                seconds += done.seconds
                run.append(records.round_record(done), records.client_records(done))
                if not int(done.state.exploded):
                    good = done.state
                if _is_checkpoint(prepared, done.state):
                    run.save(done.state, mark)
                yield done
        except DivergenceError as error:
            if good is not None:
                run.save(good, mark)
            run.back_to_calm()
            run.update(status="diverged", advice=f"{error.found}: {error.instead}", seconds=seconds)
            _report(run)
            raise
        except BaseException as error:  # an interrupt, the user's own code, a full disk, no budget
            with contextlib.suppress(RunError):
                run.update(status="stopped", seconds=seconds)
                if prepared.charged is not None and good is not None:
                    _keep_what_was_paid(prepared, run, good, mark, error)
            raise
        finally:  # at once, whatever else holds on to it: its workers are processes
            going.close()
        run.update(seconds=seconds)


def _keep_what_was_paid(
    prepared: Prepared,
    run: RunDirectory,
    good: FederationState,
    mark: dict[str, Any],
    error: BaseException,
) -> None:
    """Keep the last state: a round that is computed again would be charged again.

    Where the budget is spent, the model of the last paid round is what the run has come to.
    """
    run.save(good, mark)
    if isinstance(error, BudgetError):
        run.update(advice=f"{error.found}: {error.instead}")
        run.write(_MODEL, _model_bytes(prepared.task, good, run.about()))
        _report(run)


def finish(prepared: Prepared, run: RunDirectory) -> None:
    """Write the model, the baselines if wanted, and the report of a run whose rounds are done."""
    with _locked(run):
        state = run.latest(records.fingerprint(prepared))
        assert state is not None  # noqa: S101 - the last round is always checkpointed
        run.write(_MODEL, _model_bytes(prepared.task, state, run.about()))
        if run.about()["baselines"]:
            found = train_baselines(prepared)
            run.write("baselines.json", _baselines(prepared, state, found))
            run.update(warnings=[*prepared.warnings, *found.warnings])
        run.update(status="finished")
        _report(run)


def export(
    directory: str | Path,
    out: str | Path,
    model: nn.Module | Callable[[], nn.Module] | None = None,
) -> Path:
    """Write the trained model's state dictionary, of the run's last checkpoint, to `out`.

    Args:
        directory: the run.
        out: a `.safetensors` file; what is there is replaced.
        model: as for `load`; the data are not needed.

    Raises:
        RunError: no run, no checkpoint, a damaged one, or one of another model.
    """
    run = RunDirectory.open(Path(directory))
    if model is None:
        task = own_task(run)
    else:  # what stays with the clients has columns of its own, behind the others
        task = Task.of(build_model(model, 0), local=run.about()["local"])
    state = run.latest(None)
    if state is None:
        raise RunError(
            f"{run.path} has no checkpoint yet",
            why="there is no trained model to export",
            instead=f"`hanse resume {run.path}` first",
        )
    if len(state.params) != task.layout.size or len(state.buffers) != task.buffers.size:
        raise RunError(
            f"{run.path} trains {len(state.params)} parameters, and the model has "
            f"{task.layout.size}",
            why="it is another model",
            instead="the model that the run was started with",
        )
    write_atomically(Path(out), _model_bytes(task, state, run.about()))
    return Path(out)


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
        if not source.is_dir():
            raise RunError(
                f"{file} without its model",
                why="it holds tensors and their names, but not what is computed with them",
                instead="hanse.load(path, model) with the module that was trained, or the "
                "directory of a run that was started from a file",
            )
        module = own_task(RunDirectory.open(source)).module
    else:
        module = Task.of(build_model(model, 0)).module
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


def _check_baselines(prepared: Prepared) -> None:
    if prepared.shown != "simulation":
        raise ConfigError(
            "baselines of a run that withholds exact numbers about clients",
            why="they are exact results of single clients, of models without noise",
            instead="no baselines, or per_client='simulation'",
        )


def _check_repr(prepared: Prepared) -> None:
    described = f"{prepared.experiment.strategy!r} {prepared.population.participation!r}"
    if " at 0x" in described:
        start = described.rindex("<", 0, described.index(" at 0x"))
        raise StrategyError(
            f"a part of the strategy has the repr {described[start:][:80]}",
            why="a run is resumed only with the strategy that it was started with, and this text "
            "differs each time",
            instead="a @dataclass(frozen=True) for each part of your own: its repr says what it is",
        )


def _keep_rounds(run: RunDirectory, rounds: int) -> None:
    """Let the run's own file say how many rounds it has, so that it is resumed with as many."""
    path = run.path / "config.toml"
    if path.is_file() and int(run.about()["rounds"]) != rounds:
        file = with_overrides(read_experiment(path), [f"run.rounds={rounds}"])
        run.write("config.toml", file.resolved())


def _report(run: RunDirectory) -> None:
    with writing(run.path / "report.html"):
        write_report(run.path)


def _is_checkpoint(prepared: Prepared, state: FederationState) -> bool:
    """Whether to keep a state: the last one, or a due one whose training loss has not exploded."""
    experiment = prepared.experiment
    due = state.round % experiment.checkpoint_every == 0 and not int(state.exploded)
    return due or state.round == experiment.rounds


def _model_bytes(task: Task, state: FederationState, about: dict[str, Any]) -> bytes:
    module = task.with_values(state.params, state.buffers)
    named = {k: v.detach().clone().contiguous() for k, v in module.state_dict().items()}
    origin = {"hanse": about["hanse"], "name": about["name"], "round": state.round}
    # One entry: the order of several would differ from file to file.
    return save(named, metadata={"hanse": to_json(origin)})


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


def _baselines(prepared: Prepared, state: FederationState, found: Baselines) -> str:
    with_state = {
        "federated": evaluate_all(prepared, state),
        "local": found.local,
        "pooled": found.pooled,
    }
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
