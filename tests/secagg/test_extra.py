"""The package `cryptography` is an extra: what only computes does without."""

from __future__ import annotations

import subprocess
import sys

from hanse import secagg

_BLOCKED = """
import sys
sys.modules["cryptography"] = None  # as if it were not installed
from hanse.secagg import Assumptions, FixedPoint, Session, plan
ring = FixedPoint(1.0, 0.5, 3)
print(plan(5, Assumptions()).threshold, Session.complete(range(3), length=1, width=32).threshold)
from hanse import ConfigError
try:
    from hanse.secagg import Run
except ConfigError as error:
    print(error.instead)
"""


def test_what_only_computes_needs_no_cryptography() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", _BLOCKED], check=True, capture_output=True, text=True
    )
    assert answer.stdout.split("\n")[:2] == ["4 3", "pip install 'hanse[secagg]'"]


def test_every_listed_name_can_be_had_and_the_list_is_sorted() -> None:
    assert secagg.__all__ == sorted(secagg.__all__)
    assert dir(secagg) == secagg.__all__
    for name in secagg.__all__:
        assert getattr(secagg, name) is not None
    assert not hasattr(secagg, "Clients")
