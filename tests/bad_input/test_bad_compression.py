"""What compression does not compose with: refused or warned about by name, with a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.bad_input import test_bad_input as base
from tests.bad_input.test_bad_input import Bad, filed, fine, fine_file, made
from tests.runs.small_runs import experiment

import hanse
from hanse import (
    ClientDP,
    Compress,
    CompressedBroadcast,
    ConfigError,
    ErrorFeedback,
    Full,
    Quantize,
    RandomK,
    Rotate,
    Sign,
    StrategyError,
    TopK,
    Uniform,
    Weighted,
    compressed_fedavg,
    dp_fedavg,
    fedavg,
    fedsgd_topk,
    scaffold,
)
from hanse.compression import Compressor
from hanse.experiment import Prepared, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.core.types import Vector

empty = base.empty  # the fixture


def private(*before: object, behind: object | None = None) -> hanse.Strategy:
    """DP-FedAvg with layers before and behind the clip."""
    layers = (*before, ClientDP(), *([behind] if behind else []))
    return dp_fedavg().replace(layers=layers)


def sending(*layers: object) -> hanse.Strategy:
    return fedavg().replace(layers=(*layers, Weighted("examples")))


@dataclass(frozen=True)
class Shorter(Compressor):
    """Cuts a vector off, and has no space that could lift it."""

    contracts = True

    def enter(self, sent: Vector, source: object) -> Vector:
        return sent._replace(values=sent.values[:, :3])


TABLE: dict[str, Bad] = {
    # Client-level DP: the clip is the last operation, and noise covers what is released.
    "top-k with error feedback behind a clip": Bad(
        StrategyError,
        "ErrorFeedback behind ClientDP",
        "ClientDP(…))",
        made(strategy=private(behind=ErrorFeedback(TopK(0.1)))),
        fine(strategy=private(ErrorFeedback(TopK(0.1)))),
    ),
    "random coordinates behind a clip": Bad(
        StrategyError,
        "Compress behind ClientDP",
        "ClientDP(…))",
        made(strategy=private(behind=Compress(RandomK(0.5)))),
        fine(strategy=private(Compress(RandomK(0.5)))),
    ),
    "rounding by chance behind a clip": Bad(
        StrategyError,
        "Compress behind ClientDP",
        "ClientDP(…))",
        made(strategy=private(behind=Compress(Rotate() >> Quantize(8)))),
        fine(strategy=private(Compress(Rotate() >> Quantize(8)))),
    ),
    "signs behind a clip": Bad(
        StrategyError,
        "Compress behind ClientDP",
        "ClientDP(…))",
        made(strategy=private(behind=Compress(Sign()))),
        fine(strategy=private(Compress(Sign()))),
    ),
    "clipping by tensor behind random coordinates": Bad(
        StrategyError,
        "ClientDP(clipping='per-layer') behind Compress(RandomK",
        "clipping='flat'",
        made(
            strategy=dp_fedavg().replace(
                layers=(Compress(RandomK(0.5)), ClientDP(clipping="per-layer"))
            )
        ),
        fine(
            strategy=dp_fedavg().replace(
                layers=(Compress(TopK(0.5)), ClientDP(clipping="per-layer"))
            )
        ),
    ),
    # Error feedback.
    "error feedback around what cannot be lifted": Bad(
        StrategyError,
        "ErrorFeedback around Shorter()",
        "a space that lifts",
        made(strategy=sending(ErrorFeedback(Shorter()))),
        fine(strategy=sending(ErrorFeedback(TopK(count=3)))),
    ),
    "compression that cannot be lifted": Bad(
        StrategyError,
        "Compress around Shorter()",
        "a space that lifts",
        made(strategy=sending(Compress(Shorter()))),
        fine(strategy=sending(Compress(RandomK(count=3)))),
    ),
    "error feedback around random coordinates with their factor": Bad(
        StrategyError,
        "ErrorFeedback around RandomK(fraction=0.1",
        "unbiased=False",
        made(strategy=sending(ErrorFeedback(RandomK(0.1)))),
        fine(strategy=sending(ErrorFeedback(RandomK(0.1, unbiased=False)))),
    ),
    "error feedback of what is not as long as the model": Bad(
        StrategyError,
        "ErrorFeedback of 'weight', of 1 numbers",
        "'delta'",
        made(strategy=fedavg().then(ErrorFeedback(Quantize(8, "nearest"), ("weight",)))),
        fine(strategy=fedavg().then(Compress(Quantize(8), ("weight",)))),
    ),
    "compression of what nobody sends": Bad(
        StrategyError,
        "Compress of 'control'",
        "delta",
        made(strategy=sending(Compress(Quantize(8), ("control",)))),
        fine(strategy=scaffold().then(Compress(Quantize(8), ("control",)))),
    ),
    "compression before what it compresses": Bad(
        StrategyError,
        "Compress of 'weight'",
        "delta",
        made(strategy=sending(Compress(Quantize(8), ("weight",)))),
        fine(strategy=fedavg().then(Compress(Quantize(8), ("weight",)))),
    ),
    "tensors of what was shortened": Bad(
        StrategyError,
        "Quantize(per='tensor') on a vector of 16 numbers",
        "first of a chain",
        made(strategy=sending(Compress(RandomK(0.5) >> Quantize(8, per="tensor")))),
        fine(strategy=sending(Compress(Quantize(8, per="tensor") >> RandomK(0.5)))),
    ),
    "compression of no vector": Bad(
        StrategyError,
        "Compress(…, vectors=())",
        '("delta",)',
        lambda: Compress(Quantize(8), ()),
        lambda: Compress(Quantize(8), ("delta",)),
    ),
    # What the server sends.
    "differences where clients are away": Bad(
        StrategyError,
        "CompressedBroadcast(difference=True) with Uniform(",
        "CompressedBroadcast(Quantize(8))",
        made(
            strategy=fedavg().then(CompressedBroadcast(TopK(0.1), difference=True)),
            participation=Uniform(count=2),
        ),
        fine(
            strategy=fedavg().then(CompressedBroadcast(TopK(0.1), difference=True)),
            participation=Full(),
        ),
    ),
    "a model with holes": Bad(
        StrategyError,
        "CompressedBroadcast(TopK(",
        "difference=True",
        lambda: CompressedBroadcast(TopK(0.1)),
        lambda: CompressedBroadcast(Quantize(4)),
    ),
    "two compressed broadcasts": Bad(
        StrategyError,
        "2 CompressedBroadcast layers",
        "a chain",
        made(
            strategy=fedavg().then(CompressedBroadcast(Rotate()), CompressedBroadcast(Quantize(4)))
        ),
        fine(strategy=fedavg().then(CompressedBroadcast(Rotate() >> Quantize(4)))),
    ),
    # What is taken for something else.
    "a compressor among the layers": Bad(
        StrategyError,
        "layers[0] is TopK(",
        "Compress(TopK(",
        made(strategy=sending(TopK(0.1))),
        fine(strategy=sending(Compress(TopK(0.1)))),
    ),
    "no number of coordinates": Bad(
        StrategyError,
        "TopK(fraction=None, count=None)",
        "TopK(0.01)",
        lambda: TopK(),  # noqa: PLW0108 - as the others are made
        lambda: TopK(0.01),
    ),
    "one bit to nearest": Bad(
        StrategyError,
        "Quantize(1, rounding='nearest')",
        "Sign()",
        lambda: Quantize(1, "nearest"),
        lambda: ErrorFeedback(Sign()),
    ),
    "compression of nothing": Bad(
        StrategyError,
        "compression without fraction and bits",
        "fraction=0.01",
        lambda: compressed_fedavg(bits=None),
        lambda: compressed_fedavg(bits=None, fraction=0.01),
    ),
    # In a file.
    "compression in a file that is no table": Bad(
        ConfigError,
        "strategy.compression = 8",
        "compression = {fraction = 0.01",
        filed("strategy.compression=8"),
        fine_file("strategy.compression={bits = 8}"),
    ),
    "compression in a file with a key that there is not": Bad(
        ConfigError,
        "strategy.compression.bit = 8",
        "bits",
        filed("strategy.compression={bit = 8}"),
        fine_file(
            "strategy.compression={bits = 8, fraction = 0.5}",
            "strategy.compression.choose=random",
            "strategy.compression.vectors=['delta']",
        ),
    ),
    "compression in a file by a word that there is not": Bad(
        ConfigError,
        "strategy.compression.choose = 'best'",
        "top",
        filed('strategy.compression={fraction = 0.1, choose = "best"}'),
        fine_file('strategy.compression={fraction = 0.1, choose = "top"}'),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_cannot_be_meant_is_refused_with_a_remedy(
    empty: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "TABLE", TABLE)
    base.test_what_cannot_be_meant_is_refused_with_a_remedy(empty, name)


@pytest.mark.parametrize("name", [name for name, bad in TABLE.items() if bad.works])
def test_the_remedy_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "TABLE", TABLE)
    base.test_the_remedy_works(name)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Compress(Sign()), "norm sqrt(d)"),
        (Compress(Quantize(8)), "rounding up makes an update longer"),
        (ErrorFeedback(TopK(0.1)), "which coordinates are sent may depend on a client's data"),
        (Compress(Rotate()), "may make an update longer again"),
    ],
)
def test_why_it_is_refused_behind_a_clip_is_said(layer: hanse.Compress, why: str) -> None:
    with pytest.raises(StrategyError) as caught:
        prepare(experiment(strategy=private(behind=layer)))
    assert why in caught.value.why


# --------------------------------------------------------------------------- only warned about
STALE = "ErrorFeedback has clients remember a vector between rounds"


@pytest.mark.parametrize(
    ("strategy", "setting", "warned"),
    [
        (compressed_fedavg(fraction=0.1, error_feedback=True), "cross-device", True),
        (fedsgd_topk(), "cross-device", True),
        (compressed_fedavg(fraction=0.1, error_feedback=True), "cross-silo", False),
        (compressed_fedavg(fraction=0.1, choose="random"), "cross-device", False),
    ],
)
def test_stale_memory_is_warned_about(
    strategy: hanse.Strategy, setting: str, *, warned: bool
) -> None:
    said = prepare(experiment(strategy=strategy, setting=setting)).warnings
    assert any(STALE in one and "Quantize or RandomK" in one for one in said) == warned


@pytest.mark.parametrize(
    ("inner", "warned"),
    [
        (TopK(0.1) >> Quantize(2), True),
        (TopK(0.1) >> Quantize(2, "nearest"), False),
        (Sign(), False),
    ],
)
def test_rounding_by_chance_within_error_feedback_is_warned_about(
    inner: Compressor, *, warned: bool
) -> None:
    said = prepare(experiment(strategy=sending(ErrorFeedback(inner)))).warnings
    assert any("rounding up and down by chance" in one for one in said) == warned


def test_what_a_file_says_is_what_python_says(empty: Path) -> None:
    made = fine_file(
        "strategy.compression={fraction = 0.1, bits = 4, error_feedback = true, broadcast_bits = 8}"
    )()
    assert isinstance(made, Prepared)
    first, second, third = made.experiment.strategy.layers
    assert first == ErrorFeedback(TopK(0.1) >> Quantize(4, "nearest"))
    assert second == CompressedBroadcast(Quantize(8))
    assert isinstance(third, Weighted)
    both = fine_file("strategy.client_dp={clip = 0.5}", "strategy.compression={bits = 8}")()
    assert isinstance(both, Prepared)
    assert both.experiment.strategy.layers == (Compress(Quantize(8)), ClientDP(0.5))
