"""The measurements as tables in Markdown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.simulation.tables import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.gpu.amounts import Amount
    from benchmarks.gpu.ceilings import Ceilings
    from benchmarks.simulation.workloads import Workload

NAMES = {
    "hanse": "Hanse",
    "hanse-anew": "Hanse, without graphs",
    "hanse-bfloat16": "Hanse, products in bfloat16",
    "loop": "plain PyTorch loop",
    "pfl": "pfl-research",
}


@dataclass
class Result:
    """What one engine did on a workload.

    Attributes:
        first: seconds from its imports to the end of its first round.
        memory: the peak of the device's memory in MB; NaN where it is not known.
        seconds: for each interleaving, the median of a round.
        apart: the largest difference of a weight from the plain loop's after two rounds.
    """

    first: float
    memory: float
    seconds: list[float] = field(default_factory=list)
    apart: float | None = None


def ceiling_table(most: Ceilings) -> list[str]:
    """What the device can do at most."""
    rates = [f"{rate / 1e12:.3g} TFLOP/s" for rate in (most.float32, most.tf32, most.bfloat16)]
    titles = ["copy", "float32", "TF32", "bfloat16"]
    return table(["at most", *titles], [["", f"{most.copy / 1e9:.3g} GB/s", *rates]])


def workload_table(
    workload: Workload,
    results: Mapping[str, Result],
    missing: Mapping[str, str],
    needed: Amount,
    most: Ceilings,
) -> list[str]:
    """A workload's engines, one a row, beside the least time that a round can take."""
    least = needed.seconds(most.float32, most.copy)
    ours = results.get("hanse")
    rows = []
    for name, result in results.items():
        middle = statistics.median(result.seconds)
        pairs = zip(result.seconds, ours.seconds, strict=True) if ours is not None else ()
        ratios = [theirs / own for theirs, own in pairs]
        rows.append(
            [
                NAMES[name],
                f"{1e3 * middle:.3g}",
                f"{statistics.median(ratios):.2f}" if ratios else "",
                f"{middle / least:.1f}",
                f"{result.memory:.0f}",
                f"{result.first:.1f}",
                "" if result.apart is None else f"{result.apart:.0e}",
            ]
        )
    titles = ["engine", "ms a round", "÷ Hanse", "÷ least", "memory, MB", "first, s", "apart"]
    about = (
        f"At least {1e3 * least:.3g} ms: {needed.operations / 1e9:.3g} GFLOP in single precision, "
        f"{needed.moved / 1e9:.3g} GB."
    )
    notes = [f"{NAMES[name]} {why}." for name, why in missing.items()]
    title = f"{workload.title.rpartition(',')[0]}, {workload.clients} clients"
    return [f"**{title}**", "", *table(titles, rows), "", " ".join([about, *notes])]
