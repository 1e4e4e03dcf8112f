"""What cannot be meant of secure aggregation: refused by name, with a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.bad_input import test_bad_input as base
from tests.bad_input.test_bad_input import Bad

from hanse import ConfigError, DataError, ProtocolError
from hanse.secagg import Assumptions, FixedPoint, Party, Session, identities, plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

empty = base.empty  # the fixture


def session(clients: int = 5, **options: Any) -> Callable[[], Session]:  # noqa: ANN401
    return lambda: Session.complete(
        range(clients), **{"length": 1, "width": 32, "threshold": None, **options}
    )


def party(client: int, key: int, threshold: int | None = None) -> Callable[[], Party]:
    def made() -> Party:
        private, registry = identities(range(5))
        return Party(session(threshold=threshold)(), client, private[key], registry)

    return made


TABLE: dict[str, Bad] = {
    "two clients": Bad(ConfigError, "among 2", "three clients or more", session(2), session(3)),
    "a threshold above all clients": Bad(
        ConfigError, "threshold 6", "Session.complete", session(threshold=6), session(threshold=5)
    ),
    "words of 16 bits": Bad(
        ConfigError, "words of 16 bits", "Session.complete", session(width=16), session(width=64)
    ),
    "no words": Bad(ConfigError, "0 words", "Session.complete", session(length=0), session()),
    "a client twice": Bad(
        ConfigError,
        "not ascending",
        "Session.complete",
        lambda: Session.complete((1, 1, 2), length=1, width=32),
        lambda: Session.complete((1, 0, 2), length=1, width=32),
    ),
    "parameters for others": Bad(
        ConfigError,
        "6 clients with parameters for 5",
        "plan(6",
        lambda: Session.planned(
            range(6), plan(5, Assumptions()), seed=bytes(32), length=1, width=32
        ),
        lambda: Session.planned(
            range(6), plan(6, Assumptions()), seed=bytes(32), length=1, width=32
        ),
    ),
    "a threshold that protects nobody": Bad(
        ProtocolError, "threshold 3", "plan", party(0, 0, threshold=3), party(0, 0, threshold=4)
    ),
    "somebody who is not there": Bad(ConfigError, "client 9", "cohort", party(9, 0), party(4, 4)),
    "somebody else's key": Bad(ConfigError, "client 1", "registry", party(1, 0), party(1, 1)),
    "nobody honest": Bad(
        ConfigError,
        "corrupt=1.0",
        "0.1",
        lambda: Assumptions(corrupt=1.0),
        lambda: Assumptions(corrupt=0.1),
    ),
    "another kind of server": Bad(
        ConfigError,
        "server='honest'",
        "'malicious'",
        lambda: Assumptions(server="honest"),  # type: ignore[arg-type]
        lambda: Assumptions(server="malicious"),
    ),
    "security of no bits": Bad(
        ConfigError,
        "security=0",
        "40",
        lambda: Assumptions(security=0),
        lambda: Assumptions(security=40),
    ),
    "fewer than no seeds": Bad(
        ConfigError,
        "grinding=-1",
        "64",
        lambda: Assumptions(grinding=-1),
        lambda: Assumptions(grinding=64),
    ),
    "more drop-outs than any graph can bear": Bad(
        ConfigError,
        "60 gone",
        "fewer corrupt or missing clients",
        lambda: plan(100, Assumptions(dropout=0.6)),
        lambda: plan(100, Assumptions(dropout=0.3)),
    ),
    "a step of nothing": Bad(
        ConfigError,
        "step=0.0",
        "2**-20",
        lambda: FixedPoint(8.0, 0.0, 5),
        lambda: FixedPoint(8.0, 2**-20, 5),
    ),
    "a NaN to be summed": Bad(
        DataError,
        "1 of 2 numbers not finite",
        "leave this client out",
        lambda: FixedPoint(8.0, 2**-20, 5).encode(np.array([1.0, np.nan])),
        lambda: FixedPoint(8.0, 2**-20, 5).encode(np.array([1.0, 2.0])),
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
