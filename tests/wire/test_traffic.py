"""The bytes that a run counts are those of the messages that the codec writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import torch
from tests.engine.small import MODULE, VMAP, federation, mlp, world
from tests.strategies.table import TABLE
from tests.wire import by_hand
from torch import nn

from hanse.compression import READERS
from hanse.core.types import Layer
from hanse.experiment import Experiment
from hanse.selection import Stragglers, Uniform
from hanse.strategies import fedavg
from hanse.training import rounds
from hanse.wire import (
    broadcast_message,
    decode,
    encode,
    read_broadcast,
    read_update,
    update_message,
)

if TYPE_CHECKING:
    from hanse.core.types import Broadcast, ClientContext, Memory, Update
    from hanse.models import Execution


@dataclass(frozen=True, eq=False)
class Written(Layer):
    """Encodes what each client sends and has been sent, and notes the lengths."""

    up: dict[int, list[int]] = field(default_factory=dict)
    down: dict[int, list[int]] = field(default_factory=dict)

    def on_broadcast(self, broadcast: Broadcast, state: object) -> Broadcast:
        written = encode(broadcast_message(broadcast, len(broadcast.buffers)))
        self.down.setdefault(broadcast.round.number, []).append(len(written))
        none = broadcast.params[:0], broadcast.buffers[:0]
        found = read_broadcast(decode(written), broadcast.round.layout, *none, READERS)
        assert torch.equal(found.params, broadcast.params)
        assert {k: v.tolist() for k, v in found.extra.items()} == {
            k: v.tolist() for k, v in broadcast.extra.items()
        }
        return broadcast

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        for row, k in enumerate(client.id):
            written = encode(update_message(update, row))
            self.up.setdefault(int(k), []).append(len(written))
            found = read_update(decode(written), READERS)
            assert found.keys() == update.keys()
            assert all(torch.equal(found[k].values[0], update[k].values[row]) for k in found)
            assert all(torch.equal(found[k].scale[0], update[k].scale[row]) for k in found)
            assert all(torch.equal(found[k].lifted()[0], update[k].lifted()[row]) for k in found)
        return update, memory


@pytest.mark.parametrize("execution", [MODULE, VMAP])
@pytest.mark.parametrize("name", TABLE)
def test_what_is_counted_is_what_would_be_written(name: str, execution: Execution) -> None:
    small, written = world(), Written()
    strategy = TABLE[name].then(written)
    state = small.start(strategy)
    for number in (1, 2):
        state, result = small.step(state, strategy, execution)
        facts = result.facts
        assert {int(k): int(n) for k, n in zip(facts.id, facts.sent, strict=True)} == {
            k: written.up[k][-1] for k in small.cohort(number)
        }
        assert [result.broadcast] == written.down[number]


def test_local_parameters_and_buffers_are_not_counted() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    for local, params, buffers in ((("1.*", "2.*"), 25, 0), ((), 25 + 10 + 18, 10)):
        small = world(module, local=local)
        _, result = small.step(small.start(fedavg()), fedavg())
        assert result.broadcast == by_hand.broadcast_length(
            {"params": params, "buffers": buffers}, 8, setting="cross-silo"
        )
        sent = {"delta": params, **({"buffers": buffers} if buffers else {}), "weight": 1}
        assert set(result.facts.sent) == {by_hand.update_length(sent, 8)}


def test_stragglers_that_are_dropped_are_sent_the_model_and_send_nothing() -> None:
    made = Experiment(
        fedavg(),
        federation(),
        mlp(),
        rounds=2,
        participation=Uniform(count=6),
        stragglers=Stragglers(0.5),
        evaluate_every=2,
        execution=VMAP,
    )
    for done in list(rounds(made))[1:]:
        assert done.result is not None
        late = done.result.cohort - len(done.result.facts.id)
        assert late == 3
        assert done.bytes_down == 6 * done.result.broadcast
        assert done.bytes_up == 3 * done.result.facts.sent[0]
