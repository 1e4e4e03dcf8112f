"""What an audit found, and what that means."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hanse.auditing.statistics import Estimate, Guesses
    from hanse.privacy import Accountant, GaussianEvent

_BROKEN = (
    "The promise is broken. With {:g} % confidence the run has an epsilon of at least {:.2f}, and "
    "claims {:.2f}."
)
_STOP = (
    "Clipping, noise, sampling or accounting do not do what is claimed. Do not release this model."
)
_NOTHING_FOUND = (
    "No violation was found: the bound {:.2f} is not above the claim {:.2f}. That is no proof of "
    "the claim. An audit can show that a run protects too little; that it protects enough, only a "
    "proof can."
)
_BLIND = (
    "This audit could not have failed: {:,} canaries show an epsilon of {:.2f} at most, whatever "
    "is wrong. Take more canaries, fewer rounds or more noise, so that the claim is below that."
)
_STRANGE = (
    "The one-shot estimate lies above the claim, all of its interval. It proves nothing, but look "
    "for the reason: audit with another seed and more canaries."
)


@dataclass(frozen=True)
class Audit:
    """What an audit of a private run found.

    Attributes:
        claimed: the epsilon that the accountant gives the rounds that were audited.
        delta: at which everything here is stated.
        accountant: whose epsilon that is.
        event: what all rounds together release, as it was accounted for.
        confidence: that the bound holds.
        guesses: the one-run audit: guesses, how many were right, and the lower bound.
        estimate: the one-shot estimate; `None` where canaries are told apart with no noise at all.
        most: the largest bound that so many canaries can give.
        canaries: how many there were.
        included: how many of them were in.
        sees: what the attacker sees: the noisy mean of every round, or the last model.
        rounds: how many rounds were audited.
        notes: what else has to be known, in words.
        scores: `[m]`, the inner product of each canary's direction with what was released: summed
            over rounds, in clip norms; or with how far the model has come.
        coins: `[m]`, which canaries were in.
    """

    claimed: float
    delta: float
    accountant: Accountant
    event: GaussianEvent
    confidence: float
    guesses: Guesses
    estimate: Estimate | None
    most: float
    canaries: int
    included: int
    sees: str
    rounds: int
    notes: tuple[str, ...]
    scores: tuple[float, ...]
    coins: tuple[bool, ...]

    @property
    def facts(self) -> str:
        """What was audited, in a line."""
        many = "1 round" if self.rounds == 1 else f"{self.rounds:,} rounds"
        sees = "the noisy mean of each" if self.sees == "rounds" else "the last model"
        return (
            f"{many}, of which the attacker sees {sees}; {self.canaries:,} canaries, "
            f"{self.included:,} of them in; delta {self.delta:g}"
        )

    @property
    def bound(self) -> float:
        """The lower bound on epsilon, of the one-run audit."""
        return self.guesses.bound

    @property
    def broken(self) -> bool:
        """Whether the run gives away more than it claims."""
        return self.bound > self.claimed

    @property
    def verdict(self) -> tuple[str, ...]:
        """What it means, in sentences."""
        if self.broken:
            return (_BROKEN.format(100 * self.confidence, self.bound, self.claimed), _STOP)
        said = [_NOTHING_FOUND.format(self.bound, self.claimed)]
        if self.most < self.claimed:
            said.append(_BLIND.format(self.canaries, self.most))
        if self.estimate is None or self.estimate.low > self.claimed:
            said.append(_STRANGE)
        return tuple(said)

    def to_json(self) -> str:
        """All of it as JSON; what is infinite is null."""
        found = {
            **dataclasses.asdict(self),
            "bound": self.bound,
            "broken": self.broken,
            "verdict": self.verdict,
        }
        return json.dumps(_finite(found), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    match value:
        case dict():
            return {name: _finite(part) for name, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
        case float():
            return value if math.isfinite(value) else None
        case _:
            return value
