"""Any strategy with local steps, with its clients' examples protected."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from hanse.core.errors import StrategyError
from hanse.layers import Weighted

if TYPE_CHECKING:
    from hanse.data.poisson import PoissonSteps
    from hanse.privacy import ExampleDP
    from hanse.strategy import Strategy


def protecting_examples(strategy: Strategy, privacy: ExampleDP, work: PoissonSteps) -> Strategy:
    """The strategy with private gradients, batches that are sampled, and clients that count alike.

    What else does not compose is refused when an experiment is prepared.

    Args:
        strategy: fedavg, fedprox, scaffold, …
        privacy: how examples' gradients are clipped and noised.
        work: the place of the local training's own walk through the data.

    Raises:
        StrategyError: the local training has no walk to put it in the place of.
    """
    local: Any = strategy.local
    if "work" not in getattr(local, "__dataclass_fields__", {}):
        raise StrategyError(
            f"{type(local).__name__} with examples that are to be protected",
            why="its batches must be sampled, and it has no `work` to say so",
            instead="a field `work`, as LocalSGD(SGD(0.1), PoissonSteps(rate=0.1, count=10)) has",
        )
    sampled = dataclasses.replace(local, work=work)
    layers = (Weighted("uniform", x.vectors) if type(x) is Weighted else x for x in strategy.layers)
    return strategy.replace(local=sampled, layers=tuple(layers), examples=privacy)
