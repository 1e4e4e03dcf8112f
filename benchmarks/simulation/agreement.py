"""Whether engines do the same work: their weights beside the plain loop's on the same batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.simulation.driver import Launch
from benchmarks.simulation.models import write_initial

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.simulation.driver import Engine
    from benchmarks.simulation.workloads import Workload


class Agreement:
    """Initial weights of one type, and how far from the floor's the engines' weights end.

    The peers read their data in order, and so does the floor that they are compared with; Hanse
    shuffles, and is compared with a floor that takes its batches from Hanse's plan.

    Attributes:
        initial: the file with the weights to start from.
        exact: whether they are in float64. There the order of additions does not show. In float32
            a ReLU whose input is as good as 0 can fall on either side of it.
    """

    def __init__(self, workload: Workload, folder: Path, *, exact: bool) -> None:
        """Write the initial weights into a folder of its own."""
        folder.mkdir()
        self.initial = folder / "initial.npz"
        self.exact = exact
        self._workload = workload
        self._folder = folder
        write_initial(workload, self.initial, torch.float64 if exact else torch.float32)

    def distance(self, launch: Launch, engine: Engine) -> float:
        """The largest difference of a weight, over the largest change of a weight in the floor.

        Raises:
            EngineError: the engine, or the floor, has ended.
            ValueError: they have different weights.
        """
        name = launch.engine
        engine.write_weights(self._folder / f"{name}.npz")
        with (
            np.load(self.initial) as initial,
            np.load(self._floor(launch)) as floor,
            np.load(self._folder / f"{name}.npz") as weights,
        ):
            shapes = [{key: file[key].shape for key in file.files} for file in (floor, weights)]
            if shapes[0] != shapes[1]:
                message = f"the floor has {shapes[0]}, {name} {shapes[1]}"
                raise ValueError(message)
            moved = max(np.abs(floor[key] - initial[key]).max() for key in initial.files)
            apart = max(np.abs(floor[key] - weights[key]).max() for key in initial.files)
        return float(apart / moved)

    def _floor(self, launch: Launch) -> Path:
        plan = "hanse" if launch.engine == "hanse" else "order"
        path = self._folder / f"floor-{plan}.npz"
        if not path.exists():
            how = Launch("floor", launch.cores, plan=plan, exact=self.exact)
            with how.start(self._workload, self.initial) as floor:
                floor.prepare()
                floor.write_weights(path)
        return path
