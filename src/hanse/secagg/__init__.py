"""Secure aggregation: a server learns the sum of clients' vectors, and of no vector alone.

The protocol is that of Bonawitz et al. (CCS 2017) against active adversaries, on the complete graph
for up to about a hundred clients, and on the graph of Bell et al. (CCS 2020) for thousands. It has
no transport: `Client` and `Server` take bytes and give bytes. `Run` lets clients of one process run
it. That needs the package `cryptography`: `pip install 'hanse[secagg]'`. What only computes
(`plan`, `Session`, `FixedPoint`) does not, so names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hanse.secagg.client import Client, Party, Stage
    from hanse.secagg.driver import Outcome, Run, identities
    from hanse.secagg.graph import Graph
    from hanse.secagg.parameters import Assumptions, Parameters, default_threshold, plan
    from hanse.secagg.ring import FixedPoint
    from hanse.secagg.server import Server
    from hanse.secagg.session import Registry, Session

__all__ = [
    "Assumptions",
    "Client",
    "FixedPoint",
    "Graph",
    "Outcome",
    "Parameters",
    "Party",
    "Registry",
    "Run",
    "Server",
    "Session",
    "Stage",
    "default_threshold",
    "identities",
    "plan",
]

_HOMES = {
    "client": ("Client", "Party", "Stage"),
    "driver": ("Outcome", "Run", "identities"),
    "graph": ("Graph",),
    "parameters": ("Assumptions", "Parameters", "default_threshold", "plan"),
    "ring": ("FixedPoint",),
    "server": ("Server",),
    "session": ("Registry", "Session"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in _HOME_OF:
        message = f"module 'hanse.secagg' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(f"hanse.secagg.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
