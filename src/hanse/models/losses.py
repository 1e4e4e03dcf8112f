"""Losses and metrics: per example, so that any weighting of examples is exact."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hanse.core.errors import ModelError

Loss = Callable[[Tensor, Tensor], Tensor]
"""`(outputs [n, ...], targets [n, ...]) -> [n]`, a loss per example. A loss that couples examples
(contrastive, Cox's partial likelihood) returns a 0-d mean instead; it is then given each client's
exact batches, one client at a time. Batches may be of one example, and it must be finite then."""

Metric = Callable[[Tensor, Tensor], Tensor]
"""`(outputs [n, ...], targets [n, ...]) -> [n]` per example, or 0-d for all of a client's."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits `[n, classes]` and labels `[n]`, per example, in nats."""
    return F.cross_entropy(outputs, targets, reduction="none")


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of one logit per example, `[n]` or `[n, 1]`, and labels 0 or 1, in nats."""
    logits = outputs.reshape(len(outputs), -1).squeeze(1)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The squared error, averaged over an example's outputs.

    Raises:
        ModelError: an example has more or fewer outputs than targets.
    """
    return _errors(outputs, targets).square().mean(dim=1)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest of `[n, classes]` logits is the label, else 0."""
    return (outputs.argmax(dim=1) == targets).to(outputs.dtype)


def binary_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the sign of one logit per example, `[n]` or `[n, 1]`, says the label, else 0."""
    logits = outputs.reshape(len(outputs), -1).squeeze(1)
    return ((logits > 0) == (targets > 0)).to(outputs.dtype)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The absolute error, averaged over an example's outputs.

    Raises:
        ModelError: an example has more or fewer outputs than targets.
    """
    return _errors(outputs, targets).abs().mean(dim=1)


def whole(metric: Callable[[Tensor, Tensor], float]) -> Metric:
    """A metric of all of a client's examples at once (an AUC, an F1 score).

    Its value over several clients is the mean over clients, weighted by their examples.
    """

    def measured(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.tensor(float(metric(outputs, targets)), dtype=outputs.dtype)

    return measured


def _errors(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.numel() != targets.numel():  # torch would repeat the smaller one, silently
        raise ModelError(
            f"outputs {list(outputs.shape)} and targets {list(targets.shape)}",
            why="an error is the difference of an output and its target",
            instead="one output for each target, or cross_entropy for labels",
        )
    return outputs.reshape(len(outputs), -1) - targets.reshape(len(targets), -1)
