"""The report of a run: its numbers, and one self-contained HTML page that shows them."""

from hanse.report.html import write
from hanse.report.inspection import write_data
from hanse.report.quantities import Spread
from hanse.report.summaries import (
    Comparison,
    MetricSummary,
    SplitSummary,
    Summary,
    WorstClient,
    summary,
)
from hanse.report.tensorboard import to_tensorboard

__all__ = [
    "Comparison",
    "MetricSummary",
    "SplitSummary",
    "Spread",
    "Summary",
    "WorstClient",
    "summary",
    "to_tensorboard",
    "write",
    "write_data",
]
