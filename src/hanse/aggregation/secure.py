"""Secure sums: the server learns the sum of what clients send, and nothing of a single one."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hanse.aggregation.dropouts import _MASK, STAGES, STAYS, DropOuts, Fate, fate, session
from hanse.aggregation.words import OWN, Bound, Encoded, Place, decode, encode, width
from hanse.core.errors import ConfigError, HanseError, ProtocolError, StrategyError
from hanse.core.types import Aggregation, Exchange
from hanse.secagg.parameters import Assumptions
from hanse.secagg.ring import word_type

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.types import Aggregate, ClientContext, RoundContext, Update
    from hanse.secagg.ring import Words
    from hanse.secagg.session import Session

WEIGHTED = ("delta", "buffers", "gradient", "effective_steps", "train_loss")
SHORTENED = "shortened"
SURVIVORS = "survivors"

Ids = NDArray[np.int64]


class Kept(NamedTuple):
    """What the server of a simulation holds of some clients.

    Attributes:
        words: their sum `[1, m + 1]`; with the real protocol their rows `[k, m + 1]`, in parts.
        places: of the vectors among the words.
        ids: `[k]`, the clients' numbers.
        positions: `[k]`, their places in the cohort.
    """

    words: tuple[Tensor, ...]
    places: tuple[Place, ...]
    ids: Ids
    positions: Ids


class Opened(NamedTuple):
    """What the later exchanges lead to.

    Attributes:
        words: `[m + 1]`, the sum of the survivors' words; `None` if there is no sum.
        fate: of each place of the cohort.
        bits: of a word.
    """

    words: Tensor | None
    fate: Fate
    bits: Literal[32, 64]


@dataclass(frozen=True)
class SecureSum(Aggregation):
    """Sums of masked words: numbers in public steps, up to public bounds, in a ring.

    All that clients send is in it, weights and losses too. What is summed is whole numbers, so the
    sum has the same bits however the cohort is cut into blocks and whoever drops out in between is
    left out exactly.

    A vector with a coordinate beyond `clip` is made shorter as a whole, and a client with more than
    `most_examples` examples counts as one with so many. How many clients were made shorter is one
    more coordinate, and is reported for each round as `"shortened"`.

    Attributes:
        clip: the largest absolute value of a coordinate, before its weight. It is public, the same
            for all, and must not depend on anybody's data.
        step: numbers are rounded to whole multiples of it.
        most_examples: a public bound on the examples of a client, for `Weighted("examples")`; sums
            are taken in steps of `step * most_examples`. `None`: every client counts the same.
        bounds: other bounds for single vectors.
        weighted: the vectors that a weight, if one is sent, is multiplied into, as in `Weighted`.
        protocol: `"sum"`: the sum that the protocol leads to, without keys and masks, as fast as a
            plain one; `"real"`: the protocol itself, among the clients of this process.
        drops: who drops out in the simulation; a number: so large a part before sending its vector.
        least: the fewest clients that are summed; `None`: as many as the threshold. With fewer the
            round comes to nothing.
        assumptions: of the clients and the server, from which neighbours and thresholds follow.

    Raises:
        ConfigError: what cannot be meant.
    """

    clip: float = 8.0
    step: float = 2.0**-20
    most_examples: int | None = None
    bounds: tuple[Bound, ...] = ()
    weighted: tuple[str, ...] = WEIGHTED
    protocol: Literal["sum", "real"] = "sum"
    drops: DropOuts | float = DropOuts()
    least: int | None = None
    assumptions: Assumptions = Assumptions()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        Bound("delta", self.clip, self.step)
        if self.protocol not in ("sum", "real"):
            raise ConfigError(
                f"SecureSum(protocol={self.protocol!r})",
                why="there is no such protocol",
                instead="'sum' (its result, fast) or 'real' (keys, masks and shares)",
            )
        for name, fewest in (("most_examples", 1), ("least", 3)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < fewest):
                raise ConfigError(
                    f"SecureSum({name}={value!r})",
                    why="of fewer than three vectors, each client learns too much of the others'"
                    if name == "least"
                    else "it is a number of examples",
                    instead=f"a whole number of at least {fewest}",
                )
        if not isinstance(self.drops, DropOuts):
            DropOuts(mask=self.drops)

    @property
    def sees(self) -> Literal["sum"]:
        """Nothing but a sum."""
        return "sum"

    @property
    def drop_outs(self) -> DropOuts:
        """Who drops out."""
        return self.drops if isinstance(self.drops, DropOuts) else DropOuts(mask=self.drops)

    # --------------------------------------------------------------------------------- the sum
    def contribution(self, update: Update, client: ClientContext) -> Encoded:
        """Words.

        Raises:
            StrategyError: a vector whose sum is not the sum of what clients send.
        """
        bounds = {bound.name: bound for bound in (*OWN, *self.bounds)}
        default = Bound("", self.clip, self.step)
        return encode(update, bounds, default, self.weighted, self.most_examples or 1)

    def block(self, contribution: Encoded, client: ClientContext) -> Kept:
        """The sum of the words that are sent; the rows themselves for the real protocol."""
        words = contribution.words
        if self.protocol == "sum":
            stages = self.drop_outs.stages(client.round.key, client.id)
            here = torch.from_numpy(stages > _MASK).to(words.device)
            words = (words * here.unsqueeze(1)).sum(dim=0, keepdim=True)
        return Kept((words,), contribution.places, client.id, client.position)

    def merge(self, left: Kept, right: Kept) -> Kept:
        """Two sums as one.

        Raises:
            StrategyError: clients send vectors of different lengths.
        """
        if [p[:2] for p in left.places] != [p[:2] for p in right.places]:
            raise StrategyError(
                f"secure sums of {_lengths(left.places)} and of {_lengths(right.places)}",
                why="words are added place by place, so all clients must send the same vectors",
                instead="one layout for all, with zeros where a client has nothing",
            )
        ids = np.concatenate([left.ids, right.ids])
        positions = np.concatenate([left.positions, right.positions])
        words = (*left.words, *right.words)
        if self.protocol == "sum":
            words = (left.words[0].add_(right.words[0]),)
        return Kept(words, left.places, ids, positions)

    def session(self, total: Kept, round_: RoundContext) -> Session:
        """What everybody knows of the sum before it starts; clients by their places."""
        n = round_.cohort
        return session(
            n,
            round_.key,
            self.assumptions,
            length=total.words[0].shape[1],
            bits=width(total.places, n),
            least=self.least,
            context=_context(total.places, n),
        )

    def opening(self, total: Kept, round_: RoundContext) -> Opened:
        """Drop-outs, and the protocol, or what it would lead to.

        Raises:
            StrategyError: sums that 64 bits do not hold.
        """
        # Whoever is of the cohort and has no words here (a straggler, a client whose update is not
        # finite) has taken part until it should have sent some.
        stages = np.full(round_.cohort, _MASK)
        stages[total.positions] = self.drop_outs.stages(round_.key, total.ids)
        nobody, bits = np.zeros(round_.cohort, np.bool_), width(total.places, round_.cohort)
        try:
            agreed = self.session(total, round_)
        except (ConfigError, ProtocolError) as error:
            return Opened(None, Fate(stages, nobody, error.found), bits)
        expected = fate(agreed, stages)
        if self.protocol == "real":
            return self._by_protocol(total, agreed, stages)
        lost = int(((stages > _MASK) & ~expected.summed).sum())
        if not expected.failure and lost:
            why = f"{lost} clients have lost too many neighbours, and their words are in the sum"
            expected = Fate(stages, nobody, why)
        words = None if expected.failure else total.words[0][0]
        return Opened(words, expected, bits)

    def _by_protocol(self, total: Kept, agreed: Session, stages: Ids) -> Opened:
        from hanse.secagg.client import Stage  # the package cryptography is an extra
        from hanse.secagg.driver import Run

        dtype = word_type(agreed.width)
        rows: dict[int, Words] = {}
        for position, row in zip(total.positions.tolist(), torch.cat(total.words), strict=True):
            rows[position] = row.cpu().numpy().astype(dtype)
        drops = {p: Stage(int(stage)) for p, stage in enumerate(stages) if stage < STAYS}
        summed = np.zeros(len(stages), np.bool_)
        run = Run(agreed, rows.__getitem__, self.assumptions, keep_transcript=False)
        try:
            outcome = run.to_end(drops)
        except HanseError as error:
            return Opened(None, Fate(stages, summed, error.found), agreed.width)
        summed[list(outcome.survivors)] = True
        signed = outcome.total.view(f"<i{dtype.itemsize}").astype(np.int64)
        words = torch.from_numpy(signed).to(total.words[0].device)
        return Opened(words, Fate(stages, summed, ""), agreed.width)

    def finish(self, total: Kept, opening: Opened) -> Aggregate:
        """The sum as numbers; only where there is one."""
        if opening.words is None:
            raise ProtocolError(
                "a secure sum that came to nothing",
                why=opening.fate.failure,
                instead="the model as it was",
            )
        return decode(opening.words, total.places, opening.bits)[0]

    def exchange(self, total: Kept, opening: Opened) -> Exchange:
        """Who is not in the sum, and whether there is one."""
        fate_, lost = opening.fate, {}
        for client, place in zip(total.ids.tolist(), total.positions.tolist(), strict=True):
            if not fate_.summed[place]:
                lost[client] = _reason(fate_, place)
        numbers = {SURVIVORS: float(fate_.summed.sum())}
        if opening.words is not None:
            numbers[SHORTENED] = float(decode(opening.words, total.places, opening.bits)[1])
        return Exchange(lost, fate_.failure, numbers)


def _reason(fate_: Fate, place: int) -> str:
    stage = int(fate_.stages[place])
    if stage <= _MASK:
        return f"dropped out of the secure sum before it could {STAGES[stage]}"
    if fate_.failure:
        return f"there is no secure sum: {fate_.failure}"
    return "lost too many neighbours in the secure sum"


def _lengths(places: tuple[Place, ...]) -> str:
    return ", ".join(f"{place.columns} of {place.name!r}" for place in places)


def _context(places: tuple[Place, ...], clients: int) -> bytes:
    """How words are written, as bytes: who writes them otherwise has another session."""
    parts = [struct.pack("<I", clients)]
    for place in places:
        limit = -1 if place.limit is None else place.limit
        numbers = struct.pack("<Idqq", place.columns, place.step, limit, place.most)
        parts.append(place.name.encode() + numbers)
    return b"".join(parts)
