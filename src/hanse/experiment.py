"""An experiment: everything that decides what a run computes."""

from __future__ import annotations

import contextlib
import copy
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from hanse.core.device import CPU, device_named, placed
from hanse.core.errors import ConfigError, ModelError
from hanse.core.rng import derive
from hanse.data import Federation, PackedClients, SharedClients, select_clients, to_dtype
from hanse.data.batching import FullGradient
from hanse.data.clients import without_examples
from hanse.data.packing import first_row, owner
from hanse.engines.make import check_room, check_workers, make_engine
from hanse.evaluation.per_client import evaluated_clients
from hanse.experiment_checks import (
    check_delta,
    check_kind,
    check_ledger,
    check_local,
    check_metrics,
    check_participation,
    check_parts,
    check_per_client,
)
from hanse.models import Execution, Task, cross_entropy, next_token
from hanse.models.execution import check_execution, loss_couples, on_exact_batches, probe
from hanse.models.losses import IGNORED
from hanse.privacy.histogram import PrivateHistogram
from hanse.round import Population
from hanse.selection import Stragglers
from hanse.settings import Setting, setting_named
from hanse.soundness import (
    about_shown,
    check,
    check_client_privacy,
    check_compression,
    check_example_privacy,
    check_examples_apart,
    check_secure_sums,
    check_shown,
    check_stragglers,
    check_whole_gradients,
    seed_of_rounds,
    what_is_shown,
)
from hanse.spending import Spending, privacy_of, spending
from hanse.strategy import Strategy
from hanse.tuning.on_card import Card, choose_on_card
from hanse.tuning.on_processor import choose_execution, examples_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.engines import InProcess, Processes
    from hanse.models import Loss, Metric
    from hanse.models.task import Local
    from hanse.privacy.statement import Shown, Statement
    from hanse.selection import Participation

_SAMPLE = 4  # examples that a model is tried on before the run
_MANY = 64  # examples that a loss is tried on


