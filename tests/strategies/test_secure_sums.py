"""Secure sums: exact, the same by the protocol and without it, with and without drop-outs."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.small import (
    BAD,
    MODULE,
    OTHERS,
    SIZES,
    VMAP,
    Recorded,
    federation,
    largest_difference,
    mlp,
    regression,
    same_bits,
    snapshot,
    world,
)

import hanse
from hanse import SecureSum, fedavg, fedavg_secagg, fednova, fedsgd, scaffold
from hanse.aggregation import Assumptions, DropOuts, Tree
from hanse.aggregation.dropouts import STAYS, fate, session
from hanse.aggregation.words import WEIGHT, Bound, Encoded, decode, encode, width
from hanse.compression.whole import Whole
from hanse.core.types import ClientContext, RoundContext, Vector, vector
from hanse.models import Execution
from hanse.records import round_record
from hanse.secagg.client import Stage
from hanse.secagg.driver import Run
from hanse.secagg.ring import FixedPoint
from hanse.secagg.session import Session
from hanse.selection import Full
from hanse.training import rounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.round import RoundResult

FEW_CORRUPT = Assumptions(corrupt=0.1)
STEP = 2.0**-20
NOBODY: Mapping[str, Bound] = {}


def words_of(update: Mapping[str, Vector], most: int = 1, clip: float = 8.0) -> Encoded:
    named = {WEIGHT: Bound(WEIGHT, 1.0, 1.0)}
    return encode(update, named, Bound("", clip, STEP), ("delta",), most)


# --------------------------------------------------------------------------------- the words
numbers = st.lists(
    st.floats(-8, 8, allow_nan=False).filter(lambda x: abs(x) < 7.9), min_size=3, max_size=3
)


@given(st.lists(numbers, min_size=2, max_size=5))
def test_words_are_those_of_fixed_point_numbers(rows: list[list[float]]) -> None:
    clients = len(rows)
    point = FixedPoint(8.0, STEP, clients)
    words, places = words_of({"delta": vector(torch.tensor(rows, dtype=torch.float64))})
    assert width(places, clients) == point.width
    for row, sent in zip(rows, words.numpy(), strict=True):
        assert np.array_equal(sent[:-1].astype(f"u{point.width // 8}"), point.encode(row))
    total, shortened = decode(words.sum(0), places, width(places, clients))
    encoded = np.stack([point.encode(row) for row in rows]).sum(0, dtype=f"u{point.width // 8}")
    assert np.array_equal(total["delta"].values.numpy(), point.decode(encoded))
    assert shortened == 0


@given(st.permutations(range(6)), st.integers(1, 6))
def test_sums_do_not_depend_on_order_or_blocks(order: list[int], block: int) -> None:
    rows = torch.linspace(-3, 5, 6 * 4, dtype=torch.float64).reshape(6, 4).sin()
    whole = words_of({"delta": vector(rows)}).words.sum(0)
    tree: Tree[Tensor] = Tree(lambda left, right: left + right)
    for number, start in enumerate(range(0, 6, block)):
        part = rows[order[start : start + block]]
        tree.push(number, words_of({"delta": vector(part)}).words.sum(0))
    found = tree.total()
    assert found is not None
    assert torch.equal(found, whole)


def test_a_vector_beyond_the_clip_keeps_its_direction_and_is_counted() -> None:
    rows = torch.tensor([[16.0, -4.0], [8.0, 1.0], [-1.0, 2.0]], dtype=torch.float64)
    words, places = words_of({"delta": vector(rows)})
    total, shortened = decode(words[:1].sum(0), places, 64)
    assert total["delta"].values.tolist() == [8.0, -2.0]
    assert shortened == 1
    assert words[:, -1].tolist() == [1, 0, 0]


def test_a_client_with_too_many_examples_counts_as_one_with_the_most() -> None:
    rows, weights = torch.tensor([[1.0], [1.0]]).double(), torch.tensor([30.0, 10.0]).double()
    update = {"delta": vector(rows).scaled(weights), WEIGHT: vector(weights.unsqueeze(1))}
    words, places = words_of(update, most=20)
    total, shortened = decode(words.sum(0), places, 64)
    assert (total[WEIGHT].values.item(), total["delta"].values.item()) == (30.0, 30.0)
    assert shortened == 1


def test_words_are_as_wide_as_sums_need() -> None:
    places = words_of({"delta": vector(torch.zeros(1, 1))}).places  # 2^23 steps
    assert width(places, 255) == 32
    assert width(places, 256) == 64  # 2^31: one too much for a sign and 31 bits
    with pytest.raises(hanse.StrategyError, match="64 bits"):
        width(words_of({"delta": vector(torch.zeros(1, 1))}, clip=2.0**33).places, 1 << 11)


def test_whole_numbers_wrap_around_and_are_never_shortened() -> None:
    noisy = torch.tensor([[2.0**31 + 5, -3.0, 40.0]], dtype=torch.float64)
    update = {"delta": vector(noisy)._replace(space=(Whole(32),))}
    words, places = words_of(update)
    assert width(places, 3) == 32
    total, shortened = decode(words.sum(0), places, 32)
    assert total["delta"].values.tolist() == [5 - 2.0**31, -3.0, 40.0]
    assert shortened == 0


# ------------------------------------------------------------- the same as plain, and as by masks
PLAIN = {
    "fedavg": fedavg(),
    "fedavg-uniform": fedavg(weighting="uniform"),
    "fedsgd": fedsgd(lr=0.5),
    "scaffold": scaffold(),
    "fednova": fednova(),
}


def secure(strategy: hanse.Strategy, **fields: Any) -> hanse.Strategy:  # noqa: ANN401 - its own
    given_ = {"most_examples": max(SIZES), "assumptions": FEW_CORRUPT, **fields}
    return strategy.replace(aggregation=SecureSum(**given_))


@pytest.mark.parametrize("name", PLAIN)
def test_a_secure_sum_is_the_plain_one_but_for_rounding(name: str) -> None:
    small, strategy = world(), PLAIN[name]
    plain = small.run(strategy, VMAP, rounds=1)
    found = small.run(secure(strategy), VMAP, rounds=1)
    # Half a step of each client, times the largest weight, over the least sum of weights.
    bound = 7 * STEP / 2 * max(SIZES) * 8  # FedNova multiplies by its steps
    assert 0 < largest_difference(snapshot(plain), snapshot(found)) < bound


@pytest.mark.parametrize("name", PLAIN)
def test_the_protocol_gives_the_bits_of_its_result(name: str) -> None:
    small, strategy = world(), PLAIN[name]
    fast = small.run(secure(strategy), VMAP, rounds=2)
    real = small.run(secure(strategy, protocol="real"), VMAP, rounds=2)
    assert same_bits(snapshot(fast), snapshot(real))


@pytest.mark.parametrize("protocol", ["sum", "real"])
def test_blocks_and_workers_do_not_change_a_bit_of_sums(protocol: str) -> None:
    strategy = secure(scaffold(), protocol=protocol, drops=0.1)
    experiment = hanse.Experiment(
        strategy, federation(), mlp(), rounds=2, execution=Execution("dense", 2)
    )
    found = [list(rounds(experiment))[-1]]
    found += [list(rounds(dataclasses.replace(experiment, workers=2)))[-1]]
    other = dataclasses.replace(experiment, execution=Execution("dense", 16))
    found += [list(rounds(other))[-1]]
    first = snapshot(found[0].state)
    assert same_bits(first, snapshot(found[1].state))
    params = found[2].state.params
    assert torch.equal(first["params"], params)  # what clients measure of drift may differ


# ----------------------------------------------------------------------------------- drop-outs
def course(
    strategy: hanse.Strategy, number: int = 4
) -> tuple[list[RoundResult], dict[str, Tensor]]:
    small = world(participation=Full())
    state, results = small.start(strategy), []
    for _ in range(number):
        state, result = small.step(state, strategy, VMAP)
        results.append(result)
    return results, snapshot(state)


@pytest.mark.parametrize(
    "drops",
    [
        0.15,
        DropOuts(mask=0.5),
        DropOuts(advertise=0.1, share=0.1, mask=0.1),
        DropOuts(0.05, 0.05, 0.05, 0.05, 0.05),
        DropOuts(confirm=0.2),
        DropOuts(open=0.2),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
def test_with_drop_outs_the_protocol_gives_the_sum_over_survivors(
    name: str, drops: DropOuts | float
) -> None:
    fast, state = course(secure(PLAIN[name], drops=drops))
    real, other = course(secure(PLAIN[name], drops=drops, protocol="real"))
    assert same_bits(state, other)
    for one, two in zip(fast, real, strict=True):
        assert one.exchange.numbers == two.exchange.numbers
        assert set(one.exchange.lost) == set(two.exchange.lost)
        assert bool(one.exchange.failure) == bool(two.exchange.failure)
    assert any(one.exchange.lost for one in fast) or drops in (
        DropOuts(confirm=0.2),
        DropOuts(open=0.2),
    )


def test_the_drop_outs_of_the_tests_make_some_rounds_fail_and_some_not() -> None:
    failures = [bool(r.exchange.failure) for r in course(secure(fedavg(), drops=0.25), 8)[0]]
    assert any(failures)
    assert not all(failures)


def test_the_sum_over_survivors_is_that_of_a_plain_round_of_them() -> None:
    strategy = secure(fedavg(), drops=0.15)
    small = world(participation=Full())
    state, result = small.step(small.start(strategy), strategy, VMAP)
    gone = set(result.exchange.lost)
    assert gone
    assert not result.exchange.failure
    recorded = Recorded()
    plain = fedavg()
    observed = plain.replace(layers=(recorded, *plain.layers))
    small.step(small.start(observed), observed, VMAP)
    stays = [k for k in range(len(SIZES)) if k not in gone]
    parts = torch.tensor([float(SIZES[k]) for k in stays]).double()
    mean = (parts / parts.sum()) @ torch.stack([recorded.seen[k][0] for k in stays])
    expected = small.start(plain).params + mean
    assert float((state.params - expected).abs().max()) < len(SIZES) * STEP * max(SIZES)
    assert result.accepted == len(stays)
    assert {d.client for d in result.dropped} == gone
    assert all("secure sum" in d.reason for d in result.dropped)


@pytest.mark.parametrize("protocol", ["sum", "real"])
def test_who_drops_out_remembers_nothing_new(protocol: str) -> None:
    strategy = secure(scaffold(), drops=0.15, protocol=protocol)
    small = world(participation=Full())
    state, result = small.step(small.start(strategy), strategy, VMAP)
    gone = set(result.exchange.lost)
    assert gone
    assert set(state.clients.rows) == set(range(len(SIZES))) - gone
    # The server's control stays the mean of the clients': of those who never took part it is zero.
    for _ in range(3):
        state, _ = small.step(state, strategy, VMAP)
    controls = [slots[1]["control"] for slots in state.clients.rows.values()]
    mean = torch.stack(controls).sum(0) / len(SIZES)
    server = state.layers[0]["control"]
    assert float((server - mean).abs().max()) < 4 * STEP
    assert float(server.abs().max()) > 1e-3


def test_a_round_with_too_few_survivors_changes_nothing_and_says_so() -> None:
    strategy = secure(scaffold(), drops=DropOuts(mask=0.9))
    experiment = hanse.Experiment(strategy, federation(), mlp(), rounds=4, execution=VMAP)
    first, *rest = rounds(experiment)
    for done in rest:
        assert torch.equal(done.state.params, first.state.params)
        assert not done.state.clients.rows
        assert done.result is not None
        assert done.result.accepted == 0
        record = round_record(done)
        assert "have sent their vectors" in record["failure"]
        assert {d["client"] for d in record["dropped"]} == set(range(len(SIZES)))
        assert record["server"] == {"survivors": 0.0}


def test_a_client_without_a_finite_update_has_dropped_out() -> None:
    strategy = secure(fedavg(lr=0.02), clip=64.0)
    for protocol in ("sum", "real"):
        small = regression(BAD)
        chosen = secure(strategy, clip=64.0, protocol=protocol)
        state, result = small.step(small.start(chosen), chosen, VMAP)
        assert result.exchange.numbers["survivors"] == len(OTHERS)
        assert bool(state.params.isfinite().all())


@given(
    st.integers(3, 30),
    st.floats(0, 0.4),
    st.lists(st.integers(0, STAYS), min_size=30, max_size=30),
    st.booleans(),
)
def test_fates_add_up(clients: int, corrupt: float, drawn: list[int], stay: bool) -> None:
    assumed = Assumptions(corrupt=min(corrupt, 0.3), server="honest-but-curious")
    agreed = session(clients, np.uint64(1), assumed, length=1, bits=32)
    stages = np.array([STAYS if stay else s for s in drawn[:clients]])
    found = fate(agreed, stages)
    assert found.summed.any() != bool(found.failure)
    if stay:
        assert found.summed.all()
    if not found.failure:
        assert found.summed.sum() >= agreed.least
        assert not found.summed[stages <= Stage.MASK].any()


@pytest.mark.parametrize("seed", range(12))
def test_fates_are_those_of_the_protocol_on_sparse_graphs(seed: int) -> None:
    random = np.random.default_rng(seed)
    # A degree so small that neighbours do get lost.
    agreed = Session(bytes(16), tuple(range(12)), 1, 32, 3, 6, 6, seed.to_bytes(32, "little"), 3)
    rates = [0.1, 0.05, 0.1, 0.05, 0.05, 0.65]
    stages = random.choice(STAYS + 1, 12, p=rates)
    found = fate(agreed, stages)
    loose = Assumptions(corrupt=0.0, dropout=0.0, server="honest-but-curious", security=1)
    run = Run(agreed, lambda place: np.array([1 << place], np.uint32), loose)
    drops = {p: Stage(int(s)) for p, s in enumerate(stages) if s < STAYS}
    try:
        outcome = run.to_end(drops)
    except hanse.ProtocolError:
        assert found.failure
        return
    assert not found.failure
    assert tuple(np.flatnonzero(found.summed)) == outcome.survivors


def test_a_quorum_is_needed_even_where_shares_are_enough() -> None:
    agreed = Session(bytes(16), tuple(range(12)), 1, 32, 3, 10, 6, bytes(32), 3)
    stages = np.full(12, STAYS)
    assert not fate(agreed, stages).failure
    stages[:2] = Stage.CONFIRM
    assert not fate(agreed, stages).failure
    stages[2] = Stage.CONFIRM
    assert "9 of 12 clients have confirmed" in fate(agreed, stages).failure


def test_drop_outs_are_drawn_from_the_round_and_the_client() -> None:
    drops, ids = DropOuts(0.1, 0.1, 0.2, 0.1, 0.1), np.arange(100_000)
    stages = drops.stages(np.uint64(7), ids)
    assert np.array_equal(stages[::7], drops.stages(np.uint64(7), ids[::7]))
    shares = np.bincount(stages, minlength=STAYS + 1) / len(ids)
    for share, rate in zip(shares, (0.1, 0.1, 0.2, 0.1, 0.1, 0.4), strict=True):
        assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / len(ids))
    assert (drops.stages(np.uint64(8), ids) != stages).mean() > 0.5


# ------------------------------------------------------------------------- what is seen by whom
def context(clients: int) -> ClientContext:
    ids = np.arange(clients)
    layout = world().task.layout
    round_ = RoundContext(1, np.uint64(5), clients, float(clients), clients, "cross-silo", layout)
    return ClientContext(ids, ids, np.arange(clients, dtype=np.uint64), round_, torch.ones(clients))


def test_weights_and_losses_are_in_the_masked_words_and_nowhere_else() -> None:
    weights = torch.tensor([11.0, 13.0, 17.0]).double().unsqueeze(1)
    update = {"delta": vector(torch.zeros(3, 2).double()), WEIGHT: vector(weights)}
    total, client = SecureSum(most_examples=32, protocol="real"), context(3)
    kept = total.block(total.contribution(update, client), client)
    agreed = total.session(kept, client.round)
    rows = torch.cat(kept.words).numpy().astype(np.uint32)
    run = Run(agreed, lambda place: rows[place])
    outcome = run.to_end()
    assert outcome.total[2] == 11 + 13 + 17
    sent = [m for m in run.transcript if m.upward and m.stage is Stage.MASK]
    masked = [np.frombuffer(m.message[48:64], np.uint32) for m in sent]
    assert len(masked) == 3
    for message in masked:
        assert not set(message.tolist()) & {11, 13, 17, 0}


def test_what_is_reported_of_a_round() -> None:
    strategy = fedavg_secagg(lr=0.1, secure=SecureSum(clip=1e-3))
    experiment = hanse.Experiment(strategy, federation(), mlp(), rounds=1, execution=MODULE)
    *_, last = rounds(experiment)
    assert last.reported["survivors"] == len(SIZES)
    assert last.reported["shortened"] > len(SIZES) / 2  # such a clip is too small
    wide = dataclasses.replace(experiment, strategy=fedavg_secagg(lr=0.1))
    *_, last = rounds(wide)
    assert last.reported == {"survivors": len(SIZES), "shortened": 0.0}
