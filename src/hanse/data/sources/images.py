"""Images as numbers: one size and one number of channels for all, and nothing guessed twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hanse.core.errors import DataError
from hanse.data.sources.extras import needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Color = Literal["gray", "rgb"]

_COLORS: dict[str, Color] = {"1": "gray", "L": "gray", "RGB": "rgb", "I;16": "gray"}
"""What modes of Pillow are, where it needs no decision."""


@dataclass(frozen=True)
class Form:
    """What all images of a data set have in common.

    Attributes:
        color: "gray", one channel, or "rgb", three.
        size: height and width in pixels.
        asked: whether images of another color are converted.
        resized: whether images of another size are resized.
    """

    color: Color
    size: tuple[int, int]
    asked: bool
    resized: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image: channels, height, width."""
        return (1 if self.color == "gray" else 3, *self.size)


def form_of(
    image: Any,  # noqa: ANN401 - Pillow is optional
    where: str,
    color: Color | None,
    size: Sequence[int] | None,
) -> Form:
    """The form that all images shall have, from the first of them.

    Args:
        image: the first, a `PIL.Image.Image`.
        where: which one it is, for messages.
        color: "gray" or "rgb", to convert all images; None: as the first.
        size: height and width, to resize all images; None: as the first.

    Raises:
        DataError: color or size mean nothing, or the first image has channels that are neither.
    """
    if color not in (None, "gray", "rgb"):
        raise DataError(
            f"color = {color!r}", why="images have one channel or three", instead="'gray' or 'rgb'"
        )
    if size is not None and not _is_size(size):
        raise DataError(
            f"size = {size!r}",
            why="it is the height and the width of images in pixels",
            instead="size = [32, 32]",
        )
    height, width = (image.height, image.width) if size is None else size
    own = _COLORS.get(image.mode)
    if own is None and color is None:
        raise _undecided(image.mode, where)
    return Form(
        color or own or "rgb", (height, width), asked=color is not None, resized=size is not None
    )


def upright(image: Any) -> Any:  # noqa: ANN401 - Pillow is optional
    """The image turned as its camera says that it was held."""
    return needed("PIL.ImageOps", "images", "an image").exif_transpose(image)


def pixels(image: Any, form: Form, where: str) -> NDArray[np.float32]:  # noqa: ANN401 - as above
    """An image as numbers from 0 to 1, float32 [channels, height, width].

    Args:
        image: a `PIL.Image.Image`, upright.
        form: what all images have in common.
        where: which one it is, for messages.

    Raises:
        DataError: it has another color or size than the others, and is not to be converted.
    """
    own = _COLORS.get(image.mode)
    if own != form.color and not form.asked:
        raise (
            _undecided(image.mode, where)
            if own is None
            else DataError(
                f"{where} is {own}, the first image is {form.color}",
                why="all images have as many channels",
                instead="color = 'gray' or color = 'rgb', to convert those that are not",
            )
        )
    if (image.height, image.width) != form.size and not form.resized:
        raise DataError(
            f"{where} has {image.height} × {image.width} pixels, the first image has "
            f"{form.size[0]} × {form.size[1]}",
            why="all inputs have one shape",
            instead=f"size = {list(form.size)} to resize all images",
        )
    deep = image.mode == "I;16"
    if deep:  # Pillow's conversions would cut it off at 255
        values = np.asarray(image).astype(np.float32) / np.float32(65535)
        channels = [values] * form.shape[0]
    else:
        converted = image.convert("L" if form.color == "gray" else "RGB")
        values = np.asarray(converted, np.float32) / np.float32(255)
        channels = [values] if values.ndim == 2 else list(np.moveaxis(values, 2, 0))
    if values.shape[:2] != form.size:
        channels = [_resized(channel, form.size) for channel in channels]
    return np.stack(channels)


def _resized(channel: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    module = needed("PIL.Image", "images", "an image")
    image = module.fromarray(np.ascontiguousarray(channel))
    return np.asarray(image.resize((size[1], size[0]), module.Resampling.BILINEAR), np.float32)


def _is_size(size: object) -> bool:
    return (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size)
    )


def _undecided(mode: str, where: str) -> DataError:
    return DataError(
        f"{where} has the mode {mode!r}",
        why="it is neither gray (one channel) nor RGB (three), and a conversion may lose something",
        instead="color = 'rgb' or color = 'gray', to convert all images",
    )
