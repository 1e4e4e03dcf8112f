"""Sweeps: every combination of some settings, with the same seeds, in runs that can be resumed."""

from hanse.sweeps.cells import Cell, cells_of_file, cells_of_function
from hanse.sweeps.running import Sweep, sweep
from hanse.sweeps.table import Row, SweepTable

__all__ = [
    "Cell",
    "Row",
    "Sweep",
    "SweepTable",
    "cells_of_file",
    "cells_of_function",
    "sweep",
]
