"""The page of a comparison, in the manner of a run's report."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from hanse.comparison.figures import curves, difference_figures
from hanse.comparison.tables import KIND, overview, paired, sentences, settings
from hanse.report.figure import MOST_CLIENTS
from hanse.report.words import clients, difference, metric_name, quantity, shorten, whole

if TYPE_CHECKING:
    from hanse.comparison.comparing import Comparison
    from hanse.comparison.pairs import Contrast, Pair
    from hanse.report.figure import Figure

_SHOWN = 50
_GROUPS = {
    "rounds": ("By round", "Learning, round by round", ""),
    "bytes": (
        "By bytes",
        "For what was sent",
        "In both directions, counted from the shapes of what travels.",
    ),
    "seconds": (
        "By time",
        "For the time it took",
        "Of this simulation, evaluation included: to be compared on the same machine only.",
    ),
}


@dataclass(frozen=True)
class CurveGroup:
    """Curves against the same axis."""

    key: str
    short: str
    title: str
    note: str
    figures: list[Figure]


@dataclass(frozen=True)
class ContrastSection:
    """The clients of a contrast on the page."""

    key: str
    short: str
    title: str
    label: str
    contrast: Contrast
    figures: list[Figure]
    shown: tuple[Pair, ...]
    note: str


def page(comparison: Comparison) -> str:
    """The page; the same runs give the same page."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("hanse.comparison", ""), PackageLoader("hanse.report", "")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["whole"] = whole
    groups = [
        CurveGroup(f"by-{by}", *words, figures)
        for by, words in _GROUPS.items()
        if (figures := curves(comparison, by))
    ]
    info = comparison.experiments[0].first.info
    return environment.get_template("comparison.html.j2").render(
        hanse=version("hanse"),
        labels=comparison.labels,
        facts=_facts(comparison),
        verdict=sentences(comparison),
        warnings=comparison.warnings,
        overview=overview(comparison),
        paired=paired(comparison),
        settings=settings(comparison),
        curves=groups,
        sections=_sections(comparison),
        nouns=info.data.nouns,
        quantity=quantity,
        difference=difference,
    )


def _facts(comparison: Comparison) -> list[str]:
    info = comparison.experiments[0].first.info
    seeds = {len(one.runs) for one in comparison.experiments}
    each = f"{max(seeds)} seed{'s' * (max(seeds) > 1)} each" if len(seeds) == 1 else ""
    found = [info.data.name, clients("test", info.data.population, info.data.nouns), each]
    return [text for text in found if text]


def _sections(comparison: Comparison) -> list[ContrastSection]:
    """The primary metric of each experiment and split, client by client."""
    found = []
    nouns = comparison.experiments[0].first.info.data.nouns
    for place, contrasts in enumerate(comparison.contrasts, start=1):
        label = comparison.labels[place]
        for contrast in contrasts:
            if contrast.metric != comparison.primary:
                continue
            kind = f"{KIND[contrast.split]} {nouns['clients']}"
            found.append(
                ContrastSection(
                    key=f"pairs-{place}-{contrast.split}",
                    short=f"{shorten(label, 24)}, {KIND[contrast.split]}",
                    title=f"{label} against {comparison.labels[0]}, {kind}",
                    label=label,
                    contrast=contrast,
                    figures=difference_figures(comparison, place, contrast),
                    shown=_shown(contrast),
                    note=_note(contrast),
                )
            )
    return found


def _shown(contrast: Contrast) -> tuple[Pair, ...]:
    pairs = contrast.pairs
    if len(pairs) <= MOST_CLIENTS:
        return pairs
    return (*pairs[:_SHOWN], *pairs[-_SHOWN:])


def _note(contrast: Contrast) -> str:
    text = f"{metric_name(contrast.metric)}"
    text += ", of which less is better" if contrast.lower_is_better else ""
    text += "; the largest loser first."
    shown = len(_shown(contrast))
    if shown < len(contrast.pairs):
        text += f" The {_SHOWN} that lose most and the {_SHOWN} that gain most, of "
        text += f"{len(contrast.pairs):,}."
    if len(contrast.seeds) > 1:
        text += f" Means over the {len(contrast.seeds)} seeds that both have."
    return text
