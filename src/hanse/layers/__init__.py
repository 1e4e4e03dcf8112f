"""Layers around local training: each has a client half and a server half."""

from hanse.layers.broadcast import CompressedBroadcast
from hanse.layers.client_dp import AdaptiveClip, ClientDP
from hanse.layers.compressed import Compress, ErrorFeedback
from hanse.layers.distributed_dp import DistributedDP
from hanse.layers.distributed_examples import DistributedExampleDP
from hanse.layers.local_dp import LocalDP
from hanse.layers.normalization import Normalized
from hanse.layers.weighting import AVERAGED, Weighted

__all__ = [
    "AVERAGED",
    "AdaptiveClip",
    "ClientDP",
    "Compress",
    "CompressedBroadcast",
    "DistributedDP",
    "DistributedExampleDP",
    "ErrorFeedback",
    "LocalDP",
    "Normalized",
    "Weighted",
]
