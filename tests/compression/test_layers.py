"""Layers that compress, run through whole rounds: nothing is lost, and nobody is misled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tests.engine.small import (
    BAD,
    MODULE,
    OTHERS,
    VMAP,
    Recorded,
    largest_difference,
    regression,
    same_bits,
    snapshot,
    world,
)
from tests.runs.small_runs import experiment
from torch import nn

import hanse
from hanse.compression import (
    READERS,
    Compressor,
    HalfPrecision,
    Quantize,
    RandomK,
    Rotate,
    Sign,
    TopK,
)
from hanse.core.errors import StrategyError, WireError
from hanse.core.layout import ParameterLayout
from hanse.core.rng import derive
from hanse.core.types import Broadcast, ClientContext, Layer, RoundContext, Summed, Vector, vector
from hanse.experiment import prepare
from hanse.layers import ClientDP, Compress, CompressedBroadcast, ErrorFeedback, Weighted
from hanse.models import Execution, Task, cross_entropy
from hanse.round import publish
from hanse.selection import Full
from hanse.server import ServerSGD
from hanse.soundness.compression import check_compression
from hanse.strategies import compressed_fedavg, fedavg, fedsgd, fedsgd_topk, scaffold
from hanse.training import rounds
from hanse.wire import broadcast_message, decode, encode, length, read_broadcast, update_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.types import (
        Aggregate,
        Memory,
        State,
        Update,
    )

executions = pytest.mark.parametrize(
    "execution", [MODULE, Execution("module", 4), VMAP, Execution("vmap", 16)], ids=repr
)
INNER = {
    "top": TopK(0.1),
    "random": RandomK(0.2, unbiased=False),
    "nearest": Quantize(3, "nearest"),
    "sign": Sign(),
    "rotate": Rotate(16) >> Quantize(4, "nearest"),
    "chain": TopK(0.2) >> Quantize(2, "nearest"),
}


# ------------------------------------------------------------------------- error feedback
@executions
@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("behind", [True, False])
def test_what_was_sent_and_what_is_left_is_all_that_was_given(
    name: str, execution: Execution, *, behind: bool
) -> None:
    before, layer = Recorded(), ErrorFeedback(INNER[name])
    weighted = (Weighted("uniform"),) if behind else ()
    # Without a mean the server's direction is the sum of what was sent.
    layers = (*weighted, before, layer) if behind else (before, layer)
    strategy = fedavg(lr=0.02).replace(layers=layers, server=ServerSGD(0.1))
    small = world()
    state, kept = small.start(strategy), 7 if behind else 1
    sent = torch.zeros_like(state.direction)
    for _ in range(4):
        state, _result = small.step(state, strategy, execution)
        sent = sent + state.direction * kept
    slot = 2 + layers.index(layer)
    rest = sum(slots[slot]["delta_left_out"] for slots in state.clients.rows.values())
    given = torch.stack([row for rows in before.seen.values() for row in rows]).sum(0)
    assert float((sent + rest - given).abs().max()) < 1e-13
    assert float(torch.as_tensor(rest).abs().max()) > 1e-4


def test_with_top_k_alone_nothing_is_lost_to_the_last_bit() -> None:
    small, strategy = (
        world(participation=Full()),
        fedavg().replace(layers=(ErrorFeedback(TopK(0.1)),), server=ServerSGD(0.01)),
    )
    seen: dict[int, Tensor] = {}
    recorded = Recorded()
    layers = (recorded, *strategy.layers, (behind := Recorded()))
    state = small.start(strategy := strategy.replace(layers=layers))
    for _ in range(3):
        state, _ = small.step(state, strategy)
        for k, slots in state.clients.rows.items():
            wanted = seen.get(k, torch.zeros(())) + recorded.seen[k][-1]
            kept, sent = slots[3]["delta_left_out"], behind.seen[k][-1]
            assert torch.equal(kept + sent, wanted)
            assert bool(((kept == 0) | (sent == 0)).all())
            seen[k] = kept


@executions
def test_a_client_that_fails_remembers_nothing_new_and_spoils_nobody(
    execution: Execution,
) -> None:
    strategy = fedavg(lr=0.02).replace(layers=(ErrorFeedback(TopK(0.5)), Weighted()))
    found = regression(BAD).run(strategy, execution, rounds=2)
    without = regression(BAD, chosen=OTHERS).run(strategy, execution, rounds=2)
    assert BAD not in found.clients.rows
    assert largest_difference(snapshot(found), snapshot(without)) < 1e-12


def test_biased_compression_stalls_without_feedback_and_not_with_it() -> None:
    """Signs of FedSGD's gradients: the mean keeps no size, unless what is left out comes later."""
    small = regression()
    distances = {}
    fast = Execution("dense", 16)
    target = small.run(fedsgd(lr=0.05), fast, rounds=150).params
    for name, layer in (
        ("plain", Compress(TopK(count=1))),
        ("feedback", ErrorFeedback(TopK(count=1))),
    ):
        strategy = fedsgd(lr=0.05).replace(layers=(layer, Weighted()))
        distances[name] = float((small.run(strategy, fast, rounds=150).params - target).norm())
    assert distances["feedback"] < distances["plain"] / 3


