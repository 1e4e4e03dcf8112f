"""Named strategies: each a short file that puts parts together."""

from hanse.strategies.compressed_fedavg import compressed_fedavg
from hanse.strategies.dp_fedavg import dp_fedavg
from hanse.strategies.dp_ftrl import dp_ftrl
from hanse.strategies.dp_sgd import dp_sgd
from hanse.strategies.fedavg import fedavg
from hanse.strategies.fedavg_secagg import fedavg_secagg
from hanse.strategies.feddyn import feddyn
from hanse.strategies.fednova import fednova
from hanse.strategies.fedprox import fedprox
from hanse.strategies.fedsgd import fedsgd
from hanse.strategies.fedsgd_secagg import fedsgd_secagg
from hanse.strategies.fedsgd_topk import fedsgd_topk
from hanse.strategies.ldp_fedavg import ldp_fedavg
from hanse.strategies.mimelite import mimelite
from hanse.strategies.scaffold import scaffold

__all__ = [
    "compressed_fedavg",
    "dp_fedavg",
    "dp_ftrl",
    "dp_sgd",
    "fedavg",
    "fedavg_secagg",
    "feddyn",
    "fednova",
    "fedprox",
    "fedsgd",
    "fedsgd_secagg",
    "fedsgd_topk",
    "ldp_fedavg",
    "mimelite",
    "scaffold",
]
