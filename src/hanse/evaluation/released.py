"""What a private run shows of its clients: noisy histograms, each charged before it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanse.core.errors import BudgetError
from hanse.core.rng import derive
from hanse.privacy.histogram import PrivateHistogram
from hanse.privacy.noise import operating_system, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hanse.evaluation.per_client import Evaluation
    from hanse.privacy.histogram import Released
    from hanse.privacy.noise import Words
    from hanse.privacy.statement import Statement


def released_histograms(
    statement: Statement,
    evaluations: Mapping[str, Evaluation],
    charge: Callable[[str], None],
    seed: int,
    number: int,
) -> tuple[dict[str, Released], BudgetError | None]:
    """A noisy histogram of each split, as long as there is budget.

    Args:
        statement: says of which metric, and where noise comes from.
        evaluations: exact, by split; they go no further.
        charge: charges a histogram of a split; returns when that is on the disk.
        seed: of seeded noise.
        number: of the round.

    Returns:
        By split what was charged and may be seen; and what the ledger said to the first that it
        refused, if it did.
    """
    shown = statement.shown
    assert isinstance(shown, PrivateHistogram)  # noqa: S101 - the caller's promise
    found: dict[str, Released] = {}
    for split, evaluation in evaluations.items():
        try:
            charge(split)
        except BudgetError as error:
            return found, error
        words: Words = operating_system
        if not statement.protects:
            words = seeded(derive(seed, "histogram", number, split))
        values = evaluation.metrics[shown.metric]
        found[split] = shown.release(values, statement.unit, statement.adjacency, words)
    return found, None
