"""Plans of batches: what every client sees, and that neighbours never change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import StrategyError
from hanse.core.rng import derive
from hanse.data import batching
from hanse.data.batching import Batch, Epochs, FullGradient, Pass, Plan, Steps, plan, steps

size_lists = st.lists(st.integers(1, 40), min_size=1, max_size=6)
batch_sizes = st.integers(1, 12)
counts = st.integers(1, 4)
passes = st.one_of(
    st.builds(Epochs, counts, st.one_of(st.none(), batch_sizes)),
    st.builds(Steps, counts, batch_sizes),
    st.builds(FullGradient, batch_sizes),
)


def laid_out(pass_: Pass, sizes: list[int], gap: int = 3) -> Plan:
    """A plan of clients sorted as plans want them, with `gap` foreign rows between clients."""
    order = np.argsort(-steps(pass_, np.array(sizes)), kind="stable")
    ordered = np.array(sizes)[order]
    starts = gap + np.cumsum(ordered + gap) - ordered - gap
    return plan(pass_, ordered, starts, derive(7, order), dtype=torch.float64)


def batches_of(lay: Plan, client: int) -> list[list[int]]:
    """One client's batches, as the numbers of its own examples, without padding."""
    return [
        (batch.rows[client, : batch.counts[client]] - int(lay.starts[client])).tolist()
        for batch in lay
        if client < batch.active
    ]


def joined(batches: list[list[int]]) -> list[int]:
    return [example for batch in batches for example in batch]


