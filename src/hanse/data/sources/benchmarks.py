"""Federations from benchmark data sets in IDX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hanse.core.errors import DataError
from hanse.data.federation import Federation, map_inputs
from hanse.data.partition import Scheme, split
from hanse.data.partitioned import partitioned
from hanse.data.sharing import set_aside, share
from hanse.data.sources.catalogue import BENCHMARKS, FILES, Benchmark
from hanse.data.sources.fetch import canonical, data_directory
from hanse.data.sources.idx import read_idx

if TYPE_CHECKING:
    from numpy.typing import NDArray


def idx_federation(
    dataset: str | Path,
    clients: int,
    partition: Scheme = "iid",
    *,
    seed: int = 0,
    alpha: float = 0.5,
    min_size: int = 1,
    shards_per_client: int = 2,
    labels_per_client: int = 2,
    sigma: float = 1.0,
    test_fraction: float = 0.0,
    directory: str | Path | None = None,
    public: float = 0.0,
    public_portion: float = 1.0,
) -> Federation:
    """Split a benchmark's training images over clients; its test images are `unseen`.

    Args:
        dataset: "mnist", "fashion-mnist" or "cifar-10" once fetched, or a folder with four IDX
            files named as theirs, gzipped or not.
        clients: K.
        partition: "iid", "dirichlet", "shards", "labels", "quantity" or "lognormal"; see
            `hanse.data.partition`.
        seed: another seed, another partition.
        alpha: of "dirichlet" and "quantity".
        min_size: of "dirichlet", "quantity" and "lognormal"; 0: clients may have no examples.
        shards_per_client: of "shards".
        labels_per_client: of "labels".
        sigma: of "lognormal".
        test_fraction: the part of its own examples that each client keeps as `test`; 0: none.
        directory: where data sets are kept; None: $HANSE_DATA, or `hanse` in the user's cache.
        public: the part of the training images, as many of each class, that no client owns and
            every client trains on; see `hanse.data.share`. 0: none.
        public_portion: the part of those that each client draws.

    Returns:
        x: float32 [1, 28, 28] in 0 to 1 (CIFAR-10: [3, 32, 32]; else as the folder's images are);
        `unseen` is one client, "test set".

    Raises:
        DataError: if the data set is not there, is damaged, or cannot be split so.
    """
    benchmark = _images_named(dataset)
    folder = data_directory(directory) / str(dataset) if benchmark else Path(dataset)
    images, labels, test_images, test_labels = (_read(folder, dataset, name) for name in FILES)
    for pixels, of in ((images, labels), (test_images, test_labels)):
        if pixels.ndim not in {3, 4} or of.ndim != 1 or len(pixels) != len(of):
            raise DataError(
                f"{folder} has images {list(pixels.shape)} and labels {list(of.shape)}",
                why="images are [N, height, width] or [N, channels, height, width], and each has "
                "one label",
                instead="check that the four files belong together",
            )
    if not public and public_portion != 1.0:
        raise DataError(
            f"public_portion={public_portion}, and no public examples",
            why="it is the part of them that each client draws",
            instead="public=0.05 beside it, or none of the two",
        )
    shared, rest = set_aside(labels, public, seed) if public else (None, np.arange(len(labels)))
    how_many = int(max(labels.max(), test_labels.max())) + 1
    federation = partitioned(
        _channels(images),
        labels,
        [
            rest[part]
            for part in split(
                labels[rest],
                clients,
                partition,
                seed=seed,
                alpha=alpha,
                min_size=min_size,
                shards_per_client=shards_per_client,
                labels_per_client=labels_per_client,
                sigma=sigma,
            )
        ],
        holdout=(_channels(test_images), test_labels),
        test_fraction=test_fraction,
        seed=seed,
        classes=benchmark.classes if benchmark else [str(c) for c in range(how_many)],
        name=str(dataset) if benchmark else folder.resolve().name,
        attribution=benchmark.attribution if benchmark else "",
        may_be_empty=min_size == 0,
    )
    if shared is not None:
        examples = {"x": images[shared][:, None], "y": labels[shared]}
        federation = share(federation, examples, portion=public_portion, seed=seed)
    return map_inputs(federation, _to_unit)


def _images_named(dataset: str | Path) -> Benchmark | None:
    """The benchmark of this name, if it is one of labelled images."""
    found = BENCHMARKS.get(str(dataset))
    return found if found is not None and found.classes else None


def _channels(images: NDArray[Any]) -> NDArray[Any]:
    return images[:, None] if images.ndim == 3 else images


def _to_unit(pixels: Tensor) -> Tensor:
    if pixels.dtype != torch.uint8:
        return pixels.to(torch.float32)
    return pixels.to(torch.float32).div_(255)


def _read(folder: Path, dataset: str | Path, name: str) -> NDArray[Any]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [file for file in files if canonical(file.name) == name]
    if not found:
        fetched = _images_named(dataset) is not None
        raise DataError(
            f"{folder} lacks {name}" if files else f"there is no data set in {folder}",
            why="benchmarks do not come with Hanse; each is fetched once"
            if fetched
            else "a data set is a folder with the four IDX files",
            instead=f"hanse data fetch {dataset}"
            if fetched
            else f"name the folder with {', '.join(FILES)}",
        )
    return read_idx(found[0])
