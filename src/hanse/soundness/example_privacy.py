"""What example-level differential privacy composes with; the rest is refused before the run."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from hanse.core.device import generators
from hanse.core.errors import ConfigError, ModelError, StrategyError
from hanse.data import Epochs, FullGradient, PoissonSteps, SharedClients, Steps
from hanse.layers import ClientDP, DistributedExampleDP, LocalDP, Weighted
from hanse.local import MimeSGD, ScaffoldSGD
from hanse.models.execution import loss_couples

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from hanse.data import ClientData
    from hanse.models import Execution, Task
    from hanse.strategy import Strategy

_POISSON = "a pass of PoissonSteps(rate=…, count=…), as dp_sgd has it"
_PASSES = {
    Epochs: "its shuffled batches hold every example once an epoch, and as many steps are taken as "
    "a client has examples: what sampling protects is not known for them, and the number of steps "
    "tells the number of examples",
    Steps: "an example of a small client comes more than once in a batch, and none is drawn by "
    "itself: what sampling protects is not known for them",
    FullGradient: "its chunks weigh 1 / n, where n is a client's number of examples: a secret",
}


def check_example_privacy(
    strategy: Strategy,
    task: Task,
    clients: ClientData,
    execution: Execution | None = None,
    ledger: str | Path | None = None,
    device: str = "cpu",
) -> tuple[str, ...]:
    """Refuse what breaks the promise of an `ExampleDP`; return what must be known about the rest.

    Args:
        strategy: which may have one.
        task: the model.
        clients: who trains.
        execution: what was chosen for it, if anything was.
        ledger: what rounds are charged to.
        device: where clients train.

    Raises:
        StrategyError: the combination is refused.
        ConfigError: it is not known to be right on a graphics card.
    """
    if strategy.examples is None:
        return ()
    _refuse_passes(strategy)
    _refuse_what_travels(strategy, task)
    _refuse_statistics(task)
    if execution is not None and execution.precision != "full":
        raise StrategyError(
            f"ExampleDP with precision {execution.precision!r}",
            why="norms would be off by more than the noise allows for",
            instead="precision 'full'",
        )
    if device != "cpu":
        raise ConfigError(
            f"device = {device!r} with ExampleDP",
            why="private steps have not been tried on a graphics card, and a guarantee that was "
            "not tried is none",
            instead='device = "cpu"',
        )
    return tuple(_warnings(strategy, clients, ledger))


def check_examples_apart(strategy: Strategy, task: Task, x: Tensor, y: Tensor) -> None:
    """Refuse a model or a loss by which the examples of a batch know each other.

    Args:
        strategy: which may have an `ExampleDP`.
        task: the model and its loss.
        x: some examples `[n, ...]`, the more the better.
        y: their targets `[n, ...]`.

    Raises:
        ModelError: there is no gradient of a single example.
    """
    if strategy.examples is None:
        return
    if loss_couples(task, x, y):
        raise ModelError(
            f"ExampleDP with the loss {getattr(task.loss, '__name__', task.loss)!r:.60}, by which "
            "the examples of a batch depend on each other",
            why="one example changes the gradients of the others, so clipping its own bounds "
            "nothing",
            instead="a loss for each example by itself, such as cross_entropy",
        )
    module = _without_dropout(task)
    with torch.no_grad(), torch.random.fork_rng(generators(x.device)):
        together = module(x)
        alone = torch.cat([module(x[k : k + 1]) for k in range(len(x))])
    same = together.shape == alone.shape
    if not same or not torch.allclose(together, alone, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ModelError(
            f"ExampleDP with a {type(task.module).__name__} whose outputs for an example depend on "
            "the rest of its batch",
            why="one example changes the gradients of the others, so clipping its own bounds "
            "nothing",
            instead="a model that looks at one example at a time: GroupNorm or LayerNorm, and no "
            "sums over the first dimension",
        )


def _refuse_passes(strategy: Strategy) -> None:
    local = strategy.local
    passes = local.passes
    if isinstance(local, ScaffoldSGD) and local.option == 1:
        raise StrategyError(
            "ExampleDP with SCAFFOLD's option 1",
            why="its control variate is a full gradient, which would be released as it is",
            instead="option=2, whose control variate is computed from the noisy steps",
        )
    if isinstance(local, MimeSGD):
        raise StrategyError(
            "ExampleDP with MimeLite",
            why="its clients send a full gradient beside the update, as it is",
            instead="fedavg, fedprox or scaffold(option=2) with PoissonSteps; momentum at the "
            "server",
        )
    for work in passes:
        if not isinstance(work, PoissonSteps):
            raise StrategyError(
                f"ExampleDP with {work!r:.60}",
                why=_PASSES.get(type(work), "what sampling protects is not known for it"),
                instead=_POISSON,
            )


def _refuse_what_travels(strategy: Strategy, task: Task) -> None:
    for layer in strategy.layers:
        if isinstance(layer, Weighted) and layer.by != "uniform":
            raise StrategyError(
                f"ExampleDP with Weighted({layer.by!r})",
                why="a client's number of examples would be released, as it is",
                instead='Weighted("uniform"), as dp_sgd has it',
            )
        if isinstance(layer, ClientDP | LocalDP):
            name = type(layer).__name__
            raise StrategyError(
                f"ExampleDP with {name}",
                why="one bounds what an example changes and the other what a client changes: what "
                "both cost would be charged as if they were one",
                instead=f"one of them: {name} protects all of a client's examples together",
            )
    for part in strategy.onion:
        if "train_loss" in part.sends(task.layout):
            raise StrategyError(
                f"ExampleDP around {type(part).__name__}, which sends 'train_loss'",
                why="a mean loss of a client's examples would be released without noise",
                instead="a number for mu, such as dp_sgd(mu=0.1)",
            )


def _refuse_statistics(task: Task) -> None:
    for name, part in task.trained().named_modules():
        keeps = isinstance(part, nn.modules.batchnorm._NormBase) and (  # noqa: SLF001 - no public base
            part.track_running_stats or isinstance(part, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - as above
        )
        if keeps and part.training:
            raise StrategyError(
                f"ExampleDP with {name or 'the model'!r}, a {type(part).__name__}",
                why="it computes with statistics of a batch, or keeps them: one example changes "
                "the gradients of the others, and running statistics have no noise",
                instead="nn.GroupNorm or nn.LayerNorm in its place",
            )
    if not _fixed(task):
        raise StrategyError(
            f"ExampleDP with buffers that may change: {', '.join(task.buffers.names):.80}",
            why="what they keep of examples would be released without noise",
            instead="register_buffer(…, persistent=False) for constants, and no statistics",
        )


def _fixed(task: Task) -> bool:
    """Whether all buffers belong to parts in evaluation mode, or to parts that never change any."""
    known = {f"{n}." if n else "" for n, part in task.trained().named_modules() if part.training}
    return not any(name[: name.rfind(".") + 1] in known for name in task.buffers.names)


def _without_dropout(task: Task) -> nn.Module:
    module = copy.deepcopy(task.trained())
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):  # noqa: SLF001 - no public base
            part.eval()
    return module


def _warnings(strategy: Strategy, clients: ClientData, ledger: str | Path | None) -> list[str]:
    privacy, said = strategy.examples, list[str]()
    assert privacy is not None  # noqa: S101 - the caller's promise, for the type checker
    if any(isinstance(layer, DistributedExampleDP) for layer in strategy.layers):
        return said  # there is noise, and secure sums say what must be known of it
    if not privacy.noise_multiplier:
        said.append(
            "ExampleDP with noise_multiplier = 0 clips and adds no noise: nobody is protected"
        )
    else:
        said.append(
            "ExampleDP: nothing is charged to a ledger. Epsilon is stated of this run by itself, "
            "as if nothing else were released of the same data (docs/privacy-ledger.md)"
            if ledger is None
            else f"every round is charged to {ledger} before it begins, as if all clients took part"
        )
        if privacy.noise == "seeded":
            said.append(
                "ExampleDP's noise is drawn from the run's seed: whoever knows the seed can take "
                "it off again. This is for experiments; noise = 'os' is for models that are "
                "released"
            )
        else:
            said.append(
                "ExampleDP's noise comes from the operating system: the run cannot be repeated bit "
                "for bit, and rounds that a resumed run computes again are released twice. Cohorts "
                "and batches are drawn from a secret of this process, not from the run's seed"
            )
    if isinstance(clients, SharedClients):
        said.append("examples that all clients share are taken to be public: nothing protects them")
    return said
