"""Examples are loaded while others train: by events, not by the clock."""

from __future__ import annotations

import os
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from tests.engine.forked import PATIENCE, Outcome, forked, here, run
from tests.engine.small import CLASSES, FEATURES, MODULE, Chosen, World, mlp, world
from torch import Tensor

from hanse import Experiment, rounds
from hanse.core.errors import DataError
from hanse.core.types import Layer
from hanse.data import Federation, LazyClients, PackedClients, map_inputs
from hanse.data.clients import MappedClients
from hanse.engines.ahead import Ahead
from hanse.engines.make import make_engine
from hanse.selection import Uniform
from hanse.strategies import fedavg

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hanse.core.types import Broadcast, ClientContext, Memory

COUNT, SIZE = 8, 5
ONE_SPAN_EACH = 1 << 14  # examples, with which every client is a span of its own


def examples(client: int) -> dict[str, Tensor]:
    random = np.random.default_rng(client)
    return {
        "x": torch.from_numpy(random.normal(size=(SIZE, FEATURES))),
        "y": torch.from_numpy(random.integers(0, CLASSES, SIZE)),
    }


PACKED = PackedClients.from_arrays([examples(k) for k in range(COUNT)])


def lazy(load: Callable[[int], dict[str, Tensor]] = examples, **options: Any) -> LazyClients:  # noqa: ANN401
    return LazyClients(COUNT, load, lambda client: SIZE, **options)


def one_span_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanse.engines.cohort._SPAN_BLOCKS", 1)


def small(data: Any, *cohort: int) -> World:  # noqa: ANN401 - any clients' data
    return world(data=data, participation=Chosen(cohort or tuple(range(COUNT))))


@dataclass(frozen=True)
class Watched(Layer):
    """Calls a function while a client trains."""

    call: Callable[[int], None]

    def on_receive(self, broadcast: Broadcast, memory: Memory, client: ClientContext) -> Broadcast:
        for k in client.id:
            self.call(int(k))
        return broadcast


@dataclass
class Meeting:
    """The loading of each client waits until the one before trains, and the other way round."""

    trains: list[threading.Event] = field(
        default_factory=lambda: [threading.Event() for _ in range(COUNT)]
    )
    loads: list[threading.Event] = field(
        default_factory=lambda: [threading.Event() for _ in range(COUNT)]
    )
    met: list[int] = field(default_factory=list)

    def load(self, client: int) -> dict[str, Tensor]:
        self.loads[client].set()
        if client:
            assert self.trains[client - 1].wait(PATIENCE), f"{client} was not loaded ahead"
        return examples(client)

    def train(self, client: int) -> None:
        self.trains[client].set()
        if client + 1 < COUNT:
            assert self.loads[client + 1].wait(PATIENCE), f"{client + 1} was not loaded ahead"
            self.met.append(client)


def met(strategy: Any, one: World) -> Outcome:  # noqa: ANN401
    return run(make_engine(1, strategy, one.task, one.data, MODULE), one, 1)


def test_a_span_loads_while_the_one_before_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    one_span_each(monkeypatch)
    meeting = Meeting()
    one = small(lazy(meeting.load))
    found = met(fedavg().then(Watched(meeting.train)), one)
    assert meeting.met == list(range(COUNT - 1))
    assert found == here(small(PACKED), fedavg().then(Watched(lambda client: None)), MODULE, 1)


def test_a_worker_loads_a_span_while_the_one_before_it_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one_span_each(monkeypatch)
    meeting = Meeting()
    one, strategy = small(lazy(meeting.load)), fedavg().then(Watched(meeting.train))
    with forked(one, strategy, MODULE, 1) as engine:
        found = run(engine, one, 1)
    assert found == here(small(PACKED), fedavg().then(Watched(lambda client: None)), MODULE, 1)


def test_the_next_rounds_client_loads_while_this_rounds_one_trains() -> None:
    loads, changed = list[int](), threading.Condition()

    def load(client: int) -> dict[str, Tensor]:
        with changed:
            loads.append(client)
            changed.notify_all()
        return examples(client)

    trained = list[int]()

    def train(client: int) -> None:
        trained.append(client)
        with changed:
            if len(trained) == 1:
                own = len(loads) - 1 - loads[::-1].index(client)  # the next may be there already
                del loads[:own]  # what was loaded to try the model
            if len(trained) < 5:
                ahead = changed.wait_for(lambda: len(loads) > len(trained), PATIENCE)
                assert ahead, "who is next was not loaded ahead"

    experiment = Experiment(
        fedavg().then(Watched(train)),
        Federation(lazy(load)),
        mlp(),
        rounds=5,
        participation=Uniform(count=1),
        evaluate_every=5,
        execution=MODULE,
    )
    for done in rounds(experiment):
        assert not done.number or len(loads) == min(done.number + 1, 5)
    assert loads == trained
    assert len(set(trained)) > 2


