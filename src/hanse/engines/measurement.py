"""What is measured of each client's training: loss, norm and direction of its update."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hanse.wire import update_lengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hanse.client import ClientResult

Ids = NDArray[np.int64]

STRAGGLER = "straggler: "
"""What the reason of a client that was dropped for being slow begins with."""


class Dropped(NamedTuple):
    """A client whose update was not used."""

    client: int
    reason: str


class ClientFacts(NamedTuple):
    """What was measured of each client of the cohort, in the order of `id`."""

    id: Ids  # [n]
    examples: NDArray[np.int64]  # [n]
    loss: NDArray[np.float64]  # [n], mean training loss
    norm: NDArray[np.float64]  # [n], Euclidean norm of the update; NaN if it was not finite
    cosine: NDArray[np.float64]  # [n], with the previous round's mean update; NaN in round 1
    sent: NDArray[np.int64]  # [n], bytes of the message that it sent; 0: none


def unit(direction: Tensor) -> Tensor | None:
    """A vector at length one; `None` for zero."""
    length = float(torch.linalg.vector_norm(direction))
    return direction / length if length > 0 else None


def measure(result: ClientResult, direction: Tensor | None) -> tuple[ClientFacts, Tensor]:
    """The facts of a block, and the sum of its updates' unit vectors `[S]`.

    Args:
        result: the block's.
        direction: `[S]`, of length one: what cosines are taken with.
    """
    delta, everyone = result.trained["delta"].values, result.everyone
    assert everyone.facts is not None  # noqa: S101 - client_round's promise, for the type checker
    found, finite = result.norm.cpu().numpy(), result.finite.cpu().numpy()
    inverse = np.divide(1, found, out=np.zeros_like(found), where=found > 0)
    norms, cosines = (np.full(len(everyone.id), np.nan) for _ in range(2))
    norms[finite] = found
    sent = np.zeros(len(finite), np.int64)
    sent[finite] = update_lengths(result.update)
    if direction is not None:
        cosines[finite] = (delta @ direction).cpu().numpy() * inverse
    facts = ClientFacts(
        everyone.id,
        everyone.examples.cpu().numpy().astype(np.int64),
        everyone.facts.loss.double().cpu().numpy(),
        norms,
        cosines,
        sent,
    )
    return facts, torch.from_numpy(inverse).to(delta.device) @ delta


def joined(parts: Sequence[ClientFacts]) -> ClientFacts:
    """The facts of several blocks, one after another."""
    if not parts:
        none = np.zeros(0)
        whole = none.astype(np.int64)
        return ClientFacts(whole, whole, none, none, none, whole)
    return ClientFacts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def dropped(facts: ClientFacts) -> tuple[Dropped, ...]:
    """Who has no norm, and why."""
    return tuple(
        Dropped(int(k), "its update is not finite") for k in facts.id[~np.isfinite(facts.norm)]
    )


def pairwise_cosine(facts: ClientFacts, units: Tensor | None) -> float:
    """The mean cosine between the updates of two clients; NaN if fewer than two have moved.

    Args:
        facts: of the cohort.
        units: `[S]`, the sum of the updates' unit vectors.
    """
    # |sum of unit vectors|^2 = n + n (n - 1) * mean cosine between two of them
    n = int((facts.norm > 0).sum())
    if n < 2 or units is None:
        return float("nan")
    return (float(units.square().sum()) - n) / (n * (n - 1))
