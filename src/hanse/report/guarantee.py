"""What a private run has written down of its guarantee, read with the same suspicion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.report.fields import Fields

_LONG, _NAME, _LIST, _BINS = 1000, 120, 100, 1000


@dataclass(frozen=True)
class Guarantee:
    """The `privacy` of `run.json`.

    Attributes:
        protects: whether the noise is one that nobody can draw again; else it is a number of what
            a guarantee would cost.
        mechanism: what makes it.
        unit: what neighbours differ by, `client` or `example`.
        adjacency: and how.
        event: of a round: its noise multiplier, sampling and rate, in words; may be empty.
        delta: the probability that it does not hold; None where not written down.
        delta_from: where that is from.
        against: whom it holds against.
        covered: what it holds for.
        not_covered: what it does not hold for.
        exact: whether exact numbers about clients are in the run, which it does not cover.
        dataset: of the ledger; empty where there is none.
        budget: of the ledger.
        accountant: of the ledger.
    """

    protects: bool
    mechanism: str
    unit: str
    adjacency: str
    event: str
    delta: float | None
    delta_from: str
    against: str
    covered: str
    not_covered: tuple[str, ...]
    exact: bool
    dataset: str
    budget: float | None
    accountant: str


@dataclass(frozen=True)
class Spent:
    """The `privacy` of a line of `metrics.jsonl`.

    Attributes:
        rdp: epsilon of the run by itself, by this accountant; None where it is not known.
        pld: likewise.
        ledger: epsilon of all that was charged to the ledger; None where there is none.
    """

    rdp: float | None
    pld: float | None
    ledger: float | None

    @property
    def tightest(self) -> tuple[float | None, str]:
        """The smaller bound, and whose it is."""
        known = [(v, name) for v, name in ((self.pld, "pld"), (self.rdp, "rdp")) if v is not None]
        return min(known) if known else (None, "")


@dataclass(frozen=True)
class Counts:
    """A noisy histogram of a split, as it was released.

    Attributes:
        metric: whose values.
        edges: of its n bins, n + 1.
        counts: with noise.
        deviation: of the noise on each; None where not written down.
    """

    metric: str
    edges: tuple[float, ...]
    counts: tuple[float, ...]
    deviation: float | None


def guarantee(about: Fields) -> Guarantee | None:
    """Of `run.json`; None where nobody is protected."""
    fields = about.inner("privacy")
    if fields is None:
        return None
    ledger = fields.inner("ledger")
    return Guarantee(
        protects=bool(fields.values.get("guarantee")),
        mechanism=fields.text("mechanism", most=_LONG),
        unit=fields.text("unit", "client", _NAME),
        adjacency=fields.text("adjacency", "add-remove", _NAME),
        event=_event(fields.inner("event"), fields.text("unit", "client", _NAME)),
        delta=fields.number("delta"),
        delta_from=fields.text("delta_from", most=_NAME),
        against=fields.text("against", most=_LONG),
        covered=fields.text("covered", most=_LONG),
        not_covered=fields.texts("not_covered", _LONG)[:_LIST],
        exact=fields.values.get("per_client", "simulation") == "simulation",
        dataset="" if ledger is None else ledger.text("dataset", most=_NAME),
        budget=None if ledger is None else ledger.number("epsilon"),
        accountant="" if ledger is None else ledger.text("accountant", most=_NAME),
    )


def _event(fields: Fields | None, unit: str) -> str:
    if fields is None:
        return ""
    noise, rate = fields.number("noise_multiplier"), fields.number("rate")
    if unit == "example":
        steps = f"{fields.number('count') or 1.0:,.0f} steps a client, noise multiplier"
        drawn = f"each example in a step with probability {rate or 0.0:.4g}"
        if fields.text("sampling") == "none":
            drawn = "all examples in every step"
        return f"{steps} {noise or 0.0:.4g}; {drawn}"
    drawn = {
        "none": "everybody in every round",
        "poisson": f"each client by itself with probability {rate or 0.0:.4g}",
        "without-replacement": f"{rate or 0.0:.4g} of the clients, a fixed number",
    }.get(fields.text("sampling"), "")
    return f"noise multiplier {noise or 0.0:.4g}; {drawn}"


def spent(row: Fields) -> Spent | None:
    """Of a line of `metrics.jsonl`; None where nothing is said."""
    fields = row.inner("privacy")
    if fields is None:
        return None
    epsilon, ledger = fields.inner("epsilon"), fields.inner("ledger")
    return Spent(
        rdp=None if epsilon is None else epsilon.number("rdp"),
        pld=None if epsilon is None else epsilon.number("pld"),
        ledger=None if ledger is None else ledger.number("spent"),
    )


def histograms(row: Fields, splits: tuple[str, ...]) -> Mapping[str, Counts]:
    """The histograms of a line of `metrics.jsonl`, by split."""
    fields = row.inner("histograms")
    found: dict[str, Counts] = {}
    for split in splits:
        one = None if fields is None else fields.inner(split)
        if one is None:
            continue
        edges, counts = one.numbers("edges"), one.numbers("counts")
        known = [value for value in (*edges, *counts) if value is not None]
        whole = len(known) == len(edges) + len(counts) and len(edges) == len(counts) + 1
        if not whole or len(counts) > _BINS:
            one.fail("counts", "a list of numbers, one less than edges")
        kept = tuple(known[: len(edges)]), tuple(known[len(edges) :])
        found[split] = Counts(one.text("metric", most=60), *kept, one.number("deviation"))
    return found