def threads_that_load(load: Callable[[int], dict[str, Tensor]], **options: Any) -> set[str]:  # noqa: ANN401
    names = set[str]()

    def noted(client: int) -> dict[str, Tensor]:
        names.add(threading.current_thread().name)
        return load(client)

    one = small(MappedClients(lazy(noted, **options), dict))
    assert met(fedavg(), one) == here(small(PACKED), fedavg(), MODULE, 1)
    return names


def test_who_is_asked_not_to_loads_nothing_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one_span_each(monkeypatch)
    assert threads_that_load(examples) == {"MainThread", "hanse-ahead_0"}
    assert threads_that_load(examples, ahead=False) == {"MainThread"}

    connection = sqlite3.connect(tmp_path / "clients.db")
    connection.execute("create table clients (id integer, x blob, y blob)")
    for k in range(COUNT):
        x, y = (examples(k)[name].numpy().tobytes() for name in "xy")
        connection.execute("insert into clients values (?, ?, ?)", (k, x, y))

    def select(client: int) -> dict[str, Tensor]:
        query = "select x, y from clients where id = ?"
        x, y = connection.execute(query, (client,)).fetchone()
        return {
            "x": torch.frombuffer(bytearray(x), dtype=torch.float64).view(SIZE, FEATURES),
            "y": torch.frombuffer(bytearray(y), dtype=torch.int64),
        }

    assert threads_that_load(select, ahead=False) == {"MainThread"}
    # Who forgets to say so is found out once, and nothing comes of it.
    assert threads_that_load(select) == {"MainThread", "hanse-ahead_0"}
    connection.close()


def test_a_source_that_draws_from_torchs_generator_loads_nothing_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one_span_each(monkeypatch)

    def drawn(client: int) -> dict[str, Tensor]:
        torch.manual_seed(client)
        torch.rand(3)
        return examples(client)

    assert threads_that_load(drawn) == {"MainThread"}


def test_how_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays constant: of those loaded, one trains and one waits."""
    one_span_each(monkeypatch)
    loaded, trained, most = list[int](), list[int](), list[int]()

    def load(client: int) -> dict[str, Tensor]:
        loaded.append(client)
        return examples(client)

    def train(client: int) -> None:
        trained.append(client)
        most.append(len(loaded) - len(trained))

    assert met(fedavg().then(Watched(train)), small(lazy(load))) is not None
    assert max(most) <= 1
    assert len(loaded) == COUNT + 1  # and the next round's first


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_where_the_examples_are_used(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_span_each(monkeypatch)
    trained, bad = list[int](), 3

    def load(client: int) -> dict[str, Tensor]:
        found = examples(client)
        return found if client != bad else {**found, "x": found["x"] * torch.nan}

    one, strategy = small(lazy(load)), fedavg().then(Watched(trained.append))
    engine = make_engine(workers, strategy, one.task, one.data, MODULE)
    with pytest.raises(DataError, match=f"'client {bad}'"):
        run(engine, one, 1)
    engine.close()
    assert trained == (list(range(bad)) if workers == 1 else [])


def test_a_load_for_a_round_that_is_not_played_harms_nobody() -> None:
    one = small(lazy(), 1, 2)
    engine = make_engine(1, fedavg(), one.task, one.data, MODULE)
    expected = here(small(PACKED, 1, 2), fedavg(), MODULE, 3)
    other = small(lazy(), 5)
    state = one.start(fedavg())

    def between(number: int) -> None:
        run(engine, other, 1)

    assert run(engine, one, 3, between) == expected
    assert state.round == 0
    engine.close()


def test_empty_rounds_are_nothing_to_load() -> None:
    one = small(lazy(), *())
    empty = world(data=one.data, participation=Chosen(()))
    engine = make_engine(1, fedavg(), one.task, one.data, MODULE)
    expected = here(small(PACKED), fedavg(), MODULE, 3)
    assert run(engine, one, 3, lambda number: run(engine, empty, 1) and None) == expected
    engine.close()


def test_each_client_is_loaded_by_the_worker_that_trains_it(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def load(client: int) -> dict[str, Tensor]:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {client}\n")
        return examples(client)

    one = small(map_inputs(Federation(lazy(load)), lambda x: 2 * x).train)
    twice = map_inputs(Federation(PACKED), lambda x: 2 * x).train
    with forked(one, fedavg(), MODULE, 2) as engine:
        assert run(engine, one, 3) == here(small(twice), fedavg(), MODULE, 3)
    lines = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert os.getpid() not in {pid for pid, _ in lines}
    assert len({pid for pid, _ in lines}) == 2
    assert sorted(client for _, client in lines) == sorted(list(range(COUNT)) * 3)


def test_blocks_that_nobody_asked_for_are_loaded_at_once() -> None:
    ahead = Ahead(lazy())
    assert (len(ahead), ahead.name(3), ahead.sizes(np.arange(2)).tolist()) == (
        8,
        "client 3",
        [5, 5],
    )
    ids = np.array([1, 2])
    assert torch.equal(ahead.block(ids).fields["x"][:SIZE], examples(1)["x"])
    ahead.take(ids)
    assert torch.equal(ahead.block(ids[:1]).fields["x"], examples(1)["x"])
    ahead.close()
