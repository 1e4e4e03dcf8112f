"""How different clients are: sizes and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hanse.data.packing import rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.data.clients import ClientData

_AT_ONCE = 1000


@dataclass(frozen=True)
class Skew:
    """Numbers that tell how far clients are from each having a fair sample of the whole.

    Attributes:
        clients: how many clients there are.
        examples: how many examples they have together.
        smallest: examples of the smallest client.
        median: the median number of examples.
        largest: examples of the largest client.
        empty: how many clients have no examples; the means over clients leave them out.
        global_entropy: of all clients' labels together, in bits; log2 C if balanced.
        mean_entropy: the mean over clients of the entropy of a client's labels, in bits; 0 if
            every client has a single label.
        mean_total_variation: the mean over clients of half the sum of differences between the
            client's shares of labels and the whole's, 0 to 1: the part of a client's examples
            that would need another label to look like the whole.
        mean_jensen_shannon: the mean over clients of the Jensen-Shannon divergence between the
            two, in bits, 0 to 1.

    The last four are None where there are no labels.
    """

    clients: int
    examples: int
    smallest: int
    median: float
    largest: int
    empty: int = 0
    global_entropy: float | None = None
    mean_entropy: float | None = None
    mean_total_variation: float | None = None
    mean_jensen_shannon: float | None = None


def label_counts(data: ClientData, classes: int) -> NDArray[np.int64]:
    """How many examples of each label each client has: [K, C].

    Reads all clients, a thousand at a time.
    """
    counts = np.zeros((len(data), classes), np.int64)
    for first in range(0, len(data), _AT_ONCE):
        ids = np.arange(first, min(first + _AT_ONCE, len(data)))
        fields, starts, sizes = data.block(ids)
        labels = fields["y"].numpy()[rows_of(starts, sizes)]
        owners = np.repeat(ids, sizes)
        np.add.at(counts, (owners.reshape(-1, *[1] * (labels.ndim - 1)), labels), 1)
    return counts


def skew(data: ClientData, classes: int | None = None) -> Skew:
    """Measure sizes and, with `classes`, labels.

    Args:
        data: all clients are read if `classes` is given.
        classes: the number of classes; None: sizes only.
    """
    sizes = data.sizes(np.arange(len(data)))
    measured = (
        len(data),
        int(sizes.sum()),
        int(sizes.min()),
        float(np.median(sizes)),
        int(sizes.max()),
        int((sizes == 0).sum()),
    )
    if classes is None:
        return Skew(*measured)
    counts = label_counts(data, classes)
    counts = counts[counts.sum(axis=1) > 0]
    own = counts / counts.sum(axis=1, keepdims=True)
    whole = counts.sum(axis=0) / counts.sum()
    halfway = entropy((own + whole) / 2)
    jensen_shannon = np.maximum(halfway - (entropy(own) + entropy(whole)) / 2, 0.0)
    return Skew(
        *measured,
        global_entropy=float(entropy(whole)),
        mean_entropy=float(entropy(own).mean()),
        mean_total_variation=float(np.abs(own - whole).sum(axis=1).mean() / 2),
        mean_jensen_shannon=float(jensen_shannon.mean()),
    )


def entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The entropy in bits of distributions along the last axis; 0 log 0 is 0."""
    logs = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    return np.asarray(np.abs((shares * logs).sum(axis=-1)))
