"""Differential privacy of clients: what is released, how far a client moves it, and its noise."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from tests.engine.small import (
    MODULE,
    SIZES,
    VMAP,
    World,
    clients,
    federation,
    mlp,
    regression,
    same_bits,
    snapshot,
    world,
)
from tests.engine.test_extensions import Clip
from tests.privacy.test_noise import CRITICAL, kolmogorov
from tests.strategies import oracle

from hanse.core.errors import ConfigError, StrategyError
from hanse.core.types import Layer, RoundContext, Summed
from hanse.data import PackedClients, share
from hanse.data.batching import Epochs, Steps
from hanse.engines import InProcess
from hanse.experiment import Experiment, prepare
from hanse.layers import AdaptiveClip, ClientDP, Normalized, Weighted
from hanse.layers.clip import STEPS
from hanse.local import SGD, LocalSGD
from hanse.privacy.events import GaussianEvent
from hanse.round import publish
from hanse.selection import Full, Poisson, Selected, Uniform
from hanse.strategies import dp_fedavg, fedavg, fedprox, mimelite, scaffold
from hanse.strategy import Strategy
from hanse.training import rounds

if TYPE_CHECKING:
    from hanse.core.types import Aggregate, Broadcast, ClientContext, Memory, Update
    from hanse.selection import Participation

CLIP = 0.05


def context(small: World, number: int = 1) -> RoundContext:
    return RoundContext(
        number, np.uint64(5), len(small.data), 7.0, 7, "cross-silo", small.task.layout
    )


def summed(small: World, strategy: Strategy, ids: tuple[int, ...]) -> Aggregate:
    """What the server is given before the noise: the sum over some clients, by the real engine."""
    state = small.start(strategy)
    broadcast = publish(state, strategy, context(small))
    engine = InProcess(strategy, small.task, small.data, MODULE)
    selected = Selected(np.array(ids, np.int64))
    found = engine.collect(broadcast, selected, state.clients, state.direction).aggregate
    assert found is not None
    return found


def joint(total: Aggregate) -> torch.Tensor:
    return torch.cat([total[name].values for name in sorted(total)])


# ---------------------------------------------------------------------- how far a client moves it
def neighbours() -> list[PackedClients]:
    """Federations in which client 1, the largest, has other data, some of them as bad as can be."""
    data = clients()
    rows = slice(int(data.offsets[1]), int(data.offsets[2]))
    found = []
    for factor in (-1.0, 30.0, -30.0, 1e6, 1e200):
        x = data.fields["x"].clone()
        x[rows] *= factor
        found.append(PackedClients({**data.fields, "x": x}, data.offsets, data.names))
    y = data.fields["y"].clone()
    y[rows] = (y[rows] + 1) % 3
    return [*found, PackedClients({**data.fields, "y": y}, data.offsets, data.names)]


DP = ClientDP(CLIP, 1.0)
PRIVATE = {
    "fedavg": fedavg(lr=0.3).replace(layers=(DP,)),
    "per-layer": dp_fedavg(lr=0.3, clip=CLIP, clipping="per-layer"),
    "fedprox": fedprox(mu=0.5).replace(layers=(DP,)),
    "scaffold-2": scaffold().replace(layers=(dataclasses.replace(DP, side_scale=0.1),)),
    "scaffold-1": scaffold(option=1).replace(layers=(DP,)),
    "mimelite": mimelite().replace(layers=(DP,)),
    "fednova": fedavg().replace(layers=(Normalized(3.0), DP)),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_no_neighbour_moves_the_sum_further_than_is_declared(name: str) -> None:
    strategy, small = PRIVATE[name], world()
    everyone = tuple(range(len(SIZES)))
    whole = joint(summed(small, strategy, everyone))
    add_remove, replace = (
        STEPS * DP.sensitivity(adjacency) / CLIP for adjacency in ("add-remove", "replace")
    )
    largest = 0.0
    for k in everyone:
        without = joint(summed(small, strategy, tuple(i for i in everyone if i != k)))
        largest = max(largest, float((whole - without).norm()))
    assert largest <= add_remove
    assert largest > 0.99 * add_remove  # the bound is used, so the search means something
    for data in neighbours():
        moved = joint(summed(dataclasses.replace(small, data=data), strategy, everyone))
        assert float((whole - moved).norm()) <= replace


def test_a_weighted_mean_of_clipped_updates_moves_further() -> None:
    """The negative control: what noise for `clip / cohort` would not cover."""
    small = world(participation=Full())
    strategy = fedavg(lr=0.3).replace(layers=(Clip(CLIP), Weighted("examples")))
    whole = small.run(strategy, rounds=1).direction
    moved = max(
        float(
            (whole - dataclasses.replace(small, data=data).run(strategy, rounds=1).direction).norm()
        )
        for data in neighbours()[:4]
    )
    assert moved > DP.sensitivity("replace") / len(SIZES) * 1.2


def test_the_whole_update_is_one_vector_and_a_control_has_its_scale() -> None:
    small = world()
    for scale in (0.01, 1.0):
        layer = ClientDP(CLIP, 0.0, side_scale=scale)
        total = summed(small, scaffold().replace(layers=(layer,)), (1,))
        delta, control = (float(total[name].values.norm()) for name in ("delta", "control"))
        assert 0.999 * STEPS < math.hypot(delta, control) <= STEPS
        plain = summed(small, scaffold(), (1,))
        length = float(plain["control"].values.norm()) / float(plain["delta"].values.norm())
        assert control / delta == pytest.approx(scale * length, rel=1e-4)


def test_each_tensor_has_its_part_of_the_norm() -> None:
    small = world()
    total = summed(small, PRIVATE["per-layer"], (1,))["delta"].values
    norms = [float(part.norm()) for part in small.task.layout.views(total)]
    assert max(norms) <= STEPS / math.sqrt(4)
    assert min(norms) > 0.4 * STEPS


def test_a_client_that_fails_counts_as_one_that_is_not_there() -> None:
    strategy = fedavg().replace(layers=(DP,))
    small = regression(3)
    others = tuple(k for k in range(len(SIZES)) if k != 3)
    whole = joint(summed(small, strategy, tuple(range(len(SIZES)))))
    assert torch.equal(whole, joint(summed(small, strategy, others)))


# ------------------------------------------------------------------------------- what it computes
@pytest.mark.parametrize("multiplier", [0.0, 1e-7])
@pytest.mark.parametrize("clip", [CLIP, 1e3])
@pytest.mark.parametrize("participation", [Uniform(count=7), Poisson(0.5)])
def test_without_noise_it_is_the_sum_of_clipped_updates_by_the_expected_cohort(
    multiplier: float, clip: float, participation: Participation
) -> None:
    small = world(participation=participation)
    divisor = participation.expected(len(SIZES))
    strategy = dp_fedavg(lr=0.1, clip=clip, noise_multiplier=multiplier, batch_size=4)
    found = small.run(strategy, rounds=1).direction
    module = small.task.module
    expected = torch.zeros_like(found)
    for k in small.cohort(1):
        model = oracle.trained(small, module, 1, k, Epochs(1, 4), lr=0.1)
        delta = oracle.vector(model) - oracle.vector(module)
        expected += delta * min(1.0, clip / float(delta.norm())) / divisor
    # Each client rounds by up to two units.
    assert float((found - expected).abs().max()) <= 2.001 * clip / STEPS + 10 * multiplier * clip


def test_public_steps_are_those_of_fednova_where_all_take_as_many() -> None:
    local, small = LocalSGD(SGD(0.1), Steps(3, 4)), world()
    plain = small.run(Strategy(local, (Weighted("uniform"),)))
    public = small.run(Strategy(local, (Normalized(3.0), Weighted("uniform"))))
    assert float((plain.params - public.params).abs().max()) < 1e-14


def test_single_precision_stays_single_precision() -> None:
    small = world(dtype=torch.float32)
    for strategy in (
        dp_fedavg(),
        PRIVATE["scaffold-2"],
        dp_fedavg(clip="adaptive", noise_multiplier=0.2),
    ):
        state = small.run(strategy, rounds=2)
        tensors = [state.params, state.direction, *(v for s in state.layers for v in s.values())]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}


# ------------------------------------------------------------------------------------- its noise
@pytest.mark.parametrize("source", ["seeded", "os"])
def test_the_noise_has_its_sigma_and_no_other(source: Literal["seeded", "os"]) -> None:
    small, z, size = world(), 1.3, 40_000
    layer = ClientDP(CLIP, z, noise=source)
    state = layer.init_server(small.task.layout, torch.float64)
    nothing = {"delta": Summed(torch.zeros(size)), "control": Summed(torch.zeros(size))}
    after, _ = layer.on_server(nothing, state, context(small))
    bound = CRITICAL if source == "seeded" else 3.5
    for name, divisor in (("delta", 7.0), ("control", 1.0)):
        noise = after[name].values.numpy() * divisor
        assert kolmogorov(noise, z * CLIP) < bound
        assert kolmogorov(noise, 0.9 * z * CLIP) > bound
        assert kolmogorov(noise, 1.1 * z * CLIP) > bound
    assert not torch.equal(after["delta"].values * 7, after["control"].values)


def test_noise_differs_from_round_to_round_and_from_run_to_run() -> None:
    small = world()
    strategy = dp_fedavg(clip=1e-9)  # next to nothing but noise
    first = small.run(strategy, rounds=1)
    second, _ = small.step(first, strategy)
    other = dataclasses.replace(small, seed=4).run(strategy, rounds=1)
    for one in (second, other):
        found = torch.nn.functional.cosine_similarity(first.direction, one.direction, dim=0)
        assert abs(float(found)) < 4 / math.sqrt(len(first.direction))


def test_noise_of_the_operating_system_cannot_be_repeated() -> None:
    small, strategy = world(), dp_fedavg(noise="os")
    one, other = (snapshot(small.run(strategy, rounds=1)) for _ in range(2))
    assert not same_bits(one, other)


@pytest.mark.parametrize(
    "small",
    [world(participation=Poisson(1e-9)), regression(*range(len(SIZES)))],
    ids=["nobody", "no one finite"],
)
@pytest.mark.parametrize("name", ["fedavg", "scaffold-2", "mimelite"])
def test_noise_is_released_where_nobody_s_update_is(small: World, name: str) -> None:
    if small.task.loss is not world().task.loss:
        small = dataclasses.replace(small, participation=Full())
    strategy = PRIVATE[name]
    state, result = small.step(small.start(strategy), strategy)
    assert not result.accepted
    expected = small.participation.expected(len(SIZES))
    found = state.direction * expected / CLIP
    size = len(found)
    assert 0.6 < float(found.square().sum()) / size < 1.6 or size < 10
    assert bool((state.direction != 0).all())
    silent = strategy.replace(layers=(ClientDP(CLIP, 0.0),))
    quiet, _ = small.step(small.start(silent), silent)
    assert not bool(quiet.direction.any())


# ------------------------------------------------------------------------------ adaptive clipping
def test_the_clip_norm_follows_the_share_of_shorter_updates() -> None:
    small = world(participation=Full())
    rule = AdaptiveClip(start=0.3, quantile=0.7, rate=0.4)
    strategy = dp_fedavg(lr=0.3, clip=rule, noise_multiplier=0.0)
    state = small.start(strategy)
    expected = 0.3
    for _ in range(3):
        state, result = small.step(state, strategy)
        share = float((result.facts.norm <= expected).mean())
        expected *= math.exp(-0.4 * (share - 0.7))
        found = strategy.layers[0].reported(state.layers[1])["clip"]
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_the_count_is_noised_with_its_own_sigma() -> None:
    small, size = world(), 400
    layer = ClientDP(AdaptiveClip(start=1.0, rate=1.0, count_noise=1.4), 1.0)
    state = layer.init_server(small.task.layout, torch.float64)
    nothing = {"delta": Summed(torch.zeros(1)), "within_clip": Summed(torch.zeros(1))}
    counts = []
    for number in range(size):
        round_ = dataclasses.replace(context(small), key=np.uint64(number))
        _, after = layer.on_server(nothing, state, round_)
        counts.append(-math.log(float(after["clip"])) * 7)  # the noise on the number of clients
    # The standard error of a standard deviation is sigma / sqrt(2 n).
    assert np.std(counts) == pytest.approx(1.4, abs=4 * 1.4 / math.sqrt(2 * size))


@pytest.mark.parametrize("count_noise", [0.9, 5.0, None])
def test_update_and_count_together_cost_what_is_declared(count_noise: float | None) -> None:
    layer = ClientDP(AdaptiveClip(count_noise=count_noise), 1.1)
    update, count = layer.multipliers(100.0)
    assert count == pytest.approx(2 * (count_noise or 5.0))
    assert update**-2 + count**-2 == pytest.approx(1.1**-2)
    assert update > 1.1


# ----------------------------------------------------------------------------- what it is charged
@pytest.mark.parametrize(
    ("participation", "event"),
    [
        (Full(), GaussianEvent(1.1)),
        (Poisson(0.02), GaussianEvent(1.1, "poisson", 0.02)),
        (
            Uniform(count=10),
            GaussianEvent(0.55, "without-replacement", 0.01, 1000, "replace"),
        ),
        (Uniform(fraction=1.0), GaussianEvent(0.55, adjacency="replace")),
    ],
)
def test_an_event_has_the_sampling_that_takes_place(
    participation: Participation, event: GaussianEvent
) -> None:
    assert ClientDP(0.5, 1.1).event(participation, 1000) == event


def test_nothing_is_charged_for_what_has_no_noise() -> None:
    with pytest.raises(ConfigError, match="noise multiplier of 0"):
        ClientDP(noise_multiplier=0).event(Full(), 10)


@pytest.mark.parametrize("source", ["seeded", "os"])
def test_a_run_says_what_is_not_covered(source: Literal["seeded", "os"]) -> None:
    strategy = dp_fedavg(noise=source)
    experiment = Experiment(
        strategy, federation(), mlp(), 1, participation=Poisson(0.5), execution=VMAP
    )
    *_, last = rounds(experiment)
    said = "\n".join(last.prepared.warnings)
    assert "nothing is charged to a ledger" in said
    assert "no guarantee covers them" in said
    assert ("drawn from the run's seed" in said) == (source == "seeded")
    assert ("operating system" in said) == (source == "os")


def warnings(**changes: Any) -> str:  # noqa: ANN401 - fields of an experiment
    settings: dict[str, Any] = {
        "strategy": dp_fedavg(),
        "data": federation(),
        "participation": Poisson(0.5),
    }
    experiment = Experiment(**{**settings, **changes}, model=mlp(), execution=VMAP)
    return "\n".join(prepare(experiment).warnings)


def test_what_weakens_the_promise_is_warned_about() -> None:
    shared = share(federation(), {k: v[:9] for k, v in clients().fields.items()})
    weaker: dict[str, dict[str, Any]] = {
        "fixed size": {"participation": Uniform(count=3)},
        "taken to be public": {"data": shared},
        "nobody is protected": {"strategy": dp_fedavg(noise_multiplier=0)},
    }
    for said, changes in weaker.items():
        assert said in warnings(**changes)
        assert said not in warnings()
    assert "ClientDP" not in warnings(strategy=fedavg())


@dataclasses.dataclass(frozen=True)
class Undeclared(Layer):
    """Sends a second vector and does not say so."""

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        return {**update, "more": update["delta"]}, memory


def test_vectors_that_are_not_declared_are_refused() -> None:
    strategy = fedavg().replace(layers=(Undeclared(), ClientDP()))
    with pytest.raises(StrategyError, match="'more'"):
        world().run(strategy, rounds=1)
