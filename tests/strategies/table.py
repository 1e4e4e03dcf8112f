"""One table of strategies: what must hold for all of them is tested for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hanse.aggregation import Assumptions, SecureSum
from hanse.compression import HalfPrecision, Quantize, RandomK, Sign, TopK
from hanse.data import PoissonSteps, Steps
from hanse.layers import (
    AdaptiveClip,
    ClientDP,
    Compress,
    DistributedDP,
    ErrorFeedback,
    LocalDP,
    Normalized,
    Weighted,
)
from hanse.local import (
    SGD,
    AdaptiveMu,
    CosineDecay,
    DynamicSGD,
    ExponentialDecay,
    FullGradientStep,
    LocalSGD,
    MimeSGD,
    ProximalSGD,
    ScaffoldSGD,
    StepDecay,
)
from hanse.privacy import BinaryTree, ExampleDP, Toeplitz
from hanse.selection import Separated, Uniform
from hanse.server import ServerAdagrad, ServerAdam, ServerSGD, ServerYogi
from hanse.strategies import (
    compressed_fedavg,
    dp_fedavg,
    dp_ftrl,
    dp_sgd,
    fedavg,
    fedavg_secagg,
    feddyn,
    fednova,
    fedprox,
    fedsgd,
    fedsgd_secagg,
    fedsgd_topk,
    ldp_fedavg,
    mimelite,
    scaffold,
)
from hanse.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hanse.selection import Participation

_POISSON = PoissonSteps(0.4, 3)
_EXAMPLES = ExampleDP(0.5, 0.5, 4.0)

TABLE: dict[str, Strategy] = {
    "fedavg": fedavg(),
    "fedavg-momentum-decay-cosine": fedavg(
        lr=CosineDecay(0.1, rounds=10),
        local_epochs=2,
        batch_size=8,
        momentum=0.9,
        weight_decay=0.01,
    ),
    "fedavg-uniform": fedavg(weighting="uniform"),
    "fedavg-whole-batch": fedavg(batch_size=None, local_epochs=2),
    "fedavg-steps": Strategy(LocalSGD(SGD(0.1), Steps(3, 4))),
    "fedavg-unweighted-sum": Strategy(LocalSGD(SGD(0.1)), layers=(), server=ServerSGD(0.1)),
    "fedavg-server-rate": fedavg(server=ServerSGD(StepDecay(0.7, every=1))),
    "fedavg-server-momentum": fedavg(server=ServerSGD(0.5, momentum=0.9)),
    "fedadam": fedavg(server=ServerAdam(0.05)),
    "fedyogi": fedavg(server=ServerYogi(0.05)),
    "fedadagrad": fedavg(server=ServerAdagrad(0.05)),
    "fedsgd": fedsgd(lr=0.5),
    "fedsgd-uniform-chunks": fedsgd(lr=0.5, weighting="uniform", chunk=16),
    "fedsgd-adam": fedsgd(server=ServerAdam(0.05, tau=0.01)),
    "fedprox": fedprox(mu=0.5, local_epochs=2),
    "fedprox-momentum-decay": fedprox(mu=0.5, momentum=0.9, weight_decay=0.01),
    "fedprox-server-yogi": fedprox(mu=0.5, server=ServerYogi(0.05)),
    "fedprox-steps": Strategy(ProximalSGD(SGD(0.1), Steps(3, 4), mu=1.0), (Weighted("uniform"),)),
    "scaffold-1": scaffold(option=1),
    "scaffold-2": scaffold(option=2, local_epochs=2),
    "scaffold-1-momentum": scaffold(option=1, momentum=0.9),
    "scaffold-2-examples": scaffold(weighting="examples"),
    "scaffold-2-adam": scaffold(server=ServerAdam(0.05)),
    "scaffold-2-decay": scaffold(lr=ExponentialDecay(0.1, 0.9), weight_decay=0.01),
    "scaffold-1-whole-batch": scaffold(option=1, batch_size=None, local_epochs=2),
    "scaffold-2-steps": Strategy(ScaffoldSGD(SGD(0.1), Steps(3, 4)), (Weighted("uniform"),)),
    "scaffold-1-chunks": Strategy(
        ScaffoldSGD(SGD(0.1), Steps(3, 4), 1, 16), (Weighted("uniform"),)
    ),
    "scaffold-2-normalized": Strategy(ScaffoldSGD(), (Normalized(), Weighted("uniform"))),
    "fednova": fednova(local_epochs=2, batch_size=4),
    "fednova-momentum-decay": fednova(
        lr=ExponentialDecay(0.1, 0.9), mu=0.5, momentum=0.9, weight_decay=0.01, weighting="uniform"
    ),
    "fednova-adam": fednova(server=ServerAdam(0.05)),
    "fednova-adaptive-mu": fedprox(mu=AdaptiveMu(0.5, patience=1)).replace(
        layers=(Normalized(), Weighted("examples"))
    ),
    "fedprox-adaptive": fedprox(lr=0.3, mu=AdaptiveMu(0.5, patience=1), momentum=0.5),
    "feddyn": feddyn(local_epochs=2),
    "feddyn-momentum-decay-cosine": feddyn(
        lr=CosineDecay(0.1, rounds=10), alpha=0.5, momentum=0.5, weight_decay=0.01
    ),
    "feddyn-adam": feddyn(server=ServerAdam(0.05)),
    "dp-fedavg": dp_fedavg(clip=0.3, noise_multiplier=0.5, local_epochs=2),
    "dp-fedavg-adaptive": dp_fedavg(
        clip=AdaptiveClip(0.2, count_noise=2.0), noise_multiplier=0.7, server=ServerAdam(0.05)
    ),
    "dp-fedavg-per-layer-prox": dp_fedavg(clip=0.3, clipping="per-layer", mu=0.5, momentum=0.5),
    "dp-fedsgd": fedsgd(lr=0.5).replace(layers=(ClientDP(0.3),)),
    "dp-scaffold": scaffold().replace(layers=(ClientDP(0.3, side_scale=0.1),)),
    "dp-fednova-yogi": fednova(server=ServerYogi(0.05)).replace(
        layers=(Normalized(4.0), ClientDP(0.3))
    ),
    "dp-mimelite": mimelite().replace(layers=(ClientDP(0.3),)),
    "fedavg-secagg": fedavg_secagg(secure=SecureSum(most_examples=64)),
    "fedavg-secagg-uniform-prox-real": fedavg_secagg(mu=0.5, secure=SecureSum(protocol="real")),
    "fedsgd-secagg-adam": fedsgd_secagg(server=ServerAdam(0.05)),
    "scaffold-secagg-dropouts": scaffold().replace(
        aggregation=SecureSum(drops=0.1, assumptions=Assumptions(corrupt=0.1))
    ),
    "fednova-secagg": fednova(local_epochs=2, batch_size=4).replace(
        aggregation=SecureSum(most_examples=64)
    ),
    "fedprox-adaptive-secagg": fedprox(lr=0.3, mu=AdaptiveMu(0.5, patience=1)).replace(
        aggregation=SecureSum(most_examples=64)
    ),
    "fedavg-secagg-random-k-8": fedavg_secagg().then(
        Compress(RandomK(0.5) >> Quantize(8, limit=0.5))
    ),
    "fedsgd-secagg-feedback": fedsgd_secagg(lr=0.5).replace(
        layers=(ErrorFeedback(RandomK(0.5, unbiased=False)), Weighted("uniform"))
    ),
    "dp-fedavg-secagg": dp_fedavg(clip=0.3, noise_multiplier=0.5).replace(aggregation=SecureSum()),
    "distributed-dp": fedavg_secagg(privacy=DistributedDP(0.3, 0.5, survivors=3)),
    "distributed-dp-scaffold": scaffold().replace(
        layers=(DistributedDP(0.3, 0.5, survivors=3, side_scale=0.1, clipping="per-layer"),),
        aggregation=SecureSum(),
    ),
    "distributed-dp-fedsgd-yogi": fedsgd_secagg(
        server=ServerYogi(0.05), privacy=DistributedDP(0.3, 0.5, survivors=3, colluders=1)
    ),
    "dp-ftrl": dp_ftrl(rounds=9, clip=0.3, noise_multiplier=0.5, local_epochs=2),
    "dp-ftrl-bands-prox-adam": dp_ftrl(
        rounds=9, bands=3, clip=0.3, noise_multiplier=0.5, mu=0.5, server=ServerAdam(0.05)
    ),
    "dp-ftrl-tree-per-layer": dp_ftrl(
        rounds=6, matrix="tree", clip=0.3, noise_multiplier=0.5, clipping="per-layer"
    ),
    "dp-ftrl-sgd": fedsgd(lr=0.5).replace(
        layers=(ClientDP(0.3, 0.5, correlation=Toeplitz(6, bands=2)),)
    ),
    "dp-ftrl-fednova": fednova().replace(
        layers=(Normalized(4.0), ClientDP(0.3, 0.5, correlation=BinaryTree(7)))
    ),
    "ldp-fedavg": ldp_fedavg(clip=0.3, noise_multiplier=0.5, local_epochs=2),
    "ldp-fedprox-yogi": ldp_fedavg(clip=0.3, noise_multiplier=0.5, mu=0.5, server=ServerYogi(0.05)),
    "ldp-scaffold": scaffold().replace(layers=(LocalDP(0.3, 0.5, side_scale=0.1),)),
    "ldp-fedavg-secagg": ldp_fedavg(clip=0.3, noise_multiplier=0.5).replace(
        aggregation=SecureSum()
    ),
    "ldp-fednova": fednova().replace(layers=(Normalized(4.0), LocalDP(0.3, 0.5))),
    "dp-sgd": dp_sgd(clip=0.5, noise_multiplier=0.5, rate=0.4, steps=3, divisor=4.0),
    "dp-sgd-prox-momentum-adam": dp_sgd(
        noise_multiplier=0.3,
        rate=0.5,
        steps=4,
        mu=0.5,
        momentum=0.5,
        weight_decay=0.01,
        server=ServerAdam(0.05),
    ),
    "dp-sgd-exact": dp_sgd(rate=0.3, steps=2, exact=True),
    "dp-scaffold-of-examples": Strategy(
        ScaffoldSGD(SGD(0.1), _POISSON), (Weighted("uniform"),), examples=_EXAMPLES
    ),
    "dp-fednova-of-examples": Strategy(
        LocalSGD(SGD(0.1), _POISSON), (Normalized(), Weighted("uniform")), examples=_EXAMPLES
    ),
    "dp-feddyn-of-examples": Strategy(
        DynamicSGD(SGD(0.1), _POISSON), (Weighted("uniform"),), examples=_EXAMPLES
    ),
    "dp-fedsgd-of-examples": Strategy(
        FullGradientStep(PoissonSteps(1.0, 1)),
        (Weighted("uniform"),),
        server=ServerSGD(0.5),
        name="fedsgd",
        examples=_EXAMPLES,
    ),
    "fedavg-poisson": Strategy(LocalSGD(SGD(0.1), _POISSON)),
    "mimelite": mimelite(local_epochs=2),
    "mimelite-adam": mimelite(lr=0.02, beta2=0.9, tau=0.1, weight_decay=0.01),
    "mimelite-chunks": Strategy(
        MimeSGD(SGD(0.1), Steps(3, 4), beta1=0.0, beta2=0.5, tau=0.1, gradient_chunk=16),
        (Weighted("uniform"),),
    ),
    "compressed-fedavg": compressed_fedavg(),
    "compressed-fedavg-top-feedback-broadcast": compressed_fedavg(
        fraction=0.2, bits=4, error_feedback=True, broadcast_bits=8
    ),
    "compressed-fedavg-random-rotated": compressed_fedavg(
        fraction=0.5, choose="random", rotate=True, bits=6, momentum=0.9
    ),
    "fedsgd-topk": fedsgd_topk(lr=0.5, fraction=0.2),
    "fedsgd-topk-8-bits-adam": fedsgd_topk(fraction=0.3, bits=8, server=ServerAdam(0.05, tau=0.01)),
    "scaffold-2-signs": scaffold().replace(
        layers=(ErrorFeedback(Sign(), ("delta", "control")), Weighted("uniform"))
    ),
    "mimelite-half": mimelite().replace(
        layers=(Compress(HalfPrecision(), ("delta", "gradient")), Weighted("examples"))
    ),
    "dp-fedavg-random-coordinates": dp_fedavg().replace(
        layers=(Compress(RandomK(0.5)), ClientDP(0.3, 0.5))
    ),
    "dp-fedavg-top-feedback": dp_fedavg().replace(
        layers=(ErrorFeedback(TopK(0.5) >> Quantize(8, "nearest")), ClientDP(0.3, 0.5))
    ),
}


def participation(name: str, count: int = 3) -> Participation:
    """Whom a strategy may choose of eleven: those with correlated noise need turns."""
    last = TABLE[name].layers[-1:]
    turns = any(isinstance(part, ClientDP) and part.correlation for part in last)
    return Separated(11 // count) if turns else Uniform(count=count)


ON_CARDS = [name for name, strategy in TABLE.items() if strategy.examples is None]
"""The strategies that a graphics card is allowed for."""


def with_one_of(cases: Sequence[tuple[Any, ...]], names: Sequence[str] = tuple(TABLE)) -> list[Any]:
    """Every strategy with one of the cases, by turns; with the others too in the slow suite.

    Neither would a case be left out by the fast suite, nor a strategy.
    """
    return [
        pytest.param(name, *case, marks=() if at % len(cases) == turn else pytest.mark.slow)
        for at, name in enumerate(names)
        for turn, case in enumerate(cases)
    ]
