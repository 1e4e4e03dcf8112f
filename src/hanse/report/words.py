"""Numbers and names as a reader wants them."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hanse.report.quantities import Spread

NARROW_SPACE = "\u202f"
NOTHING = "–"
_PLUS_MINUS = "\u00a0±\u00a0"
_SPLIT_CLIENTS = {"test": "training", "unseen": "unseen"}


def is_share(metric: str) -> bool:
    """Whether a metric is a share of the examples, to be written in percent."""
    return "accuracy" in metric.lower()


def metric_name(metric: str) -> str:
    """A metric as a label: `balanced_accuracy` becomes `Balanced accuracy`."""
    words = metric.replace("_", " ").strip()
    return words[:1].upper() + words[1:] if words else metric


def number(value: float | None) -> str:
    """A number with three or four digits that mean something."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if size == 0:
        text = "0"
    elif size >= 1e6 or size < 1e-3:
        digits, power = f"{value:.2e}".split("e")
        text = f"{digits}e{int(power)}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3}f}"
    return minus(text)


def whole(value: int | None) -> str:
    """A whole number with separators between thousands."""
    return NOTHING if value is None else f"{value:,}"


def quantity(metric: str, value: float | None) -> str:
    """A value of a metric: shares in percent, others as numbers."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{100 * value:.1f}{NARROW_SPACE}%" if is_share(metric) else number(value)


def difference(metric: str, value: float | None) -> str:
    """A signed difference of two values: of shares in percentage points."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{100 * value:.1f}{NARROW_SPACE}pts" if is_share(metric) else number(value)
    positive = value > 0 and not text.startswith("0.0" + NARROW_SPACE)
    return "+" + text if positive else minus(text).removeprefix("−" if _is_zero(text) else "")


def spread(metric: str, value: Spread | None) -> str:
    """A value over seeds, with ± its standard deviation where there are several."""
    if value is None:
        return NOTHING
    middle = quantity(metric, value.mean)
    if value.std is None:
        return middle
    if is_share(metric):
        middle = f"{100 * value.mean:.1f}"
        return f"{middle}{_PLUS_MINUS}{100 * value.std:.1f}{NARROW_SPACE}%"
    return f"{middle}{_PLUS_MINUS}{number(value.std)}"


def width(metric: str, value: Spread | None) -> str:
    """A standard deviation over clients: of shares in percentage points."""
    if value is None or not is_share(metric):
        return spread(metric, value)
    return spread(metric, value).replace("%", "pts")


def count(value: Spread | None) -> str:
    """A count, or the mean of counts over seeds."""
    if value is None:
        return NOTHING
    if value.std is None or value.std == 0:
        return f"{value.mean:,.0f}" if value.mean == int(value.mean) else f"{value.mean:,.1f}"
    return f"{value.mean:,.1f}{_PLUS_MINUS}{value.std:.1f}"


def size(count: float | None) -> str:
    """A number of bytes, in powers of a thousand."""
    if count is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            break
        count /= 1000
    digits = 0 if unit == "B" or count >= 99.5 or count == int(count) else 1 if count >= 9.95 else 2
    return f"{count:,.{digits}f}{NARROW_SPACE}{unit}"


def duration(seconds: float | None) -> str:
    """Wall-clock time."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f}{NARROW_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{NARROW_SPACE}h {minutes:02d}{NARROW_SPACE}min"
    return f"{minutes}{NARROW_SPACE}min {rest:02d}{NARROW_SPACE}s"


def minus(text: str) -> str:
    """The text with a true minus sign in place of a leading hyphen."""
    return "−" + text[1:] if text.startswith("-") else text


def listed(
    names: Sequence[str], most: int = 5, write: Callable[[str], str] = lambda name: name
) -> str:
    """Names in a sentence: `a, b and 3 more`, each as `write` makes it."""
    shown = [write(name) for name in names[:most]]
    rest = len(names) - len(shown)
    if rest:
        return ", ".join(shown) + f" and {rest:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def named(name: str, most: int) -> str:
    """A name in a sentence: cut, and kept from turning the sentence's direction."""
    cut = shorten(name, most)
    turns = any(unicodedata.bidirectional(letter) in {"R", "AL", "AN"} for letter in cut)
    return f"\u2068{cut}\u2069" if turns else cut


def shorten(text: str, most: int) -> str:
    """The text cut with an ellipsis after `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def clients(split: str, many: int, nouns: Mapping[str, str]) -> str:
    """How many clients of a split: `7 training clients`; without a number where it is not said."""
    if not many:
        return f"{_SPLIT_CLIENTS[split]} {nouns['clients']}"
    noun = nouns["client" if many == 1 else "clients"]
    return f"{many:,} {_SPLIT_CLIENTS[split]} {noun}"


def _is_zero(text: str) -> bool:
    """Whether a formatted number shows no digit but zeros."""
    return not any(character in "123456789" for character in text)
