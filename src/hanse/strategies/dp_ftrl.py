"""DP-FTRL: differential privacy of clients by noise that cancels over rounds, without sampling.

Kairouz, McMahan, Song, Thakkar, Thakurta and Xu, "Practical and private (deep) learning without
sampling or shuffling", ICML 2021; the square-root matrix: Fichtenberger, Henzinger and Upadhyay,
"Constant matters", ICML 2023, and Kalinin and Lampert, "Banded square root matrix factorization for
differentially private model training", NeurIPS 2024.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hanse.core.errors import StrategyError
from hanse.data.batching import Epochs
from hanse.layers import ClientDP
from hanse.local import SGD, LocalSGD, ProximalSGD
from hanse.privacy import BinaryTree, Toeplitz
from hanse.server import ServerSGD
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from hanse.core.types import ServerOptimizer
    from hanse.local import Schedule
    from hanse.privacy import Correlation


def dp_ftrl(
    *,
    rounds: int,
    lr: float | Schedule = 0.1,
    clip: float = 0.5,
    noise_multiplier: float = 4.0,
    matrix: Literal["toeplitz", "tree"] = "toeplitz",
    bands: int | None = None,
    clipping: Literal["flat", "per-layer"] = "flat",
    noise: Literal["seeded", "os"] = "seeded",
    mu: float = 0.0,
    local_epochs: int = 1,
    batch_size: int | None = 10,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    server: ServerOptimizer = ServerSGD(0.1, momentum=0.9),
) -> Strategy:
    """Each client's update is clipped; the noise of a round is partly taken back in later ones.

    It is meant for many clients that take turns (`Separated`), and for where nobody can promise
    that cohorts are drawn at random and kept secret. Every client counts the same.

    Args:
        rounds: for how many rounds the noise is made; a run may have fewer, and no more.
        lr: the clients' learning rate, or a schedule by round.
        clip: the largest norm of an update.
        noise_multiplier: the standard deviation of the independent noise that all rounds' noise is
            made of, divided by the clip norm. All rounds together cost one Gaussian release of
            `noise_multiplier / hanse.privacy.sensitivity(…)`.
        matrix: `"toeplitz"`: the square root of the prefix sums' matrix, the least noise;
            `"tree"`: the binary tree, with fewer vectors at the server.
        bands: diagonals of the Toeplitz matrix; `None`: all. The server keeps one vector less.
        clipping: one norm for the whole update, or the same for each tensor of it.
        noise: from the run's seed, for experiments, or from the operating system, to protect.
        mu: how strongly clients are held near the global model, as in FedProx.
        local_epochs: epochs over the client's data in a round.
        batch_size: examples in a local batch; `None`: all the client's data at once.
        momentum: of the local SGD, from zero in each round.
        weight_decay: of the local SGD.
        server: what is done with the noisy means. Momentum is DP-FTRLM's: a rate of
            `1 - momentum` goes as far as the mean of the clients' models.

    Raises:
        StrategyError: a number that cannot be meant.
    """
    if matrix not in ("toeplitz", "tree") or (matrix == "tree" and bands is not None):
        raise StrategyError(
            f"dp_ftrl with matrix={matrix!r} and bands={bands!r}",
            why="noise is correlated by a Toeplitz matrix, which may be banded, or by a tree",
            instead='matrix="toeplitz", or matrix="tree" without bands',
        )
    correlation: Correlation = BinaryTree(rounds) if matrix == "tree" else Toeplitz(rounds, bands)
    optimizer, work = SGD(lr, momentum, weight_decay), Epochs(local_epochs, batch_size)
    local = ProximalSGD(optimizer, work, mu) if mu else LocalSGD(optimizer, work)
    layer = ClientDP(clip, noise_multiplier, clipping, noise=noise, correlation=correlation)
    return Strategy(local, layers=(layer,), server=server, name="dp_ftrl")