def test_what_is_remembered_grows_where_random_coordinates_have_their_factor() -> None:
    norms = {}
    for unbiased in (False, True):
        layer = ErrorFeedback(RandomK(0.25, unbiased=unbiased))
        strategy = fedavg(lr=1e-4).replace(layers=(layer,), server=ServerSGD(1e-6))
        state = world(participation=Full()).run(strategy, VMAP, rounds=30)
        norms[unbiased] = float(state.clients.rows[1][2]["delta_left_out"].norm())
    assert norms[True] > 100 * norms[False]


# ------------------------------------------------------------------------- momentum correction
@executions
def test_momentum_correction_is_that_of_the_paper(execution: Execution) -> None:
    """Algorithm of Lin et al. with momentum factor masking, as a loop over clients."""
    small, m, part = world(participation=Full()), 0.9, 0.1
    before, behind = Recorded(), Recorded()
    layer = ErrorFeedback(TopK(part), momentum=m)
    strategy = fedsgd(lr=0.1).replace(layers=(before, layer, behind, Weighted("uniform")))
    small.run(strategy, execution, rounds=5)
    for k, gradients in before.seen.items():
        u, v = torch.zeros_like(gradients[0]), torch.zeros_like(gradients[0])
        for g, sent in zip(gradients, behind.seen[k], strict=True):
            u = m * u + g
            v = v + u
            threshold = v.abs().sort(descending=True).values[round(part * len(v)) - 1]
            mask = v.abs() >= threshold
            assert float((sent - v * mask).abs().max()) < 1e-12
            v, u = v * ~mask, u * ~mask


def test_momentum_correction_without_sparsity_is_momentum_masked_each_round() -> None:
    small = world(participation=Full())
    dense = small.run(fedsgd_topk(lr=0.1, fraction=1.0, momentum=0.9), VMAP)
    assert (
        largest_difference(
            {"params": dense.params}, {"params": small.run(fedsgd(lr=0.1), VMAP).params}
        )
        < 1e-13
    )


# ------------------------------------------------------------------------- without a memory
@executions
@pytest.mark.parametrize("inside", [True, False])
def test_random_coordinates_are_summed_inside_and_lifted_with_their_factor(
    execution: Execution, *, inside: bool
) -> None:
    small, layers = world(), (Compress(RandomK(count=10)), Weighted())
    found = small.run(fedavg().replace(layers=layers if inside else layers[::-1]), execution, 1)
    plain = small.run(fedavg(), execution, rounds=1)
    kept = found.direction != 0
    assert int(kept.sum()) == 10
    expected = torch.where(kept, plain.direction * len(kept) / 10, 0.0)
    assert float((found.direction - expected).abs().max()) < 1e-12


