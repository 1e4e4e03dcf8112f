"""Which strategy fits: the decision table, and a question to it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from hanse.core.errors import ConfigError, did_you_mean
from hanse.decision_rows import ROWS, Privacy, Row, Tolerance

Scale = Literal["cross-silo", "cross-device"]

_HEAD = (
    "| Strategy | Run it with | Clients remember | Sent down / up | Partial participation "
    "| Partial work | Source |"
)
_PRIVACY, _TOLERANCE, _SCALES = get_args(Privacy), get_args(Tolerance), get_args(Scale)


class Fit(NamedTuple):
    """A row of the table, held against what is wanted.

    Attributes:
        row: the strategy.
        reasons: what of the wishes it meets, and how.
        misses: what it does not meet; empty where it fits.
    """

    row: Row
    reasons: tuple[str, ...]
    misses: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """All wishes are met, in this release or a later one."""
        return not self.misses


@dataclass(frozen=True)
class _Wishes:
    privacy: str | None
    scale: str | None
    non_iid: str | None


def decision_table() -> tuple[Row, ...]:
    """The strategies with their privacy, scale and tolerance of non-IID data, simple ones first."""
    return ROWS


def strategies_for(
    *,
    privacy: Privacy | None = None,
    scale: Scale | None = None,
    non_iid: Tolerance | None = None,
) -> tuple[Fit, ...]:
    """The strategies that fit, simple ones first; what is not in this release comes last.

    Where none of this release fits, those of it that come nearest follow, with what they miss.

    Args:
        privacy: the least that is wanted: `"low"`, `"high"` or `"very high"`.
        scale: `"cross-silo"` or `"cross-device"`.
        non_iid: how much the clients' data differ, so the least tolerance that is wanted: `"low"`,
            `"medium"` or `"high"`.

    Raises:
        ConfigError: a word that is none of these.
    """
    wishes = _Wishes(
        _known("privacy", privacy, _PRIVACY),
        _known("scale", scale, _SCALES),
        _known("non_iid", non_iid, _TOLERANCE),
    )
    judged = [(_gap(row, wishes), _judged(row, wishes)) for row in ROWS]
    fits = [fit for _, fit in judged if fit.fits]
    there = [fit for fit in fits if fit.row.released]
    planned = [fit for fit in fits if not fit.row.released]
    if there:
        return (*there, *planned)
    least = min(gap for gap, fit in judged if fit.row.released)
    nearest = [fit for gap, fit in judged if fit.row.released and gap == least]
    return (*planned, *nearest)


def command(row: Row) -> str:
    """The command that runs a row on an experiment file; words where this release cannot."""
    if not row.released:
        return "not in this release"
    return " ".join(["hanse run FILE", *(f"--set {shlex.quote(one)}" for one in row.settings)])


def markdown_table(rows: tuple[Row, ...] = ROWS) -> str:
    """The table in Markdown, with links to the pages beside docs/strategies/index.md."""
    first = [
        "| Strategy | Privacy | Scale | Non-IID Tolerance | Best For |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| [{row.name}]({row.page}) | {row.privacy.title()} | {scale_in_words(row)} "
            f"| {row.non_iid.title()} | {row.best_for} |"
            for row in rows
        ),
    ]
    second = [
        _HEAD,
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row.name} | {f'`{command(row)}`' if row.released else command(row)} "
            f"| {row.remembers} | {traffic(row)} | {row.partial_participation} "
            f"| {row.partial_work} | {row.source} |"
            for row in rows
        ),
    ]
    notes = [f"- **{row.name}.** {row.note}" for row in rows]
    return "\n".join([*first, "", *second, "", *notes]) + "\n"


def scale_in_words(row: Row) -> str:
    """`Cross-silo`, with `(also cross-device)` where it works there too."""
    return row.scale.capitalize() + (f" (also {row.also})" if row.also else "")


def traffic(row: Row) -> str:
    """How many times the numbers of FedAvg are sent down to a client and up from it."""
    return f"{row.down or '–'} / {row.up or '–'}"


def _known(name: str, word: str | None, words: tuple[str, ...]) -> str | None:
    if word is None:
        return None
    spelled = {w.replace(" ", "-"): w for w in words}
    plain = str(word).strip().lower().replace(" ", "-")
    if plain not in spelled:
        raise ConfigError(
            f"{name} = {word!r}",
            why="the decision table has no such word",
            instead=did_you_mean(plain, spelled),
        )
    return spelled[plain]


def _judged(row: Row, wishes: _Wishes) -> Fit:
    found: list[tuple[bool, str]] = []
    if wishes.privacy is not None:
        enough = _PRIVACY.index(row.privacy) >= _PRIVACY.index(wishes.privacy)
        found.append((enough, f"its privacy is {row.privacy}"))
    if wishes.scale is not None:
        found.append((_at(row, wishes.scale), f"its scale is {scale_in_words(row).lower()}"))
    if wishes.non_iid is not None:
        enough = _TOLERANCE.index(row.non_iid) >= _TOLERANCE.index(wishes.non_iid)
        found.append((enough, f"its tolerance of non-IID data is {row.non_iid}"))
    return Fit(
        row,
        tuple(words for enough, words in found if enough),
        tuple(words for enough, words in found if not enough),
    )


def _at(row: Row, scale: str) -> bool:
    return "either" in (row.scale, row.also) or scale in (row.scale, row.also)


def _gap(row: Row, wishes: _Wishes) -> int:
    """How many levels are missing in all; 0 where the row fits."""
    gap = 0
    if wishes.privacy is not None:
        gap += max(_PRIVACY.index(wishes.privacy) - _PRIVACY.index(row.privacy), 0)
    if wishes.non_iid is not None:
        gap += max(_TOLERANCE.index(wishes.non_iid) - _TOLERANCE.index(row.non_iid), 0)
    return gap + (wishes.scale is not None and not _at(row, wishes.scale))
