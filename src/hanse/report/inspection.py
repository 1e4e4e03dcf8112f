"""A page about clients' data before anything is trained: who has how much of what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hanse.core.errors import RunError
from hanse.data import label_counts, skew
from hanse.report.data import label_map, sizes
from hanse.report.fields import clean
from hanse.report.html import templates
from hanse.report.records import NOUNS, DataInfo
from hanse.report.verdict import Tile
from hanse.report.words import number, whole
from hanse.storage import write_atomically, writing

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.data import Federation, Skew

_LISTED = 2000  # clients whose labels are looked at for the map
_LONGEST = 500


def write_data(federation: Federation, out: Path) -> Path:
    """Write a page that shows how clients' data differ: sizes, labels, and numbers for both.

    All clients are loaded once if there are labels. The file appears whole or not at all.

    Args:
        federation: whose training clients are shown.
        out: where to write, an `.html` file.

    Returns:
        Where the page was written.

    Raises:
        RunError: where it cannot be written, or is to be something else than HTML.
    """
    if out.suffix.lower() not in {".html", ".htm"}:
        raise RunError(
            f"a picture of the data in {out.name!r}",
            why="it is an HTML page, with its charts and their numbers in it",
            instead=f"a name that ends in .html, such as {out.with_suffix('.html').name}",
        )
    page = render_data(federation)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page)
    return out


def render_data(federation: Federation) -> str:
    """The page; the same data give the same page."""
    info = _info(federation)
    classes = None if federation.classes is None else len(federation.classes)
    found = [sizes(info), label_map(info)]
    return (
        templates()
        .get_template("data.html.j2")
        .render(
            name=info.name,
            facts=f"Inputs of shape {list(federation.input_shape)}",
            attribution=info.attribution,
            tiles=_tiles(federation, skew(federation.train, classes)),
            figures=[figure for figure in found if figure],
        )
    )


def _info(federation: Federation) -> DataInfo:
    train, classes = federation.train, federation.classes
    listed = range(min(len(train), _LISTED))
    counts = None
    if classes is not None:
        counts = tuple(map(tuple, label_counts(train, len(classes))[:_LISTED].tolist()))
    return DataInfo(
        name=clean(federation.name, _LONGEST),
        attribution=clean(federation.attribution, _LONGEST),
        classes=None if classes is None else tuple(clean(one, _LONGEST) for one in classes),
        clients=tuple(clean(train.name(k), _LONGEST) for k in listed),
        population=len(train),
        train_sizes=tuple(train.sizes(np.arange(len(train))).tolist()),
        label_counts=counts,
        unseen=None,
        nouns=NOUNS,
    )


def _tiles(federation: Federation, measured: Skew) -> list[Tile]:
    """The numbers above the figures."""
    groups = ((federation.test, "to test them on"), (federation.unseen, "unseen"))
    held = [f"{whole(measured.examples)} examples to train on"] + [
        f"{whole(int(group.sizes(np.arange(len(group))).sum()))} {words}"
        for group, words in groups
        if group is not None
    ]
    median = measured.median
    spread = f"the median; {whole(measured.smallest)} to {whole(measured.largest)}"
    empty = f"; {whole(measured.empty)} clients have none" if measured.empty else ""
    found = [
        Tile("Training clients", whole(measured.clients), "", ", ".join(held)),
        Tile(
            "Examples of a client",
            number(median) if median % 1 else whole(int(median)),
            "",
            spread + empty,
        ),
    ]
    if measured.mean_entropy is not None:
        found += [
            Tile(
                "Labels at a client",
                f"{number(measured.mean_entropy)} bits",
                "",
                f"of entropy; {number(measured.global_entropy)} bits in all",
            ),
            Tile(
                "Distance from the whole",
                number(measured.mean_total_variation),
                "",
                f"total variation, 0 to 1; Jensen-Shannon {number(measured.mean_jensen_shannon)} "
                "bits",
            ),
        ]
    return found