def test_sums_of_random_coordinates_have_their_length() -> None:
    seen: list[int] = []

    @dataclass(frozen=True)
    class Looking(Layer):
        def on_server(
            self, total: Aggregate, state: State, round_: RoundContext
        ) -> tuple[Aggregate, State]:
            seen.append(len(total["delta"].values))
            return total, state

    strategy = fedavg().replace(layers=(Compress(RandomK(count=10)), Weighted(), Looking()))
    world().run(strategy, VMAP, rounds=2)
    assert seen == [10, 10]


def test_controls_are_compressed_where_they_are_named() -> None:
    small, names = world(), ("delta", "control")
    rounded = scaffold().replace(layers=(Compress(Quantize(16), names), Weighted("uniform")))
    plain, found = (small.run(s, VMAP) for s in (scaffold(), rounded))
    gap = (found.layers[0]["control"] - plain.layers[0]["control"]).abs().max()
    assert 0 < float(gap) < 1e-3
    crude = scaffold().replace(layers=(Compress(TopK(count=3)), Weighted("uniform")))
    assert (
        largest_difference(
            {"c": small.run(crude, VMAP, 1).layers[0]["control"]},
            {"c": small.run(scaffold(), VMAP, 1).layers[0]["control"]},
        )
        < 1e-14
    )  # of which only `delta` was compressed


# ------------------------------------------------------------------------- what the server sends
@dataclass(frozen=True)
class Received(Layer):
    """Notes what clients train from."""

    seen: list[Tensor] = field(default_factory=list)

    def on_receive(self, broadcast: Broadcast, memory: Memory, client: ClientContext) -> Broadcast:
        self.seen.append(broadcast.params[0].clone())
        return broadcast


@executions
def test_clients_train_from_the_rounded_model_and_the_server_keeps_its_own(
    execution: Execution,
) -> None:
    received, small = Received(), world()
    layers = (received, Weighted(), CompressedBroadcast(Quantize(8, "nearest")))
    strategy = fedavg().replace(layers=layers)
    state = small.start(strategy)
    for _ in range(3):
        exact, received.seen[:] = state.params, []
        state, result = small.step(state, strategy, execution)
        step = float(exact.abs().max()) / 127
        gap = (received.seen[0] - exact).abs()
        assert 0 < float(gap.max()) <= 0.5001 * step
        assert all(torch.equal(one, received.seen[0]) for one in received.seen)
        assert float((state.params - exact - state.direction).abs().max()) < 1e-15
        assert result.broadcast < 0.25 * 8 * len(exact) + 300  # a byte a parameter, and names


def test_differences_begin_with_the_model_and_lose_nothing() -> None:
    received, small = Received(), world(participation=Full())
    broadcast = CompressedBroadcast(TopK(0.2), difference=True)
    layers = (received, Weighted("uniform"), broadcast)
    strategy = fedavg(lr=0.01).replace(layers=layers)
    state, held = small.start(strategy), None
    for number in range(4):
        exact, received.seen[:] = state.params, []
        state, _ = small.step(state, strategy, VMAP)
        here = received.seen[0]
        if held is None:
            assert torch.equal(here, exact)
        else:
            moved = here - held
            assert int((moved != 0).sum()) == round(0.2 * len(exact))
            left = (exact - here).abs()
            assert float(left[moved != 0].max()) < 1e-15
            assert float((exact - held)[moved != 0].abs().min()) >= float(left.max())
        held = here
        assert torch.equal(state.layers[-1]["held"], here), number


