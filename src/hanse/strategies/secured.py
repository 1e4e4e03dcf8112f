"""Any strategy with secure sums, and with noise that its clients add."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from hanse.aggregation import SecureSum
from hanse.layers import Weighted

if TYPE_CHECKING:
    from hanse.layers import DistributedDP, DistributedExampleDP
    from hanse.strategy import Strategy


def secured(
    strategy: Strategy,
    secure: SecureSum | None = None,
    privacy: DistributedDP | DistributedExampleDP | None = None,
) -> Strategy:
    """The strategy with a secure sum in the place of its aggregation.

    Args:
        strategy: whose layers stay, but for weights where clients add noise.
        secure: how numbers are summed; `None`: `SecureSum()`.
        privacy: the noise; sums are then opened for as many survivors as it is made for.
    """
    secure = SecureSum() if secure is None else secure
    if privacy is None:
        return strategy.replace(aggregation=secure)
    if secure.least is None:
        secure = dataclasses.replace(secure, least=privacy.survivors)
    kept = (layer for layer in strategy.layers if not isinstance(layer, Weighted))
    return strategy.replace(layers=(*kept, privacy), aggregation=secure)
