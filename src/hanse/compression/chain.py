"""Several compressors, one on what the other leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.compression.compressor import Compressor
from hanse.core.errors import StrategyError

if TYPE_CHECKING:
    from hanse.compression.compressor import Source
    from hanse.core.types import Vector


@dataclass(frozen=True)
class Chain(Compressor):
    """`TopK(0.01) >> Quantize(8)`: the second sees the values that the first has kept, no zeros.

    Attributes:
        stages: the compressors, the first one first.
    """

    stages: tuple[Compressor, ...]

    def __post_init__(self) -> None:
        """Refuse what is no compressor."""
        for stage in self.stages:
            if isinstance(stage, type) or not hasattr(stage, "enter"):
                raise StrategyError(
                    f"a chain with {stage!r:.80}",
                    why="each part of it takes a vector and makes it cheaper to send",
                    instead="compressors, such as TopK(0.01) >> Quantize(8)",
                )

    @property
    def contracts(self) -> bool:
        """Where all of them do."""
        return all(stage.contracts for stage in self.stages)

    @property
    def shortens(self) -> bool:
        """Where one of them does."""
        return any(stage.shortens for stage in self.stages)

    def enter(self, sent: Vector, source: Source) -> Vector:
        """Each in turn, with draws of its own."""
        for number, stage in enumerate(self.stages):
            sent = stage.enter(sent, source.of(number))
        return sent
