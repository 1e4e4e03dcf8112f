"""Who drops out of a secure sum, and what becomes of it."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hanse.core.errors import ConfigError, ProtocolError
from hanse.core.rng import derive
from hanse.secagg.parameters import (
    Assumptions,
    Parameters,
    check_size,
    default_threshold,
    insecurity,
    plan,
)
from hanse.secagg.session import Session

if TYPE_CHECKING:
    from hanse.core.rng import Key, Keys
    from hanse.secagg.ring import Width

STAGES = ("advertise", "share", "mask", "confirm", "open")
STAYS = len(STAGES)
_MASK, _CONFIRM, _OPEN = 2, 3, 4
_COMPLETE = 100  # clients, for whom everybody is everybody's neighbour

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class DropOuts:
    """Which part of the clients is gone before each stage, in a simulation: drawn for each round.

    Attributes:
        advertise: before it has said anything.
        share: before it shares its secrets.
        mask: before it sends its masked vector: the usual case, since training comes before.
        confirm: before it confirms who is in the sum; its vector is.
        open: before it helps to open the sum; likewise.

    Raises:
        ConfigError: no parts of a whole.
    """

    advertise: float = 0.0
    share: float = 0.0
    mask: float = 0.0
    confirm: float = 0.0
    open: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for stage, rate in zip(STAGES, astuple(self), strict=True):
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
                raise ConfigError(
                    f"DropOuts({stage}={rate!r})",
                    why="it is the part of the clients that is gone before that stage",
                    instead="a number from 0 to 1, such as 0.1",
                )
        if sum(astuple(self)) > 1:
            raise ConfigError(
                f"{self!r}, {sum(astuple(self)):g} in all",
                why="a client drops out once",
                instead="rates that add up to no more than 1",
            )

    def stages(self, key: Key | Keys, ids: Ids) -> Ids:
        """`[k]`: before which stage each client is gone; `STAYS`: it is not.

        Args:
            key: of the round.
            ids: the clients.
        """
        drawn = derive(derive(key, "drop-outs"), ids) >> np.uint64(11)
        ends = np.cumsum(astuple(self)) * 2.0**53
        found: Ids = np.searchsorted(ends, drawn.astype(np.float64), side="right")
        return found.astype(np.int64)


class Fate(NamedTuple):
    """What becomes of the clients of a secure sum.

    Attributes:
        stages: `[n]`, before which stage each is gone, by place.
        summed: `[n]`, whose vectors are in the sum.
        failure: why there is no sum, or nothing.
    """

    stages: Ids
    summed: NDArray[np.bool_]
    failure: str


def session(
    clients: int,
    key: Key | Keys,
    assumptions: Assumptions,
    *,
    length: int,
    bits: Width,
    least: int | None = None,
    context: bytes = b"",
) -> Session:
    """The session of a round.

    Up to 100 clients it is on the complete graph, with a threshold of two thirds, or the least that
    the assumptions allow if that is more. Above, neighbours and threshold are computed from them.

    Args:
        clients: how many were selected; their numbers are their places.
        key: of the round; in a simulation a graph follows from it.
        assumptions: of the clients and the server.
        length: words of a vector.
        bits: of a word.
        least: the fewest vectors that are summed; `None`: as the threshold says.
        context: public parameters that all agree on.

    Raises:
        ConfigError: fewer than three clients, or assumptions that no graph meets.
    """
    chosen = parameters(clients, assumptions)
    seed = hashlib.sha256(b"hanse simulated graph" + int(key).to_bytes(8, "little")).digest()
    found = Session.planned(
        range(clients), chosen, seed=seed, length=length, width=bits, context=context
    )
    fewest = max(found.least, least or 0)
    if fewest == found.least:
        return found
    if fewest > clients:
        raise ProtocolError(
            f"{clients} clients of which {fewest} must be in the sum",
            why="there are not as many",
            instead="larger cohorts, or a smaller `least`",
        )
    fields = {name: getattr(found, name) for name in Session.__dataclass_fields__}
    return Session(**{**fields, "least": fewest})


@lru_cache(maxsize=256)
def parameters(clients: int, assumptions: Assumptions) -> Parameters:
    """Neighbours and threshold for so many clients.

    Raises:
        ConfigError: as `session`.
    """
    check_size(clients)
    if clients > _COMPLETE:
        return plan(clients, assumptions)
    degree = clients - 1
    for threshold in range(default_threshold(clients), clients + 1):
        chance = insecurity(clients, degree, threshold, threshold, assumptions)
        if chance <= -assumptions.security:
            none = float("-inf")
            return Parameters(clients, degree, threshold, threshold, chance, none, assumptions)
    raise ConfigError(
        f"secure sums of {clients} clients of which {assumptions.corrupt_of(clients)} may be "
        "corrupt",
        why="with any threshold they could open more than the sum",
        instead="fewer corrupt clients, where that may be assumed",
    )


def fate(session_: Session, stages: Ids) -> Fate:
    """What the protocol makes of drop-outs: as the real one does, without its messages.

    Args:
        session_: of the round.
        stages: `[n]`, before which stage each client is gone, by place.
    """
    n, t = len(session_.cohort), session_.threshold
    near = np.stack([session_.graph.neighbours(place) for place in range(n)])
    here = np.ones(n, np.bool_)
    nobody = np.zeros(n, np.bool_)

    def few(count: int, least: int, what: str) -> str:
        return f"{count} of {n} clients {what}, and {least} are needed" if count < least else ""

    for stage, done in ((0, "have advertised keys"), (1, "have shared their secrets")):
        here = _with_neighbours(here & (stages > stage), near, t)
        least = max(session_.least, session_.quorum)
        failure = few(int(here.sum()), least, f"{done} and have enough neighbours")
        if failure:
            return Fate(stages, nobody, failure)
    shared = here
    active = shared & (stages > _MASK)
    failure = few(int(active.sum()), session_.least, "have sent their vectors")
    needed = active | (shared & active[near].any(axis=1))
    signed, opened = active & (stages > _CONFIRM), active & (stages > _OPEN)
    failure = failure or few(int(signed.sum()), session_.quorum, "have confirmed the survivors")
    for holders in (active, signed, opened):
        count = holders[near].sum(axis=1) + holders
        if not failure and (count[needed] < t).any():
            failure = f"a client has {count[needed].min()} shares left, and {t} are needed"
    return Fate(stages, nobody if failure else active, failure)


def _with_neighbours(here: NDArray[np.bool_], near: Ids, threshold: int) -> NDArray[np.bool_]:
    """Without those who have too few neighbours left, until nobody has."""
    while True:
        alone = here & (here[near].sum(axis=1) + 1 < threshold)
        if not alone.any():
            return here
        here = here & ~alone
