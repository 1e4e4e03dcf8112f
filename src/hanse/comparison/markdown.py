"""A comparison in Markdown, for a pull request or a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hanse.comparison.tables import overview, paired, sentences, settings

if TYPE_CHECKING:
    from hanse.comparison.comparing import Comparison
    from hanse.report.figure import Table

_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|#~"})


def markdown(comparison: Comparison) -> str:
    """The comparison as tables and paragraphs."""
    first = escaped(comparison.labels[0])
    others = ", ".join(escaped(label) for label in comparison.labels[1:])
    parts = [f"### {others} against {first}"]
    parts += [escaped(text) for text in sentences(comparison)]
    if comparison.warnings:
        parts.append("\n".join(f"> - {escaped(text)}" for text in comparison.warnings))
    parts += table(overview(comparison))
    if comparison.contrasts and any(comparison.contrasts):
        parts += [f"**Client by client, against {first}**", *table(paired(comparison))]
    differing = settings(comparison)
    if differing.rows:
        parts += ["**What the runs differ in**", *table(differing)]
    return "\n\n".join(parts) + "\n"


def table(content: Table) -> list[str]:
    """A table, and its note."""
    lines = [
        _row(content.head),
        _row((":--", *["--:"] * (len(content.head) - 1)), plain=True),
        *(_row(row) for row in content.rows),
    ]
    return ["\n".join(lines), *([escaped(content.note)] if content.note else [])]


def _row(cells: tuple[str, ...], *, plain: bool = False) -> str:
    return "| " + " | ".join(cell if plain else escaped(cell) for cell in cells) + " |"


def escaped(text: str) -> str:
    """A text on one line in which nothing is Markdown."""
    return " ".join(text.split("\n")).translate(_MARKS)
