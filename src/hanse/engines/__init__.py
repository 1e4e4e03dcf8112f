"""Engines: they decide where and in what order `client_round` runs."""

from hanse.engines.collected import Collected
from hanse.engines.in_process import InProcess
from hanse.engines.measurement import STRAGGLER, ClientFacts, Dropped
from hanse.engines.processes import Processes

__all__ = ["STRAGGLER", "ClientFacts", "Collected", "Dropped", "InProcess", "Processes"]
