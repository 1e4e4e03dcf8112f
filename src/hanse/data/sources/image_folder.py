"""A folder of images for each client, with a folder for each class in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hanse.core.errors import DataError
from hanse.data.sources.division import SPLITS, divide
from hanse.data.sources.extras import needed
from hanse.data.sources.images import Form, form_of, pixels, upright
from hanse.data.sources.targets import check_task, labels_of_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from hanse.data.federation import Federation

IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"} | {
    ".webp"
})  # fmt: skip
LARGEST = 1 << 30
"""Bytes of inputs beyond which clients are read when they are needed."""


def from_image_folder(
    path: str | Path,
    *,
    color: Literal["gray", "rgb"] | None = None,
    size: Sequence[int] | None = None,
    test_fraction: float = 0.0,
    unseen: Sequence[str] = (),
    min_examples: int = 1,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    lazy: bool | None = None,
    name: str | None = None,
    attribution: str = "",
) -> Federation:
    """Read images from `path/client/class/image.png`.

    Where the folders in `path` are "train" and "test" or "unseen", clients' folders lie in those:
    `path/train/client/class/image.png`.

    Args:
        path: the folder. Files whose names begin with a dot are no images of it.
        color: "gray" or "rgb", to convert all images; None: as the first, and all must be so.
        size: height and width, to resize all images (bilinear, not keeping their proportions);
            None: as the first, and all must be so.
        test_fraction: the part of each client's images that it keeps as `test`, chosen at random;
            0: none.
        unseen: clients that never train.
        min_examples: training clients with fewer images are left out.
        classes: the names of the classes' folders in the order of their labels; None: sorted.
        seed: another seed, other images in `test`.
        lazy: whether a client's images are read whenever they are needed; None: only if all
            together would take more than 1 GiB.
        name: what to call the federation; None: as the folder.
        attribution: whom the data comes from.

    Returns:
        x: float32 [channels, height, width] in 0 to 1, turned as the camera was held; y: labels.

    Raises:
        DataError: Pillow is not installed, the folder has another layout, an image is damaged or
            unlike the others (with `lazy`: when it is read), or clients cannot be divided so.
    """
    needed("PIL.Image", "images", "an image")
    check_task(None, classes)
    root = Path(path)
    found = _images(root)
    clients = sorted({image.client for image in found})
    labels = sorted({image.label for image in found})
    division = divide(
        _numbered([image.client for image in found], clients),
        clients,
        split=_splits(found),
        unseen=unseen,
        test_fraction=test_fraction,
        min_examples=min_examples,
        seed=seed,
    )
    y, named = labels_of_texts(
        _numbered([image.label for image in found], labels),
        labels,
        column="the folders of classes",
        classes=classes,
    )
    files = [image.file for image in found]
    form = form_of(_opened(files[0]), str(files[0]), color, size)

    def load(rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        x = np.empty((len(rows), *form.shape), np.float32)
        for place, row in enumerate(rows):
            x[place] = _read(files[row], form)
        return {"x": x, "y": y[rows]}

    about = (named, root.resolve().name if name is None else name, attribution)
    needs = len(division.order) * int(np.prod(form.shape)) * 4
    if lazy or (lazy is None and needs > LARGEST):
        return division.lazy(load, *about)
    fields = load(division.order)
    return division.packed({k: torch.from_numpy(v) for k, v in fields.items()}, *about)


@dataclass(frozen=True)
class _Found:
    file: Path
    client: str
    label: str
    split: str | None


def _images(root: Path) -> list[_Found]:
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder",
            why="images are read from its folders",
            instead=_LAYOUT,
        )
    top = _folders(root)
    names = {folder.name for folder in top}
    divided = "train" in names and names <= set(SPLITS)
    places = [(folder, folder.name) for folder in top] if divided else [(root, None)]
    found: list[_Found] = []
    for place, split in places:
        for client in _folders(place):
            before = len(found)
            for label in _folders(client):
                found += [_Found(f, client.name, label.name, split) for f in _files(label)]
            if len(found) == before:
                raise DataError(
                    f"{client} has no images in folders of classes",
                    why="the name of an image's folder is its label, and a client has an example",
                    instead=_LAYOUT,
                )
    if not found:
        raise DataError(
            f"{root} has no folders of clients",
            why="an image's client and label are the names of its folders",
            instead=_LAYOUT,
        )
    return found


_LAYOUT = "path/client/class/image.png, or path/train/client/class/image.png and path/test/…"


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder; an image that lies there too has no label, or no client."""
    found = []
    for entry in _visible(folder):
        if entry.is_dir():
            found.append(entry)
        elif entry.suffix.lower() in IMAGES:
            raise DataError(
                f"the image {entry} lies beside folders",
                why="an image's client and label are the names of its folders",
                instead=_LAYOUT,
            )
    return found


def _files(folder: Path) -> Iterator[Path]:
    for entry in _visible(folder):
        if entry.is_dir() or entry.suffix.lower() not in IMAGES:
            raise DataError(
                f"{entry} is no image",
                why=f"the folder of a class holds images ({', '.join(sorted(IMAGES))})",
                instead="take it out of there" + (f"; {_LAYOUT}" if entry.is_dir() else ""),
            )
        yield entry


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _numbered(texts: Sequence[str], values: Sequence[str]) -> NDArray[np.int64]:
    number = {value: n for n, value in enumerate(values)}
    return np.fromiter((number[text] for text in texts), np.int64, len(texts))


def _splits(found: Sequence[_Found]) -> NDArray[np.int8] | None:
    if found[0].split is None:
        return None
    return np.array([SPLITS.index(str(image.split)) for image in found], np.int8)


def _opened(file: Path) -> Any:  # noqa: ANN401 - Pillow is optional
    module = needed("PIL.Image", "images", "an image")
    try:
        with module.open(file) as image:
            return upright(image)
    # Pillow raises these, and others of its own, for what is damaged.
    except (OSError, SyntaxError, ValueError, module.DecompressionBombError) as error:
        raise DataError(
            f"{file} cannot be read: {error}",
            why="it is damaged, or no image of the kind that its name says",
            instead="replace the file, or take it away",
        ) from error


def _read(file: Path, form: Form) -> NDArray[np.float32]:
    return pixels(_opened(file), form, str(file))
