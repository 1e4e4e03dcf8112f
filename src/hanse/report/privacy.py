"""The privacy of a run on its page: what is promised, what it has cost, and what it left out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.report.charts import Bar, BarChart, LineChart, Rule, Series, bars, lines
from hanse.report.figure import MOST_ROWS, Figure, Key, Table, share_bounds, tick_format
from hanse.report.quantities import finite, thin
from hanse.report.records import SPLITS
from hanse.report.words import NOTHING, metric_name, number, quantity

if TYPE_CHECKING:
    from hanse.report.guarantee import Counts, Guarantee, Spent
    from hanse.report.records import Experiment, RunRecord

UNCOVERED = "Exact numbers of a simulation: the guarantee does not cover them."
_UNIT = {"client": "all the data of one client", "example": "one example of one client"}
_NEIGHBOURS = {
    "add-remove": "of which one lacks",
    "replace": "that differ in",
    "zero-out-example": "of which one lacks",
    "add-remove-example": "of which one lacks",
    "zero-out": "with the same clients, one of which has zeros in the place of",
}
_SPLIT = {"test": "training", "unseen": "unseen"}


@dataclass(frozen=True)
class Card:
    """The section on privacy.

    Attributes:
        headline: what is promised, or that nothing is.
        facts: names and values.
        not_covered: sentences.
        figures: epsilon and metrics.
        uncovered: a note for sections whose numbers are exact; empty where none are.
    """

    headline: str
    facts: tuple[tuple[str, str], ...]
    not_covered: tuple[str, ...]
    figures: tuple[Figure, ...]
    uncovered: str


def card(experiment: Experiment) -> Card | None:
    """The section; None where nobody is protected."""
    run = experiment.first
    promised = run.info.privacy
    if promised is None:
        return None
    now = last_spent(run)
    figures = [_epsilons(run), _metric_by_epsilon(experiment), *_histograms(run)]
    return Card(
        headline=_headline(promised, now, len(experiment.runs)),
        facts=tuple((name, text) for name, text in _facts(promised, now) if text),
        not_covered=promised.not_covered,
        figures=tuple(figure for figure in figures if figure is not None),
        uncovered=UNCOVERED if promised.exact else "",
    )


def last_spent(run: RunRecord) -> Spent | None:
    """What a run had cost by its last record; None where nothing was written down."""
    return next((row.privacy for row in reversed(run.rounds) if row.privacy is not None), None)


def _headline(promised: Guarantee, now: Spent | None, runs: int) -> str:
    cost, _ = (None, "") if now is None else now.tightest
    at = "" if promised.delta is None else f" at delta {promised.delta:g}"
    bound = f"epsilon {number(cost)}{at}" if cost is not None else "an epsilon that is not known"
    each = " Each run released models of its own, so what they cost adds up." if runs > 1 else ""
    if not promised.protects:
        return (
            f"No guarantee. The noise was drawn from the run’s seed, so whoever knows the seed can "
            f"take it off. With noise from the operating system this would cost {bound}.{each}"
        )
    unit = _UNIT.get(promised.unit, promised.unit)
    secret = f"Whether {unit} was in the training"
    if promised.adjacency == "replace":  # that a client took part may well be known
        secret = f"Whether {unit} was in the training, or other data in its place,"
    return f"{secret} can hardly be told by {promised.against}: {bound}.{each}"


def _facts(promised: Guarantee, now: Spent | None) -> list[tuple[str, str]]:
    by_rdp = "" if now is None or now.rdp is None else f"{number(now.rdp)} by RDP"
    by_pld = "" if now is None or now.pld is None else f"{number(now.pld)} by PLD"
    words = " and ".join(text for text in (by_rdp, by_pld) if text) or "not computed"
    delta = "" if promised.delta is None else f"{promised.delta:g} ({promised.delta_from})"
    how = _NEIGHBOURS.get(promised.adjacency, promised.adjacency)
    return [
        ("This run has cost" if promised.protects else "This would cost", f"epsilon {words}"),
        ("Delta", delta),
        ("Covered", promised.covered),
        ("Against", promised.against),
        (
            "Neighbours",
            f"two federations {how} {_UNIT.get(promised.unit, promised.unit)}",
        ),
        ("Mechanism", promised.mechanism),
        ("A round", promised.event),
        ("Exact numbers", "in this report, not covered" if promised.exact else "withheld"),
        *_ledger(promised, now),
    ]


def _ledger(promised: Guarantee, now: Spent | None) -> list[tuple[str, str]]:
    if not promised.dataset:
        return [("Ledger", "none: other runs on the same data are not counted")]
    if now is None or now.ledger is None or promised.budget is None:
        return [("Ledger", f"of {promised.dataset}")]
    left = number(max(promised.budget - now.ledger, 0.0))
    text = f"epsilon {number(now.ledger)} of {promised.budget:g} spent by all runs together, by "
    text += f"{promised.accountant}, after this run’s last round; {left} left"
    return [(f"Ledger of {promised.dataset}", text)]


# ------------------------------------------------------------------------------- figures
def _epsilons(run: RunRecord) -> Figure | None:
    """Epsilon by round."""
    known = [(row.round, row.privacy) for row in run.rounds if row.privacy is not None]
    promised = run.info.privacy
    if not known or promised is None:
        return None
    kinds = (
        ("This run, by RDP", "run-0", [(float(at), one.rdp) for at, one in known]),
        ("This run, by PLD", "run-2", [(float(at), one.pld) for at, one in known]),
        ("All that the ledger knows of", "run-1", [(float(at), one.ledger) for at, one in known]),
    )
    drawn = [
        Series(name, style, tuple((at, value) for at, value in points if value is not None))
        for name, style, points in kinds
        if finite(value for _, value in points)
    ]
    if not drawn:
        return None
    rules = () if promised.budget is None else (Rule("Budget", "worse", promised.budget),)
    title = "Epsilon by round" if promised.protects else "What epsilon would be, by round"
    caption = "Upper bounds on what all rounds up to here cost together."
    legend = [Key(one.name, one.style, "line", number(one.points[-1][1])) for one in drawn]
    legend += [Key(rule.name, rule.style, "rule", number(rule.value)) for rule in rules]
    kept = [known[place] for place in thin(len(known), MOST_ROWS)]
    return Figure(
        key="privacy-epsilon", title=title, caption=caption, legend=tuple(legend),
        drawing=lines(
            LineChart("privacy-epsilon", title, caption, "round", tuple(reversed(drawn)),
                      tick_format("epsilon"), rules, bounds=(0.0, None))
        ),
        table=Table(
            ("Round", "By RDP", "By PLD", "Ledger"),
            tuple((str(at), _cell(one.rdp), _cell(one.pld), _cell(one.ledger)) for at, one in kept),
        ),
        places=tuple(float(at) for at, _ in kept),
    )  # fmt: skip


def _metric_by_epsilon(experiment: Experiment) -> Figure | None:
    """The metric that matters most against what it has cost."""
    run, metric = experiment.first, experiment.primary
    found: dict[str, list[tuple[float, float]]] = {split: [] for split in SPLITS}
    for row in run.rounds:
        at = None if row.privacy is None else row.privacy.rdp
        for split, points in found.items():
            value = row.metrics.get(split, {}).get(metric)
            if at is not None and value is not None:
                points.append((at, value))
    styles = {"test": "federated", "unseen": "second"}
    nouns = run.info.data.nouns
    drawn = [
        Series(f"{_SPLIT[split].capitalize()} {nouns['clients']}", styles[split], tuple(points))
        for split, points in found.items()
        if len(points) > 1
    ]
    if not drawn:
        return None
    title = f"{metric_name(metric)} by epsilon"
    caption = f"How good the model was when this much was spent, by RDP.{_caveat(run, metric)}"
    legend = tuple(
        Key(one.name, one.style, "line", quantity(metric, one.points[-1][1])) for one in drawn
    )
    rows = [
        (number(at), one.name, quantity(metric, value)) for one in drawn for at, value in one.points
    ]
    kept = [rows[place] for place in thin(len(rows), MOST_ROWS)]
    return Figure(
        key="privacy-metric", title=title, caption=caption, legend=legend,
        drawing=lines(
            LineChart("privacy-metric", title, caption, "epsilon", tuple(reversed(drawn)),
                      tick_format(metric), bounds=share_bounds(metric),
                      x_format=tick_format("epsilon"))
        ),
        table=Table(("Epsilon", "On", metric_name(metric)), tuple(kept)),
    )  # fmt: skip


def _caveat(run: RunRecord, metric: str) -> str:
    if run.info.privacy is not None and run.info.privacy.exact:
        return f" {UNCOVERED}"
    return f" {metric_name(metric)} is an estimate from noisy counts, which were charged."


def _histograms(run: RunRecord) -> list[Figure]:
    """The last noisy histogram of each split."""
    found = []
    for split in SPLITS:
        last = next((row for row in reversed(run.rounds) if split in row.histograms), None)
        if last is not None:
            found.append(_histogram(split, last.round, last.histograms[split]))
    return found


def _histogram(split: str, at: int, one: Counts) -> Figure:
    write = tick_format(one.metric)
    names = [f"{write(low)} to {write(high)}" for low, high in itertools.pairwise(one.edges)]
    title = f"{metric_name(one.metric)} of {_SPLIT[split]} clients, with noise"
    noise = "" if one.deviation is None else f" of standard deviation {number(one.deviation)}"
    caption = (
        f"How many clients were in which bin after round {at:,}, with noise{noise} on each count, "
        "which may bring it below zero. It was charged before it was released."
    )
    key = f"histogram-{split}"
    drawn = tuple(
        Bar(name, count, f"{name}: {number(count)}", "federated")
        for name, count in zip(names, one.counts, strict=True)
    )
    chart = BarChart(key, title, caption, "clients", drawn, tick_format("clients"))
    rows = tuple(zip(names, map(number, one.counts), strict=True))
    return Figure(key, title, caption, (), bars(chart), Table(("Bin", "Clients"), rows))


def _cell(value: float | None) -> str:
    return NOTHING if value is None else number(value)
