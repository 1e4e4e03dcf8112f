"""The decision table: complete, true where it can be measured, and runnable by what it shows."""

from __future__ import annotations

import itertools
import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from tests.cli.terminal import hanse as command_line
from tests.data import little_mnist
from tests.docs.pages import DOCS, headings, text_of

import hanse
from hanse import decision
from hanse.config import read_experiment, with_overrides
from hanse.config.experiment_file import STRATEGIES
from hanse.core.types import Layer, Memory, Update, Vector
from hanse.decision_rows import Privacy, Tolerance
from hanse.wire import vector_bytes

if TYPE_CHECKING:
    from hanse.core.types import Broadcast, ClientContext
    from hanse.decision_rows import Row

ROWS = {row.name: row for row in hanse.decision_table()}
RELEASED = [name for name, row in ROWS.items() if row.released]

FIELD = """
| FedAvg | Low | Cross-silo | Low | Homogeneous data, fast prototyping |
| FedProx | Low | Cross-silo | Medium | Heterogeneous clients, stragglers |
| FedAvg + DP | High | Either | Low | Regulatory compliance |
| FedSGD + SecAgg | Very High | Cross-silo | Low | Finance, healthcare |
| Compressed FedAvg | Low | Cross-device | Low | Mobile/IoT, bandwidth-constrained |
| SCAFFOLD | Low | Cross-silo | High | Highly non-IID data |
"""

EXPERIMENT = """
name = "row"

[data]
source = "own.py:people"

[model]
name = "own.py:Net"

[strategy]
name = "fedavg"

[run]
rounds = 1
execution = {path = "module", block = 1}
"""

OWN = """
import torch
from torch import nn

from hanse.data import federation_from_arrays


def people():
    random = torch.Generator().manual_seed(0)
    sizes = {"ann": 16, "bob": 24}
    return federation_from_arrays(
        {
            name: (torch.randn(n, 6, generator=random), torch.arange(n) % 3)
            for name, n in sizes.items()
        },
        classes=["a", "b", "c"],
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(6, 32), nn.BatchNorm1d(32), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).relu())
"""


PUBLIC = """
name = "row"
data = {source = "idx", dataset = "little", clients = 3}
model = {name = "softmax_regression"}
strategy = {name = "fedavg"}
run = {rounds = 1, execution = {path = "module", block = 1}}
"""


