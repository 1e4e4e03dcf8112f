"""Models, losses, and the loss gradient: the only part that knows of modules."""

from hanse.models.execution import Execution
from hanse.models.losses import (
    Loss,
    Metric,
    absolute_error,
    accuracy,
    binary_accuracy,
    binary_cross_entropy,
    cross_entropy,
    squared_error,
    whole,
)
from hanse.models.task import Task
from hanse.models.zoo import cnn, mlp, softmax_regression

__all__ = [
    "Execution",
    "Loss",
    "Metric",
    "Task",
    "absolute_error",
    "accuracy",
    "binary_accuracy",
    "binary_cross_entropy",
    "cnn",
    "cross_entropy",
    "mlp",
    "softmax_regression",
    "squared_error",
    "whole",
]
