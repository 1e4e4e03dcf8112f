"""What a vector becomes before it travels: fewer numbers, shorter ones, and back."""

from hanse.compression.chain import Chain
from hanse.compression.compressor import Compressor, Source
from hanse.compression.quantize import Quantize, Sign
from hanse.compression.readers import READERS
from hanse.compression.reshape import HalfPrecision, Rotate
from hanse.compression.spaces import Coordinates, Grid, Narrow, Rotation, Support
from hanse.compression.sparsify import RandomK, TopK

__all__ = [
    "READERS",
    "Chain",
    "Compressor",
    "Coordinates",
    "Grid",
    "HalfPrecision",
    "Narrow",
    "Quantize",
    "RandomK",
    "Rotate",
    "Rotation",
    "Sign",
    "Source",
    "Support",
    "TopK",
]