@pytest.mark.parametrize("difference", [False, True])
def test_a_compressed_model_is_read_as_clients_train_from_it(*, difference: bool) -> None:
    inner = Rotate(16) >> Quantize(6) if not difference else TopK(0.3) >> Quantize(8)
    small = world(participation=Full())
    layers = (Weighted(), CompressedBroadcast(inner, difference=difference))
    strategy = fedavg().replace(layers=layers)
    state = small.run(strategy, VMAP, rounds=2)
    layout = small.task.layout
    context = RoundContext(3, np.uint64(5), 11, 11.0, 11, "cross-silo", layout)
    published = publish(state, strategy, context)
    message = broadcast_message(published, 0)
    data = encode(message)
    assert len(data) == length(message)
    assert len(data) < 8 * layout.shared
    none = torch.zeros(0, dtype=torch.float64)
    held = state.layers[-1].get("held")
    found = read_broadcast(decode(data), layout, none, none, READERS, held)
    assert torch.equal(found.params, published.params)
    with pytest.raises(WireError, match="tag"):
        read_broadcast(decode(data), layout, none, none)
    shorter = ParameterLayout(("w",), ((5,),), 5)
    with pytest.raises(WireError, match="compressed model"):
        read_broadcast(decode(data), shorter, none, none, READERS)


def test_a_round_that_nobody_answers_was_still_sent() -> None:
    small = regression(*range(11))
    strategy = fedavg().replace(
        layers=(Weighted(), CompressedBroadcast(Quantize(8), difference=True))
    )
    state, _ = small.step(small.start(strategy), strategy)
    assert int(state.layers[-1]["begun"]) == 1
    assert torch.equal(state.layers[-1]["held"], state.params)


def test_a_resumed_run_goes_on_from_what_clients_hold() -> None:
    broadcast = CompressedBroadcast(TopK(0.2) >> Quantize(8), difference=True)
    made = experiment(
        strategy=compressed_fedavg(fraction=0.2, error_feedback=True).then(broadcast),
        participation=Full(),
        rounds=5,
        execution=Execution("vmap", 2),
    )
    unbroken = list(hanse.rounds(made))
    *_, resumed = rounds(prepare(made), start=unbroken[2].state)
    assert resumed.number == 5
    assert same_bits(snapshot(resumed.state), snapshot(unbroken[-1].state))
    assert unbroken[-1].bytes_down < unbroken[1].bytes_down  # the first model went in full


def test_metrics_are_of_the_model_that_the_server_keeps() -> None:
    small = world()
    strategy = fedavg().then(CompressedBroadcast(Quantize(2)))
    state = small.run(strategy, VMAP, rounds=1)
    layout, key = small.task.layout, np.uint64(1)
    seen = {
        setting: publish(
            state, strategy, RoundContext(2, key, 11, 11.0, 11, setting, layout)
        ).params
        for setting in ("evaluation", "cross-silo")
    }
    assert torch.equal(seen["evaluation"], state.params)
    assert not torch.equal(seen["cross-silo"], state.params)


def test_a_model_with_holes_is_refused() -> None:
    for inner in (TopK(0.1), Rotate() >> RandomK(0.5)):
        with pytest.raises(StrategyError, match="would be zero"):
            CompressedBroadcast(inner)


# ------------------------------------------------------------------------- with a clip behind
@executions
def test_a_clip_behind_random_coordinates_noises_those_and_multiplies_afterwards(
    execution: Execution,
) -> None:
    small = world()
    clip = ClientDP(0.3, 0.0)
    inside, behind = Recorded(), Recorded()
    layers = (inside, Compress(RandomK(count=10)), behind, clip)
    found = small.run(fedavg(lr=0.5).replace(layers=layers), execution, rounds=1)
    assert int((found.direction != 0).sum()) == 10
    chosen = found.direction != 0
    expected, expected_count = torch.zeros_like(found.direction), 0
    for rows in inside.seen.values():
        kept = torch.where(chosen, rows[0], 0.0)  # without the factor
        expected += kept * min(1.0, 0.3 / float(kept.norm()))
        expected_count += float(kept.norm()) > 0.3
    assert expected_count  # some are clipped
    expected *= len(expected) / 10 / 7
    assert float((found.direction - expected).abs().max()) < 1e-5  # the grid


def noise_of(layers: tuple[Layer, ...], *bad: int) -> Tensor:
    small = regression(*bad, chosen=(1, 4))
    return small.run(fedavg().replace(layers=layers), MODULE, rounds=1).direction


