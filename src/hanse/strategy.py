"""A strategy: what clients do, what is wrapped around it, and what the server does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hanse.aggregation import Sum
from hanse.core.errors import StrategyError, did_you_mean
from hanse.layers import Weighted
from hanse.server import ServerSGD

if TYPE_CHECKING:
    from hanse.core.types import Aggregation, Layer, LocalTraining, ServerOptimizer
    from hanse.privacy import ExampleDP


Partial = Literal["keep", "drop"]
"""What becomes of the work of a client that was stopped before its end."""


@dataclass(frozen=True)
class Strategy:
    """One definition of a federated algorithm, for every engine.

    Attributes:
        local: what a client does with its data.
        layers: what is wrapped around it, in the clients' order; servers go through it backwards.
        aggregation: how contributions become one aggregate.
        server: how the aggregate changes the model.
        name: what to call it in reports.
        partial: whether stragglers send what they have done (`"keep"`), or nothing (`"drop"`).
        examples: whether clients' gradients are clipped example by example and noised; `None`: they
            are what they are.
    """

    local: LocalTraining
    layers: tuple[Layer, ...] = (Weighted("examples"),)
    aggregation: Aggregation = Sum()
    server: ServerOptimizer = ServerSGD()
    name: str = "custom"
    partial: Partial = "drop"
    examples: ExampleDP | None = None

    @property
    def onion(self) -> tuple[Layer, ...]:
        """The local training and the layers around it, innermost first."""
        return (self.local, *self.layers)

    def then(self, *layers: Layer) -> Strategy:
        """The same strategy with more layers behind the present ones."""
        return dataclasses.replace(self, layers=(*self.layers, *layers))

    def replace(self, **parts: Any) -> Strategy:  # noqa: ANN401 - the parts' types are the fields'
        """The same strategy with other parts.

        Raises:
            StrategyError: a name that is not a part.
        """
        known = {field.name for field in dataclasses.fields(self)}
        for name in parts:
            if name not in known:
                raise StrategyError(
                    f"replace({name}=…)",
                    why="a strategy has no such part",
                    instead=did_you_mean(name, known),
                )
        return dataclasses.replace(self, **parts)
