"""What secure sums compose with; the rest is refused before the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.aggregation import SecureSum
from hanse.aggregation.dropouts import parameters
from hanse.aggregation.words import width
from hanse.compression.whole import Whole
from hanse.core.errors import ConfigError, StrategyError
from hanse.core.rng import derive
from hanse.core.types import ClientContext, Facts, vector
from hanse.data import PoissonSteps, SharedClients
from hanse.data.clients import without_examples
from hanse.layers import ClientDP, DistributedDP, DistributedExampleDP, LocalDP, Weighted
from hanse.local import FullGradientStep
from hanse.memory import initial_memory
from hanse.privacy import ExampleDP
from hanse.soundness.composition import first_broadcast

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.core.types import Broadcast, Update
    from hanse.data import ClientData
    from hanse.models import Task
    from hanse.secagg.parameters import Parameters
    from hanse.selection import Participation
    from hanse.settings import Setting
    from hanse.strategy import Strategy

_KINDS = (DistributedDP, DistributedExampleDP)
_Noise = DistributedDP | DistributedExampleDP
_TRIED = 2  # clients, on whom layers are tried


def check_secure_sums(
    strategy: Strategy,
    task: Task,
    setting: Setting,
    clients: ClientData,
    participation: Participation,
    ledger: str | Path | None = None,
) -> tuple[str, ...]:
    """Refuse what a secure sum cannot add up or keep secret; return what must be known.

    Args:
        strategy: which may have a `SecureSum`.
        task: the model.
        setting: of the experiment.
        clients: who trains.
        participation: who takes part in a round.
        ledger: what rounds are charged to.

    Raises:
        StrategyError: the combination is refused.
        ConfigError: too few clients, or assumptions that cannot be met.
    """
    secure, noise = strategy.aggregation, _noise(strategy)
    if not isinstance(secure, SecureSum):
        if noise is not None:
            raise StrategyError(
                f"{type(noise).__name__} with {type(secure).__name__}",
                why="each client adds a share of the noise, which protects nobody until shares of "
                "many are added up where nobody sees them",
                instead=f"aggregation=SecureSum(least={noise.survivors}); or ClientDP, where the "
                "server may see updates",
            )
        return ()
    cohort = round(participation.expected(len(clients) - len(without_examples(clients))))
    found = _parameters(secure, cohort)
    _refuse_weights(strategy, secure)
    if noise is not None:
        _refuse_beside_noise(strategy, noise, clients)
        if isinstance(noise, DistributedExampleDP):
            _refuse_other_sums(strategy, noise, task)
    update = _tried(strategy, task, setting)
    encoded = secure.contribution(update, _clients(first_broadcast(strategy, task, setting), task))
    bits = width(encoded.places, cohort)
    if noise is not None:
        _refuse_without_noise(update)
        _check_survivors(secure, noise, found)
    words = f"{encoded.words.shape[1]:,} words of {bits} bits"
    return (
        *_about_the_simulation(secure),
        f"secure sums of {words}: {_one_line(found)}",
        *_about_drop_outs(secure, found),
        *_about_examples(secure, strategy, clients),
        *_about_noise(strategy, noise, ledger),
        *_about_public(clients, noise),
    )


# -------------------------------------------------------------------------------- what is refused
def _noise(strategy: Strategy) -> _Noise | None:
    layers = [layer for layer in strategy.layers if isinstance(layer, _KINDS)]
    if len(layers) > 1 or (layers and any(isinstance(x, ClientDP) for x in strategy.layers)):
        raise StrategyError(
            "DistributedDP beside another layer that clips and noises",
            why="each would add noise of its own, and a round is charged for that of one",
            instead="one of them, as the last layer",
        )
    return layers[0] if layers else None


def _parameters(secure: SecureSum, cohort: int) -> Parameters:
    found = parameters(cohort, secure.assumptions)
    if secure.least is not None and secure.least > cohort:
        raise ConfigError(
            f"SecureSum(least={secure.least}) in cohorts of {cohort}",
            why="no round would come to anything",
            instead="larger cohorts, or fewer clients at least",
        )
    return found


def _refuse_weights(strategy: Strategy, secure: SecureSum) -> None:
    for layer in strategy.layers:
        if not isinstance(layer, Weighted):
            continue
        if layer.by == "examples" and secure.most_examples is None:
            raise StrategyError(
                "SecureSum with Weighted('examples'), and no bound on a client's examples",
                why="a client's weight is one of the numbers that are summed, so it needs a public "
                "bound; without one every client would count as one with a single example",
                instead="SecureSum(most_examples=1000), or as many as a client may have; or "
                "Weighted('uniform')",
            )
        if layer.vectors != secure.weighted:
            raise StrategyError(
                f"SecureSum that takes {', '.join(secure.weighted)} for weighted, with "
                f"{layer!r:.120}",
                why="how large a client's numbers may be depends on whether a weight is in them",
                instead=f"SecureSum(weighted={layer.vectors!r})",
            )


def _refuse_beside_noise(strategy: Strategy, noise: _Noise, clients: ClientData) -> None:
    for layer in strategy.layers:
        if isinstance(layer, Weighted):
            raise StrategyError(
                f"{type(noise).__name__} with {layer!r:.60}",
                why="every client counts the same, and the sum of weights would be released "
                "without noise",
                instead="layers=(DistributedDP(…),), without the Weighted",
            )
    last = strategy.layers[-1]
    if last is not noise:
        raise StrategyError(
            f"{type(last).__name__} behind {type(noise).__name__}",
            why="what comes behind the clip may make an update longer again, or send what was not "
            "clipped",
            instead=f"the other order: layers=({type(last).__name__}(…), DistributedDP(…))",
        )
    if empty := len(without_examples(clients)):
        raise StrategyError(
            f"DistributedDP with {empty} clients without examples",
            why="they are not asked, and who is asked must not depend on anybody's data",
            instead="a federation without them (min_size=1)",
        )


def _refuse_other_sums(strategy: Strategy, noise: DistributedExampleDP, task: Task) -> None:
    """Refuse what is no sum of clipped gradients of examples, in exact whole steps."""
    summed = ExampleDP(noise.clip, 0.0, 1.0, noise.noise, exact=True)
    local = strategy.local
    one = isinstance(local, FullGradientStep) and local.passes == (PoissonSteps(1.0, 1),)
    if not one or strategy.examples != summed or len(strategy.layers) > 1:
        raise StrategyError(
            f"DistributedExampleDP in {strategy.name}, around {type(local).__name__}",
            why="noise is made for a sum of gradients, one of each example, each clipped to "
            f"{noise.clip:g} in whole steps, and for nothing that is computed of it",
            instead="fedsgd_secagg(examples=DistributedExampleDP(…))",
        )
    if task.dtype != torch.float64:
        raise StrategyError(
            f"DistributedExampleDP with a model in {task.dtype}",
            why="sums of clipped gradients in whole steps are exact in double precision only",
            instead="a model in double precision: model.double()",
        )


def _refuse_without_noise(update: Update) -> None:
    for name, sent in update.items():
        if not (sent.space and isinstance(sent.space[-1], Whole)):
            raise StrategyError(
                f"DistributedDP, and {name!r} without noise",
                why="the sum of it would tell of each client that is in it",
                instead="parts that send nothing beside what is clipped",
            )


def _check_survivors(secure: SecureSum, noise: _Noise, found: Parameters) -> None:
    least = max(_least(found), secure.least or 0)
    if noise.survivors > least:
        raise StrategyError(
            f"{type(noise).__name__}(survivors={noise.survivors}) with sums that are opened for "
            f"{least}",
            why="with fewer clients there would be less noise than is claimed",
            instead=f"SecureSum(least={noise.survivors}), or DistributedDP(survivors={least})",
        )


def _least(found: Parameters) -> int:
    """The fewest vectors that a session with these parameters sums."""
    closed = found.degree + 1
    return max(3, -(-found.clients * found.threshold // closed))


# ----------------------------------------------------------------------------- layers on a trial
def _clients(broadcast: Broadcast, task: Task) -> ClientContext:
    ids = np.arange(_TRIED)
    numbers = torch.arange(1, _TRIED + 1, dtype=task.dtype)
    return ClientContext(
        id=ids,
        position=ids,
        key=derive(0, ids),
        round=broadcast.round,
        examples=numbers,
        facts=Facts(numbers, numbers, numbers),
    )


def _tried(strategy: Strategy, task: Task, setting: Setting) -> Update:
    """What two clients would send, with made-up numbers: in which spaces, and how long."""
    broadcast = first_broadcast(strategy, task, setting)
    _, _, *memories = initial_memory(strategy, broadcast, task.buffers.local)
    clients = _clients(broadcast, task)

    def numbers(columns: int) -> torch.Tensor:
        made = torch.linspace(-1e-3, 1e-3, _TRIED * columns, dtype=task.dtype)
        return made.reshape(_TRIED, columns).flip(1)

    update: Update = {k: vector(numbers(m)) for k, m in strategy.local.sends(task.layout).items()}
    if task.buffers.shared:
        update = {**update, "buffers": vector(numbers(task.buffers.shared))}
    for layer, memory in zip(strategy.layers, memories, strict=True):
        wide = {name: value.expand(_TRIED, *value.shape) for name, value in memory.items()}
        update, _ = layer.on_client(update, broadcast, wide, clients)
    return update


# ------------------------------------------------------------------------------ what must be known
_SEEN = (
    "losses, norms, cosines, drop-outs and metrics of single clients are known to this simulation "
    "only: a server would see none of them, and no guarantee covers them"
)
_FAST = (
    "SecureSum(protocol='sum') computes what the protocol leads to, without keys and masks: this "
    "is a simulation, and nothing is hidden from whoever runs it"
)
_REAL = (
    "SecureSum(protocol='real') runs the protocol, with all its clients in one process: this is a "
    "simulation, and nothing is hidden from whoever runs it"
)
_NO_NOISE = (
    "SecureSum without differential privacy hides single updates, not what their sum gives away: "
    "the sums of two cohorts that differ by one client differ by its update. DistributedDP adds "
    "noise to sums"
)
_CENTRAL = (
    "ClientDP's noise is added by the server, which sees the sum without it: the guarantee holds "
    "against others only. DistributedDP holds against the server, too"
)
_LOCAL = (
    "LocalDP within secure sums: each client's noise protects it by itself, though only the sum is "
    "seen. DistributedDP needs the noise of one client for all of them together"
)
_UNCHARGED = (
    "DistributedDP: nothing is charged to a ledger. Epsilon is stated of this run by itself, as if "
    "nothing else were released of the same data (docs/privacy-ledger.md)"
)
_SEEDED = (
    "DistributedDP's noise is drawn from the run's seed: whoever knows the seed can take it off "
    "again. This is for experiments; noise = 'os' is for models that are released"
)
_OS = (
    "DistributedDP's noise comes from the operating system: the run cannot be repeated bit for "
    "bit, and rounds that a resumed run computes again are released twice"
)


def _about_the_simulation(secure: SecureSum) -> tuple[str, ...]:
    return (_FAST if secure.protocol == "sum" else _REAL, _SEEN)


def _one_line(found: Parameters) -> str:
    return ", ".join(line.strip() for line in str(found).splitlines())


def _about_drop_outs(secure: SecureSum, found: Parameters) -> tuple[str, ...]:
    n, least = found.clients, max(_least(found), secure.least or 0)
    if min(n - least, n - found.quorum, found.degree + 1 - found.threshold) > 0:
        return ()
    said = (
        f"{n} clients, all of whom a sum needs: if one of them drops out, the round comes to "
        "nothing. Larger cohorts tolerate some"
    )
    return (said,)


def _about_examples(secure: SecureSum, strategy: Strategy, clients: ClientData) -> tuple[str, ...]:
    weighted = any(isinstance(x, Weighted) and x.by == "examples" for x in strategy.layers)
    if not weighted or secure.most_examples is None:
        return ()
    sizes = clients.sizes(np.arange(len(clients)))
    above = int((sizes > secure.most_examples).sum())
    if not above:
        return ()
    have = "client has" if above == 1 else "clients have"
    said = (
        f"{above:,} {have} more than most_examples = {secure.most_examples:,}, and count as if "
        "they had so many"
    )
    return (said,)


def _about_noise(
    strategy: Strategy, noise: _Noise | None, ledger: str | Path | None
) -> tuple[str, ...]:
    if noise is None:
        if any(isinstance(x, LocalDP) for x in strategy.layers):
            return (_LOCAL,)
        central = any(isinstance(x, ClientDP) and x.noise_multiplier for x in strategy.layers)
        return (_CENTRAL if central else _NO_NOISE,)
    honest = noise.survivors - noise.colluders
    neighbours = "Neighbours have the same clients, one of whom sends zeros"
    if isinstance(noise, DistributedExampleDP):
        neighbours = "Neighbours differ by one example of one client"
    said = (
        f"{type(noise).__name__}: the noise of {honest} of {noise.survivors} survivors makes a "
        f"noise multiplier of {noise.noise_multiplier:g}; it holds against the server, so nothing "
        f"is gained by sampling. {neighbours}"
    )
    charged = f"every round is charged to {ledger} before it begins"
    return (
        said,
        _UNCHARGED if ledger is None else charged,
        _SEEDED if noise.noise == "seeded" else _OS,
    )


def _about_public(clients: ClientData, noise: _Noise | None) -> tuple[str, ...]:
    if noise is None or not isinstance(clients, SharedClients):
        return ()
    return ("examples that all clients share are taken to be public: nothing protects them",)