@dataclass(frozen=True, eq=False)
class Experiment:
    """One definition, for `hanse.rounds` and `hanse.run`.

    Attributes:
        strategy: what clients and the server do.
        data: whose examples, for training and for judging.
        model: an `nn.Module` with its initial weights, or a function that makes one; the function
            is called with torch's generator seeded from `seed`.
        rounds: how many rounds.
        loss: per example, see `hanse.models`.
        metrics: by name; `None`: accuracy if the loss is `cross_entropy` or `next_token`.
        local: globs of the parameters and buffers that stay with their client, or a function that
            returns them for the model: `hanse.models.batch_norm` (FedBN).
        seed: of everything random in the experiment.
        setting: `"cross-silo"` or `"cross-device"`: the defaults of the next three.
        participation: who takes part in a round.
        evaluate_every: rounds between evaluations.
        evaluation_clients: how many clients are evaluated at most, always the same ones.
        execution: how gradients are computed; `None`: chosen for the model.
        checkpoint_every: rounds between checkpoints.
        name: what to call it in reports.
        workers: how many processes train clients; 1: this one. The bits do not depend on it.
        device: where it is computed: `"cpu"`, or a graphics card: `"cuda"`, `"cuda:1"`.
        stragglers: who does only a part of its work in time; `None`: nobody.
        ledger: the file of a `hanse.privacy.ledger.Ledger`, which every round is charged to before
            it begins; `None`: no budget is kept.
        delta: at which a private run states epsilon; `None`: the ledger's, or a tenth of one
            divided by the clients, rounded down to a power of ten.
        per_client: what a private run makes of exact numbers about clients: `"simulation"`: they
            are computed and written down, covered by no guarantee; `"withheld"`: no such number is
            computed; `PrivateHistogram(…)`: nor then, and a noisy histogram is released instead.
            `None`: withheld with a ledger, else `"simulation"`.
    """

    strategy: Strategy
    data: Federation
    model: nn.Module | Callable[[], nn.Module]
    rounds: int = 100
    loss: Loss = cross_entropy
    metrics: Mapping[str, Metric] | None = None
    local: Local = ()
    seed: int = 0
    setting: str = "cross-silo"
    participation: Participation | None = None
    evaluate_every: int | None = None
    evaluation_clients: int | None = None
    execution: Execution | None = None
    checkpoint_every: int = 1
    name: str = "experiment"
    workers: int = 1
    device: str = "cpu"
    stragglers: Stragglers | None = None
    ledger: str | Path | None = None
    delta: float | None = None
    per_client: Shown | PrivateHistogram | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is loaded or written.

        Raises:
            ConfigError: a number out of its range, or a part of another kind.
        """
        check_kind("strategy", self.strategy, Strategy, "hanse.fedavg(lr=0.1)")
        check_kind(
            "data", self.data, Federation, "hanse.data.watch(), or federation_from_arrays(…)"
        )
        check_kind("name", self.name, str, '"first-try"')
        check_kind("setting", self.setting, str, '"cross-silo"')
        setting_named(self.setting)
        if self.execution is not None:
            check_kind("execution", self.execution, Execution, 'Execution("module", 1)')
        if self.stragglers is not None:
            check_kind("stragglers", self.stragglers, Stragglers, "hanse.Stragglers(fraction=0.9)")
        check_parts(self.strategy)
        check_participation(self.participation)
        check_local(self.local)
        check_metrics(self.metrics)
        for name in ("rounds", "checkpoint_every", "evaluate_every", "evaluation_clients"):
            value = getattr(self, name)
            optional = name.startswith("evaluat")
            if optional and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"{name} = {value!r}",
                    why="it is a number of rounds or clients",
                    instead=f"a whole number of at least 1, such as {name} = 10",
                )
        check_ledger(self.ledger)
        check_delta(self.delta, self.ledger)
        check_per_client(self.per_client)
        check_workers(self.workers)
        device_named(self.device, self.workers)
        if (
            isinstance(self.seed, bool)
            or not isinstance(self.seed, int)
            or not 0 <= self.seed < 2**63
        ):
            raise ConfigError(
                f"seed = {self.seed!r}",
                why="every random number of the run is derived from it",
                instead="a whole number from 0 to 2**63 - 1, such as seed = 0",
            )


@dataclass(frozen=True, eq=False)
class Prepared:
    """An experiment with every open choice made.

    Attributes:
        experiment: what was asked for.
        task: the model with its columns.
        data: the data in the model's floating-point type.
        device: where all of a round lies; the task and the data stay in the computer's memory.
        engine: where clients' work is done.
        population: who there is to choose from.
        evaluate_every: rounds between evaluations.
        evaluated: for each split that exists, the ids of the clients that are evaluated.
        chosen: what the setting decided, in words.
        warnings: what the user should know, in words.
        charged: what a round costs, and the ledger that it is charged to, if there is one.
        privacy: what is promised, or what it would cost; `None` if nobody is protected.
    """

    experiment: Experiment
    task: Task
    data: Federation
    device: torch.device
    engine: InProcess | Processes
    population: Population
    evaluate_every: int
    evaluated: Mapping[str, NDArray[np.int64]]
    chosen: tuple[str, ...]
    warnings: tuple[str, ...]
    charged: Spending | None
    privacy: Statement | None = None

    @property
    def shown(self) -> Shown | PrivateHistogram:
        """What becomes of exact numbers about clients."""
        return "simulation" if self.privacy is None else self.privacy.shown


def prepare(experiment: Experiment) -> Prepared:
    """Make every choice that the user left open, and try the model on a few examples.

    Raises:
        ModelError: the model does not fit the data.
        StrategyError: the strategy does not fit the model.
        ConfigError: a cohort larger than the population.
        DataError: a client without examples.
        LedgerError: there is no such ledger, or it is damaged.
    """
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"{experiment!r:.120} as an experiment",
            why=f"it is of type {type(experiment).__name__}",
            instead="hanse.Experiment(strategy, data, model); from a file, "
            "hanse.config.read_experiment(Path('experiment.toml')).experiment()",
        )
    setting, clients = setting_named(experiment.setting), len(experiment.data.train)
    task = Task.of(
        build_model(experiment.model, experiment.seed),
        loss=experiment.loss,
        metrics=experiment.metrics,
        local=experiment.local,
    )
    data = to_dtype(experiment.data, task.dtype)
    participation = experiment.participation or setting.participation
    expected = participation.expected(clients)
    device = device_named(experiment.device)
    check_room(data.train, device)
    probe(task, *_sample(data, _SAMPLE))
    _check_labels(task, data)  # before trials, which would meet such a label
    privacy = check_client_privacy(  # before trials, which would meet what is refused
        experiment.strategy,
        task,
        data.train,
        participation,
        experiment.stragglers,
        experiment.rounds,
        experiment.ledger,
    )
    privacy += check_secure_sums(
        experiment.strategy, task, setting, data.train, participation, experiment.ledger
    )
    compression = check_compression(experiment.strategy, task, participation)
    privacy += check_example_privacy(
        experiment.strategy,
        task,
        data.train,
        experiment.execution,
        experiment.ledger,
        device.type,
    )
    if experiment.strategy.examples is not None:
        with torch.device("cpu"):
            check_examples_apart(experiment.strategy, task, *_sample(data, _MANY))
    population = Population(
        clients=clients,
        participation=participation,
        setting=setting.name,
        seed=seed_of_rounds(experiment.strategy, experiment.seed),
        rounds=experiment.rounds,
        empty=without_examples(data.train),
        stragglers=experiment.stragglers,
    )
    charged = spending(experiment.ledger, experiment.strategy, population)
    statement = _statement(experiment, task, data, population, charged)
    shown = "simulation" if statement is None else statement.shown
    with placed(device):
        execution = _execution(experiment, task.on(device), data, expected, device)
        execution = _on_exact_batches(experiment, execution, task, data)
    check_stragglers(experiment.stragglers, experiment.strategy)
    limit = experiment.evaluation_clients or setting.evaluation_clients
    if isinstance(shown, PrivateHistogram):
        limit = None  # who is drawn for an evaluation would depend on who else is there
    return Prepared(
        experiment=experiment,
        task=task,
        data=data,
        device=device,
        engine=make_engine(
            experiment.workers, experiment.strategy, task, data.train, execution, device
        ),
        population=population,
        evaluate_every=experiment.evaluate_every or setting.evaluate_every,
        evaluated={
            split: evaluated_clients(held, limit, experiment.seed)
            for split, held in (("test", data.test), ("unseen", data.unseen))
            if held is not None
        },
        chosen=_chosen(experiment, setting),
        warnings=(
            *privacy,
            *about_shown(statement),
            *check(experiment.strategy, task, setting),
            *compression,
            *_about_empty(len(population.empty), clients),
        ),
        charged=charged,
        privacy=statement,
    )


def _statement(
    experiment: Experiment,
    task: Task,
    data: Federation,
    population: Population,
    charged: Spending | None,
) -> Statement | None:
    """What is promised, and what becomes of exact numbers about clients."""
    delta = None if experiment.delta is None else (experiment.delta, "the experiment's")
    if charged is not None:
        delta = charged.ledger.budget.delta, "the ledger's"
    found = privacy_of(experiment.strategy, population, delta)
    shown = what_is_shown(experiment.per_client, found, ledger=charged is not None)
    check_shown(
        shown, experiment.strategy, task, data, setting_named(experiment.setting),
        experiment.evaluation_clients,
    )  # fmt: skip
    return None if found is None else found.showing(shown)


def build_model(model: nn.Module | Callable[[], nn.Module], seed: int) -> nn.Module:
    """The module, or what the function makes with torch's generator seeded from `seed`.

    Raises:
        ModelError: the function takes arguments.
    """
    if isinstance(model, nn.Module) or not callable(model):
        return model
    with contextlib.suppress(ValueError):  # what has no signature is simply tried
        _check_signature(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(derive(seed, "model")))
        return model()


def _check_signature(model: Callable[[], nn.Module]) -> None:
    try:
        inspect.signature(model).bind()
    except TypeError as error:
        raise ModelError(
            f"the model is {model!r:.120}, which cannot be called without arguments: {error}",
            why="it is called once, after torch's generator was seeded",
            instead="model=nn.Linear(30, 7), or a function without arguments: "
            "model=lambda: nn.Linear(30, 7)",
        ) from error


def _sample(data: Federation, examples: int, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Some examples of the first few clients."""
    with torch.device("cpu"):  # whatever makes them
        able = np.setdiff1d(np.arange(len(data.train)), without_examples(data.train))
        first = select_clients(data.train, able[:_SAMPLE])
    return first.fields["x"][:examples].to(device), first.fields["y"][:examples].to(device)


