"""Engines: they decide where and in what order `client_round` runs."""

from hanse.engines.in_process import ClientFacts, Collected, Dropped, InProcess

__all__ = ["ClientFacts", "Collected", "Dropped", "InProcess"]