@given(size_lists, counts, batch_sizes)
def test_every_epoch_uses_every_example_exactly_once(
    sizes: list[int], count: int, batch_size: int
) -> None:
    lay = laid_out(Epochs(count, batch_size), sizes)
    for k, n in enumerate(lay.sizes):
        batches = batches_of(lay, k)
        an_epoch = -(-int(n) // batch_size)
        assert len(batches) == count * an_epoch
        for e in range(count):
            epoch = batches[e * an_epoch : (e + 1) * an_epoch]
            assert sorted(joined(epoch)) == list(range(n))
            assert [len(batch) for batch in epoch[:-1]] == [batch_size] * (an_epoch - 1)


@given(size_lists, st.integers(1, 9), batch_sizes)
def test_steps_read_one_shuffled_epoch_after_another(
    sizes: list[int], count: int, batch_size: int
) -> None:
    lay = laid_out(Steps(count, batch_size), sizes)
    for k, n in enumerate(lay.sizes):
        batches = batches_of(lay, k)
        assert [len(batch) for batch in batches] == [batch_size] * count
        stream = joined(batches)
        for begin in range(0, len(stream), int(n)):
            epoch = stream[begin : begin + int(n)]
            whole = len(epoch) == n
            assert sorted(epoch) == list(range(n)) if whole else len(set(epoch)) == len(epoch)


@given(size_lists, counts)
def test_without_a_batch_size_an_epoch_is_one_batch_of_everything(
    sizes: list[int], count: int
) -> None:
    lay = laid_out(Epochs(count, None), sizes)
    for k, n in enumerate(lay.sizes):
        assert batches_of(lay, k) == [list(range(n))] * count


@given(size_lists, batch_sizes)
def test_a_full_gradient_reads_each_example_once_and_weighs_one_in_all(
    sizes: list[int], chunk: int
) -> None:
    lay = laid_out(FullGradient(chunk), sizes)
    for k, n in enumerate(lay.sizes):
        assert joined(batches_of(lay, k)) == list(range(n))
        weights = torch.cat([batch.weights[k] for batch in lay if k < batch.active])
        torch.testing.assert_close(weights[weights > 0], torch.full((int(n),), 1 / n).double())


@given(passes, size_lists)
def test_a_step_is_well_formed(pass_: Pass, sizes: list[int]) -> None:
    lay = laid_out(pass_, sizes)
    assert len(list(lay)) == len(lay)
    taken = np.zeros(len(sizes), np.int64)
    for t, batch in enumerate(lay):
        assert batch.active == int((lay.steps > t).sum())
        longest = int(batch.counts.max())
        assert batch.rows.shape == batch.weights.shape == (batch.active, longest)
        assert longest <= lay.width
        assert batch.rows.dtype == batch.counts.dtype == torch.int64
        real = torch.arange(longest) < batch.counts[:, None]
        assert bool((batch.counts >= 1).all())
        assert torch.equal(batch.weights > 0, real)
        starts = torch.from_numpy(lay.starts[: batch.active, None])
        ends = starts + torch.from_numpy(lay.sizes[: batch.active, None])
        assert bool(((batch.rows >= starts) & (batch.rows < ends)).all())
        assert bool((batch.rows == starts)[~real].all())
        if not isinstance(pass_, FullGradient):
            torch.testing.assert_close(batch.weights.sum(1), torch.ones(batch.active).double())
        taken[: batch.active] += 1
    assert taken.tolist() == lay.steps.tolist() == steps(pass_, lay.sizes).tolist()


@given(passes, size_lists, st.integers(0, 1000))
def test_a_client_sees_the_same_batches_alone_and_in_company(
    pass_: Pass, sizes: list[int], elsewhere: int
) -> None:
    together = laid_out(pass_, sizes)
    for k in range(len(sizes)):
        one = slice(k, k + 1)
        start = np.array([elsewhere])
        alone = plan(pass_, together.sizes[one], start, together.keys[one], dtype=torch.float64)
        assert batches_of(alone, 0) == batches_of(together, k)
        for a, b in zip(alone, together, strict=False):
            width = int(a.counts[0])
            assert torch.equal(a.weights[0, :width], b.weights[k, :width])


@given(passes, size_lists, st.data())
def test_a_part_of_a_plan_is_the_plan_of_those_clients(
    pass_: Pass, sizes: list[int], data: st.DataObject
) -> None:
    whole = laid_out(pass_, sizes)
    first = data.draw(st.integers(0, len(sizes) - 1))
    part = slice(first, data.draw(st.integers(first + 1, len(sizes))))
    alone = plan(pass_, whole.sizes[part], whole.starts[part], whole.keys[part], torch.float64)
    for a, b in zip(alone, whole.part(part), strict=True):
        assert a.active == b.active
        assert all(torch.equal(x, y) for x, y in zip(a[1:], b[1:], strict=True))


@given(passes, size_lists)
def test_a_plan_can_be_iterated_again(pass_: Pass, sizes: list[int]) -> None:
    def flat(batches: list[Batch]) -> list[list[int]]:
        return [batch.rows.flatten().tolist() for batch in batches]

    lay = laid_out(pass_, sizes)
    assert flat(list(lay)) == flat(list(lay))


def test_epochs_keys_and_clients_are_shuffled_differently() -> None:
    sizes, starts = np.array([50, 50]), np.array([0, 50])
    lay = plan(Epochs(2, 50), sizes, starts, derive(1, np.arange(2)))
    orders = [*batches_of(lay, 0), *batches_of(lay, 1)]
    orders += batches_of(plan(Epochs(2, 50), sizes, starts, derive(2, np.arange(2))), 0)
    assert len({tuple(order) for order in [*orders, list(range(50))]}) == 7


def test_plans_are_fixed_for_all_time() -> None:
    # A run's results depend on these: a change here breaks every recorded experiment.
    def batches(pass_: Pass) -> list[list[int]]:
        return batches_of(plan(pass_, np.array([5]), np.array([0]), derive(1, np.array([0]))), 0)

    assert batches(Epochs(2, 3)) == EPOCHS
    assert joined(batches(Steps(5, 2))) == joined(EPOCHS)


EPOCHS = [[1, 3, 2], [0, 4], [1, 4, 2], [3, 0]]


def test_each_example_is_equally_likely_in_each_place() -> None:
    clients, n = 6000, 5
    sizes = np.full(clients, n)
    lay = plan(Epochs(1, n), sizes, n * np.arange(clients), derive(3, np.arange(clients)))
    (batch,) = lay
    examples = batch.rows.numpy() % n
    seen = np.stack([np.bincount(examples[:, place], minlength=n) for place in range(n)])
    expected = clients / n
    chi_squared = ((seen - expected) ** 2 / expected).sum()
    assert chi_squared < 45  # (5 - 1)² = 16 degrees of freedom: exceeded once in 7000 seeds


def test_a_huge_client_beside_small_ones_costs_its_own_examples_only() -> None:
    sizes = np.array([200_000] + [1] * 500)
    starts = np.cumsum(sizes) - sizes
    lay = plan(Epochs(1, 1000), sizes, starts, derive(1, np.arange(501)))
    actives = [batch.active for batch in lay]
    assert actives == [501] + [1] * 199


def test_tiny_clients_may_take_many_steps_beside_a_huge_one() -> None:
    sizes = np.array([1, 5000])
    lay = plan(Steps(300, 10), sizes, np.array([0, 1]), derive(1, np.arange(2)))
    assert all(batch.rows[0].tolist() == [0] * 10 for batch in lay)
    seen = joined(batches_of(lay, 1))
    assert len(set(seen)) == len(seen) == 3000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_have_the_type_asked_for(dtype: torch.dtype) -> None:
    for pass_ in (Epochs(1, 2), Steps(1, 2), FullGradient()):
        lay = plan(pass_, np.array([3]), np.array([0]), derive(1, np.arange(1)), dtype)
        assert all(batch.weights.dtype == dtype for batch in lay)


@given(size_lists, counts, batch_sizes)
def test_steps_looked_up_a_few_at_a_time_are_the_same(
    sizes: list[int], count: int, batch_size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lay = laid_out(Epochs(count, batch_size), sizes)
        at_once = list(lay)
        patch.setattr(batching, "_TABLE", 0)
        patch.setattr(batching, "_PLANNED", 2 * batch_size)
        patch.setattr(batching, "_KEPT", 1)
        by_and_by = list(laid_out(Epochs(count, batch_size), sizes))
    for a, b in zip(at_once, by_and_by, strict=True):
        assert a.active == b.active
        assert all(torch.equal(x, y) for x, y in zip(a[1:], b[1:], strict=True))


def test_no_clients_take_no_steps() -> None:
    none = np.zeros(0, np.int64)
    for pass_ in (Epochs(), Epochs(1, None), Steps(3), FullGradient()):
        assert list(plan(pass_, none, none, none.astype(np.uint64))) == []


def test_clients_that_are_not_sorted_by_steps_are_an_error_of_the_engine() -> None:
    keys = derive(1, np.arange(2))
    with pytest.raises(ValueError, match="sorted"):
        plan(Epochs(1, 10), np.array([5, 50]), np.array([0, 5]), keys)
    plan(Steps(1, 10), np.array([5, 50]), np.array([0, 5]), keys)  # all take one step


def test_arrays_that_do_not_fit_are_an_error_of_the_engine() -> None:
    with pytest.raises(ValueError, match="2 sizes, 1 starts"):
        plan(Epochs(), np.array([5, 5]), np.array([0]), derive(1, np.arange(2)))
    with pytest.raises(ValueError, match="without examples"):
        plan(Epochs(), np.array([0]), np.array([0]), derive(1, np.arange(1)))


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5])
def test_counts_below_one_are_refused(wrong: int) -> None:
    for build in (
        lambda: Epochs(wrong),
        lambda: Epochs(1, wrong),
        lambda: Steps(wrong),
        lambda: Steps(1, wrong),
        lambda: FullGradient(wrong),
    ):
        with pytest.raises(StrategyError, match="1 or more"):
            build()
