"""What one client does with its data: local training."""

from hanse.local.full_gradient import FullGradientStep
from hanse.local.optimizer import SGD
from hanse.local.proximal import ProximalSGD
from hanse.local.scaffold import ScaffoldSGD
from hanse.local.schedules import CosineDecay, ExponentialDecay, Schedule, StepDecay
from hanse.local.sgd import LocalSGD

__all__ = [
    "SGD",
    "CosineDecay",
    "ExponentialDecay",
    "FullGradientStep",
    "LocalSGD",
    "ProximalSGD",
    "ScaffoldSGD",
    "Schedule",
    "StepDecay",
]