def _execution(
    experiment: Experiment, task: Task, data: Federation, expected: float, device: torch.device
) -> Execution:
    strategy = experiment.strategy
    work = strategy.local.passes[0]
    if experiment.execution is not None:
        check_execution(experiment.execution, task, *_sample(data, _SAMPLE, device))
        return experiment.execution
    sample = _sample(data, examples_for(work), device)
    if device.type == "cpu":
        chosen = choose_execution(work, task, *sample, expected)
    else:
        chosen = choose_on_card(strategy, task, *sample, expected, Card(device))
    if strategy.examples is not None and chosen.path == "vmap":
        return Execution("module", 1, "blocks would write out the gradient of every example")
    return chosen


def _on_exact_batches(
    experiment: Experiment, execution: Execution, task: Task, data: Federation
) -> Execution:
    """Keep a loss that looks at a whole batch away from padding, and from parts of a batch."""
    passes = experiment.strategy.local.passes
    if execution.path == "module" and not any(isinstance(p, FullGradient) for p in passes):
        return execution
    with torch.device("cpu"):
        if not loss_couples(task, *_sample(data, _MANY)):
            return execution
    check_whole_gradients(experiment.strategy, data.train)
    return on_exact_batches(execution, wanted=experiment.execution is not None)


def _check_labels(task: Task, data: Federation) -> None:
    """Refuse labels that the model has no output for, as far as they lie in memory."""
    if task.loss is not cross_entropy and task.loss is not next_token:
        return
    x, _ = _sample(data, _SAMPLE)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        logits = copy.deepcopy(task.module).eval()(x)
    outputs = logits.shape[1 if task.loss is cross_entropy else 2]
    for split in ("train", "test", "unseen"):
        clients = getattr(data, split)
        if isinstance(clients, SharedClients):
            clients = clients.own
        if not isinstance(clients, PackedClients):
            continue
        labels = clients.fields["y"]
        if labels.dtype.is_floating_point:
            continue  # probabilities of the classes
        wrong = (labels >= outputs) | ((labels < 0) & (labels != IGNORED))
        if bool(wrong.any()):
            row = first_row(wrong)
            label = int(labels[row][wrong[row]].flatten()[0])
            raise ModelError(
                f"client {clients.name(owner(clients.offsets, row))!r} has the label {label} in "
                f"{split}, and the model has {outputs} outputs",
                why=f"cross-entropy takes labels from 0 to {outputs - 1}",
                instead="a model with as many outputs as there are classes, or labels from 0",
            )


def _about_empty(empty: int, clients: int) -> tuple[str, ...]:
    if not empty:
        return ()
    have = "client has" if empty == 1 else "clients have"
    return (f"{empty:,} of {clients:,} {have} no examples: nothing is asked of them when drawn",)


def _chosen(experiment: Experiment, setting: Setting) -> tuple[str, ...]:
    """What the setting decided because the user did not."""
    lines = []
    if experiment.participation is None:
        lines.append(f"participation = {setting.participation}")
    if experiment.evaluate_every is None:
        lines.append(f"evaluate_every = {setting.evaluate_every}")
    if experiment.evaluation_clients is None:
        lines.append(f"evaluation_clients = {setting.evaluation_clients or 'all'}")
    lines.append(f"client memory = {setting.memory}")
    return tuple(lines)
