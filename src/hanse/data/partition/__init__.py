"""Split a data set that lies in one place into clients, as simulations do.

A partition is a list of K index arrays; every example appears in exactly one of them. It depends
on its arguments and an integer seed only.
"""

from hanse.data.partition.by_label import dirichlet, labels_per_client, shards
from hanse.data.partition.by_size import iid, lognormal, natural, quantity
from hanse.data.partition.checks import Labels, shuffled
from hanse.data.partition.scheme import Scheme, split

__all__ = [
    "Labels",
    "Scheme",
    "dirichlet",
    "iid",
    "labels_per_client",
    "lognormal",
    "natural",
    "quantity",
    "shards",
    "shuffled",
    "split",
]
