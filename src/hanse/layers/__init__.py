"""Layers around local training: each has a client half and a server half."""

from hanse.layers.weighting import Weighted

__all__ = ["Weighted"]