# Running statistics would have to stay with the clients.
PRIVATE = EXPERIMENT.replace('"own.py:Net"', '"mlp"\nhidden = [32]')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "FILE").write_text(EXPERIMENT)
    (tmp_path / "PUBLIC").write_text(PUBLIC)
    (tmp_path / "PRIVATE").write_text(PRIVATE)
    little_mnist.folder(tmp_path / "little", little_mnist.CONTENTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------------------- the table
def test_the_six_rows_that_everybody_knows_are_there_word_for_word() -> None:
    expected = [line.strip("| ").split(" | ") for line in FIELD.strip().splitlines()]
    found = [
        [row.name, row.privacy.title(), row.scale.capitalize(), row.non_iid.title(), row.best_for]
        for row in list(ROWS.values())[:6]
    ]
    assert found == expected


def test_every_strategy_is_in_a_row() -> None:
    named = {
        re.search(
            r"compressed_fedavg|l?dp_\w+|fed\w+|scaffold|mimelite", " ".join(ROWS[n].settings)
        )
        for n in RELEASED
    }
    assert {match[0] for match in named if match} == set(STRATEGIES)


# What the parts would be called that rows of a later release need.
MISSING: dict[str, str] = {}


def test_what_is_said_not_to_be_there_is_not_there_and_nothing_else() -> None:
    names = {
        *hanse.__all__,
        *STRATEGIES,
        *(name for one in ("layers", "aggregation", "local") for name in dir(getattr(hanse, one))),
    }
    there = {
        row: not any(re.search(pattern, name) for name in names) for row, pattern in MISSING.items()
    }
    assert there == {name: True for name, row in ROWS.items() if not row.released}


def test_what_is_not_there_promises_no_command() -> None:
    for name in MISSING:
        row = ROWS[name]
        assert decision.command(row) == "not in this release"
        assert not row.settings
    printed = command_line("strategies", "--table").out
    for name, row in ROWS.items():
        assert f"\n{name} ({row.source})" in printed
    assert printed.count("not in this release") == len(MISSING)


# ----------------------------------------------------------------------- what it says of them
def file_of(row: Row) -> str:
    """The experiment file that a row can be tried on."""
    private = ("dp-fedavg.md", "dp-ftrl.md", "dp-sgd.md", "ldp-fedavg.md")
    if row.page in private:
        return "PRIVATE"
    public = ("data-sharing.md", "fedavg-secagg.md", "fedsgd-secagg.md")
    return "PUBLIC" if row.page in public else "FILE"


@pytest.mark.parametrize("name", RELEASED)
def test_a_row_runs_by_the_command_that_it_shows(name: str, folder: Path) -> None:
    program, run, file, *arguments = shlex.split(decision.command(ROWS[name]))
    assert (program, run, file) == ("hanse", "run", "FILE")
    printed = command_line(run, file_of(ROWS[name]), *arguments, "--out", "run")
    assert printed.code == 0, printed.err
    assert (folder / "run" / "model.safetensors").is_file()


@dataclass(frozen=True)
class Counting(Layer):
    """Behind all layers: what is received, and what is sent."""

    counts: dict[str, float] = field(default_factory=dict)

    def on_receive(self, broadcast: Broadcast, memory: Memory, client: ClientContext) -> Broadcast:
        extra = sum(value.numel() for value in broadcast.extra.values())
        self.counts["down"] = broadcast.round.layout.shared + extra
        return broadcast

    def on_client(
        self, update: Update, broadcast: Broadcast, memory: Memory, client: ClientContext
    ) -> tuple[Update, Memory]:
        sent = (numbers(one) for name, one in update.items() if name != "buffers")
        self.counts["up"] = sum(sent)
        return update, memory


def numbers(sent: Vector) -> float:
    """How many numbers of the model's precision are sent of a vector, compressed ones by bytes."""
    if not sent.space:
        return sent.values.shape[1]
    return float(vector_bytes(sent)[0]) / sent.values.element_size()


def measured(row: Row) -> dict[str, float]:
    """The numbers that went down and up and that a client remembers, in a round."""
    file = with_overrides(read_experiment(Path(file_of(row))), list(row.settings))
    experiment, counting = file.experiment(), Counting()
    *before, last_layer = experiment.strategy.layers
    # Nothing may come behind these two, which send as many numbers as they are given.
    clips = isinstance(last_layer, hanse.ClientDP | hanse.LocalDP)
    ordered = (*before, counting, last_layer) if clips else (*before, last_layer, counting)
    strategy = experiment.strategy.replace(layers=ordered)
    *_, last = hanse.rounds(replace(experiment, strategy=strategy))
    kept = [
        sum(value.numel() for slot in slots for value in slot.values())
        for slots in last.state.clients.rows.values()
    ]
    return {**counting.counts, "remembered": max(kept, default=0)}


@pytest.mark.parametrize("name", RELEASED)
def test_traffic_and_memory_are_as_the_row_says(name: str, folder: Path) -> None:
    row = ROWS[name]
    found, plain = measured(row), measured(replace(row, settings=("strategy.name=fedavg",)))
    for way, said in (("down", row.down), ("up", row.up)):
        ratio = found[way] / plain[way]
        assert ratio < 0.9 if said == "less than 1" else f"{ratio:.2g}" == f"{float(said or 0):.2g}"
    nothing = row.remembers == "nothing"
    assert nothing == (found["remembered"] == 0)
    assert (row.partial_participation == "yes") == nothing
    if row.also == "cross-device" or row.scale in ("cross-device", "either"):
        assert nothing  # memory would be stale


@pytest.mark.parametrize("name", RELEASED)
def test_partial_work_is_kept_where_the_row_says_that_it_is_worth_something(
    name: str, folder: Path
) -> None:
    row = ROWS[name]
    file = with_overrides(read_experiment(Path(file_of(row))), list(row.settings))
    experiment = replace(file.experiment(), stragglers=hanse.Stragglers(1.0))
    kept = replace(experiment, strategy=experiment.strategy.replace(partial="keep"))
    if row.partial_work == "no":
        with pytest.raises(hanse.StrategyError, match="partial work"):
            list(hanse.rounds(kept))
    else:
        *_, last = hanse.rounds(kept)
        assert last.result is not None
        assert last.result.accepted > 0
    by_itself = experiment.strategy.partial == "keep"
    assert by_itself == (row.page in ("fedprox.md", "fednova.md"))


# ---------------------------------------------------------------------------- asking it
WISHES = [
    dict(zip(("privacy", "scale", "non_iid"), wish, strict=True))
    for wish in itertools.product(
        (None, *get_args(Privacy)),
        (None, *get_args(decision.Scale)),
        (None, *get_args(Tolerance)),
    )
]


def satisfied(row: Row, wish: dict[str, Any]) -> set[str]:
    """The wishes that a row does not miss, by a rule written down once more."""
    levels = {"low": 0, "medium": 1, "high": 2, "very high": 3}
    places = {row.scale, row.also} - {None}
    good = {
        "privacy": levels[row.privacy] >= levels.get(wish["privacy"], 0),
        "scale": wish["scale"] is None or bool(places & {"either", wish["scale"]}),
        "non_iid": levels[row.non_iid] >= levels.get(wish["non_iid"], 0),
    }
    return {key for key, met in good.items() if met}


@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_all_that_fit_are_found_and_of_what_is_there_something_always(
    wish: dict[str, Any],
) -> None:
    found = hanse.strategies_for(**wish)
    fitting = [row for row in ROWS.values() if len(satisfied(row, wish)) == 3]
    assert {fit.row.name for fit in found if fit.fits} == {row.name for row in fitting}
    there = [fit for fit in found if fit.row.released]
    assert there
    assert len({fit.fits for fit in there}) == 1  # all of them fit, or none does
    for fit in found:
        asked = sum(value is not None for value in wish.values())
        assert len(fit.reasons) + len(fit.misses) == asked
        assert len(fit.misses) == 3 - len(satisfied(fit.row, wish))
    order = [list(ROWS).index(fit.row.name) for fit in there]
    assert order == sorted(order)  # the simplest first


def test_what_is_asked_for_is_said_in_words(folder: Path) -> None:
    some = command_line("strategies", "--scale", "cross-device", "--non-iid", "medium")
    assert some.out.startswith("Of this release, 9 fit; the simplest is first.")
    assert "SCAFFOLD (" not in some.out
    one = command_line("strategies", "--privacy", "high")
    assert one.out.startswith("Of this release, 6 fit; the simplest is first.")
    only = command_line("strategies", "--privacy", "very-high")
    assert only.out.startswith("Of this release, 3 fit; the simplest is first.")
    nobody = command_line("strategies", "--privacy", "high", "--non-iid", "high")
    assert nobody.out.startswith("None fits. These come nearest.")
    assert "FedSGD + SecAgg (" not in nobody.out


def test_words_are_taken_as_both_languages_write_them() -> None:
    spaced = hanse.strategies_for(privacy="very high")
    assert hanse.strategies_for(privacy="Very-High") == spaced  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- the pages
def test_the_page_shows_the_table_as_it_is() -> None:
    text = text_of("strategies/index.md")
    shown = re.search(r"<!-- table: begin -->\n\n(.*)\n<!-- table: end -->", text, re.DOTALL)
    assert shown
    assert shown[1] == command_line("strategies", "--markdown").out


SHAPE = [
    "Try it",
    "Parameters worth tuning",
    "When it fits",
    "When it fails",
    "What is remembered, what travels",
    "With other parts",
    "Source",
]
STRATEGY_PAGES = sorted(
    f"strategies/{page.name}"
    for page in (DOCS / "strategies").glob("*.md")
    if page.name != "index.md"
)


@pytest.mark.parametrize("page", STRATEGY_PAGES)
def test_pages_of_strategies_have_one_shape(page: str) -> None:
    assert headings(page)[1:] == SHAPE


def test_every_row_has_a_page_and_every_page_a_row() -> None:
    assert sorted({f"strategies/{row.page}" for row in ROWS.values()}) == STRATEGY_PAGES
