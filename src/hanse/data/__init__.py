"""Data of a federation: clients, partitions, batches, and where data sets come from."""

from hanse.data.arrays import federation_from_arrays, from_npz_folder
from hanse.data.batching import Batch, Epochs, FullGradient, Pass, Plan, Steps, plan, steps
from hanse.data.feature_skew import noise_by_client, rotate_by_client
from hanse.data.federation import (
    Block,
    ClientData,
    Federation,
    LazyClients,
    MappedClients,
    PackedClients,
    SharedClients,
    map_inputs,
    pooled,
    select_clients,
    to_dtype,
)
from hanse.data.partition import (
    dirichlet,
    iid,
    labels_per_client,
    lognormal,
    natural,
    quantity,
    shards,
    split,
)
from hanse.data.partitioned import partitioned
from hanse.data.poisson import PoissonSteps
from hanse.data.sharing import set_aside, share
from hanse.data.skew import Skew, label_counts, skew
from hanse.data.sources.benchmarks import idx_federation
from hanse.data.sources.digits import digits
from hanse.data.sources.fetch import data_directory, fetch
from hanse.data.sources.huggingface import from_huggingface
from hanse.data.sources.idx import read_idx
from hanse.data.sources.image_folder import from_image_folder
from hanse.data.sources.leaf import from_leaf
from hanse.data.sources.shakespeare import shakespeare
from hanse.data.sources.synthetic import synthetic
from hanse.data.sources.table import from_table
from hanse.data.sources.torch_datasets import from_torch
from hanse.data.sources.watch import watch
from hanse.data.statistics import (
    FeatureStatistics,
    client_statistics,
    federated_statistics,
    standardise,
)

__all__ = [
    "Batch",
    "Block",
    "ClientData",
    "Epochs",
    "FeatureStatistics",
    "Federation",
    "FullGradient",
    "LazyClients",
    "MappedClients",
    "PackedClients",
    "Pass",
    "Plan",
    "PoissonSteps",
    "SharedClients",
    "Skew",
    "Steps",
    "client_statistics",
    "data_directory",
    "digits",
    "dirichlet",
    "federated_statistics",
    "federation_from_arrays",
    "fetch",
    "from_huggingface",
    "from_image_folder",
    "from_leaf",
    "from_npz_folder",
    "from_table",
    "from_torch",
    "idx_federation",
    "iid",
    "label_counts",
    "labels_per_client",
    "lognormal",
    "map_inputs",
    "natural",
    "noise_by_client",
    "partitioned",
    "plan",
    "pooled",
    "quantity",
    "read_idx",
    "rotate_by_client",
    "select_clients",
    "set_aside",
    "shakespeare",
    "shards",
    "share",
    "skew",
    "split",
    "standardise",
    "steps",
    "synthetic",
    "to_dtype",
    "watch",
]