@pytest.mark.parametrize("layer", [None, Compress(RandomK(count=3)), ErrorFeedback(TopK(count=1))])
def test_a_round_without_anybody_releases_the_same_kind_of_noise(layer: Layer | None) -> None:
    layers = (*((layer,) if layer else ()), ClientDP(0.5, 1.0))
    nobody, some = noise_of(layers, 1, 4), noise_of(layers)
    assert torch.equal(nobody != 0, some != 0)
    assert int((nobody != 0).sum()) == (3 if isinstance(layer, Compress) else 5)


@pytest.mark.parametrize(
    "inner",
    [TopK(count=1), Rotate(4), HalfPrecision(), Quantize(8, limit=1.0), Rotate(4) >> RandomK(0.5)],
)
def test_noise_alone_is_the_same_whatever_is_compressed_before_the_clip(inner: Compressor) -> None:
    clip = ClientDP(0.5, 1.0)
    assert torch.equal(noise_of((Compress(inner), clip), 1, 4), noise_of((clip,), 1, 4))


@pytest.mark.parametrize(
    "inner", [TopK(count=3), Quantize(2), Sign(), Rotate(4) >> Quantize(3), RandomK(count=4)]
)
def test_whatever_comes_before_the_clip_its_norm_is_bounded(inner: Compressor) -> None:
    after = Recorded()

    @dataclass(frozen=True)
    class Units(Layer):
        norms: list[float] = field(default_factory=list)

        def on_client(
            self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
        ) -> tuple[Update, Memory]:
            whole = update["delta"].values
            assert torch.equal(whole, whole.round())
            self.norms.extend((whole.square().sum(1).sqrt() / 2**20).tolist())
            return update, memory

    units = Units()
    clip = ClientDP(0.05, 0.0)
    layers = (Compress(inner), clip, units)
    world().run(fedavg(lr=0.5).replace(layers=layers), VMAP, rounds=2)
    assert max(units.norms) <= 1.0
    assert min(units.norms) > 0.9
    assert not after.seen


# ------------------------------------------------------------------------- in any engine
@pytest.mark.parametrize(
    "strategy",
    [
        compressed_fedavg(fraction=0.2, bits=4, error_feedback=True),
        compressed_fedavg(fraction=0.3, choose="random", bits=None, broadcast_bits=8),
        compressed_fedavg(bits=2, rotate=True),
        fedsgd_topk(fraction=0.1, bits=8),
    ],
    ids=lambda s: repr(s.layers[0])[:40],
)
def test_workers_compute_the_same_bits(strategy: hanse.Strategy) -> None:
    def final(workers: int) -> tuple[dict[str, Tensor], list[int]]:
        made = experiment(strategy=strategy, execution=Execution("vmap", 2), workers=workers)
        *_, last = found = list(hanse.rounds(made))
        return snapshot(last.state), [done.bytes_up for done in found]

    one, two = final(1), final(2)
    assert same_bits(one[0], two[0])
    assert one[1] == two[1]


def test_bytes_are_those_of_the_messages() -> None:
    seen: list[int] = []

    @dataclass(frozen=True)
    class Encoding(Layer):
        def on_client(
            self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
        ) -> tuple[Update, Memory]:
            messages = (update_message(update, row) for row in range(len(client.id)))
            seen.extend(len(encode(message)) for message in messages)
            return update, memory

    strategy = compressed_fedavg(fraction=0.3, bits=5).then(Encoding())
    made = experiment(strategy=strategy, participation=Full(), rounds=1)
    *_, done = hanse.rounds(made)
    assert done.bytes_up == sum(seen)
    assert len(seen) == 6


