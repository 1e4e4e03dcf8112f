"""Models, losses, and the loss gradient: the only part that knows of modules."""

from hanse.models.execution import Execution
from hanse.models.kinds import batch_norm
from hanse.models.losses import (
    Loss,
    Metric,
    absolute_error,
    accuracy,
    binary_accuracy,
    binary_cross_entropy,
    cross_entropy,
    next_token,
    next_token_accuracy,
    squared_error,
    whole,
)
from hanse.models.task import Task
from hanse.models.zoo import char_lstm, cnn, mlp, softmax_regression

__all__ = [
    "Execution",
    "Loss",
    "Metric",
    "Task",
    "absolute_error",
    "accuracy",
    "batch_norm",
    "binary_accuracy",
    "binary_cross_entropy",
    "char_lstm",
    "cnn",
    "cross_entropy",
    "mlp",
    "next_token",
    "next_token_accuracy",
    "softmax_regression",
    "squared_error",
    "whole",
]
