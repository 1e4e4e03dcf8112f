"""Blocks trained on a graphics card: the data there, and nothing waited for between two steps."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from hanse.client import prefix
from hanse.core.device import sent
from hanse.engines.graphs import Graphs, Pass
from hanse.engines.tables import tables
from hanse.engines.work import BlockWork
from hanse.models.gradient import Batch, BoundGradient

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from hanse.core.types import ClientContext, Step
    from hanse.data.federation import Block, ClientData
    from hanse.engines.capture import Capture
    from hanse.engines.work import SpanPlans
    from hanse.models.gradient import Executor

    Ids = NDArray[np.int64]

TRAINED_ON = ("x", "y")


@dataclass(frozen=True, eq=False)
class Place:
    """Where blocks are trained, if not on the computer's processor as usual.

    Attributes:
        device: where all of a round lies.
        capture: records steps; `None`: each is computed anew.
    """

    device: torch.device
    capture: Capture | None = None


class DeviceWork(BlockWork):
    """As `BlockWork`; what a pass reads is on the device before its first step."""

    def __init__(
        self,
        executor: Executor,
        plans: SpanPlans,
        rows: slice,
        client: ClientContext,
        buffers: Tensor,
        graphs: Graphs | None,
    ) -> None:
        """As `BlockWork`, with `graphs` to walk by, if there are any."""
        super().__init__(executor, plans, rows, client, buffers)
        self._graphs = graphs

    def _walk(self, pass_number: int, state: dict[str, Tensor], step: Step, run: slice) -> None:
        """As `BlockWork`, by recorded steps if there are any."""
        buffers, losses = self._of_pass(pass_number, run)
        plan = self._plan(pass_number, run)
        if self._graphs is not None and not buffers.shape[1]:
            fields = self._plans.data.fields
            one = Pass(pass_number, plan, state, step, fields["x"], fields["y"], losses)
            if self._graphs.walk(one):
                return
        x, y = self._plans.data.fields["x"], self._plans.data.fields["y"]
        keys = self._client.key[run]
        rows, still = MappingProxyType(state), run.stop - run.start
        for table in tables(plan, plan.width, int, x.device):
            for number, active in enumerate(table.actives):
                if active != still:
                    rows, still = MappingProxyType(prefix(state, active)), active
                chosen = table.rows[number, :active]
                places, shape = chosen.flatten(), chosen.shape
                batch = Batch(
                    x=x.index_select(0, places).view(*shape, *x.shape[1:]),
                    y=y.index_select(0, places).view(*shape, *y.shape[1:]),
                    weights=table.weights[number, :active],
                    counts=table.counts[number],
                    buffers=buffers[:active],
                    keys=keys[:active],
                    pass_number=pass_number,
                    step=table.first + number,
                )
                step(rows, BoundGradient(self._executor, batch, losses), pass_number)


class _Around:
    """Clients of another object."""

    def __init__(self, data: ClientData) -> None:
        self._data = data

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self._data)

    def name(self, client: int) -> str:
        """The name of one client."""
        return self._data.name(client)

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each of these clients has, [K]."""
        return self._data.sizes(ids)


class OnHost(_Around):
    """Clients that are loaded into the computer's memory, wherever other tensors are made."""

    @property
    def ahead(self) -> bool:
        """Whether a block may be loaded in another thread."""
        return bool(getattr(self._data, "ahead", True))

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each of these clients has, [K]."""
        with torch.device("cpu"):
            return self._data.sizes(ids)

    def block(self, ids: Ids) -> Block:
        """The examples of these clients."""
        with torch.device("cpu"):
            return self._data.block(ids)


class OnDevice(_Around):
    """Clients whose examples are brought to a device: the fields that are trained on."""

    def __init__(self, data: ClientData, device: torch.device, *, keep: bool) -> None:
        """Nothing is moved yet; `keep`: every block has the same fields, which are moved once."""
        super().__init__(data)
        self._device, self._keep = device, keep
        self._kept: Mapping[str, Tensor] | None = None

    def block(self, ids: Ids) -> Block:
        """The examples of these clients."""
        block = self._data.block(ids)
        if self._kept is not None:
            return block._replace(fields=self._kept)
        fields = {name: block.fields[name] for name in TRAINED_ON}
        if not self._keep:
            moved = {name: sent(field, self._device) for name, field in fields.items()}
            return block._replace(fields=moved)
        # All of them at once: not by way of locked memory, of which there is not so much.
        self._kept = {name: field.to(self._device) for name, field in fields.items()}
        return block._replace(fields=self._kept)