# ------------------------------------------------------------------------- what is refused
@dataclass(frozen=True)
class Shorter(Compressor):
    """Cuts a vector off, and does not say so."""

    contracts = True

    def enter(self, sent: Vector, source: object) -> Vector:
        return sent._replace(values=sent.values[:, :3])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Compress(8), "Compress(8)"),  # type: ignore[arg-type]
        (lambda: Compress(TopK), "TopK'>"),  # type: ignore[arg-type]
        (lambda: ErrorFeedback(Weighted()), "ErrorFeedback(Weighted"),  # type: ignore[arg-type]
        (lambda: ErrorFeedback(TopK(0.1), momentum=1.0), "momentum is 1.0"),
        (lambda: Compress(TopK(0.1), ()), "vectors=()"),
        (lambda: Compress(TopK(0.1), "delta"), "vectors='delta'"),  # type: ignore[arg-type]
        (lambda: ErrorFeedback(TopK(0.1), ("delta", "delta")), "vectors=('delta', 'delta')"),
        (lambda: CompressedBroadcast(None), "CompressedBroadcast(None)"),  # type: ignore[arg-type]
        (lambda: compressed_fedavg(bits=None), "without fraction and bits"),
        (lambda: compressed_fedavg(bits=None, rotate=True), "without fraction and bits"),
        (lambda: compressed_fedavg(choose="largest"), "choose='largest'"),  # type: ignore[arg-type]
        (lambda: compressed_fedavg(broadcast_bits=0), "Quantize(bits=0)"),
        (lambda: fedsgd_topk(fraction=0), "TopK(fraction=0)"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: object, said: str) -> None:
    with pytest.raises(StrategyError) as caught:
        make()  # type: ignore[operator]
    assert said in str(caught.value)


def test_running_variances_that_are_compressed_are_warned_about() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    task = Task.of(module, loss=cross_entropy)

    def warned(*names: str) -> tuple[str, ...]:
        strategy = fedavg().replace(layers=(Compress(RandomK(0.2), names), Weighted()))
        return check_compression(strategy, task, Full())

    assert warned("delta") == ()
    (warning,) = warned("delta", "buffers")
    assert "Compress of 'buffers'" in warning


def test_what_cannot_be_lifted_is_refused_at_the_client_too() -> None:
    with pytest.raises(StrategyError, match="cannot be lifted"):
        world().run(fedavg().replace(layers=(ErrorFeedback(Shorter()), Weighted())))


@pytest.mark.parametrize(
    "inner", [(Quantize(2), Quantize(1)), (RandomK(0.5), RandomK(0.5))], ids=repr
)
def test_two_layers_around_one_vector_draw_apart(inner: tuple[Compressor, Compressor]) -> None:
    columns, many = 21, 4000
    layout = ParameterLayout(("a",), ((columns,),), columns)
    given = torch.linspace(-1, 1, columns, dtype=torch.float64)
    total = torch.zeros(columns, dtype=torch.float64)
    for number in range(many):
        key = derive(7, number)
        context = RoundContext(number, key, 1, 1.0, 1, "cross-silo", layout)
        broadcast = Broadcast(given, torch.zeros(0), {}, context)
        one = np.zeros(1, np.int64)
        client = ClientContext(one, one, derive(key, one), context, torch.ones(1))
        update: Update = {"delta": vector(given.unsqueeze(0))}
        for compressor in inner:
            update, _ = Compress(compressor).on_client(update, broadcast, {}, client)
        total += update["delta"].lifted()[0]
    # No number is above 4 in absolute value: five standard deviations of its mean.
    assert float((total / many - given).abs().max()) < 5 * 2 / many**0.5


def test_a_vector_that_nobody_sends_is_missed() -> None:
    with pytest.raises(StrategyError, match="did you mean 'delta'"):
        world().run(fedavg().replace(layers=(Compress(Quantize(8), ("delt",)), Weighted())))


def test_sums_of_nothing_keep_other_vectors() -> None:
    zeros: Mapping[str, Summed] = {
        "delta": Summed(torch.zeros(9)),
        "control": Summed(torch.zeros(9)),
    }
    context = small_context()
    after = Compress(RandomK(count=3)).of_nobody(zeros, context)
    assert after["control"] is zeros["control"]
    assert after["delta"].values.shape == (3,)
    assert after["delta"].lifted().values.shape == (9,)


def small_context() -> RoundContext:
    layout = ParameterLayout(("w",), ((9,),), 9)
    return RoundContext(1, np.uint64(5), 3, 3.0, 3, "cross-silo", layout)
