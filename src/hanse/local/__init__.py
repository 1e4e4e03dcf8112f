"""What one client does with its data: local training."""

from hanse.local.adaptive import AdaptiveMu
from hanse.local.dynamic import DynamicSGD
from hanse.local.full_gradient import FullGradientStep
from hanse.local.mime import MimeSGD
from hanse.local.optimizer import SGD
from hanse.local.proximal import ProximalSGD
from hanse.local.scaffold import ScaffoldSGD
from hanse.local.schedules import CosineDecay, ExponentialDecay, Schedule, StepDecay
from hanse.local.sgd import LocalSGD

__all__ = [
    "SGD",
    "AdaptiveMu",
    "CosineDecay",
    "DynamicSGD",
    "ExponentialDecay",
    "FullGradientStep",
    "LocalSGD",
    "MimeSGD",
    "ProximalSGD",
    "ScaffoldSGD",
    "Schedule",
    "StepDecay",
]
