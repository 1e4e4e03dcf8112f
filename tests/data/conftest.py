"""What tests of data sources share."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from tests.data.little_mnist import CONTENTS

from hanse.data.sources.catalogue import BENCHMARKS


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums of this test's own little MNIST in place of the real one's."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    monkeypatch.setitem(BENCHMARKS, "mnist", replace(BENCHMARKS["mnist"], sha256=sums))
