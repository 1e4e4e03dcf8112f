"""Audits that cannot be meant: refused by name, with a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.bad_input import test_bad_input as base
from tests.bad_input.test_bad_input import Bad
from tests.runs.small_runs import CLASSES, FEATURES, experiment

import hanse
from hanse import ClientDP, ConfigError, Full, Poisson, Stragglers, StrategyError
from hanse.auditing.statistics import p_value

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

empty = base.empty  # the fixture

PRIVATE: dict[str, Any] = {"strategy": hanse.dp_fedavg(), "participation": Full(), "rounds": 1}


def audited(
    changes: dict[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 - the audit's own
) -> Callable[[], object]:
    """An audit of a small private experiment, a perceptron of 31 parameters."""
    given = {**PRIVATE, **(changes or {})}
    return lambda: hanse.audit(experiment(**given), **options)


TABLE: dict[str, Bad] = {
    "no promise": Bad(
        ConfigError,
        "fedavg, which has no ClientDP",
        "dp_fedavg(…)",
        audited({"strategy": hanse.fedavg()}),
        audited(),
    ),
    "no noise": Bad(
        ConfigError,
        "noise_multiplier = 0",
        "noise_multiplier=1.0",
        audited({"strategy": hanse.dp_fedavg(noise_multiplier=0)}),
        audited(),
    ),
    "clients that compress": Bad(
        StrategyError,
        "an audit of clients that compress 'delta'",
        "without compression",
        audited(
            {
                "strategy": hanse.dp_fedavg().replace(
                    layers=(hanse.Compress(hanse.TopK(0.5)), ClientDP())
                )
            }
        ),
        audited({"strategy": hanse.dp_fedavg().replace(layers=(ClientDP(),))}),
    ),
    "no experiment": Bad(
        ConfigError,
        "'digits.toml' as an experiment",
        "read_experiment",
        lambda: hanse.audit("digits.toml"),  # type: ignore[arg-type]
    ),
    "more canaries than directions": Bad(
        ConfigError,
        "31 canaries for a model of 31 shared parameters",
        "canaries=30 at most",
        audited(canaries=31),
        audited(canaries=30),
    ),
    "a model too small for any": Bad(
        ConfigError,
        "11 canaries",
        "the model needs a parameter more",
        audited({"model": lambda: hanse.models.softmax_regression(FEATURES, CLASSES)}),
        audited({"model": lambda: hanse.models.mlp(FEATURES, CLASSES, (4,))}),
    ),
    "few canaries": Bad(ConfigError, "19 canaries", "20 or more", audited(canaries=19)),
    "half a canary": Bad(
        ConfigError, "canaries=20.5", "canaries=1000", audited(canaries=20.5), audited(canaries=20)
    ),
    "a seed that is none": Bad(ConfigError, "seed=True", "seed=0", audited(seed=True)),
    "a seed below zero": Bad(ConfigError, "seed=-1", "seed=0", audited(seed=-1)),
    "another thing to see": Bad(
        ConfigError,
        "sees='last_model'",
        "did you mean 'last-model'",
        audited(sees="last_model"),
        audited(sees="last-model"),
    ),
    "certainty": Bad(
        ConfigError, "confidence=1.0", "0.95", audited(confidence=1.0), audited(confidence=0.99)
    ),
    "a delta of zero": Bad(ConfigError, "delta=0", "1e-5", audited(delta=0)),
    "an accountant that there is not": Bad(
        ConfigError,
        "'gdp'",
        "Known: opacus-prv",
        audited(accountant="gdp"),
        audited(accountant="rdp"),
    ),
    "stragglers": Bad(
        StrategyError,
        "ClientDP with Stragglers",
        "without stragglers",
        audited({"stragglers": Stragglers(0.5)}),
        audited({"participation": Poisson(0.5)}),
    ),
    "two promises": Bad(
        StrategyError,
        "2 ClientDP layers",
        "one of them",
        audited({"strategy": hanse.dp_fedavg().then(ClientDP())}),
    ),
    "more right guesses than guesses": Bad(
        ConfigError,
        "6 right guesses of 5, of 10 coins",
        "0 <= right <= made <= of",
        lambda: p_value(10, 5, 6, 1.0, 0.0),
        lambda: p_value(10, 6, 5, 1.0, 0.0),
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
